// What proposes tokens for the target to verify. A proposal costs time when it is wrong, never correctness: the stage
// that asked checks every token. Implementations: suffix_drafter.h; runtime/model_drafter.h, runtime/auto_drafter.h. "none"
// is having no drafter.
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

  // Writes the tokens that it expects next, at most draft.size(), and how likely it is that each of them and all before
  // it are right, in [0, 1]; returns how many. `confidence` has the size of `draft` and holds ones before the call.
  virtual int64_t Draft(std::span<int32_t> draft, std::span<float> confidence) = 0;

  // The same once more in the middle of a canvas: `evidence` [L, D] are the hidden states of its last denoise pass. A drafter
  // that has no use for them has nothing to add.
  virtual int64_t Redraft([[maybe_unused]] std::span<const float> evidence, [[maybe_unused]] std::span<int32_t> draft,
                          [[maybe_unused]] std::span<float> confidence) {
    return 0;
  }
};

}  // namespace dgrt
