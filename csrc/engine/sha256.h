// SHA-256 (FIPS 180-4) of files of an engine package. Used by manifest.cc.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace dgrt {

// Lower-case hexadecimal digest, 64 characters.
std::string Sha256Hex(std::span<const std::byte> bytes);

}  // namespace dgrt
