// Implementation of model_drafter.h.
#include "runtime/model_drafter.h"

#include <algorithm>
#include <cmath>

#include "common/check.h"
#include "kernels/kernels.h"
#include "runtime/draft_costs.h"
#include "runtime/head.h"

namespace dgrt {

ModelDrafter::ModelDrafter(SessionState& state)
    : state_(state),
      policy_(state.draft_costs.row, state.draft_costs.network, state.draft_costs.network_row,
              state.model.drafter.value().mean_run),
      tokens_(static_cast<size_t>(state.model.drafter->block_len)),
      probability_(tokens_.size()) {}

void ModelDrafter::Append(std::span<const int32_t> tokens) {
  if (tokens.empty()) return;
  anchor_ = tokens.back();
  policy_.Advance(std::ssize(tokens));
  const int64_t right_before = num_right_;
  bool is_wrong = false;
  for (const int32_t token : tokens) {
    if (num_right_ == num_drafted_) break;
    const auto next = static_cast<size_t>(num_right_);
    is_wrong = tokens_[next] != token;
    calibration_.Learn(probability_[next], !is_wrong);
    if (is_wrong) break;
    ++num_right_;
  }
  num_tried_ += num_offered_;
  num_saved_ += std::min(num_right_ - right_before, num_offered_);
  num_offered_ = 0;
  if (is_wrong || num_right_ == num_drafted_) EndDraft();
}

void ModelDrafter::EndDraft() {
  if (num_drafted_ > 0) policy_.Learn(num_drafted_, num_right_, num_tried_, num_saved_);
  num_drafted_ = num_right_ = num_offered_ = num_tried_ = num_saved_ = 0;
}

// The unconfirmed tokens of the last draft.
int64_t ModelDrafter::CopyRest(std::span<int32_t> draft, std::span<float> confidence) const {
  const int64_t count = std::min(num_drafted_ - num_right_, std::ssize(draft));
  float all_right = 1;
  for (int64_t i = 0; i < count; ++i) {
    const auto from = static_cast<size_t>(num_right_ + i), to = static_cast<size_t>(i);
    all_right *= calibration_.Of(probability_[from]);
    draft[to] = tokens_[from];
    confidence[to] = all_right;
  }
  return count;
}

float ModelDrafter::GainOfRest(int64_t most) const {
  const float row = state_.draft_costs.row;
  const int64_t end = std::min(num_drafted_, num_right_ + most);
  float all_right = 1, gain = 0;
  for (int64_t i = num_right_; i < end; ++i) {
    all_right *= calibration_.Of(probability_[static_cast<size_t>(i)]);
    if (all_right < row) break;
    gain += all_right - row;
  }
  return gain;
}

float ModelDrafter::Offer(int64_t most) const {
  const float rest = GainOfRest(most), asked = policy_.Offer(most);
  return rest > 0 ? std::max(rest, asked) : asked;
}

bool ModelDrafter::AsksNetwork(int64_t most) const {
  const float asked = policy_.Offer(most);
  return asked >= 0 && asked >= GainOfRest(most);
}

float ModelDrafter::Cost(int64_t most) const { return AsksNetwork(most) ? policy_.Cost(policy_.NumRows(most)) : 0; }

int64_t ModelDrafter::Draft(std::span<int32_t> draft, std::span<float> confidence) {
  const int64_t most = std::min(std::ssize(draft), std::ssize(tokens_));
  if (!state_.is_causal()) {
    AskNetwork(most, nullptr);
  } else if (AsksNetwork(most)) {
    AskNetwork(policy_.NumRows(most), nullptr);
  }
  const int64_t drafted = CopyRest(draft, confidence);
  num_offered_ = NumWorthTheirRow(confidence.first(static_cast<size_t>(drafted)), state_.draft_costs.row);
  return drafted;
}

int64_t ModelDrafter::Redraft(std::span<const float> evidence, std::span<int32_t> draft, std::span<float> confidence) {
  AskNetwork(std::min(std::ssize(draft), std::ssize(tokens_)), evidence.data());
  return CopyRest(draft, confidence);
}

void ModelDrafter::AskNetwork(int64_t num_rows, const float* evidence) {
  EndDraft();
  // The canvas may be in the middle of its steps, and evidence is of it.
  Canvas& scratch = state_.verification != nullptr ? state_.verification->left_out : state_.canvas;
  // The anchor's own KV row is there in the verified tier and not yet in the causal one; nobody looks at it.
  const int64_t position = state_.prompt_len + std::ssize(state_.tokens) - 1;
  DGRT_CHECK(position >= 0 && position <= state_.kv.kv_len());
  Stats& stats = state_.stats;
  const double waited_before = stats.wait_ms;
  const HeldLane lane = TakeLane(state_, 1 + num_rows);
  stats.draft_ms -= stats.wait_ms - waited_before;  // the timer of draft.cc counts it too
  if (!lane) return;  // the stage that asked will find that out for itself
  float* hidden = scratch.hidden.data();
  state_.executor->Draft(anchor_, position, state_.kv.Views(), evidence, num_rows, hidden);
  ++stats.draft_passes;
  stats.draft_rows += 1 + num_rows;
  const auto where = [&] { return Message("drafter pass at position ", position); };
  RequireFinite({hidden, static_cast<size_t>(num_rows * state_.model.hidden_size)}, "hidden states are", where);
  VocabularyHeadParams params = HeadParams(state_, scratch);
  params.canvas_len = num_rows;
  params.argmax = tokens_.data();
  params.best_log_prob = probability_.data();
  params.entropy = nullptr;
  params.sampled = nullptr;
  LaunchVocabularyHead(params, lane.pool());
  const auto found = std::span(probability_).first(static_cast<size_t>(num_rows));
  RequireFinite(found, "log-probabilities are", where);
  for (float& probability : found) probability = std::exp(probability);
  num_drafted_ = num_rows;
}

}  // namespace dgrt
