// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011). A draw is a pure function of (seed, request, canvas, step, stream, position), so batching, retries,
// drafting and threads never change a result. Readable twin, equal bit for bit: dgrt/reference/noise.py.
#pragma once

#include <array>
#include <cstdint>

namespace dgrt {

enum class NoiseStream : uint32_t {
  kInitialCanvas = 0,
  kRenoise = 1,
  kSampling = 2,
  kDrafter = 3,
  kVerificationFolds = 4,
  kCausalSampling = 5,  // keyed by absolute position
};

// Where in the life of a request a draw is made. `step` is n of the schedule, counting down from N (0 for the
// initial canvas); `request` is below 2^24.
struct NoiseKey {
  uint64_t seed = 0;
  uint32_t request = 0;
  uint32_t canvas = 0;
  uint32_t step = 0;
};

inline constexpr uint32_t kMaxRequest = 1u << 24;

inline std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{kMultiplier0} * counter[0];
    const uint64_t product1 = uint64_t{kMultiplier1} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(product0)};
    key = {key[0] + kWeyl0, key[1] + kWeyl1};
  }
  return counter;
}

// The four words of one draw: counter = (position, step, canvas, request << 8 | stream), key = (seed low, seed high).
inline std::array<uint32_t, 4> NoiseWords(const NoiseKey& key, NoiseStream stream, uint32_t position) {
  return Philox4x32({position, key.step, key.canvas, (key.request << 8) | static_cast<uint32_t>(stream)},
                    {static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32)});
}

// Uniform in [0, 1) with 53 bits, from words 0 and 1.
inline double NoiseUniform(const NoiseKey& key, NoiseStream stream, uint32_t position) {
  const auto words = NoiseWords(key, stream, position);
  return (static_cast<double>(words[0] >> 5) * 67108864.0 + static_cast<double>(words[1] >> 6)) /
         9007199254740992.0;
}

// Uniform integer in [0, bound) by multiply-shift of word 0; the bias is below bound / 2^32 and zero for powers of two.
inline uint32_t NoiseInteger(const NoiseKey& key, NoiseStream stream, uint32_t position, uint32_t bound) {
  return static_cast<uint32_t>((uint64_t{NoiseWords(key, stream, position)[0]} * bound) >> 32);
}

}  // namespace dgrt
