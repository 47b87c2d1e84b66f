// The weight matrices of the layers as they are stored: row-major as in the checkpoint, at any byte address.
#pragma once

#include <cstdint>

namespace dgrt {

// Of a row of K values, and what tokens become before a product with them (params.h). What the model has in a quantised
// matrix is w = bf16(q * scale), in kInt8Both q * scale, nothing else: every instruction set computes with the same weights.
enum class WeightFormat : int32_t {
  kFloat32,
  kBFloat16,
  kInt8,  // q of one byte; one scale
  kInt4,  // q from -8 to 7, two in a byte, the first in the lower half (of an odd K the last upper half is unused); a scale
          // for each kScaleGroup of them
  kInt8Both,  // stored like kInt8; the tokens become int8 too
};

inline constexpr int64_t kScaleGroup = 32;

// Of kInt8Both: a sum of so many products of a byte with a quantised token fits 32 bits, whatever the bytes are.
inline constexpr int64_t kMaxInt8Width = INT32_MAX / (128 * 127);

constexpr int64_t WeightRowBytes(WeightFormat format, int64_t width) {
  switch (format) {
    case WeightFormat::kFloat32: return 4 * width;
    case WeightFormat::kBFloat16: return 2 * width;
    case WeightFormat::kInt8:
    case WeightFormat::kInt8Both: return width;
    case WeightFormat::kInt4: return (width + 1) / 2;
  }
  return 0;
}

constexpr bool IsQuantised(WeightFormat format) {
  return format != WeightFormat::kFloat32 && format != WeightFormat::kBFloat16;
}

constexpr int64_t ScalesPerRow(WeightFormat format, int64_t width) {
  if (!IsQuantised(format)) return 0;
  return format == WeightFormat::kInt4 ? (width + kScaleGroup - 1) / kScaleGroup : 1;
}

struct WeightMatrix {
  const void* values = nullptr;  // [rows, WeightRowBytes]
  const void* scales = nullptr;  // bf16 [rows, ScalesPerRow], or null
};

// From row `first` on.
constexpr WeightMatrix RowsFrom(const WeightMatrix& matrix, WeightFormat format, int64_t width, int64_t first) {
  const int64_t scales = 2 * ScalesPerRow(format, width);
  return {static_cast<const unsigned char*>(matrix.values) + first * WeightRowBytes(format, width),
          scales == 0 ? nullptr : static_cast<const unsigned char*>(matrix.scales) + first * scales};
}

}  // namespace dgrt
