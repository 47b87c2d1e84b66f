// Entropy-bound acceptance (declared in kernels.h). Called by runtime/denoise_step.cc. Follows the arithmetic of the
// reference: the running sum is kept in double and rounded to float, the position's own entropy is subtracted in float.
#include "common/check.h"
#include "kernels/kernels.h"

namespace dgrt {

// Takes the smallest remaining entropy again and again: quadratic in L, but L is hundreds (about 0.1 ms for 256, against
// the milliseconds of a step) and sorting would need memory. Every position is judged on its own, to the last one, as
// in the reference: the comparison is in float, so "once above the bound, always above it" holds only up to rounding.
void AcceptByEntropy(std::span<const float> entropy, float entropy_bound, std::span<uint8_t> accepted) {
  constexpr uint8_t kPending = 2;
  DGRT_CHECK(entropy.size() == accepted.size());
  for (size_t i = 0; i < entropy.size(); ++i) accepted[i] = entropy[i] == entropy[i] ? kPending : 0;  // NaN: never
  double sum = 0;
  while (true) {
    const size_t none = entropy.size();
    size_t smallest = none;
    for (size_t i = 0; i < entropy.size(); ++i) {
      if (accepted[i] == kPending && (smallest == none || entropy[i] < entropy[smallest])) smallest = i;
    }
    if (smallest == none) return;
    sum += static_cast<double>(entropy[smallest]);
    accepted[smallest] = static_cast<float>(sum) - entropy[smallest] <= entropy_bound ? 1 : 0;
  }
}

}  // namespace dgrt
