// What the layers share: tokens in panels, and a block of weight rows over all of them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/thread_pool.h"
#include "kernels/cpu/row_products.h"
#include "kernels/cpu/scratch.h"

namespace dgrt {

inline constexpr int64_t kBlockRows = 64;  // weight rows of one piece of work; even, so that bf16 pairs stay together

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

// Packs the tokens x [num_tokens, width] into panels, one after the other.
inline void PackTokens(const float* x, int64_t width, int64_t num_tokens, DType dtype, unsigned char* panels,
                       const RowProducts& products, ThreadPool& pool) {
  pool.ParallelFor(NumTokenPanels(num_tokens), [&](int64_t panel) {
    const float* rows[kTokenLanes];
    PanelRows(x, width, num_tokens, panel, rows);
    products.pack(rows, width, dtype, panels + panel * PanelBytes(width, dtype));
  });
}

// Rows first .. of a matrix [num_rows, depth], at most kBlockRows of them, times panels: out_rows(panel, rows) names where
// each token of a panel has its result [num_rows], or null.
template <typename OutRows>
void MultiplyBlock(const void* matrix, DType dtype, int64_t num_rows, int64_t depth, int64_t first,
                   const unsigned char* panels, int64_t num_panels, const RowProducts& products, OutRows out_rows) {
  const int64_t count = std::min(kBlockRows, num_rows - first), panel_bytes = PanelBytes(depth, dtype);
  const WeightRows weight = RowsOf(matrix, dtype, depth, first, count);
  alignas(64) float tile[kMaxPanels * kBlockRows * kTokenLanes];
  for (int64_t panel = 0; panel < num_panels; panel += kMaxPanels) {
    const int64_t together = std::min(kMaxPanels, num_panels - panel);
    products.multiply(weight, depth, panels + panel * panel_bytes, panel_bytes, together, tile);
    for (int64_t i = 0; i < together; ++i) {
      float* rows[kTokenLanes];
      out_rows(panel + i, rows);
      for (float*& row : rows) row = row == nullptr ? nullptr : row + first;
      products.unpack(tile + i * count * kTokenLanes, count, rows);
    }
  }
}

}  // namespace dgrt
