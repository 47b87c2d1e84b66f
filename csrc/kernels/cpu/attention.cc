// Attention on the CPU (formula: AttentionParams in params.h; inner loops: row_products.h), in fp32 over the KV rows where
// they lie. The queries of the heads that share a KV head are packed together as tokens; K rows and V columns are the
// weight rows of two products, with an online softmax over tiles of keys between them.
#include <algorithm>
#include <atomic>

#include "kernels/cpu/token_panels.h"
#include "kernels/kernels.h"

namespace dgrt {
namespace {

constexpr int64_t kTileKeys = 64;
constexpr float kMinusInfinity = -__builtin_inff();
constexpr float kNoMax = -1e30f;  // below any score, yet a difference to it is a number

// Scratch of one thread.
struct Tiles {
  float* q;       // [panels][W][16]
  float* scores;  // [panels][kTileKeys][16]
  float* part;    // [panels][W][16] what one tile of keys adds
  float* total;   // [panels][W][16]
  float* k;       // [kTileKeys][W] rows of the tile in which the past ends
  float* v;       // [kTileKeys][W]

  Tiles(int64_t head_dim, Scratch& scratch)
      : q(scratch.Take<float>(kMaxPanels * head_dim * kTokenLanes)),
        scores(scratch.Take<float>(kMaxPanels * kTileKeys * kTokenLanes)),
        part(scratch.Take<float>(kMaxPanels * head_dim * kTokenLanes)),
        total(scratch.Take<float>(kMaxPanels * head_dim * kTokenLanes)),
        k(scratch.Take<float>(kTileKeys * head_dim)),
        v(scratch.Take<float>(kTileKeys * head_dim)) {}
};

// Queries first .. first + count - 1 of one KV head. A query is (token, head of the group), the head fastest.
struct QueryBlock {
  int64_t kv_head = 0, first = 0, count = 0;
  int64_t num_panels() const { return NumTokenPanels(count); }
};

class Worker {
 public:
  Worker(const AttentionParams& params, const RowProducts& products, const Tiles& tiles)
      : p_(params), products_(products), tiles_(tiles), group_(params.num_heads / params.num_kv_heads),
        kv_width_(params.num_kv_heads * params.head_dim) {}

  void Run(const QueryBlock& block) {
    const int64_t width = p_.head_dim, size = block.num_panels() * width * kTokenLanes;
    for (int64_t panel = 0; panel < block.num_panels(); ++panel) {
      const float* rows[kTokenLanes];
      for (int64_t lane = 0; lane < kTokenLanes; ++lane) rows[lane] = RowOf(block, panel, lane, p_.q);
      products_.pack(rows, width, DType::kFloat32, tiles_.q + panel * width * kTokenLanes);
    }
    std::fill_n(tiles_.total, size, 0.0f);
    std::fill_n(max_, kMaxPanels * kTokenLanes, kNoMax);
    std::fill_n(sum_, kMaxPanels * kTokenLanes, 0.0f);

    int64_t begin = 0, end = p_.past_len + p_.num_tokens;
    if (p_.is_causal) {
      end = p_.past_len + TokenOf(block, block.count - 1) + 1;
      if (p_.window > 0) begin = std::max<int64_t>(0, p_.past_len + TokenOf(block, 0) - p_.window + 1);
    }
    // Tiles end at multiples of kTileKeys, whatever the block sees of them and wherever the past ends: so a query's sums are
    // the same whether a key is past or comes with this pass.
    for (int64_t key = begin; key < end;) {
      const int64_t tile_end = std::min(end, (key / kTileKeys + 1) * kTileKeys);
      AddKeys(block, key, tile_end);
      key = tile_end;
    }
    for (int64_t panel = 0; panel < block.num_panels(); ++panel) Finish(block, panel);
  }

 private:
  int64_t TokenOf(const QueryBlock& block, int64_t query) const { return (block.first + query) / group_; }

  template <typename T>
  T* RowOf(const QueryBlock& block, int64_t panel, int64_t lane, T* matrix) const {
    const int64_t query = panel * kTokenLanes + lane;
    if (query >= block.count) return nullptr;
    const int64_t head = block.kv_head * group_ + (block.first + query) % group_;
    return matrix + (TokenOf(block, query) * p_.num_heads + head) * p_.head_dim;
  }

  struct KvRows {
    const float* data = nullptr;
    int64_t step = 0;
  };
  // One KV head's rows [begin, end). A tile over the end of the past is copied together.
  KvRows RowsOfKeys(const float* past, const float* now, const QueryBlock& block, int64_t begin, int64_t end,
                    float* copy) const {
    const int64_t head = block.kv_head * p_.head_dim;
    if (end <= p_.past_len) return {past + begin * kv_width_ + head, kv_width_};
    if (begin >= p_.past_len) return {now + (begin - p_.past_len) * kv_width_ + head, kv_width_};
    for (int64_t key = begin; key < end; ++key) {
      const float* const row = key < p_.past_len ? past + key * kv_width_ : now + (key - p_.past_len) * kv_width_;
      std::copy_n(row + head, p_.head_dim, copy + (key - begin) * p_.head_dim);
    }
    return {copy, p_.head_dim};
  }

  void AddKeys(const QueryBlock& block, int64_t begin, int64_t end) {
    const int64_t width = p_.head_dim, count = end - begin, num_panels = block.num_panels();
    const KvRows k = RowsOfKeys(p_.past_k, p_.k, block, begin, end, tiles_.k);
    const KvRows v = RowsOfKeys(p_.past_v, p_.v, block, begin, end, tiles_.v);
    const WeightRows keys{k.data, DType::kFloat32, count, k.step, 1};
    const WeightRows values{v.data, DType::kFloat32, width, 1, v.step};
    products_.multiply(keys, width, tiles_.q, PanelBytes(width, DType::kFloat32), num_panels, tiles_.scores);
    if (p_.is_causal) Mask(block, begin, end);
    alignas(64) float rescale[kMaxPanels * kTokenLanes];
    for (int64_t panel = 0; panel < num_panels; ++panel) {
      const int64_t lane = panel * kTokenLanes;
      products_.softmax(tiles_.scores + lane * count, count, max_ + lane, sum_ + lane, rescale + lane);
    }
    products_.multiply(values, count, tiles_.scores, PanelBytes(count, DType::kFloat32), num_panels, tiles_.part);
    for (int64_t panel = 0; panel < num_panels; ++panel) {
      const int64_t at = panel * width * kTokenLanes;
      products_.add(tiles_.total + at, tiles_.part + at, width, rescale + panel * kTokenLanes);
    }
  }

  void Mask(const QueryBlock& block, int64_t begin, int64_t end) {
    for (int64_t query = 0; query < block.num_panels() * kTokenLanes; ++query) {
      const int64_t last = p_.past_len + TokenOf(block, std::min(query, block.count - 1));
      const int64_t first = p_.window > 0 ? last - p_.window + 1 : 0;
      if (first <= begin && end - 1 <= last) continue;
      float* const column = tiles_.scores + query / kTokenLanes * (end - begin) * kTokenLanes + query % kTokenLanes;
      for (int64_t key = begin; key < end; ++key) {
        if (key < first || key > last) column[(key - begin) * kTokenLanes] = kMinusInfinity;
      }
    }
  }

  void Finish(const QueryBlock& block, int64_t panel) {
    const int64_t width = p_.head_dim;
    float* const total = tiles_.total + panel * width * kTokenLanes;
    alignas(64) float share[kTokenLanes];
    for (int64_t lane = 0; lane < kTokenLanes; ++lane) share[lane] = 1 / sum_[panel * kTokenLanes + lane];
    for (int64_t i = 0; i < width * kTokenLanes; ++i) total[i] *= share[i % kTokenLanes];
    float* rows[kTokenLanes];
    for (int64_t lane = 0; lane < kTokenLanes; ++lane) rows[lane] = RowOf(block, panel, lane, p_.y);
    products_.unpack(total, width, rows);
  }

  const AttentionParams& p_;
  const RowProducts& products_;
  const Tiles& tiles_;
  const int64_t group_, kv_width_;
  alignas(64) float max_[kMaxPanels * kTokenLanes];
  alignas(64) float sum_[kMaxPanels * kTokenLanes];
};

}  // namespace

size_t AttentionWorkspaceBytes(const AttentionParams& params, int num_threads) {
  Scratch scratch(nullptr);
  for (int i = 0; i < num_threads; ++i) Tiles(params.head_dim, scratch);
  return scratch.used();
}

void LaunchAttention(const AttentionParams& p, ThreadPool& pool) {
  const RowProducts& products = RowProductsOf(SelectedCpuIsa());
  const int64_t num_queries = p.num_tokens * (p.num_heads / p.num_kv_heads);
  const int64_t blocks = CeilDiv(num_queries, kMaxPanels * kTokenLanes), num_pieces = p.num_kv_heads * blocks;
  std::atomic<int64_t> next{0};
  // One chunk per thread, so that each has scratch of its own; pieces are taken one by one.
  pool.ParallelFor(pool.num_threads(), [&](int64_t thread) {
    Scratch scratch(static_cast<unsigned char*>(p.workspace) + thread * static_cast<int64_t>(AttentionWorkspaceBytes(p, 1)));
    const Tiles tiles(p.head_dim, scratch);
    Worker worker(p, products, tiles);
    for (int64_t piece; (piece = next.fetch_add(1)) < num_pieces;) {
      const int64_t first = piece % blocks * kMaxPanels * kTokenLanes;
      worker.Run({piece / blocks, first, std::min(kMaxPanels * kTokenLanes, num_queries - first)});
    }
  });
}

}  // namespace dgrt
