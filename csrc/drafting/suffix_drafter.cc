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
// Around an expected output, so that no copy runs on from it into the prompt. No token has this id.
constexpr int32_t kBorder = -1;
// Chance that a token of an expected output is right where all before it were: whoever gives one means it.
constexpr float kExpectedIsRight = 0.998f;

}  // namespace

SuffixDrafter::SuffixDrafter(std::span<const int32_t> expected) {
  if (expected.empty()) return;
  text_.push_back(kBorder);
  text_.insert(text_.end(), expected.begin(), expected.end());
  expected_end_ = static_cast<int64_t>(text_.size());
  text_.push_back(kBorder);
  for (const int32_t token : text_) automaton_.Extend(token);
}

// What was drafted lies in the text, from drafted_.source on, whether the caller used all of it or not.
void SuffixDrafter::LearnFrom(std::span<const int32_t> tokens) {
  const auto count = std::min(num_drafted_, static_cast<int64_t>(tokens.size()));
  num_drafted_ = 0;
  for (int64_t i = 0; i < count; ++i) {
    const bool was_right = text_[static_cast<size_t>(drafted_.source + i)] == tokens[static_cast<size_t>(i)];
    confidence_.Learn(drafted_.agreement + i, was_right);
    if (was_right) continue;
    if (drafted_.source < expected_end_) expected_is_right_ = false;
    return;  // what follows was a guess about another text
  }
}

void SuffixDrafter::Append(std::span<const int32_t> tokens) {
  LearnFrom(tokens);
  ++num_appended_;
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

SuffixDrafter::Copy SuffixDrafter::FindCopy() const {
  if (expected_end_ > 0 && num_appended_ <= 1) return {1, kMaxAgreement};
  const SuffixAutomaton::Match match = automaton_.LongestEarlierSuffix();
  Copy best;
  if (match.length >= kMinMatch) best = {match.end, std::min(match.length, kMaxAgreement)};
  if (source_ == 0) return best;
  const int64_t first = std::max<int64_t>(1, source_ - kWindow);
  const int64_t last = std::min(static_cast<int64_t>(text_.size()) - 1, source_ + kWindow);
  for (int64_t end = first; end <= last; ++end) {
    const int64_t found = CommonSuffix(end);
    const bool nearer = best.source == 0 || std::abs(end - source_) < std::abs(best.source - source_);
    if (found > best.agreement || (found > 0 && found == best.agreement && nearer)) best = {end, found};
  }
  return best;
}

int64_t SuffixDrafter::Draft(std::span<int32_t> draft, std::span<float> confidence) {
  num_drafted_ = 0;
  const Copy copy = FindCopy();
  if (copy.source == 0) return 0;
  source_ = copy.source;
  drafted_ = copy;
  const auto first = text_.begin() + copy.source;
  const auto last = first + std::min<int64_t>(std::ssize(draft), text_.end() - first);
  num_drafted_ = std::find(first, last, kBorder) - first;
  std::copy_n(first, num_drafted_, draft.begin());
  const bool is_expected = expected_is_right_ && copy.source < expected_end_;
  float all_right = 1;
  for (int64_t i = 0; i < num_drafted_; ++i) {
    all_right *= is_expected ? kExpectedIsRight : confidence_.Of(copy.agreement + i);
    confidence[static_cast<size_t>(i)] = all_right;
  }
  return num_drafted_;
}

}  // namespace dgrt
