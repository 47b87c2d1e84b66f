// SHA-256, written from FIPS 180-4: in plain C++, and with the instructions that most x86 processors have for it.
#include "common/sha256.h"

#include <algorithm>
#include <bit>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#define DGRT_SHA_INSTRUCTIONS 1
#include <cpuid.h>
#include <immintrin.h>
#else
#define DGRT_SHA_INSTRUCTIONS 0
#endif

namespace dgrt {
namespace {

alignas(16) constexpr std::array<uint32_t, 64> kRoundConstants = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

uint32_t BigEndian(const std::byte* bytes) {
  uint32_t word = 0;
  for (int i = 0; i < 4; ++i) word = (word << 8) | std::to_integer<uint32_t>(bytes[i]);
  return word;
}

void CompressPlain(std::array<uint32_t, 8>& state, const std::byte* chunk) {
  std::array<uint32_t, 64> w;
  for (size_t t = 0; t < 16; ++t) w[t] = BigEndian(chunk + 4 * t);
  for (size_t t = 16; t < 64; ++t) {
    const uint32_t s0 = std::rotr(w[t - 15], 7) ^ std::rotr(w[t - 15], 18) ^ (w[t - 15] >> 3);
    const uint32_t s1 = std::rotr(w[t - 2], 17) ^ std::rotr(w[t - 2], 19) ^ (w[t - 2] >> 10);
    w[t] = w[t - 16] + s0 + w[t - 7] + s1;
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (size_t t = 0; t < 64; ++t) {
    const uint32_t sum1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
    const uint32_t temp1 = h + sum1 + ((e & f) ^ (~e & g)) + kRoundConstants[t] + w[t];
    const uint32_t sum0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
    const uint32_t temp2 = sum0 + ((a & b) ^ (a & c) ^ (b & c));
    h = g;
    g = f;
    f = e;
    e = d + temp1;
    d = c;
    c = b;
    b = a;
    a = temp1 + temp2;
  }
  const std::array<uint32_t, 8> added = {a, b, c, d, e, f, g, h};
  for (size_t i = 0; i < state.size(); ++i) state[i] += added[i];
}

#if DGRT_SHA_INSTRUCTIONS
bool HasShaInstructions() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __builtin_cpu_supports("sse4.1") && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (ebx >> 29 & 1) != 0;
}

// Four words of the schedule from the sixteen before them.
__attribute__((target("sha,sse4.1"))) __m128i NextWords(const __m128i w[4]) {
  const __m128i sums = _mm_add_epi32(_mm_sha256msg1_epu32(w[0], w[1]), _mm_alignr_epi8(w[3], w[2], 4));
  return _mm_sha256msg2_epu32(sums, w[3]);
}

__attribute__((target("sha,sse4.1"))) void CompressFast(std::array<uint32_t, 8>& state, const std::byte* chunk) {
  const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  auto* words = reinterpret_cast<__m128i*>(state.data());
  // The instructions want the state as {f, e, b, a} and {h, g, d, c}, lowest word first.
  const __m128i badc = _mm_shuffle_epi32(_mm_loadu_si128(words), 0xb1);
  const __m128i hgfe = _mm_shuffle_epi32(_mm_loadu_si128(words + 1), 0x1b);
  const __m128i old_abef = _mm_alignr_epi8(badc, hgfe, 8), old_cdgh = _mm_blend_epi16(hgfe, badc, 0xf0);
  __m128i abef = old_abef, cdgh = old_cdgh, w[4];
  for (size_t t = 0; t < 16; ++t) {  // four rounds each
    if (t < 4) {
      const auto* part = reinterpret_cast<const __m128i*>(chunk) + t;
      w[t] = _mm_shuffle_epi8(_mm_loadu_si128(part), big_endian);
    } else {
      const __m128i next = NextWords(w);
      std::copy(w + 1, w + 4, w);
      w[3] = next;
    }
    const auto* constants = reinterpret_cast<const __m128i*>(kRoundConstants.data()) + t;
    const __m128i sum = _mm_add_epi32(w[std::min<size_t>(t, 3)], _mm_load_si128(constants));
    cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
    abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));
  }
  abef = _mm_add_epi32(abef, old_abef);
  cdgh = _mm_add_epi32(cdgh, old_cdgh);
  const __m128i feba = _mm_shuffle_epi32(abef, 0x1b), dchg = _mm_shuffle_epi32(cdgh, 0xb1);
  _mm_storeu_si128(words, _mm_blend_epi16(feba, dchg, 0xf0));
  _mm_storeu_si128(words + 1, _mm_alignr_epi8(dchg, feba, 8));
}
#endif

}  // namespace

Sha256::Sha256(Code code) : compress_(CompressPlain) {
#if DGRT_SHA_INSTRUCTIONS
  static const bool has_instructions = HasShaInstructions();
  if (code == Code::kFastest && has_instructions) compress_ = CompressFast;
#endif
}

void Sha256::Update(std::span<const std::byte> bytes) {
  const size_t pending = num_bytes_ % kBlockBytes;
  num_bytes_ += bytes.size();
  if (pending > 0) {
    const size_t taken = std::min(kBlockBytes - pending, bytes.size());
    std::copy_n(bytes.begin(), taken, rest_.begin() + static_cast<std::ptrdiff_t>(pending));
    bytes = bytes.subspan(taken);
    if (pending + taken < kBlockBytes) return;
    compress_(state_, rest_.data());
  }
  for (; bytes.size() >= kBlockBytes; bytes = bytes.subspan(kBlockBytes)) compress_(state_, bytes.data());
  std::copy(bytes.begin(), bytes.end(), rest_.begin());
}

std::string Sha256::Hex() {
  // Padding: 0x80, zeros, length in bits; one or two more blocks.
  const uint64_t bits = num_bytes_ * 8;
  const size_t rest = num_bytes_ % kBlockBytes;
  const size_t zeros = (rest < 56 ? 55 : 119) - rest;
  std::array<std::byte, 2 * kBlockBytes> padding{};
  padding[0] = std::byte{0x80};
  for (size_t i = 0; i < 8; ++i) padding[zeros + 8 - i] = static_cast<std::byte>(bits >> (8 * i));
  Update(std::span(padding).first(zeros + 9));

  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(64);
  for (const uint32_t word : state_) {
    for (int shift = 28; shift >= 0; shift -= 4) hex.push_back(kDigits[(word >> shift) & 15]);
  }
  return hex;
}

std::string Sha256Hex(std::span<const std::byte> bytes) {
  Sha256 sha256;
  sha256.Update(bytes);
  return sha256.Hex();
}

}  // namespace dgrt
