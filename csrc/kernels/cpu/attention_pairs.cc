// Attention with products of bf16 (attention_block.h). K rows times packed queries, as in fp32; but the second product is of
// the softmax's weights, as rows, with V rows packed by columns, so neither K nor V is ever turned. Rounding them is work for
// every block of queries anew: blocks are as large as leaves some for each thread.
#include <algorithm>

#include "kernels/cpu/attention_block.h"
#include "kernels/cpu/token_panels.h"
#include "kernels/kernels.h"

namespace dgrt {
namespace {

constexpr int64_t kMostPanels = 16;                 // of a block of queries
constexpr int64_t kMostQueries = kMostPanels * kTokenLanes;
constexpr int64_t kWeightStep = kTileKeys + 32;     // of rows of weights: no power of two
constexpr int64_t kColumnBytes = PanelBytes(kTileKeys, DType::kBFloat16) + 64;  // of a panel of V columns, likewise

// Scratch of one thread.
struct Tiles {
  unsigned char* q;   // [panels] packed
  float* scores;      // [panels][kTileKeys][16]
  uint16_t* weights;  // [panels * 16][kWeightStep]
  float* part;        // [kMaxPanels][panels * 16][16] what one tile of keys adds
  float* total;       // [W / 16][panels * 16][16]
  uint16_t* k;        // [kTileKeys][W]
  unsigned char* v;   // [W / 16] panels of kColumnBytes

  Tiles(int64_t head_dim, Scratch& scratch)
      : q(scratch.Take<unsigned char>(kMostPanels * PanelBytes(head_dim, DType::kBFloat16))),
        scores(scratch.Take<float>(kMostQueries * kTileKeys)),
        weights(scratch.Take<uint16_t>(kMostQueries * kWeightStep)),
        part(scratch.Take<float>(kMaxPanels * kMostQueries * kTokenLanes)),
        total(scratch.Take<float>(CeilDiv(head_dim, kTokenLanes) * kMostQueries * kTokenLanes)),
        k(scratch.Take<uint16_t>(kTileKeys * head_dim)),
        v(scratch.Take<unsigned char>(CeilDiv(head_dim, kTokenLanes) * kColumnBytes)) {}
};

class Worker {
 public:
  Worker(const AttentionParams& params, const RowProducts& products, const Tiles& tiles)
      : p_(params), view_(params), products_(products), tiles_(tiles), width_(params.head_dim),
        q_bytes_(PanelBytes(width_, DType::kBFloat16)), v_panels_(CeilDiv(width_, kTokenLanes)) {}

  void Run(const QueryBlock& block) {
    const int64_t num_rows = block.num_panels() * kTokenLanes;
    for (int64_t panel = 0; panel < block.num_panels(); ++panel) {
      const float* rows[kTokenLanes] = {};
      const int64_t first = panel * kTokenLanes, count = std::min(kTokenLanes, block.count - first);
      for (int64_t i = 0; i < count; ++i) rows[i] = view_.RowOf(block, first + i, p_.q);
      products_.pack(rows, width_, DType::kBFloat16, tiles_.q + panel * q_bytes_);
    }
    std::fill_n(tiles_.total, v_panels_ * num_rows * kTokenLanes, 0.0f);
    std::fill_n(max_, num_rows, kNoMax);
    std::fill_n(sum_, num_rows, 0.0f);
    const int64_t end = view_.EndKey(block);
    for (int64_t key = view_.FirstKey(block); key < end; key += kTileKeys) AddKeys(block, key, std::min(end, key + kTileKeys));
    for (int64_t query = 0; query < block.count; ++query) {
      const float share = 1 / sum_[query];
      float* const y = view_.RowOf(block, query, p_.y);
      for (int64_t d = 0; d < width_; ++d) {
        y[d] = share * tiles_.total[(d / kTokenLanes * num_rows + query) * kTokenLanes + d % kTokenLanes];
      }
    }
  }

 private:
  void AddKeys(const QueryBlock& block, int64_t begin, int64_t end) {
    const int64_t count = end - begin, num_panels = block.num_panels(), num_rows = num_panels * kTokenLanes;
    const float* k[kTileKeys];
    const void* v[kTileKeys];
    for (int64_t i = 0; i < count; ++i) {
      k[i] = view_.KeyRow(p_.past_k, p_.k, block, begin + i);
      v[i] = view_.KeyRow(p_.past_v, p_.v, block, begin + i);
    }
    products_.round_rows(k, count, width_, tiles_.k, width_);
    const WeightRows keys{.data = tiles_.k, .dtype = DType::kBFloat16, .num_rows = count, .row_step = width_};
    for (int64_t panel = 0; panel < num_panels; panel += kMaxPanels) {
      products_.multiply(keys, width_, tiles_.q + panel * q_bytes_, q_bytes_, std::min(kMaxPanels, num_panels - panel),
                         tiles_.scores + panel * count * kTokenLanes);
    }
    view_.Mask(block, begin, end, tiles_.scores);
    alignas(64) float rescale[kMostQueries];
    for (int64_t panel = 0; panel < num_panels; ++panel) {
      const int64_t row = panel * kTokenLanes;
      products_.softmax(tiles_.scores + row * count, count, max_ + row, sum_ + row, rescale + row);
      products_.unpack_rounded(tiles_.scores + row * count, count, tiles_.weights + row * kWeightStep, kWeightStep);
    }
    products_.pack_columns(v, count, width_, DType::kFloat32, tiles_.v, kColumnBytes, 0);
    const WeightRows weights{.data = tiles_.weights, .dtype = DType::kBFloat16, .num_rows = num_rows, .row_step = kWeightStep};
    AddWeightedColumns(products_, weights, count, tiles_.v, kColumnBytes, v_panels_, rescale, tiles_.part, tiles_.total);
  }

  const AttentionParams& p_;
  const AttentionView view_;
  const RowProducts& products_;
  const Tiles& tiles_;
  const int64_t width_, q_bytes_, v_panels_;
  alignas(64) float max_[kMostQueries];
  alignas(64) float sum_[kMostQueries];
};

}  // namespace

size_t PairAttentionBytes(int64_t head_dim) {
  Scratch scratch(nullptr);
  Tiles(head_dim, scratch);
  return scratch.used();
}

void LaunchPairAttention(const AttentionParams& p, ThreadPool& pool) {
  const RowProducts& products = RowProductsOf(SelectedCpuIsa());
  const int64_t num_queries = AttentionView(p).num_queries();
  const int64_t wanted_pieces = std::max<int64_t>(1, CeilDiv(2 * pool.num_threads(), p.num_kv_heads));  // of a KV head
  const int64_t panels = CeilDiv(CeilDiv(num_queries, kTokenLanes), wanted_pieces);
  const int64_t size = std::clamp(CeilDiv(panels, kMaxPanels) * kMaxPanels, kMaxPanels, kMostPanels) * kTokenLanes;
  const int64_t blocks = CeilDiv(num_queries, size), bytes = static_cast<int64_t>(PairAttentionBytes(p.head_dim));
  ForEachPiece(pool, p.num_kv_heads * blocks, static_cast<unsigned char*>(p.workspace), bytes,
               [&](int64_t piece, unsigned char* memory) {
                 Scratch scratch(memory);
                 const Tiles tiles(p.head_dim, scratch);
                 const int64_t first = piece % blocks * size;
                 Worker(p, products, tiles).Run({piece / blocks, first, std::min(size, num_queries - first)});
               });
}

}  // namespace dgrt
