// Gated MLPs on the CPU: the dense one of a layer and its experts (formulas: params.h; inner loops: row_products.h). The
// dense one is a single expert that every token chose.
//
// Three stages, each over all threads: pack the tokens of each expert; gate and up rows, whose products become the packed
// input of the next stage while they are in the first-level cache; down rows. Where tokens become int8 there is one more before
// the down rows, which need the largest value of a token. A piece of work is a block of weight rows over all tokens that they
// meet, so weights are read once, one expert that has all the tokens occupies every thread, and no sum is split. Of the second
// stage a piece is of one expert. Of the third it is the same rows of every expert, one after the other, because their results
// are added up: what a token gets from an expert is never stored.
#include <algorithm>

#include "common/check.h"
#include "kernels/cpu/experts_by_rows.h"
#include "kernels/cpu/norm_rows.h"
#include "kernels/cpu/token_panels.h"
#include "kernels/kernels.h"

namespace dgrt {
namespace {

// Inner rows of a piece of work of the second stage at most: gate and up rows each. Even.
constexpr int64_t kInnerRows = 32;

// One expert in work.
struct Group {
  WeightMatrix gate, up, down;
  int64_t first_panel = 0, num_panels = 0;
};

struct Sizes {
  Sizes(int64_t d, int64_t i, WeightFormat format)
      : hidden(d),
        inner(i),
        products(format),
        inner_rows(products.RowsOfPiece(hidden, kInnerRows, 2)),
        out_rows(products.RowsOfPiece(inner, kBlockRows)),
        half_bytes(products.UnpackedBytes(inner_rows, hidden)),
        unpacked_bytes(Padded(std::max(2 * half_bytes, products.UnpackedBytes(out_rows, inner)))) {}

  int64_t hidden, inner;
  LayerProducts products;
  int64_t inner_rows, out_rows;        // of a piece of work of the second and of the third stage
  int64_t half_bytes, unpacked_bytes;  // of gate rows alone, of one thread
  int64_t x_bytes() const { return products.BytesOfPanel(hidden); }
  int64_t inner_bytes() const { return products.BytesOfGatedPanel(inner); }
};

struct Panels {
  unsigned char* x = nullptr;         // [panels] of D
  unsigned char* inner = nullptr;     // [panels] of I
  unsigned char* unpacked = nullptr;  // [threads] of weight rows
  Panels(const Sizes& sizes, int64_t count, int num_threads, Scratch& scratch)
      : x(scratch.Take<unsigned char>(count * sizes.x_bytes())),
        inner(scratch.Take<unsigned char>(count * sizes.inner_bytes())),
        unpacked(scratch.Take<unsigned char>(num_threads * sizes.unpacked_bytes)) {}
};

// The second stage, and where tokens become int8 the one behind it.
void MultiplyGateAndUp(const Sizes& sizes, const Group* groups, int64_t num_groups, const Panels& panels, ThreadPool& pool) {
  const LayerProducts& products = sizes.products;
  const int64_t inner_blocks = CeilDiv(sizes.inner, sizes.inner_rows);
  const int64_t pieces = num_groups * inner_blocks;
  ForEachPiece(pool, pieces, panels.unpacked, sizes.unpacked_bytes, [&](int64_t piece, unsigned char* unpacked) {
    const Group& group = groups[piece / inner_blocks];
    const int64_t first = piece % inner_blocks * sizes.inner_rows, count = std::min(sizes.inner_rows, sizes.inner - first);
    WeightRows gate = products.Rows(group.gate, sizes.hidden, first, count, unpacked);
    WeightRows up = products.Rows(group.up, sizes.hidden, first, count, unpacked + sizes.half_bytes);
    alignas(64) float gate_tile[kMaxPanels * kInnerRows * kTokenLanes];
    alignas(64) float up_tile[kMaxPanels * kInnerRows * kTokenLanes];
    for (int64_t panel = 0; panel < group.num_panels; panel += kMaxPanels) {
      const int64_t together = std::min(kMaxPanels, group.num_panels - panel);
      const int64_t at = group.first_panel + panel;
      const unsigned char* x = panels.x + at * sizes.x_bytes();
      products.Multiply(gate, sizes.hidden, x, sizes.x_bytes(), together, gate_tile);
      products.Multiply(up, sizes.hidden, x, sizes.x_bytes(), together, up_tile);
      gate.fetches_next = up.fetches_next = false;  // once is enough
      for (int64_t i = 0; i < together; ++i) {
        const int64_t tile = i * count * kTokenLanes;
        products.Gate(gate_tile + tile, up_tile + tile, count, panels.inner + (at + i) * sizes.inner_bytes(), first);
      }
    }
  });
  if (products.int8 != nullptr) {
    const int64_t num_panels = num_groups == 0 ? 0 : groups[num_groups - 1].first_panel + groups[num_groups - 1].num_panels;
    pool.ParallelFor(num_panels, [&](int64_t panel) {
      products.FinishPanel(sizes.inner, panels.inner + panel * sizes.inner_bytes());
    });
  }
}

// ---- experts ----

// The S * k chosen pairs, those of one expert in panels of their own.
struct Pairs {
  int64_t most_panels;
  int64_t* panel_of_expert;  // [E + 1]: its first panel, and where the next one's begin
  int32_t* token;            // [panels * 16]: the pair's token, -1: none
  float* weight;             // [panels * 16]: the pair's weight
  Group* groups;             // [E] experts that anybody chose
  Panels panels;

  Pairs(const ExpertsParams& p, const Sizes& sizes, int num_threads, Scratch& scratch)
      : most_panels(p.num_tokens * p.top_k / kTokenLanes + std::min(p.num_experts, p.num_tokens * p.top_k)),
        panel_of_expert(scratch.Take<int64_t>(p.num_experts + 1)),
        token(scratch.Take<int32_t>(most_panels * kTokenLanes)),
        weight(scratch.Take<float>(most_panels * kTokenLanes)),
        groups(scratch.Take<Group>(p.num_experts)),
        panels(sizes, most_panels, num_threads, scratch) {}
};

Sizes SizesOf(const ExpertsParams& p) { return {p.hidden_size, p.inner_size, p.format}; }

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
    pairs.groups[num_groups++] = {RowsFrom(p.gate_up, p.format, p.hidden_size, 2 * e * p.inner_size),
                                  RowsFrom(p.gate_up, p.format, p.hidden_size, (2 * e + 1) * p.inner_size),
                                  RowsFrom(p.down, p.format, p.inner_size, e * p.hidden_size),
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
    pairs.weight[place] = p.weight[i];
  }
}

// Rows first .. first + count - 1 of every expert's down matrix: y[s, row] = sum of weight * result.
void AddDown(const ExpertsParams& p, const Sizes& sizes, const Pairs& pairs, int64_t num_groups, int64_t first, int64_t count,
             unsigned char* unpacked) {
  for (int64_t token = 0; token < p.num_tokens; ++token) std::fill_n(p.y + token * p.hidden_size + first, count, 0.0f);
  const NormRows& rows = NormRowsOf(SelectedCpuIsa());
  const int64_t panel_bytes = sizes.inner_bytes();
  alignas(64) float tile[kMaxPanels * kBlockRows * kTokenLanes], results[kTokenLanes * kBlockRows];
  for (int64_t g = 0; g < num_groups; ++g) {
    const Group& group = pairs.groups[g];
    WeightRows weight = sizes.products.Rows(group.down, sizes.inner, first, count, unpacked);
    weight.next = g + 1 < num_groups ? RowsFrom(pairs.groups[g + 1].down, p.format, sizes.inner, first).values : nullptr;
    for (int64_t panel = 0; panel < group.num_panels; panel += kMaxPanels) {
      const int64_t together = std::min(kMaxPanels, group.num_panels - panel), at = group.first_panel + panel;
      sizes.products.Multiply(weight, sizes.inner, pairs.panels.inner + at * panel_bytes, panel_bytes, together, tile);
      weight.fetches_next = false;  // once is enough
      for (int64_t i = 0; i < together; ++i) {
        const int32_t* const token = pairs.token + (at + i) * kTokenLanes;
        float* lanes[kTokenLanes];
        for (int64_t lane = 0; lane < kTokenLanes; ++lane) lanes[lane] = token[lane] < 0 ? nullptr : results + lane * count;
        sizes.products.inner.unpack(tile + i * count * kTokenLanes, count, lanes);
        for (int64_t lane = 0; lane < kTokenLanes; ++lane) {
          if (token[lane] < 0) continue;
          float* const y = p.y + token[lane] * p.hidden_size + first;
          rows.scale_add(y, lanes[lane], pairs.weight[(at + i) * kTokenLanes + lane], nullptr, count, y);
        }
      }
    }
  }
}

}  // namespace

size_t GatedMlpWorkspaceBytes(const GatedMlpParams& p, int num_threads) {
  Scratch scratch(nullptr);
  Panels({p.hidden_size, p.inner_size, p.format}, NumTokenPanels(p.num_tokens), num_threads, scratch);
  return scratch.used();
}

void LaunchGatedMlp(const GatedMlpParams& p, ThreadPool& pool) {
  const Sizes sizes{p.hidden_size, p.inner_size, p.format};
  const int64_t num_panels = NumTokenPanels(p.num_tokens);
  Scratch scratch(p.workspace);
  const Panels panels(sizes, num_panels, pool.num_threads(), scratch);
  PackTokens(p.x, p.hidden_size, p.num_tokens, panels.x, sizes.products, pool);
  const Group group{p.gate, p.up, p.down, 0, num_panels};
  MultiplyGateAndUp(sizes, &group, 1, panels, pool);
  const int64_t pieces = CeilDiv(sizes.hidden, sizes.out_rows);
  ForEachPiece(pool, pieces, panels.unpacked, sizes.unpacked_bytes, [&](int64_t piece, unsigned char* unpacked) {
    const int64_t first = piece * sizes.out_rows, count = std::min(sizes.out_rows, sizes.hidden - first);
    MultiplyBlock(sizes.products, p.down, sizes.inner, first, count, unpacked, panels.inner, sizes.inner_bytes(), num_panels,
                  [&](int64_t panel, float** rows) { PanelRows(p.y, p.hidden_size, p.num_tokens, panel, rows); });
  });
}

size_t ExpertsWorkspaceBytes(const ExpertsParams& p, int num_threads) {
  if (RowProductsFor(p) != nullptr) return ExpertsByRowsWorkspaceBytes(p, num_threads);
  Scratch scratch(nullptr);
  Pairs(p, SizesOf(p), num_threads, scratch);
  return scratch.used();
}

void LaunchExperts(const ExpertsParams& p, ThreadPool& pool) {
  if (const Int4RowProducts* const products = RowProductsFor(p)) return LaunchExpertsByRows(p, *products, pool);
  const Sizes sizes = SizesOf(p);
  Scratch scratch(p.workspace);
  Pairs pairs(p, sizes, pool.num_threads(), scratch);
  const int64_t num_groups = SortPairs(p, pairs);
  const int64_t num_panels = pairs.panel_of_expert[p.num_experts];
  PlacePairs(p, pairs);

  pool.ParallelFor(num_panels, [&](int64_t panel) {
    const float* rows[kTokenLanes];
    for (int64_t lane = 0; lane < kTokenLanes; ++lane) {
      const int32_t token = pairs.token[panel * kTokenLanes + lane];
      rows[lane] = token < 0 ? nullptr : p.x + token * p.hidden_size;
    }
    sizes.products.Pack(rows, p.hidden_size, pairs.panels.x + panel * sizes.x_bytes());
  });
  MultiplyGateAndUp(sizes, pairs.groups, num_groups, pairs.panels, pool);
  // Every thread has a piece or two even where rows are few; a piece shorter than a block of two tiles costs more.
  const int64_t rows = std::min(sizes.out_rows, std::max<int64_t>(32, sizes.hidden / (2 * pool.num_threads()) / 32 * 32));
  const int64_t pieces = CeilDiv(sizes.hidden, rows);
  ForEachPiece(pool, pieces, pairs.panels.unpacked, sizes.unpacked_bytes, [&](int64_t piece, unsigned char* unpacked) {
    AddDown(p, sizes, pairs, num_groups, piece * rows, std::min(rows, sizes.hidden - piece * rows), unpacked);
  });
}

}  // namespace dgrt
