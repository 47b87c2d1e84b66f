// Implementation of int4_rows.h. Compiled without fused multiply-add of floats (CMakeLists.txt).
#include "kernels/cpu/int4_rows.h"

#include "kernels/cpu/int4_tables.h"
#include "kernels/cpu/x86_variants.inc"

#if DGRT_X86_VARIANTS
#include <immintrin.h>
#endif

namespace dgrt {

#if DGRT_X86_VARIANTS
namespace {

#pragma GCC push_options
#pragma GCC target("avx512vnni,avx512f,avx512dq,avx512bw,avx512vl,avx2,prefer-vector-width=512")
namespace avx512_vnni {
constexpr int kLanes = 16;
#include "kernels/cpu/vector.inc"
#include "kernels/cpu/int4_look_up.inc"
#include "kernels/cpu/int8_rounding.inc"

constexpr int kRows = 2, kMostTokens = 10;  // of a block: 20 sums, and four registers of weights
constexpr int64_t kGroupBytes = kCodeGroup / 2;

// ---- tokens ----

// Where sixteen values from `at` on lie: the first halves of four groups in 64 bytes, and then the second ones.
DGRT_INLINE int64_t PlaceOf(int64_t at) { return at / 128 * 128 + at / 16 % 2 * 64 + at / 32 % 4 * 16; }

static Int8Row Quantise(const float* x, int64_t depth, int8_t* values) {
  IntVec largest = {};
  const auto load = [&](int64_t at) {
    const __mmask16 mask = depth - at >= kLanes ? 0xffff : static_cast<__mmask16>((1u << (depth - at)) - 1);
    return (FloatVec)_mm512_maskz_loadu_ps(mask, x + at);
  };
  for (int64_t at = 0; at < depth; at += kLanes) {
    const IntVec bits = Magnitude(load(at));
    largest = bits > largest ? bits : largest;
  }
  int32_t most = 0;
  for (int lane = 0; lane < kLanes; ++lane) most = largest[lane] > most ? largest[lane] : most;
  const FloatVec scale = (FloatVec)(most - IntVec{}) / 127.0f;
  const IntVec has_numbers = HasNumbers(scale);
  IntVec sums = {};
  for (int64_t block = 0; block < depth; block += 128) {  // read before it is written: x may lie in the same place
    IntVec q[8];
    for (int i = 0; i < 8; ++i) {
      const int64_t at = block + i * kLanes;
      q[i] = at < depth ? RoundedQuotient(load(at), scale) & has_numbers : IntVec{};
      sums += q[i];
    }
    for (int i = 0; i < 8; ++i) {
      const __m128i bytes = _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)q[i]);
      _mm_store_si128(reinterpret_cast<__m128i*>(values + PlaceOf(block + i * kLanes)), bytes);
    }
  }
  int32_t sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += sums[lane];
  return {values, scale[0], sum};
}

// ---- products ----

// The sums over the lanes of four registers. (Of the compiler's own functions GCC 12 takes what they leave undefined for a
// mistake.)
DGRT_INLINE __m128i SumsOf(IntVec a, IntVec b, IntVec c, IntVec d) {
  const IntVec low = {0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29}, high = low + 2;
  const IntVec low_pairs = {0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29}, high_pairs = low_pairs + 2;
  const IntVec ab = __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
  const IntVec cd = __builtin_shuffle(c, d, low) + __builtin_shuffle(c, d, high);
  const IntVec all = __builtin_shuffle(ab, cd, low_pairs) + __builtin_shuffle(ab, cd, high_pairs);
  const auto half = __builtin_shufflevector(all, all, 0, 1, 2, 3, 4, 5, 6, 7) +
                    __builtin_shufflevector(all, all, 8, 9, 10, 11, 12, 13, 14, 15);
  return (__m128i)(__builtin_shufflevector(half, half, 0, 1, 2, 3) + __builtin_shufflevector(half, half, 4, 5, 6, 7));
}

struct Matrix {
  const unsigned char* rows;
  const void* scales;
  int64_t num_rows, row_bytes, depth;
};

// One step of depth: 64 bytes of each of two rows by those of all tokens.
template <int kTokens, int kSums>
DGRT_INLINE void AddProducts(IntVec (&sum)[kRows][kSums], __m512i one, __m512i other, const int8_t* const (&tokens)[kTokens],
                             int64_t at) {
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
    __m512i values = _mm512_load_si512(tokens[t] + at);
    asm("" : "+v"(values));  // else the compiler loads it for each row
    sum[0][t] = (IntVec)_mm512_dpbusd_epi32((__m512i)sum[0][t], one, values);
    sum[1][t] = (IntVec)_mm512_dpbusd_epi32((__m512i)sum[1][t], other, values);
  }
}

// Tokens of a block, and what their sums meet two tokens at a time: each for two rows.
struct Tokens {
  const int8_t* values[kMostTokens];
  __m128i offsets[kMostTokens / 2];
  __m128 scales[kMostTokens / 2];

  Tokens(const Int8Row* const* rows, int64_t count) {
    for (int64_t t = 0; t < count; ++t) values[t] = rows[t]->values;
    for (int64_t t = 0; t < count; t += 2) {
      const Int8Row &a = *rows[t], &b = *rows[t + 1 < count ? t + 1 : t];
      offsets[t / 2] = _mm_slli_epi32(_mm_setr_epi32(a.sum, a.sum, b.sum, b.sum), 7);  // 128 times
      scales[t / 2] = _mm_setr_ps(a.scale, a.scale, b.scale, b.scale);
    }
  }
};

// Two rows by kTokens tokens, all sums in registers. Behind an odd last row something is stored, too. Two rows from `fetched` on
// are fetched meanwhile.
template <int kTokens>
static void Block(const Matrix& matrix, int64_t first, const Tokens& group, const unsigned char* fetched, float* out, int64_t out_step) {
  constexpr int kPairs = (kTokens + 1) / 2;
  const bool has_second = first + 1 < matrix.num_rows;
  const unsigned char* const one = matrix.rows + first * matrix.row_bytes;
  const unsigned char* const other = one + (has_second ? matrix.row_bytes : 0);
  const int8_t* values[kTokens];
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) values[t] = group.values[t];
  IntVec sum[kRows][2 * kPairs] = {};
  const __m512i offset = _mm512_set1_epi8(-128);  // weights have 128 more: the instruction takes one side unsigned
  const int64_t num_groups = NumCodeGroups(matrix.depth), levels = num_groups * kGroupBytes;
  int64_t codes = 0;
  for (; codes + 4 <= num_groups; codes += 4) {
    const int64_t at = codes * kGroupBytes;
    __builtin_prefetch(fetched + at);
    __builtin_prefetch(fetched + matrix.row_bytes + at);
    const Groups a = LookUpGroups(one + at, one + levels + codes, 4, offset);
    const Groups b = LookUpGroups(other + at, other + levels + codes, 4, offset);
    AddProducts(sum, a.first, b.first, values, 2 * at);
    AddProducts(sum, a.second, b.second, values, 2 * at + 64);
  }
  if (const int64_t left = num_groups - codes, at = codes * kGroupBytes; left > 0) {
    const Groups a = LookUpGroups(one + at, one + levels + codes, left, offset);
    const Groups b = LookUpGroups(other + at, other + levels + codes, left, offset);
    AddProducts(sum, a.first, b.first, values, 2 * at);
    AddProducts(sum, a.second, b.second, values, 2 * at + 64);
  }
  const float scales[kRows] = {ScaleOfRow(matrix.scales, first), ScaleOfRow(matrix.scales, first + has_second)};
  const __m128 row_scales = _mm_setr_ps(scales[0], scales[1], scales[0], scales[1]);
#pragma GCC unroll 16
  for (int pair = 0; pair < kPairs; ++pair) {
    const int t = 2 * pair;
    const __m128i sums = SumsOf(sum[0][t], sum[1][t], sum[0][t + 1], sum[1][t + 1]);
    const __m128 exact = _mm_cvtepi32_ps(_mm_sub_epi32(sums, group.offsets[pair]));
    const __m128 result = _mm_mul_ps(_mm_mul_ps(exact, group.scales[pair]), row_scales);
    _mm_storel_pi(reinterpret_cast<__m64*>(out + t * out_step + first), result);
    if (t + 1 < kTokens) _mm_storeh_pi(reinterpret_cast<__m64*>(out + (t + 1) * out_step + first), result);
  }
}

static void Multiply(const WeightMatrix& weight, int64_t num_rows, int64_t depth, const Int8Row* const* tokens, int64_t num_tokens,
                     const void* next, float* out, int64_t out_step) {
  using OfTokens = void (*)(const Matrix&, int64_t, const Tokens&, const unsigned char*, float*, int64_t);
  static constexpr OfTokens kBlocks[kMostTokens] = {Block<1>, Block<2>, Block<3>, Block<4>, Block<5>,
                                                    Block<6>, Block<7>, Block<8>, Block<9>, Block<10>};
  const Matrix matrix = {static_cast<const unsigned char*>(weight.values), weight.scales, num_rows,
                         WeightRowBytes(WeightFormat::kInt4, depth), depth};
  const auto* const behind = static_cast<const unsigned char*>(next);
  const int64_t num_groups = (num_tokens + kMostTokens - 1) / kMostTokens;
  int64_t first = 0;
  for (int64_t group = 0; group < num_groups; ++group) {
    const int64_t count = (num_tokens - first) / (num_groups - group);
    const Tokens together(tokens + first, count);
    for (int64_t row = 0; row < num_rows; row += kRows) {
      const bool fetches = behind != nullptr && row / kRows % num_groups == group;  // each row once
      const unsigned char* const fetched = fetches ? behind + row * matrix.row_bytes : matrix.rows;
      kBlocks[count - 1](matrix, row, together, fetched, out + first * out_step, out_step);
    }
    first += count;
  }
}

constexpr Int4RowProducts kProducts = {Quantise, Multiply};

#undef DGRT_INLINE
}  // namespace avx512_vnni
#pragma GCC pop_options

}  // namespace
#endif

const Int4RowProducts* Int4RowProductsOf(CpuIsa isa) {
#if DGRT_X86_VARIANTS
  if (isa == CpuIsa::kAvx512Vnni || isa == CpuIsa::kAvx512Bf16) return &avx512_vnni::kProducts;
#endif
  static_cast<void>(isa);
  return nullptr;
}

}  // namespace dgrt
