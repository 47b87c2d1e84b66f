// What the layers share: tokens in panels, and a block of weight rows over all of them.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <initializer_list>

#include "common/check.h"
#include "common/thread_pool.h"
#include "kernels/cpu/int8_products.h"
#include "kernels/cpu/row_products.h"
#include "kernels/cpu/scratch.h"

namespace dgrt {

inline constexpr int64_t kBlockRows = 64;  // weight rows of one piece of work; even, so that bf16 pairs stay together

constexpr int64_t NumTokenPanels(int64_t num_tokens) { return CeilDiv(num_tokens, kTokenLanes); }

// Pointers to the rows of a panel, or null beyond the last.
template <typename T>
void PanelRows(T* matrix, int64_t width, int64_t num_tokens, int64_t panel, T** rows) {
  for (int64_t lane = 0; lane < kTokenLanes; ++lane) {
    const int64_t token = panel * kTokenLanes + lane;
    rows[lane] = token < num_tokens ? matrix + token * width : nullptr;
  }
}

// How this processor multiplies tokens with weights of a format.
struct LayerProducts {
  explicit LayerProducts(WeightFormat weights)
      : inner(RowProductsOf(SelectedCpuIsa())),
        int8(IsQuantised(weights) ? &Int8ProductsOf(SelectedCpuIsa()) : nullptr),
        format(weights),
        dtype(weights == WeightFormat::kFloat32 ? DType::kFloat32 : inner.operands),
        in_place(weights == WeightFormat::kFloat32 || (weights == WeightFormat::kBFloat16 && dtype == DType::kBFloat16) ||
                 (weights == WeightFormat::kInt8 && int8->has_words_of_bytes)) {}

  const RowProducts& inner;
  const Int8Products* int8;  // where tokens become int8, or null
  WeightFormat format;
  DType dtype;    // of panels and of the rows that meet them, unless they are int8
  bool in_place;  // weight rows are multiplied where they lie

  int64_t BytesOfPanel(int64_t depth) const { return int8 != nullptr ? int8->PanelBytes(depth) : PanelBytes(depth, dtype); }

  // Of one that `Gate` fills: as long as its scale is not known it is fp32.
  int64_t BytesOfGatedPanel(int64_t depth) const {
    return int8 != nullptr ? std::max(int8->PanelBytes(depth), PanelBytes(depth, DType::kFloat32)) : BytesOfPanel(depth);
  }
  int64_t BytesOfRow(int64_t depth) const { return int8 != nullptr ? int8->RowBytes(depth) : depth * BytesOf(dtype); }

  // Weight rows of a piece of work, even and at most `most`, of which `at_once` blocks are unpacked together.
  int64_t RowsOfPiece(int64_t depth, int64_t most, int64_t at_once = 1) const {
    const int64_t rows = inner.register_rows, bytes = at_once * std::max<int64_t>(1, BytesOfRow(depth));
    return in_place ? most : std::clamp(inner.unpacked_bytes / bytes / rows * rows, rows, most);
  }
  int64_t UnpackedBytes(int64_t rows, int64_t depth) const { return in_place ? 0 : rows * BytesOfRow(depth); }

  // Rows first .. of a matrix, in `scratch` unless they are multiplied in place.
  WeightRows Rows(const WeightMatrix& matrix, int64_t depth, int64_t first, int64_t count, unsigned char* scratch) const {
    const WeightMatrix rows = RowsFrom(matrix, format, depth, first);
    DGRT_CHECK(int8 == nullptr || depth <= kMaxInt8Width);
    if (in_place) {
      return {.data = rows.values, .dtype = dtype, .num_rows = count, .row_step = depth, .scales = rows.scales,
              .fetches_next = true, .next = RowsFrom(rows, format, depth, count).values};
    }
    if (int8 != nullptr) {
      int8->unpack(rows.values, format, count, depth, scratch);
      return {.data = scratch, .num_rows = count, .scales = rows.scales, .fetches_next = true,
              .next = RowsFrom(rows, format, depth, count).values, .next_bytes = WeightRowBytes(format, depth)};
    }
    inner.widen(rows.values, count, depth, scratch);
    return {scratch, dtype, count, depth};
  }

  // Sixteen token rows into a panel that can be multiplied; a null row gives zeros.
  void Pack(const float* const* rows, int64_t depth, unsigned char* panel) const {
    if (int8 != nullptr) return PackInt8(rows, depth, panel);
    inner.pack(rows, depth, dtype, panel);
    if (RoundsFloats()) inner.round(reinterpret_cast<float*>(panel), depth * kTokenLanes);
  }

  // The input of the second product of an MLP, some rows of it. When all are there, `FinishPanel` makes it one that can be
  // multiplied: only then the largest value of a token is known.
  void Gate(const float* gate, const float* up, int64_t num_rows, unsigned char* panel, int64_t first_depth) const {
    if (int8 != nullptr) return int8->gate(gate, up, num_rows, panel, first_depth);
    inner.gate(gate, up, num_rows, dtype, panel, first_depth);
    if (RoundsFloats()) inner.round(reinterpret_cast<float*>(panel) + first_depth * kTokenLanes, num_rows * kTokenLanes);
  }
  void FinishPanel(int64_t depth, unsigned char* panel) const {
    if (int8 != nullptr) int8->quantise(panel, depth);
  }

  // As RowProducts::multiply.
  void Multiply(const WeightRows& weight, int64_t depth, const unsigned char* panels, int64_t panel_bytes, int64_t num_panels,
                float* out) const {
    (int8 != nullptr ? int8->multiply : inner.multiply)(weight, depth, panels, panel_bytes, num_panels, out);
  }

 private:
  // A part of the depth at a time, in the first-level cache.
  void PackInt8(const float* const* rows, int64_t depth, unsigned char* panel) const {
    constexpr int64_t kPart = 128;
    alignas(64) float part[kPart * kTokenLanes];
    int8->begin(rows, depth, panel);
    for (int64_t first = 0; first < depth; first += kPart) {
      const float* from[kTokenLanes];
      for (int64_t lane = 0; lane < kTokenLanes; ++lane) from[lane] = rows[lane] == nullptr ? nullptr : rows[lane] + first;
      const int64_t count = std::min(kPart, depth - first);
      inner.pack(from, count, DType::kFloat32, part);
      int8->append(part, first, count, depth, panel);
    }
  }

  bool RoundsFloats() const { return format == WeightFormat::kBFloat16 && dtype == DType::kFloat32; }
};

// Packs a panel of the tokens x [num_tokens, width]; panels follow one another.
inline void PackPanel(const float* x, int64_t width, int64_t num_tokens, int64_t panel, unsigned char* panels,
                      const LayerProducts& products) {
  const float* rows[kTokenLanes];
  PanelRows(x, width, num_tokens, panel, rows);
  products.Pack(rows, width, panels + panel * products.BytesOfPanel(width));
}

inline void PackTokens(const float* x, int64_t width, int64_t num_tokens, unsigned char* panels, const LayerProducts& products,
                       ThreadPool& pool) {
  pool.ParallelFor(NumTokenPanels(num_tokens),
                   [&](int64_t panel) { PackPanel(x, width, num_tokens, panel, panels, products); });
}

// Calls fn(token) for the tokens of each panel, panels over all threads.
template <typename Fn>
void ForEachToken(ThreadPool& pool, int64_t num_tokens, Fn fn) {
  pool.ParallelFor(NumTokenPanels(num_tokens), [&](int64_t panel) {
    const int64_t end = std::min(num_tokens, (panel + 1) * kTokenLanes);
    for (int64_t token = panel * kTokenLanes; token < end; ++token) fn(token);
  });
}

// Calls fn(piece, scratch) for each piece, with `scratch_bytes` that belong to the thread (a multiple of 64). Where there are
// many, a thread takes neighbours: the rows that it fetches ahead are those of its own next piece.
template <typename Fn>
void ForEachPiece(ThreadPool& pool, int64_t num_pieces, unsigned char* scratch, int64_t scratch_bytes, Fn fn) {
  const int64_t together = std::clamp<int64_t>(num_pieces / (2 * pool.num_threads()), 1, 8);
  std::atomic<int64_t> next{0};
  pool.ParallelFor(std::min<int64_t>(pool.num_threads(), num_pieces), [&](int64_t thread) {
    for (int64_t first; (first = next.fetch_add(together)) < num_pieces;) {
      const int64_t end = std::min(num_pieces, first + together);
      for (int64_t piece = first; piece < end; ++piece) fn(piece, scratch + thread * scratch_bytes);
    }
  });
}

// `count` rows of a matrix [*, depth] from `first` on, at most kBlockRows, times panels: out_rows(panel, rows) names where
// each token of a panel has its result [*], or null.
template <typename OutRows>
void MultiplyBlock(const LayerProducts& products, const WeightMatrix& matrix, int64_t depth, int64_t first, int64_t count,
                   unsigned char* scratch, const unsigned char* panels, int64_t panel_bytes, int64_t num_panels,
                   OutRows out_rows) {
  WeightRows weight = products.Rows(matrix, depth, first, count, scratch);
  alignas(64) float tile[kMaxPanels * kBlockRows * kTokenLanes];
  for (int64_t panel = 0; panel < num_panels; panel += kMaxPanels) {
    const int64_t together = std::min(kMaxPanels, num_panels - panel);
    products.Multiply(weight, depth, panels + panel * panel_bytes, panel_bytes, together, tile);
    weight.fetches_next = false;  // once is enough
    for (int64_t i = 0; i < together; ++i) {
      float* rows[kTokenLanes];
      out_rows(panel + i, rows);
      for (float*& row : rows) row = row == nullptr ? nullptr : row + first;
      products.inner.unpack(tile + i * count * kTokenLanes, count, rows);
    }
  }
}

// A matrix [num_rows, depth] whose products with tokens are columns of y [S, num_rows].
struct Columns {
  WeightMatrix weight;
  int64_t num_rows;
  float* y;
};

// What multiplying all rows of matrices of one depth takes.
struct MatrixProducts {
  MatrixProducts(WeightFormat format, int64_t inputs, int64_t tokens, int num_threads, Scratch& scratch)
      : products(format),
        depth(inputs),
        num_tokens(tokens),
        rows_of_piece(products.RowsOfPiece(depth, kBlockRows)),
        unpacked_bytes(Padded(products.UnpackedBytes(rows_of_piece, depth))),
        panels(scratch.Take<unsigned char>(NumTokenPanels(num_tokens) * products.BytesOfPanel(depth))),
        unpacked(scratch.Take<unsigned char>(num_threads * unpacked_bytes)) {}

  // The tokens must be packed. Pieces of all matrices are shared out together.
  void Multiply(std::initializer_list<Columns> matrices, ThreadPool& pool) const {
    int64_t pieces = 0;
    for (const Columns& matrix : matrices) pieces += CeilDiv(matrix.num_rows, rows_of_piece);
    ForEachPiece(pool, pieces, unpacked, unpacked_bytes, [&](int64_t piece, unsigned char* scratch) {
      const Columns* matrix = matrices.begin();
      for (int64_t count; piece >= (count = CeilDiv(matrix->num_rows, rows_of_piece)); ++matrix) piece -= count;
      const int64_t first = piece * rows_of_piece, rows = std::min(rows_of_piece, matrix->num_rows - first);
      MultiplyBlock(products, matrix->weight, depth, first, rows, scratch, panels, products.BytesOfPanel(depth),
                    NumTokenPanels(num_tokens), [&](int64_t panel, float** to) { PanelRows(matrix->y, matrix->num_rows, num_tokens, panel, to); });
    });
  }

  LayerProducts products;
  int64_t depth, num_tokens, rows_of_piece, unpacked_bytes;
  unsigned char *panels, *unpacked;  // [panels]; [threads]
};

// total[panel][row][16] = total * rescale[row] + (rows of weights times panels that pack_columns wrote), `part` being room for
// kMaxPanels panels of it: the second product of a softmax, whose rows are `weights`.
inline void AddWeightedColumns(const RowProducts& products, const WeightRows& weights, int64_t depth,
                               const unsigned char* panels, int64_t panel_bytes, int64_t num_panels, const float* rescale,
                               float* part, float* total) {
  const int64_t size = weights.num_rows * kTokenLanes;
  for (int64_t panel = 0; panel < num_panels; panel += kMaxPanels) {
    const int64_t together = std::min(kMaxPanels, num_panels - panel);
    products.multiply(weights, depth, panels + panel * panel_bytes, panel_bytes, together, part);
    for (int64_t i = 0; i < together; ++i) {
      products.add_rows(total + (panel + i) * size, part + i * size, weights.num_rows, rescale);
    }
  }
}

}  // namespace dgrt
