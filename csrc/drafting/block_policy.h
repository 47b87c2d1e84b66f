// When a drafter that guesses a block at a time is worth its pass, and for how many tokens: learned from what the last
// drafts of this sequence brought, in counts and never in time, so that a text always takes the same passes. The unit of
// cost and gain is the pass that a right token saves. Used by runtime/model_drafter.cc.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace dgrt {

class BlockPolicy {
 public:
  // `row`: what the target pays to look at a drafted token. `network`: what the drafter pays for a pass and, times
  // `network_row`, for each token that it is asked for. All below 1. `mean_run`: right tokens that the first draft is
  // expected to have; half of it counts as gain, until a draft has shown how much it is.
  BlockPolicy(float row, float network, float network_row, float mean_run)
      : row_(row),
        network_(network),
        network_row_(network_row),
        rows_per_right_(-std::log(network * network_row / (1 - row))),
        mean_right_(mean_run),
        mean_gain_(0.5f * mean_run) {}

  // Tokens to ask for, at most `most`: those that are right often enough for their row. Runs of right tokens are taken for
  // geometric with the mean of the last ones.
  int64_t NumRows(int64_t most) const {
    const auto wanted = static_cast<int64_t>(rows_per_right_ * (mean_right_ + 0.5f));
    return std::min(std::max(wanted, kFewestRows), most);
  }

  float Cost(int64_t num_rows) const { return network_ * (1 + network_row_ * static_cast<float>(num_rows)); }

  // Passes that asking now is expected to save, its cost taken off. 0 when it is time to look again whether it would save
  // any; negative when it is not.
  float Offer(int64_t most) const {
    if (wait_tokens_ > 0) return -1;
    return std::max(0.0f, mean_gain_ - Cost(NumRows(most)));
  }

  // A draft is used up or has gone wrong: of num_drafted tokens the first num_right were right. The target looked at
  // num_tried and was saved num_saved passes.
  void Learn(int64_t num_drafted, int64_t num_right, int64_t num_tried, int64_t num_saved) {
    const int64_t run = num_right < num_drafted ? num_right : 2 * num_drafted;  // right to the end: who knows how far
    const float weight = pays_ ? 0.5f : 1.0f;  // what was before a wait says nothing any more
    mean_right_ += weight * (static_cast<float>(run) - mean_right_);
    mean_gain_ += weight * (static_cast<float>(num_saved) - row_ * static_cast<float>(num_tried) - mean_gain_);
    pays_ = mean_gain_ > Cost(num_drafted);
    wait_tokens_ = pays_ ? 0 : next_wait_;
    next_wait_ = pays_ ? std::max(next_wait_ / 2, kFirstWait) : std::min(2 * next_wait_, kLongestWait);
  }

  void Advance(int64_t num_tokens) { wait_tokens_ = std::max<int64_t>(0, wait_tokens_ - num_tokens); }

 private:
  // With fewer, a look could not show that drafts pay again.
  static constexpr int64_t kFewestRows = 4;
  // Tokens between two looks while drafts do not pay. A look costs less than one pass, so the first stays below 3 % of
  // those tokens, and all of them far below.
  static constexpr int64_t kFirstWait = 32, kLongestWait = int64_t{1} << 20;

  const float row_, network_, network_row_, rows_per_right_;
  float mean_right_, mean_gain_;  // of the last drafts, the older the less
  bool pays_ = true;
  int64_t wait_tokens_ = 0, next_wait_ = kFirstWait;
};

}  // namespace dgrt
