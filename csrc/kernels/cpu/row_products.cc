// The variants of row_products.h.
#include "kernels/cpu/row_products.h"

#include "kernels/cpu/tile_products.h"
#include "kernels/cpu/x86_variants.inc"

#if DGRT_X86_VARIANTS
#include <immintrin.h>
#endif

namespace dgrt {
namespace {

// Two products of bf16 pairs without an instruction for them: a bf16 is the upper half of a float.
#define DGRT_PLAIN_DOT2                                                                                   \
  DGRT_INLINE FloatVec Dot2(FloatVec sum, FloatVec token, uint32_t pair) {                                \
    const WordVec words = (WordVec)token;                                                                 \
    sum += __builtin_bit_cast(float, pair << 16) * (FloatVec)(words << 16);                               \
    return sum + __builtin_bit_cast(float, pair & 0xffff0000u) * (FloatVec)(words & 0xffff0000u);         \
  }

#define DGRT_PLAIN_HALVES \
  DGRT_INLINE HalfVec Halves(FloatVec x) { return __builtin_convertvector(Rounded(x) >> 16, HalfVec); }

// With a mask of all lanes: GCC 12 takes what the plain forms leave undefined for a mistake.
#define DGRT_AVX512_LOADS                                                           \
  DGRT_INLINE WordVec LoadHalves(const unsigned char* p) {                          \
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); \
    return (WordVec)_mm512_maskz_cvtepu16_epi32(0xffff, halves);                    \
  }

namespace plain {
constexpr int kLanes = 4, kPanels = 1, kRows[] = {2};
constexpr DType kOperands = DType::kFloat32;
#include "kernels/cpu/vector.inc"
DGRT_PLAIN_DOT2
DGRT_PLAIN_HALVES
DGRT_INLINE WordVec LoadHalves(const unsigned char* p) {
  WordVec x;
  for (int i = 0; i < kLanes; ++i) x[i] = static_cast<uint32_t>(p[2 * i]) | static_cast<uint32_t>(p[2 * i + 1]) << 8;
  return x;
}
#include "kernels/cpu/row_products.inc"
}  // namespace plain

#if DGRT_X86_VARIANTS

#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
constexpr int kLanes = 8, kPanels = 1, kRows[] = {6};
constexpr DType kOperands = DType::kFloat32;
#include "kernels/cpu/vector.inc"
DGRT_PLAIN_DOT2
DGRT_PLAIN_HALVES
DGRT_INLINE WordVec LoadHalves(const unsigned char* p) {
  return (WordVec)_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
#include "kernels/cpu/row_products.inc"
}  // namespace avx2
#pragma GCC pop_options

// Six rows by four panels are 24 sums, 4 token registers and a weight: more rows than eight of a power-of-two length
// would fight for the same cache lines.
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,prefer-vector-width=512")
namespace avx512 {
constexpr int kLanes = 16, kPanels = 4, kRows[] = {8, 8, 8, 6};
constexpr DType kOperands = DType::kFloat32;
#include "kernels/cpu/vector.inc"
DGRT_PLAIN_DOT2
DGRT_PLAIN_HALVES
DGRT_AVX512_LOADS
#include "kernels/cpu/row_products.inc"
}  // namespace avx512
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512bf16,avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,prefer-vector-width=512")
namespace avx512_bf16 {
constexpr int kLanes = 16, kPanels = 4, kRows[] = {8, 8, 8, 6};
constexpr DType kOperands = DType::kBFloat16;
#include "kernels/cpu/vector.inc"
DGRT_INLINE FloatVec Dot2(FloatVec sum, FloatVec token, uint32_t pair) {
  return (FloatVec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)token, (__m512bh)_mm512_set1_epi32(static_cast<int>(pair)));
}
DGRT_INLINE HalfVec Halves(FloatVec x) { return (HalfVec)_mm512_cvtneps_pbh((__m512)x); }
DGRT_AVX512_LOADS
#include "kernels/cpu/row_products.inc"
}  // namespace avx512_bf16
#pragma GCC pop_options

namespace amx {
void Multiply(const WeightRows& weight, int64_t depth, const void* panels, int64_t panel_bytes, int64_t num_panels, float* out) {
  (weight.dtype == DType::kBFloat16 ? MultiplyOnTiles : avx512_bf16::Multiply)(weight, depth, panels, panel_bytes, num_panels,
                                                                              out);
}
constexpr RowProducts kProducts = [] {
  RowProducts products = avx512_bf16::kProducts;
  products.multiply = Multiply;
  products.register_rows = 32;
  products.unpacked_bytes = int64_t{512} << 10;  // of 2 MiB
  return products;
}();
}  // namespace amx

#endif

#undef DGRT_PLAIN_DOT2
#undef DGRT_PLAIN_HALVES
#undef DGRT_AVX512_LOADS

}  // namespace

const RowProducts& RowProductsOf(CpuIsa isa) {
#if DGRT_X86_VARIANTS
  if (isa == CpuIsa::kAmx) return amx::kProducts;
  if (isa == CpuIsa::kAvx512Bf16) return avx512_bf16::kProducts;
  if (isa >= CpuIsa::kAvx512) return avx512::kProducts;
  if (isa == CpuIsa::kAvx2) return avx2::kProducts;
#endif
  static_cast<void>(isa);
  return plain::kProducts;
}

}  // namespace dgrt
