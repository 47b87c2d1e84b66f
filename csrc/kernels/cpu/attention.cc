// Attention on the CPU (formula: AttentionParams in params.h; inner loops: row_products.h), in fp32 over the KV rows where
// they lie; attention_pairs.cc has the form with products of bf16. The queries of the heads that share a KV head are packed
// together as tokens; K rows and V columns are the weight rows of two products, with an online softmax over tiles of keys
// between them.
#include <algorithm>

#include "kernels/cpu/attention_block.h"
#include "kernels/cpu/token_panels.h"
#include "kernels/kernels.h"

namespace dgrt {
namespace {

constexpr int64_t kMostQueries = kMaxPanels * kTokenLanes;  // of a block

// Scratch of one thread.
struct Tiles {
  float* q;       // [panels][W][16]
  float* scores;  // [panels][kTileKeys][16]
  float* part;    // [panels][W][16] what one tile of keys adds
  float* total;   // [panels][W][16]
  float* k;       // [kTileKeys][W] rows of a tile that are not taken where they lie
  float* v;       // [kTileKeys][W]

  Tiles(int64_t head_dim, Scratch& scratch)
      : q(scratch.Take<float>(head_dim * kMostQueries)),
        scores(scratch.Take<float>(kTileKeys * kMostQueries)),
        part(scratch.Take<float>(head_dim * kMostQueries)),
        total(scratch.Take<float>(head_dim * kMostQueries)),
        k(scratch.Take<float>(kTileKeys * head_dim)),
        v(scratch.Take<float>(kTileKeys * head_dim)) {}
};

class Worker {
 public:
  Worker(const AttentionParams& params, const RowProducts& products, const Tiles& tiles)
      : p_(params), view_(params), products_(products), tiles_(tiles) {}

  void Run(const QueryBlock& block) {
    const int64_t width = p_.head_dim, size = block.num_panels() * width * kTokenLanes;
    for (int64_t panel = 0; panel < block.num_panels(); ++panel) {
      const float* rows[kTokenLanes];
      RowsOf(block, panel, p_.q, rows);
      float* const q = tiles_.q + panel * width * kTokenLanes;
      products_.pack(rows, width, DType::kFloat32, q);
      Round(q, width * kTokenLanes);
    }
    std::fill_n(tiles_.total, size, 0.0f);
    std::fill_n(max_, kMostQueries, kNoMax);
    std::fill_n(sum_, kMostQueries, 0.0f);
    const int64_t end = view_.EndKey(block);
    for (int64_t key = view_.FirstKey(block); key < end; key += kTileKeys) AddKeys(block, key, std::min(end, key + kTileKeys));
    for (int64_t panel = 0; panel < block.num_panels(); ++panel) Finish(block, panel);
  }

 private:
  // The rows of a panel in a matrix [S, H * W], null beyond the last.
  template <typename T>
  void RowsOf(const QueryBlock& block, int64_t panel, T* matrix, T** rows) const {
    for (int64_t lane = 0; lane < kTokenLanes; ++lane) {
      const int64_t query = panel * kTokenLanes + lane;
      rows[lane] = query < block.count ? view_.RowOf(block, query, matrix) : nullptr;
    }
  }

  struct KvRows {
    const float* data = nullptr;
    int64_t step = 0;
  };
  // To what products of bf16 would see of it.
  void Round(float* values, int64_t count) const {
    if (p_.bf16_products) products_.round(values, CeilDiv(count, kTokenLanes) * kTokenLanes);
  }

  // One KV head's rows [begin, end). A tile over the end of the past is copied together, and one that is rounded.
  KvRows RowsOfKeys(const float* past, const float* now, const QueryBlock& block, int64_t begin, int64_t end,
                    float* copy) const {
    const float* const first = view_.KeyRow(past, now, block, begin);
    if (!p_.bf16_products && (end <= p_.past_len || begin >= p_.past_len)) return {first, p_.num_kv_heads * p_.head_dim};
    for (int64_t key = begin; key < end; ++key) {
      std::copy_n(view_.KeyRow(past, now, block, key), p_.head_dim, copy + (key - begin) * p_.head_dim);
    }
    Round(copy, (end - begin) * p_.head_dim);
    return {copy, p_.head_dim};
  }

  void AddKeys(const QueryBlock& block, int64_t begin, int64_t end) {
    const int64_t width = p_.head_dim, count = end - begin, num_panels = block.num_panels();
    const KvRows k = RowsOfKeys(p_.past_k, p_.k, block, begin, end, tiles_.k);
    const KvRows v = RowsOfKeys(p_.past_v, p_.v, block, begin, end, tiles_.v);
    const WeightRows keys{k.data, DType::kFloat32, count, k.step, 1};
    const WeightRows values{v.data, DType::kFloat32, width, 1, v.step};
    products_.multiply(keys, width, tiles_.q, PanelBytes(width, DType::kFloat32), num_panels, tiles_.scores);
    view_.Mask(block, begin, end, tiles_.scores);
    alignas(64) float rescale[kMostQueries];
    for (int64_t panel = 0; panel < num_panels; ++panel) {
      const int64_t lane = panel * kTokenLanes;
      products_.softmax(tiles_.scores + lane * count, count, max_ + lane, sum_ + lane, rescale + lane);
      Round(tiles_.scores + lane * count, count * kTokenLanes);
    }
    products_.multiply(values, count, tiles_.scores, PanelBytes(count, DType::kFloat32), num_panels, tiles_.part);
    for (int64_t panel = 0; panel < num_panels; ++panel) {
      const int64_t at = panel * width * kTokenLanes;
      products_.add(tiles_.total + at, tiles_.part + at, width, rescale + panel * kTokenLanes);
    }
  }

  void Finish(const QueryBlock& block, int64_t panel) {
    const int64_t width = p_.head_dim;
    float* const total = tiles_.total + panel * width * kTokenLanes;
    alignas(64) float share[kTokenLanes];
    for (int64_t lane = 0; lane < kTokenLanes; ++lane) share[lane] = 1 / sum_[panel * kTokenLanes + lane];
    for (int64_t i = 0; i < width * kTokenLanes; ++i) total[i] *= share[i % kTokenLanes];
    float* rows[kTokenLanes];
    RowsOf(block, panel, p_.y, rows);
    products_.unpack(total, width, rows);
  }

  const AttentionParams& p_;
  const AttentionView view_;
  const RowProducts& products_;
  const Tiles& tiles_;
  alignas(64) float max_[kMostQueries];
  alignas(64) float sum_[kMostQueries];
};

bool UsesPairs(const AttentionParams& params) {
  return params.bf16_products && RowProductsOf(SelectedCpuIsa()).operands == DType::kBFloat16;
}

size_t ThreadBytes(int64_t head_dim) {
  Scratch scratch(nullptr);
  Tiles(head_dim, scratch);
  return scratch.used();
}

}  // namespace

size_t AttentionWorkspaceBytes(const AttentionParams& params, int num_threads) {
  const size_t bytes = UsesPairs(params) ? PairAttentionBytes(params.head_dim) : ThreadBytes(params.head_dim);
  return bytes * static_cast<size_t>(num_threads);
}

void LaunchAttention(const AttentionParams& p, ThreadPool& pool) {
  if (UsesPairs(p)) return LaunchPairAttention(p, pool);
  const RowProducts& products = RowProductsOf(SelectedCpuIsa());
  const int64_t num_queries = AttentionView(p).num_queries(), blocks = CeilDiv(num_queries, kMostQueries);
  ForEachPiece(pool, p.num_kv_heads * blocks, static_cast<unsigned char*>(p.workspace),
               static_cast<int64_t>(ThreadBytes(p.head_dim)), [&](int64_t piece, unsigned char* memory) {
                 Scratch scratch(memory);
                 const Tiles tiles(p.head_dim, scratch);
                 const int64_t first = piece % blocks * kMostQueries;
                 Worker(p, products, tiles).Run({piece / blocks, first, std::min(kMostQueries, num_queries - first)});
               });
}

}  // namespace dgrt
