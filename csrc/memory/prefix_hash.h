// The hash under which the prefix cache finds a chunk: of its tokens and of all chunks before it. Tokens are compared
// in full as well, so that a collision costs time and never a result.
#pragma once

#include <cstdint>
#include <span>

namespace dgrt {

// FNV-1a with tokens in place of bytes; `before`: the hash of the chunk before, 0 at the start.
constexpr uint64_t PrefixHash(uint64_t before, std::span<const int32_t> tokens) {
  uint64_t hash = before ^ 0xcbf29ce484222325;
  for (const int32_t token : tokens) hash = (hash ^ static_cast<uint32_t>(token)) * 0x100000001b3;
  return hash;
}

}  // namespace dgrt
