// What proposes tokens for the target to verify. A proposal costs time when it is wrong, never correctness: the stage
// that asked checks every token. Implementations: suffix_drafter.h. "none" is having no drafter.
#pragma once

#include <cstdint>
#include <span>

namespace dgrt {

// One sequence's drafter. One thread at a time.
class Drafter {
 public:
  virtual ~Drafter() = default;

  // The text grew by these tokens: the prompt first, then what is committed.
  virtual void Append(std::span<const int32_t> tokens) = 0;

  // Writes the tokens that it expects next, at most draft.size(); returns how many.
  virtual int64_t Draft(std::span<int32_t> draft) = 0;
};

}  // namespace dgrt
