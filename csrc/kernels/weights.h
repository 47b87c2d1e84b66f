// The weight matrices of the layers as they are stored: row-major as in the checkpoint, at any byte address.
#pragma once

#include <cstdint>

namespace dgrt {

// Of a row of K values, and what tokens become before a product with them (params.h). A quantised weight is q * scale, q an
// integer from -127 to 127, and nothing else: every instruction set computes with the same weights.
enum class WeightFormat : int32_t {
  kFloat32,
  kBFloat16,
  kInt8,  // q, a byte each
  kInt4,  // of q a code of four bits, and a level for each group of kCodeGroup: q = Int4Weight(code, level). The codes of group
          // after group, sixteen bytes each: byte i has that of value i in its lower half, of value i + 16 in its upper one;
          // behind them the levels, int8. The last group is as long as the others.
};

constexpr bool IsQuantised(WeightFormat format) { return format == WeightFormat::kInt8 || format == WeightFormat::kInt4; }

inline constexpr int64_t kCodeGroup = 32;

constexpr int64_t NumCodeGroups(int64_t width) { return (width + kCodeGroup - 1) / kCodeGroup; }

// Sixteen values that fit what a group of weights looks like after division by its level: normally distributed, the largest at
// one of the two ends (csrc/kernels/README.md).
inline constexpr int kInt4Values[16] = {-128, -101, -80, -63, -49, -35, -22, -10, 2, 13, 25, 37, 50, 66, 84, 109};

constexpr int8_t Int4Weight(int code, int level) { return static_cast<int8_t>((kInt4Values[code] * level + 64) >> 7); }

// A sum of so many products of a quantised weight with a quantised token fits 32 bits, whatever the bytes are.
inline constexpr int64_t kMaxInt8Width = INT32_MAX / (128 * 127);

constexpr int64_t WeightRowBytes(WeightFormat format, int64_t width) {
  switch (format) {
    case WeightFormat::kFloat32: return 4 * width;
    case WeightFormat::kBFloat16: return 2 * width;
    case WeightFormat::kInt8: return width;
    case WeightFormat::kInt4: return NumCodeGroups(width) * (kCodeGroup / 2 + 1);
  }
  return 0;
}

struct WeightMatrix {
  const void* values = nullptr;  // [rows, WeightRowBytes]
  const void* scales = nullptr;  // bf16 [rows] where it is quantised, or null
};

// Of a quantised row.
inline float ScaleOfRow(const void* scales, int64_t row) {
  uint16_t half;
  __builtin_memcpy(&half, static_cast<const unsigned char*>(scales) + 2 * row, sizeof(half));
  return __builtin_bit_cast(float, static_cast<uint32_t>(half) << 16);
}

// From row `first` on.
constexpr WeightMatrix RowsFrom(const WeightMatrix& matrix, WeightFormat format, int64_t width, int64_t first) {
  return {static_cast<const unsigned char*>(matrix.values) + first * WeightRowBytes(format, width),
          IsQuantised(format) ? static_cast<const unsigned char*>(matrix.scales) + 2 * first : nullptr};
}

}  // namespace dgrt
