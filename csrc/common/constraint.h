// What a canvas position may hold. Part of the sampler's interface from the first day: infilling pins tokens,
// constrained output allows sets.
#pragma once

#include <cstdint>
#include <span>

namespace dgrt {

// Free (default): any token. Pinned: exactly `pinned` (entropy 0, always accepted). Allowed: only ids in `allowed`
// (sorted, unique, non-empty, borrowed); the distribution is renormalised over the set, renoise draws from the set.
struct PositionConstraint {
  int32_t pinned = -1;                 // token id, or -1
  std::span<const int32_t> allowed{};  // empty: all
  bool is_pinned() const { return pinned >= 0; }
  bool is_restricted() const { return !allowed.empty(); }
};

}  // namespace dgrt
