// How right the probabilities of a drafter's network are, learned from what became of its drafts in this sequence: what it
// is sure of may be surer or less sure than it says, and a text read at temperature 0 agrees more often than one that is
// sampled. Used by runtime/model_drafter.cc.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>

namespace dgrt {

class Calibration {
 public:
  // The chance that a token is right which the network gives `probability`, in [0, 1].
  float Of(float probability) const {
    const Counts& counts = counts_[Class(probability)];
    return std::min(1.0f, probability * (counts.right + kBeliefWeight) / (counts.expected + kBeliefWeight));
  }

  void Learn(float probability, bool was_right) {
    Counts& counts = counts_[Class(probability)];
    counts.expected += probability;
    counts.right += was_right ? 1.0f : 0.0f;
    if (counts.expected > kMemory) counts = {counts.expected / 2, counts.right / 2};  // a text may change its ways
  }

 private:
  // Classes of probability: below 1/2, 3/4, 7/8, 15/16, 31/32, and above.
  static constexpr size_t kClasses = 6;
  // The network is believed as much as so many tokens that turned out as it said.
  static constexpr float kBeliefWeight = 4;
  static constexpr float kMemory = 64;

  struct Counts {
    float expected = 0;  // sum of the probabilities: as many should have been right
    float right = 0;
  };

  static size_t Class(float probability) {
    size_t found = 0;
    for (float doubt = 0.5f; found + 1 < kClasses && 1 - probability <= doubt; doubt /= 2) ++found;
    return found;
  }

  std::array<Counts, kClasses> counts_{};
};

}  // namespace dgrt
