// SHA-256 (FIPS 180-4): of files of an engine package (engine/) and of snapshots of the prefix cache (memory/).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace dgrt {

// Of bytes that arrive in pieces.
class Sha256 {
 public:
  enum class Code { kFastest, kPlain };  // same digests; the plain code is what tests compare with

  explicit Sha256(Code code = Code::kFastest);
  void Update(std::span<const std::byte> bytes);
  // Lower-case hexadecimal digest of all bytes so far, 64 characters. The object is used up.
  std::string Hex();

 private:
  static constexpr size_t kBlockBytes = 64;

  void (*compress_)(std::array<uint32_t, 8>& state, const std::byte* chunk);
  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, kBlockBytes> rest_{};  // bytes that do not fill a block yet
  uint64_t num_bytes_ = 0;
};

std::string Sha256Hex(std::span<const std::byte> bytes);

}  // namespace dgrt
