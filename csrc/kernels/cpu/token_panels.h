// What linear.cc and gated_mlp.cc share: tokens in panels, and blocks of weight rows over all of them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/row_products.h"

namespace dgrt {

inline constexpr int64_t kBlockRows = 64;  // weight rows of one piece of work; even, so that bf16 pairs stay together

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t NumTokenPanels(int64_t num_tokens) { return CeilDiv(num_tokens, kTokenLanes); }

// `count` rows of a row-major matrix [*, width] from row `first` on.
inline WeightRows RowsOf(const void* matrix, DType dtype, int64_t width, int64_t first, int64_t count) {
  return {static_cast<const unsigned char*>(matrix) + first * width * BytesOf(dtype), dtype, count, width, 1};
}

// Pointers to the rows of a panel, or null beyond the last.
template <typename T>
void PanelRows(T* matrix, int64_t width, int64_t num_tokens, int64_t panel, T** rows) {
  for (int64_t lane = 0; lane < kTokenLanes; ++lane) {
    const int64_t token = panel * kTokenLanes + lane;
    rows[lane] = token < num_tokens ? matrix + token * width : nullptr;
  }
}

}  // namespace dgrt
