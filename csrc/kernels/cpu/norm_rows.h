// The small steps between two products of a layer: norms of rows, residual sums, rotation of heads. A row's result depends on
// that row alone. The variants (isa.h) differ from each other in the last bits. Rows may lie at any address.
#pragma once

#include <cstdint>

#include "kernels/cpu/isa.h"

namespace dgrt {

struct NormRows {
  // 1 / sqrt(mean of squares + eps)
  float (*inverse_rms)(const float* row, int64_t width, float eps);

  // out = base + row * factor * weight, without a base row * factor * weight, without a weight row * factor; out may be any
  // of the three.
  void (*scale_add)(const float* base, const float* row, float factor, const float* weight, int64_t width, float* out);

  // Turns the pairs (i, i + half) of a head by angles whose cosines and sines are given [half], in place.
  void (*rotate)(float* head, const float* cos, const float* sin, int64_t half);

  // The norm of RMSNorm (Zhang and Sennrich, arXiv 1910.07467) on top of a base, if any.
  void Norm(const float* base, const float* row, float eps, const float* weight, int64_t width, float* out) const {
    scale_add(base, row, inverse_rms(row, width, eps), weight, width, out);
  }
};

// The variant of an instruction set.
const NormRows& NormRowsOf(CpuIsa isa);

}  // namespace dgrt
