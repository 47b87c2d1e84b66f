// The inner loops of the layers: products of weight rows with tokens, and the small steps between two products. Called by
// linear.cc, gated_mlp.cc and attention.cc. Knows nothing of threads, models or ONNX Runtime.
//
// Weights are read where they lie, row-major as in the checkpoint, at any byte address: an element is broadcast to all
// lanes. Tokens are what gets packed, sixteen of them side by side in the lanes of a vector. So a token's sums are chains in
// a fixed order (depth after depth): no result depends on which tokens share a vector or on threads. With bf16 weights
// tokens are rounded to bf16 when they are packed, products are added up in fp32 (two neighbouring depths at a time).
// Where there is no instruction for products of bf16 pairs, bf16 weights are widened a few rows at a time into the second-level
// cache, and read there by every panel.
// The variants (isa.h) differ from each other in the last bits of fp32.
#pragma once

#include <cstdint>

#include "common/embedding_table.h"
#include "kernels/cpu/isa.h"
#include "kernels/weights.h"

namespace dgrt {

inline constexpr int64_t kTokenLanes = 16;  // tokens of a panel: one AVX-512 register
inline constexpr int64_t kMaxPanels = 4;    // panels of one `multiply`: with six weight rows their sums fill the registers

// A panel holds sixteen tokens [depth][16]: of fp32 floats; of bf16 words with two neighbouring depths, the lower one in the
// lower half (of an odd depth the last upper halves are zero). 64-byte aligned.
constexpr int64_t PanelBytes(int64_t depth, DType dtype) {
  return dtype == DType::kFloat32 ? depth * kTokenLanes * 4 : (depth + 1) / 2 * kTokenLanes * 4;
}

// Rows of a weight matrix. Element (row, depth) lies `row * row_step + depth * depth_step` elements from `data`.
struct WeightRows {
  const void* data = nullptr;  // of any alignment
  DType dtype = DType::kFloat32;
  int64_t num_rows = 0;
  int64_t row_step = 0;
  int64_t depth_step = 1;      // 1 with bf16
  const void* scales = nullptr;  // bf16 [num_rows] where products are of integers (int8_products.h), of any alignment
  bool fetches_next = false;     // fetch what comes next into a cache meanwhile: the rows of the next register block
  const void* next = nullptr;    // and behind the last one these, if any
  int64_t next_bytes = 0;        // or, if it is not 0, of `next` as many rows as these are, of so many bytes each
};

struct RowProducts {
  // Sixteen token rows [depth] into a panel; a null row gives zeros.
  void (*pack)(const float* const* rows, int64_t depth, DType dtype, void* panel);

  // out[p][row][lane] = sum over depth of weight(row, depth) * panel p(depth, lane), out [num_panels][num_rows][16];
  // num_panels <= kMaxPanels, panels `panel_bytes` apart.
  void (*multiply)(const WeightRows& weight, int64_t depth, const void* panels, int64_t panel_bytes, int64_t num_panels,
                   float* out);

  // gelu_tanh(gate) * up, both [num_rows][16], into a panel at `first_depth` (even with bf16).
  void (*gate)(const float* gate, const float* up, int64_t num_rows, DType dtype, void* panel, int64_t first_depth);

  // tile [num_rows][16] to the tokens' own rows: rows[lane][i] = tile[i][lane]; a null row is skipped.
  void (*unpack)(const float* tile, int64_t num_rows, float* const* rows);

  // tile [num_rows][16] to rows of bf16: rows[lane * row_step + i] = tile[i][lane].
  void (*unpack_rounded)(const float* tile, int64_t num_rows, uint16_t* rows, int64_t row_step);

  // Rows [width] to rows of bf16, `row_step` apart.
  void (*round_rows)(const float* const* rows, int64_t num_rows, int64_t width, uint16_t* out, int64_t row_step);

  // Rows [width] of fp32 or bf16, depths 2 * first_word .. (of an odd number the last halves are zero), into panels of bf16
  // whose lanes are columns: column c is lane c % 16 of panel c / 16.
  void (*pack_columns)(const void* const* rows, int64_t num_rows, int64_t width, DType dtype, void* panels, int64_t panel_bytes,
                       int64_t first_word);

  // One tile of keys of an online softmax. scores [num_keys][16] -> exp(score - max); raises max[16]; rescale[16] = exp(old
  // max - max), sum[16] = sum * rescale + the tile's weights. A score of -infinity has weight 0 exactly.
  void (*softmax)(float* scores, int64_t num_keys, float* max, float* sum, float* rescale);

  // total[i][lane] = total[i][lane] * rescale[lane] + part[i][lane] over num_rows.
  void (*add)(float* total, const float* part, int64_t num_rows, const float* rescale);

  // total[row][i] = total[row][i] * rescale[row] + part[row][i], rows of sixteen.
  void (*add_rows)(float* total, const float* part, int64_t num_rows, const float* rescale);

  // num_rows rows of bf16 [depth], at any address -> fp32, one after the other: products where `operands` is fp32.
  void (*widen)(const void* rows, int64_t num_rows, int64_t depth, void* out);

  // Rounds to bf16 in place, for products of fp32 that must be those of bf16; count a multiple of 16, 64-byte aligned.
  void (*round)(float* values, int64_t count);

  // The dtype that products of bf16 values are fastest in: without an instruction for pairs it is fp32.
  DType operands;

  // Weight rows that are in registers together, and how many bytes of unpacked ones a piece of work may have: with a panel or
  // four of tokens they stay in the second-level cache.
  int64_t register_rows, unpacked_bytes;
};

// The variant of an instruction set.
const RowProducts& RowProductsOf(CpuIsa isa);

}  // namespace dgrt
