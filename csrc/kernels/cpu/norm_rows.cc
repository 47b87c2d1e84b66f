// The variants of norm_rows.h.
#include "kernels/cpu/norm_rows.h"

#include "kernels/cpu/x86_variants.inc"

namespace dgrt {
namespace {

namespace plain {
constexpr int kLanes = 4;
#include "kernels/cpu/vector.inc"
#include "kernels/cpu/norm_rows.inc"
}  // namespace plain

#if DGRT_X86_VARIANTS

#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
constexpr int kLanes = 8;
#include "kernels/cpu/vector.inc"
#include "kernels/cpu/norm_rows.inc"
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,prefer-vector-width=512")
namespace avx512 {
constexpr int kLanes = 16;
#include "kernels/cpu/vector.inc"
#include "kernels/cpu/norm_rows.inc"
}  // namespace avx512
#pragma GCC pop_options

#endif

}  // namespace

const NormRows& NormRowsOf(CpuIsa isa) {
#if DGRT_X86_VARIANTS
  if (isa >= CpuIsa::kAvx512) return avx512::kNormRows;
  if (isa == CpuIsa::kAvx2) return avx2::kNormRows;
#endif
  static_cast<void>(isa);
  return plain::kNormRows;
}

}  // namespace dgrt
