// Implementation of suffix_drafter.h.
//
// While a copy goes well, `source_` walks along with the output. Where the output departs from it (a renamed word, an
// inserted line), the automaton knows too little at first: the words around the change are new. So the places around
// `source_` are compared with the end of the text as well, and the longest agreement wins, the nearest on a tie.
#include "drafting/suffix_drafter.h"

#include <algorithm>

namespace dgrt {
namespace {

// Shortest match that starts a copy. Shorter ones are chance in a text of a few thousand tokens.
constexpr int64_t kMinMatch = 4;
// How far around the last place an interrupted copy is looked for: a line or two of text or code.
constexpr int64_t kWindow = 96;
// Longest agreement that is measured there; more would not change the choice.
constexpr int64_t kMaxAgreement = 32;

}  // namespace

void SuffixDrafter::Append(std::span<const int32_t> tokens) {
  for (const int32_t token : tokens) {
    // Where the text departs the place is kept: after an insertion the copy goes on right there.
    if (source_ > 0 && text_[static_cast<size_t>(source_)] == token) ++source_;
    text_.push_back(token);
    automaton_.Extend(token);
  }
}

// Tokens before `end` that agree with the tokens at the end of the text.
int64_t SuffixDrafter::CommonSuffix(int64_t end) const {
  const auto size = static_cast<int64_t>(text_.size());
  int64_t length = 0;
  while (length < std::min(end, kMaxAgreement) &&
         text_[static_cast<size_t>(end - 1 - length)] == text_[static_cast<size_t>(size - 1 - length)]) {
    ++length;
  }
  return length;
}

// The index that the next token is expected to be copied from; 0: none.
int64_t SuffixDrafter::Source() const {
  const SuffixAutomaton::Match match = automaton_.LongestEarlierSuffix();
  int64_t best = match.length >= kMinMatch ? match.end : 0;
  if (source_ == 0) return best;
  int64_t agreement = best > 0 ? std::min(match.length, kMaxAgreement) : 0;
  const int64_t first = std::max<int64_t>(1, source_ - kWindow);
  const int64_t last = std::min(static_cast<int64_t>(text_.size()) - 1, source_ + kWindow);
  for (int64_t end = first; end <= last; ++end) {
    const int64_t found = CommonSuffix(end);
    const bool nearer = best == 0 || std::abs(end - source_) < std::abs(best - source_);
    if (found > agreement || (found > 0 && found == agreement && nearer)) {
      best = end;
      agreement = found;
    }
  }
  return best;
}

int64_t SuffixDrafter::Draft(std::span<int32_t> draft) {
  const int64_t source = Source();
  if (source == 0) return 0;
  source_ = source;
  const int64_t count = std::min(static_cast<int64_t>(draft.size()), static_cast<int64_t>(text_.size()) - source);
  std::copy_n(text_.begin() + source, count, draft.begin());
  return count;
}

}  // namespace dgrt
