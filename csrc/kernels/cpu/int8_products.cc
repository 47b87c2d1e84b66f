// The variants of int8_products.h. Compiled without fused multiply-add of floats (CMakeLists.txt).
#include "kernels/cpu/int8_products.h"

#include "kernels/cpu/tile_products.h"
#include "kernels/cpu/x86_variants.inc"

#if DGRT_X86_VARIANTS
#include <immintrin.h>
#endif

namespace dgrt {
namespace {

// Not called where words are of int16.
#define DGRT_NO_BYTES DGRT_INLINE IntVec AddBytes(IntVec sum, const unsigned char*) { return sum; }

namespace plain {
constexpr int kLanes = 4, kPanels = 1, kDepths = 2, kRows[] = {2};
#include "kernels/cpu/vector.inc"
DGRT_INLINE IntVec AddProducts(IntVec sum, WordVec tokens, int32_t pair) {
  const int32_t low = static_cast<int16_t>(pair), high = pair >> 16;
  return sum + ((IntVec)(tokens << 16) >> 16) * low + ((IntVec)tokens >> 16) * high;
}
DGRT_NO_BYTES
#include "kernels/cpu/int8_products.inc"
}  // namespace plain

#if DGRT_X86_VARIANTS

#pragma GCC push_options
#pragma GCC target("avx2")
namespace avx2 {
constexpr int kLanes = 8, kPanels = 1, kDepths = 2, kRows[] = {6};
#include "kernels/cpu/vector.inc"
DGRT_INLINE IntVec AddProducts(IntVec sum, WordVec tokens, int32_t pair) {
  return sum + (IntVec)_mm256_madd_epi16((__m256i)tokens, _mm256_set1_epi32(pair));
}
DGRT_NO_BYTES
#include "kernels/cpu/int8_products.inc"
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,prefer-vector-width=512")
namespace avx512 {
constexpr int kLanes = 16, kPanels = 4, kDepths = 2, kRows[] = {8, 8, 8, 6};
#include "kernels/cpu/vector.inc"
DGRT_INLINE IntVec AddProducts(IntVec sum, WordVec tokens, int32_t pair) {
  return sum + (IntVec)_mm512_madd_epi16((__m512i)tokens, _mm512_set1_epi32(pair));
}
DGRT_NO_BYTES
#include "kernels/cpu/int8_products.inc"
}  // namespace avx512
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512vnni,avx512f,avx512dq,avx512bw,avx512vl,avx2,prefer-vector-width=512")
namespace avx512_vnni {
constexpr int kLanes = 16, kPanels = 4, kDepths = 4, kRows[] = {8, 8, 8, 6};
#include "kernels/cpu/vector.inc"
DGRT_INLINE IntVec AddProducts(IntVec sum, WordVec tokens, int32_t word) {
  return (IntVec)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)tokens, _mm512_set1_epi32(word));
}
DGRT_INLINE IntVec AddBytes(IntVec sum, const unsigned char* p) {
  return (IntVec)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi8(1), _mm512_loadu_si512(p));
}
#include "kernels/cpu/int8_products.inc"
}  // namespace avx512_vnni
#pragma GCC pop_options

namespace amx {
constexpr Int8Products kInt8Products = {avx512_vnni::Quantise<4, false>, nullptr, MultiplyInt8OnTiles, avx512_vnni::Gate};
}  // namespace amx

#endif

#undef DGRT_NO_BYTES

}  // namespace

const Int8Products& Int8ProductsOf(CpuIsa isa) {
#if DGRT_X86_VARIANTS
  if (isa == CpuIsa::kAmx) return amx::kInt8Products;
  if (isa >= CpuIsa::kAvx512Vnni) return avx512_vnni::kInt8Products;
  if (isa == CpuIsa::kAvx512) return avx512::kInt8Products;
  if (isa == CpuIsa::kAvx2) return avx2::kInt8Products;
#endif
  static_cast<void>(isa);
  return plain::kInt8Products;
}

}  // namespace dgrt
