// How likely a copied token is right, by how many tokens before it agree with its source. Learned from what became of
// earlier drafts of the sequence, starting from a belief that a longer agreement is a better sign. Used by
// suffix_drafter.cc.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace dgrt {

class MatchConfidence {
 public:
  // In (0, 1). `agreement` >= 1.
  float Of(int64_t agreement) const {
    const Counts& counts = counts_[Class(agreement)];
    const float before = Belief(Class(agreement));
    return (counts.right + kBeliefWeight * before) / (counts.tried + kBeliefWeight);
  }

  void Learn(int64_t agreement, bool was_right) {
    Counts& counts = counts_[Class(agreement)];
    counts.tried += 1;
    counts.right += was_right ? 1.0f : 0.0f;
    if (counts.tried > kMemory) counts = {counts.tried / 2, counts.right / 2};  // a text may change its ways
  }

 private:
  // Classes of agreement: 1, 2-3, 4-7, 8-15, 16-31, 32 and more.
  static constexpr size_t kClasses = 6;
  // As many observations outweigh the belief.
  static constexpr float kBeliefWeight = 4;
  static constexpr float kMemory = 256;

  struct Counts {
    float tried = 0, right = 0;
  };

  static size_t Class(int64_t agreement) {
    const auto width = static_cast<size_t>(std::bit_width(static_cast<uint64_t>(std::max<int64_t>(agreement, 1))));
    return std::min(width, kClasses) - 1;
  }
  // 1/2, 2/3, 4/5, 8/9, 16/17, 32/33: one wrong token for as many right ones as agree.
  static float Belief(size_t agreement_class) {
    const auto agreement = static_cast<float>(uint64_t{1} << agreement_class);
    return agreement / (agreement + 1);
  }

  std::array<Counts, kClasses> counts_{};
};

}  // namespace dgrt
