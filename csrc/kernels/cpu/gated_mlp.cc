// Gated MLPs on the CPU: the dense one of a layer and its experts (formulas: params.h; inner loops: row_products.h). The
// dense one is a single expert that every token chose.
//
// Four stages, each over all threads: pack the tokens of each expert; gate and up rows, whose products become the packed
// input of the next stage while they are in the first-level cache; down rows; the weighted sum per token. A piece of work is
// a block of one expert's weight rows over all of its tokens, so weights are read once, one expert that has all the tokens
// occupies every thread, and no sum is split.
#include <algorithm>

#include "common/check.h"
#include "kernels/cpu/token_panels.h"
#include "kernels/kernels.h"

namespace dgrt {
namespace {

// Inner rows of a piece of work of the second stage: gate and up rows each. Even.
constexpr int64_t kInnerRows = 32;

// One expert in work.
struct Group {
  const void* gate = nullptr;
  const void* up = nullptr;
  const void* down = nullptr;
  int64_t first_panel = 0, num_panels = 0;
};

struct Sizes {
  int64_t hidden = 0, inner = 0;
  DType dtype = DType::kFloat32;
  int64_t x_bytes() const { return PanelBytes(hidden, dtype); }
  int64_t inner_bytes() const { return PanelBytes(inner, dtype); }
};

struct Panels {
  unsigned char* x = nullptr;      // [panels] of D
  unsigned char* inner = nullptr;  // [panels] of I
  Panels(const Sizes& sizes, int64_t count, Scratch& scratch)
      : x(scratch.Take<unsigned char>(count * sizes.x_bytes())),
        inner(scratch.Take<unsigned char>(count * sizes.inner_bytes())) {}
};

// The second and the third stage. out_rows(panel, rows) names where each token of a panel goes, [D] or null.
template <typename OutRows>
void RunGroups(const Sizes& sizes, const Group* groups, int64_t num_groups, const Panels& panels,
               const RowProducts& products, ThreadPool& pool, OutRows out_rows) {
  const int64_t inner_blocks = CeilDiv(sizes.inner, kInnerRows);
  pool.ParallelFor(num_groups * inner_blocks, [&](int64_t piece) {
    const Group& group = groups[piece / inner_blocks];
    const int64_t first = piece % inner_blocks * kInnerRows, count = std::min(kInnerRows, sizes.inner - first);
    const WeightRows gate = RowsOf(group.gate, sizes.dtype, sizes.hidden, first, count);
    const WeightRows up = RowsOf(group.up, sizes.dtype, sizes.hidden, first, count);
    alignas(64) float gate_tile[kMaxPanels * kInnerRows * kTokenLanes];
    alignas(64) float up_tile[kMaxPanels * kInnerRows * kTokenLanes];
    for (int64_t panel = 0; panel < group.num_panels; panel += kMaxPanels) {
      const int64_t together = std::min(kMaxPanels, group.num_panels - panel);
      const int64_t at = group.first_panel + panel;
      const unsigned char* x = panels.x + at * sizes.x_bytes();
      products.multiply(gate, sizes.hidden, x, sizes.x_bytes(), together, gate_tile);
      products.multiply(up, sizes.hidden, x, sizes.x_bytes(), together, up_tile);
      for (int64_t i = 0; i < together; ++i) {
        const int64_t tile = i * count * kTokenLanes;
        products.gate(gate_tile + tile, up_tile + tile, count, sizes.dtype, panels.inner + (at + i) * sizes.inner_bytes(),
                      first);
      }
    }
  });
  const int64_t out_blocks = CeilDiv(sizes.hidden, kBlockRows);
  pool.ParallelFor(num_groups * out_blocks, [&](int64_t piece) {
    const Group& group = groups[piece / out_blocks];
    MultiplyBlock(group.down, sizes.dtype, sizes.hidden, sizes.inner, piece % out_blocks * kBlockRows,
                  panels.inner + group.first_panel * sizes.inner_bytes(), group.num_panels, products,
                  [&](int64_t panel, float** rows) { out_rows(group.first_panel + panel, rows); });
  });
}

// ---- experts ----

// The S * k chosen pairs, those of one expert in panels of their own.
struct Pairs {
  int64_t most_panels;
  int64_t* panel_of_expert;  // [E + 1]: its first panel, and where the next one's begin
  int32_t* token;            // [panels * 16]: the pair's token, -1: none
  int32_t* slot;             // [S * k]: where in `token` the pair is
  Group* groups;             // [E] experts that anybody chose
  float* result;             // [panels * 16, D]: mlp(expert, x) of the pair
  Panels panels;

  Pairs(const ExpertsParams& p, const Sizes& sizes, Scratch& scratch)
      : most_panels(p.num_tokens * p.top_k / kTokenLanes + std::min(p.num_experts, p.num_tokens * p.top_k)),
        panel_of_expert(scratch.Take<int64_t>(p.num_experts + 1)),
        token(scratch.Take<int32_t>(most_panels * kTokenLanes)),
        slot(scratch.Take<int32_t>(p.num_tokens * p.top_k)),
        groups(scratch.Take<Group>(p.num_experts)),
        result(scratch.Take<float>(most_panels * kTokenLanes * p.hidden_size)),
        panels(sizes, most_panels, scratch) {}
};

Sizes SizesOf(const ExpertsParams& p) { return {p.hidden_size, p.inner_size, p.dtype}; }

// Sorts the pairs by expert (tokens stay in order) and returns the number of groups.
int64_t SortPairs(const ExpertsParams& p, Pairs& pairs) {
  const int64_t count = p.num_tokens * p.top_k;
  int64_t* const begin = pairs.panel_of_expert;
  std::fill_n(begin, p.num_experts + 1, 0);
  for (int64_t i = 0; i < count; ++i) {
    DGRT_CHECK(p.index[i] >= 0 && p.index[i] < p.num_experts);
    ++begin[p.index[i] + 1];
  }
  for (int64_t e = 0; e < p.num_experts; ++e) begin[e + 1] = begin[e] + NumTokenPanels(begin[e + 1]);
  std::fill_n(pairs.token, begin[p.num_experts] * kTokenLanes, -1);
  int64_t num_groups = 0;
  for (int64_t e = 0; e < p.num_experts; ++e) {
    if (begin[e] == begin[e + 1]) continue;
    const auto at = [&](const void* all, int64_t elements) {
      return static_cast<const unsigned char*>(all) + elements * BytesOf(p.dtype);
    };
    const int64_t half = p.inner_size * p.hidden_size;
    pairs.groups[num_groups++] = {at(p.gate_up, 2 * e * half), at(p.gate_up, (2 * e + 1) * half), at(p.down, e * half),
                                  begin[e], begin[e + 1] - begin[e]};
  }
  return num_groups;
}

// Gives each pair its place; begin[e] counts up to the expert's next free place while it lasts.
void PlacePairs(const ExpertsParams& p, Pairs& pairs) {
  for (int64_t e = 0; e < p.num_experts; ++e) pairs.panel_of_expert[e] *= kTokenLanes;
  for (int64_t i = 0; i < p.num_tokens * p.top_k; ++i) {
    const int64_t place = pairs.panel_of_expert[p.index[i]]++;
    pairs.token[place] = static_cast<int32_t>(i / p.top_k);
    pairs.slot[i] = static_cast<int32_t>(place);
  }
}

}  // namespace

size_t GatedMlpWorkspaceBytes(const GatedMlpParams& p) {
  Scratch scratch(nullptr);
  Panels({p.hidden_size, p.inner_size, p.dtype}, NumTokenPanels(p.num_tokens), scratch);
  return scratch.used();
}

void LaunchGatedMlp(const GatedMlpParams& p, ThreadPool& pool) {
  const RowProducts& products = RowProductsOf(SelectedCpuIsa());
  const Sizes sizes{p.hidden_size, p.inner_size, p.dtype};
  const int64_t num_panels = NumTokenPanels(p.num_tokens);
  Scratch scratch(p.workspace);
  const Panels panels(sizes, num_panels, scratch);
  PackTokens(p.x, p.hidden_size, p.num_tokens, p.dtype, panels.x, products, pool);
  const Group group{p.gate, p.up, p.down, 0, num_panels};
  RunGroups(sizes, &group, 1, panels, products, pool,
            [&](int64_t panel, float** rows) { PanelRows(p.y, p.hidden_size, p.num_tokens, panel, rows); });
}

size_t ExpertsWorkspaceBytes(const ExpertsParams& p) {
  Scratch scratch(nullptr);
  Pairs(p, SizesOf(p), scratch);
  return scratch.used();
}

void LaunchExperts(const ExpertsParams& p, ThreadPool& pool) {
  const RowProducts& products = RowProductsOf(SelectedCpuIsa());
  const Sizes sizes = SizesOf(p);
  Scratch scratch(p.workspace);
  Pairs pairs(p, sizes, scratch);
  const int64_t num_groups = SortPairs(p, pairs);
  const int64_t num_panels = pairs.panel_of_expert[p.num_experts];
  PlacePairs(p, pairs);

  pool.ParallelFor(num_panels, [&](int64_t panel) {
    const float* rows[kTokenLanes];
    for (int64_t lane = 0; lane < kTokenLanes; ++lane) {
      const int32_t token = pairs.token[panel * kTokenLanes + lane];
      rows[lane] = token < 0 ? nullptr : p.x + token * p.hidden_size;
    }
    products.pack(rows, p.hidden_size, p.dtype, pairs.panels.x + panel * sizes.x_bytes());
  });
  RunGroups(sizes, pairs.groups, num_groups, pairs.panels, products, pool, [&](int64_t panel, float** rows) {
    PanelRows(pairs.result, p.hidden_size, pairs.most_panels * kTokenLanes, panel, rows);
  });
  pool.ParallelFor(p.num_tokens, [&](int64_t token) {
    float* const y = p.y + token * p.hidden_size;
    for (int64_t j = 0; j < p.top_k; ++j) {
      const float* const result = pairs.result + pairs.slot[token * p.top_k + j] * p.hidden_size;
      const float weight = p.weight[token * p.top_k + j];
      if (j == 0) {
        for (int64_t d = 0; d < p.hidden_size; ++d) y[d] = weight * result[d];
      } else {
        for (int64_t d = 0; d < p.hidden_size; ++d) y[d] += weight * result[d];
      }
    }
  });
}

}  // namespace dgrt
