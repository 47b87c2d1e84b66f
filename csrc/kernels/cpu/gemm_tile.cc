// The variants of gemm_tile.h and the choice between them.
#include "kernels/cpu/gemm_tile.h"

#include <cstdint>

// Target regions are a GCC feature; other compilers and processors get the plain vectors, which they lower themselves.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define DGRT_X86_VARIANTS 1
#else
#define DGRT_X86_VARIANTS 0
#endif

namespace dgrt {
namespace {

namespace plain {
constexpr int64_t kLanes = 4, kBlock = 2;
#include "kernels/cpu/gemm_tile.inc"
constexpr TileKernels kKernels = {"plain", LoadRow, Score, Cap, UpdateMax, Weigh, Accumulate, Dot};
}  // namespace plain

#if DGRT_X86_VARIANTS

#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
constexpr int64_t kLanes = 8, kBlock = 4;
#include "kernels/cpu/gemm_tile.inc"
constexpr TileKernels kKernels = {"avx2", LoadRow, Score, Cap, UpdateMax, Weigh, Accumulate, Dot};
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,prefer-vector-width=512")
namespace avx512 {
constexpr int64_t kLanes = 16, kBlock = 16;
#include "kernels/cpu/gemm_tile.inc"
constexpr TileKernels kKernels = {"avx512", LoadRow, Score, Cap, UpdateMax, Weigh, Accumulate, Dot};
}  // namespace avx512
#pragma GCC pop_options

bool Runs(const TileKernels& kernels) {
  if (&kernels == &avx2::kKernels) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (&kernels != &avx512::kKernels) return true;
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}

constexpr const TileKernels* kVariants[] = {&avx512::kKernels, &avx2::kKernels, &plain::kKernels};

#else

bool Runs(const TileKernels&) { return true; }

constexpr const TileKernels* kVariants[] = {&plain::kKernels};

#endif

}  // namespace

// AVX-512 implies AVX2, so the usable ones are a tail of the list.
std::span<const TileKernels* const> UsableTileKernels() {
  static const std::span<const TileKernels* const> usable = [] {
    std::span<const TileKernels* const> variants(kVariants);
    while (!Runs(*variants.front())) variants = variants.subspan(1);
    return variants;
  }();
  return usable;
}

}  // namespace dgrt
