// The drafter without weights: what follows now is what followed the same words before, in the prompt or in the output
// (prompt lookup with a suffix automaton: SAM-Decoding, ACL 2025.acl-long.595). Made for edits, where most of the
// output is a copy.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "drafting/drafter.h"
#include "drafting/suffix_automaton.h"

namespace dgrt {

class SuffixDrafter : public Drafter {
 public:
  void Append(std::span<const int32_t> tokens) override;
  int64_t Draft(std::span<int32_t> draft) override;

 private:
  int64_t CommonSuffix(int64_t end) const;
  int64_t Source() const;

  std::vector<int32_t> text_;
  SuffixAutomaton automaton_;
  int64_t source_ = 0;  // where in text_ the copy has got to; 0: nothing is being copied
};

}  // namespace dgrt
