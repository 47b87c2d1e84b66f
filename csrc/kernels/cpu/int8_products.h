// The inner loops of the layers where weights and tokens are integers (formula: params.h): what row_products.h is for floats,
// and called the same way. Knows nothing of threads, models or ONNX Runtime.
//
// Integers are multiplied as pairs of int16, which every x86 since SSE2 multiplies and adds up in one instruction, twice as
// many a cycle as fp32: weights are unpacked a few rows at a time into the second-level cache, tokens lie as pairs of
// neighbouring depths. VNNI and matrix tiles multiply quads of bytes: there int8 weights stay where they lie. VNNI wants one side
// unsigned, so weights have 128 more there and the sum of the token is taken off again, 128 times. Sums of 32 bits are exact, and
// what is left of floating point is compiled without fused operations, so the variants (isa.h) agree in every bit.
#pragma once

#include <cstdint>

#include "kernels/cpu/row_products.h"

namespace dgrt {

// A panel of sixteen quantised tokens: words [ceil(depth / 2)][16] of two neighbouring depths, the lower one in the lower half, or
// [ceil(depth / 4)][16] of four, the lowest in the lowest byte (what the last word lacks is zero), and behind them the tokens' scales,
// fp32 [16], and sums, int32 [16]. 64-byte aligned.
struct Int8Products {
  // Makes a panel of sixteen token rows [depth]; a null row gives zeros. First what is behind the words, then words of some depths
  // after the other: fp32 [count][16], as RowProducts packs them, for depths from `first` on, a multiple of 4.
  void (*begin)(const float* const* rows, int64_t depth, void* panel);
  void (*append)(const float* values, int64_t first, int64_t count, int64_t depth, void* panel);

  // Makes a panel of an fp32 one [depth][16] in its place, which has room for both.
  void (*quantise)(void* panel, int64_t depth);

  // num_rows rows of kInt8 or kInt4, at any address -> rows of RowBytes that `multiply` takes, one after the other.
  void (*unpack)(const void* rows, WeightFormat format, int64_t num_rows, int64_t depth, void* out);

  // As RowProducts::multiply: of unpacked rows, which rows of kInt8 are where words are of bytes, their scales, and quantised
  // panels.
  void (*multiply)(const WeightRows& weight, int64_t depth, const void* panels, int64_t panel_bytes, int64_t num_panels,
                   float* out);

  // gelu_tanh(gate) * up, both [num_rows][16], into an fp32 panel at `first_depth`.
  void (*gate)(const float* gate, const float* up, int64_t num_rows, void* panel, int64_t first_depth);

  bool has_words_of_bytes;  // else of int16

  int64_t PanelBytes(int64_t depth) const { return ((has_words_of_bytes ? (depth + 3) / 4 : (depth + 1) / 2) + 2) * kTokenLanes * 4; }

  // Of an odd depth the last int16 is followed by a zero.
  int64_t RowBytes(int64_t depth) const { return has_words_of_bytes ? depth : (depth + 1) / 2 * 4; }
};

// The variant of an instruction set.
const Int8Products& Int8ProductsOf(CpuIsa isa);

}  // namespace dgrt
