// Products of int4 rows with few tokens: experts, with VNNI. Both sides are read along the depth, 64 bytes of a weight row times 64
// of a token in an instruction, so n tokens cost n where a panel (int8_products.h) costs sixteen, tokens are read where they lie,
// and codes are looked up in registers, not a block at a time. The price is a sum over lanes per result, and that codes are looked
// up again for every ten tokens. Sums are exact, so results are those of panels bit for bit. Knows nothing of threads, models or
// ONNX Runtime.
#pragma once

#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/weights.h"

namespace dgrt {

// A token as int8 (formula: params.h).
struct Int8Row {
  const int8_t* values;  // [Int8RowBytes(depth)], 64-byte aligned, in the order that codes are looked up, zeros behind the last
  float scale;
  int32_t sum;  // of the values
};

constexpr int64_t Int8RowBytes(int64_t depth) { return (depth + 127) / 128 * 128; }

struct Int4RowProducts {
  // x [depth] as int8; `values` may begin where x does.
  Int8Row (*quantise)(const float* x, int64_t depth, int8_t* values);

  // out[token][row] = product of a token with row `row` of num_rows of kInt4, tokens `out_step` floats apart, which is even: behind
  // an odd last row another float is written. Meanwhile as many rows from `next` on are fetched, unless it is null.
  void (*multiply)(const WeightMatrix& weight, int64_t num_rows, int64_t depth, const Int8Row* const* tokens, int64_t num_tokens,
                   const void* next, float* out, int64_t out_step);
};

// Null where panels are the better way: without VNNI, and with matrix tiles.
const Int4RowProducts* Int4RowProductsOf(CpuIsa isa);

}  // namespace dgrt
