// The variants of int8_products.h. Compiled without fused multiply-add of floats (CMakeLists.txt).
#include "kernels/cpu/int8_products.h"

#include "kernels/cpu/int4_tables.h"
#include "kernels/cpu/tile_products.h"
#include "kernels/cpu/x86_variants.inc"

#if DGRT_X86_VARIANTS
#include <immintrin.h>
#endif

namespace dgrt {
namespace {

// Sixteen bytes.
typedef int8_t ByteVec __attribute__((vector_size(16)));

// Not called where words are of int16.
#define DGRT_NO_BYTES                                         \
  DGRT_INLINE WordVec OffsetOfWeights() { return WordVec{}; } \
  constexpr bool kUnpacksFourGroups = false;                  \
  DGRT_INLINE void UnpackFourGroups(const unsigned char*, const unsigned char*, unsigned char*) {}

#define DGRT_LOOK_UP                                                   \
  DGRT_INLINE ByteVec LookUp(ByteVec table, ByteVec places) {          \
    return (ByteVec)_mm_shuffle_epi8((__m128i)table, (__m128i)places); \
  }

namespace plain {
constexpr int kLanes = 4, kPanels = 1, kDepths = 2, kRows[] = {2};
#include "kernels/cpu/vector.inc"
DGRT_INLINE IntVec AddProducts(IntVec sum, WordVec tokens, WordVec weights) {
  return sum + ((IntVec)(tokens << 16) >> 16) * ((IntVec)(weights << 16) >> 16) + ((IntVec)tokens >> 16) * ((IntVec)weights >> 16);
}
DGRT_INLINE ByteVec LookUp(ByteVec table, ByteVec places) { return __builtin_shuffle(table, places); }
DGRT_NO_BYTES
#include "kernels/cpu/int8_products.inc"
}  // namespace plain

#if DGRT_X86_VARIANTS

#pragma GCC push_options
#pragma GCC target("avx2")
namespace avx2 {
constexpr int kLanes = 8, kPanels = 1, kDepths = 2, kRows[] = {6};
#include "kernels/cpu/vector.inc"
DGRT_INLINE IntVec AddProducts(IntVec sum, WordVec tokens, WordVec weights) {
  return sum + (IntVec)_mm256_madd_epi16((__m256i)tokens, (__m256i)weights);
}
DGRT_LOOK_UP
DGRT_NO_BYTES
#include "kernels/cpu/int8_products.inc"
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,prefer-vector-width=512")
namespace avx512 {
constexpr int kLanes = 16, kPanels = 4, kDepths = 2, kRows[] = {8, 8, 8, 6};
#include "kernels/cpu/vector.inc"
DGRT_INLINE IntVec AddProducts(IntVec sum, WordVec tokens, WordVec weights) {
  return sum + (IntVec)_mm512_madd_epi16((__m512i)tokens, (__m512i)weights);
}
DGRT_LOOK_UP
DGRT_NO_BYTES
#include "kernels/cpu/int8_products.inc"
}  // namespace avx512
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512vnni,avx512f,avx512dq,avx512bw,avx512vl,avx2,prefer-vector-width=512")
namespace avx512_vnni {
constexpr int kLanes = 16, kPanels = 4, kDepths = 4, kRows[] = {8, 8, 8, 6};
#include "kernels/cpu/vector.inc"
DGRT_INLINE WordVec OffsetOfWeights() {
  WordVec offset = WordVec{} + 0x80808080u;
  asm("" : "+v"(offset));  // else the compiler adds it before a word is broadcast, which then goes through a slower port
  return offset;
}
DGRT_INLINE IntVec AddProducts(IntVec sum, WordVec tokens, WordVec weights) {
  return (IntVec)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)weights, (__m512i)tokens);
}
DGRT_LOOK_UP
constexpr bool kUnpacksFourGroups = true;
#include "kernels/cpu/int4_look_up.inc"
DGRT_INLINE void UnpackFourGroups(const unsigned char* codes, const unsigned char* levels, unsigned char* to) {
  const Groups groups = LookUpGroups(codes, levels, 4, _mm512_setzero_si512());
  const __m512i in_order = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), behind = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  _mm512_storeu_si512(to, _mm512_permutex2var_epi64(groups.first, in_order, groups.second));
  _mm512_storeu_si512(to + 64, _mm512_permutex2var_epi64(groups.first, behind, groups.second));
}
#include "kernels/cpu/int8_products.inc"
}  // namespace avx512_vnni
#pragma GCC pop_options

namespace amx {
constexpr Int8Products kInt8Products = {avx512_vnni::Begin,  avx512_vnni::Append, avx512_vnni::Quantise, avx512_vnni::Unpack,
                                        MultiplyInt8OnTiles, avx512_vnni::Gate,   true};
}  // namespace amx

#endif

#undef DGRT_NO_BYTES
#undef DGRT_LOOK_UP

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
