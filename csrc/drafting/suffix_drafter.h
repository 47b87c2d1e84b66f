// The drafter without weights: what follows now is what followed the same words before, in the prompt or in the output
// (prompt lookup with a suffix automaton: SAM-Decoding, ACL 2025.acl-long.595). Made for edits, where most of the
// output is a copy.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "drafting/drafter.h"
#include "drafting/match_confidence.h"
#include "drafting/suffix_automaton.h"

namespace dgrt {

class SuffixDrafter : public Drafter {
 public:
  // `expected`: the output as the caller expects it. It is where the first draft comes from, and one more text to copy
  // from after that.
  explicit SuffixDrafter(std::span<const int32_t> expected = {});

  void Append(std::span<const int32_t> tokens) override;
  int64_t Draft(std::span<int32_t> draft, std::span<float> confidence) override;

 private:
  // A place to copy from (0: none) and how many tokens before it agree with the end of the text.
  struct Copy {
    int64_t source = 0;
    int64_t agreement = 0;
  };
  int64_t CommonSuffix(int64_t end) const;
  Copy FindCopy() const;
  void LearnFrom(std::span<const int32_t> tokens);

  std::vector<int32_t> text_;
  SuffixAutomaton automaton_;
  int64_t expected_end_ = 0;     // behind the expected output in text_; 0: none was given
  int64_t num_appended_ = 0;     // calls: the first is the prompt's
  bool expected_is_right_ = true;  // until a draft from it was wrong
  int64_t source_ = 0;  // where in text_ the copy has got to; 0: nothing is being copied
  MatchConfidence confidence_;
  Copy drafted_;                 // the last draft, until the text has shown what became of it
  int64_t num_drafted_ = 0;
};

}  // namespace dgrt
