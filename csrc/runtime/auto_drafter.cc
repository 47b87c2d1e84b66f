// Implementation of auto_drafter.h.
#include "runtime/auto_drafter.h"

#include <algorithm>
#include <numeric>

#include "runtime/draft_costs.h"

namespace dgrt {
namespace {

// What drafts may cost a text that they do not help, as a share of the passes that it takes without them. A first look is
// allowed from the start, or a short text would never have a draft; at the network's draft if that costs no more than a
// share of the passes that its first drafts save on texts it has not seen.
constexpr float kMostSpent = 0.03f, kFirstLook = 0.8f, kShareOfRun = 0.2f;
// The network is not asked if no more than its own pass could be paid.
constexpr float kFewestTried = 2;
// A copy is free and its chances are those of this very place; what the network offers is the mean of other places. So it
// is asked only where a copy promises less than this.
constexpr float kEnoughCopied = 2;

}  // namespace

AutoDrafter::AutoDrafter(SessionState& state, std::span<const int32_t> expected)
    : state_(state), suffix_(expected), first_look_(kFirstLook), offered_(static_cast<size_t>(state.model.canvas_len)) {
  if (!state.model.drafter) return;
  model_.emplace(state);
  const float first_draft = model_->Cost(state.model.drafter->block_len) + kFewestTried * state.draft_costs.row;
  if (first_draft <= kShareOfRun * state.model.drafter->mean_run) first_look_ = std::max(first_look_, first_draft);
}

void AutoDrafter::Append(std::span<const int32_t> tokens) {
  suffix_.Append(tokens);
  if (model_) model_->Append(tokens);
  const auto end = offered_.begin() + std::min(num_offered_, std::ssize(tokens));
  const int64_t num_saved = std::mismatch(offered_.begin(), end, tokens.begin()).first - offered_.begin();
  balance_ += static_cast<float>(num_saved) - state_.draft_costs.row * static_cast<float>(num_offered_);
  num_offered_ = 0;
}

int64_t AutoDrafter::Draft(std::span<int32_t> draft, std::span<float> confidence) {
  return state_.is_causal() ? DraftTokens(draft, confidence) : DraftCanvas(draft, confidence);
}

// Without a drafter each token of the turn so far would have been a pass.
float AutoDrafter::Allowance() const {
  return balance_ + std::max(first_look_, kMostSpent * static_cast<float>(state_.tokens.size()));
}

int64_t AutoDrafter::DraftTokens(std::span<int32_t> draft, std::span<float> confidence) {
  const float row = state_.draft_costs.row;
  const int64_t most = std::ssize(draft);
  int64_t drafted = suffix_.Draft(draft, confidence);
  const float copied = GainOf(confidence.first(static_cast<size_t>(drafted)), row);
  if (model_ && copied < kEnoughCopied && model_->Offer(most) >= copied) {
    const float cost = model_->Cost(most);
    if (cost + kFewestTried * row <= Allowance()) {
      drafted = model_->Draft(draft, confidence);
      balance_ -= cost;
    }
  }
  const int64_t worth = NumWorthTheirRow(confidence.first(static_cast<size_t>(drafted)), row);
  num_offered_ = std::min(worth, static_cast<int64_t>(std::max(0.0f, Allowance()) / row));
  std::copy_n(draft.begin(), num_offered_, offered_.begin());
  return num_offered_;
}

int64_t AutoDrafter::DraftCanvas(std::span<int32_t> draft, std::span<float> confidence) {
  const int64_t drafted = suffix_.Draft(draft, confidence);
  const float expected_right = std::accumulate(confidence.begin(), confidence.begin() + drafted, 0.0f);
  const bool is_enough = expected_right >= state_.options.verify.min_confirmed * static_cast<float>(draft.size());
  return is_enough || !MayAskForCanvas() ? drafted : model_->Draft(draft, confidence);
}

// A draft that was of use has saved at least one pass.
bool AutoDrafter::MayAskForCanvas() const {
  if (!model_) return false;
  const Stats& stats = state_.stats;
  const int64_t len = state_.model.canvas_len, block = state_.model.drafter->block_len;
  const auto asked = state_.is_row_bound
                         ? static_cast<double>(stats.draft_rows + 1 + block) / static_cast<double>(len)
                         : static_cast<double>(stats.draft_passes + 1);
  const auto passes = static_cast<double>(stats.denoise_passes + stats.commit_passes + stats.verify_passes);
  const auto saved = static_cast<double>(stats.draft_commits + stats.draft_refines);
  return static_cast<double>(state_.draft_costs.network) * asked <= static_cast<double>(kMostSpent) * passes + saved;
}

}  // namespace dgrt
