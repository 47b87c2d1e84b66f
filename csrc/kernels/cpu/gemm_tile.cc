// The variants of gemm_tile.h and the choice between them.
#include "kernels/cpu/gemm_tile.h"

#include <cstdint>

#include "kernels/cpu/x86_variants.inc"

namespace dgrt {
namespace {

namespace plain {
constexpr int64_t kLanes = 4, kBlock = 2;
#include "kernels/cpu/gemm_tile.inc"
constexpr TileKernels kKernels = {LoadRow, Score, Cap, UpdateMax, Weigh, Accumulate, Dot};
}  // namespace plain

#if DGRT_X86_VARIANTS

#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
constexpr int64_t kLanes = 8, kBlock = 4;
#include "kernels/cpu/gemm_tile.inc"
constexpr TileKernels kKernels = {LoadRow, Score, Cap, UpdateMax, Weigh, Accumulate, Dot};
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,prefer-vector-width=512")
namespace avx512 {
constexpr int64_t kLanes = 16, kBlock = 16;
#include "kernels/cpu/gemm_tile.inc"
constexpr TileKernels kKernels = {LoadRow, Score, Cap, UpdateMax, Weigh, Accumulate, Dot};
}  // namespace avx512
#pragma GCC pop_options

#endif

}  // namespace

const TileKernels& TileKernelsOf(CpuIsa isa) {
#if DGRT_X86_VARIANTS
  if (isa >= CpuIsa::kAvx512) return avx512::kKernels;
  if (isa == CpuIsa::kAvx2) return avx2::kKernels;
#endif
  static_cast<void>(isa);
  return plain::kKernels;
}

}  // namespace dgrt
