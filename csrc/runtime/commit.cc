// Stage 4, commit: the only irreversible act on a sequence. Called by generate.cc with a finished canvas. Everything
// that can fail (engine pass, sink) comes before the first change; what follows cannot throw.
#include <algorithm>

#include "common/check.h"
#include "runtime/session.h"
#include "runtime/stage_timer.h"

namespace dgrt {

Emission PlanEmission(const SessionState& state, const CanvasPlan& plan) {
  const std::vector<int32_t>& canvas = state.canvas.argmax;
  const std::vector<int32_t>& stop_ids = state.options.stop_ids;
  const auto stop = std::find_first_of(canvas.begin(), canvas.end(), stop_ids.begin(), stop_ids.end());
  const bool has_stop = stop != canvas.end();
  const int64_t until_stop = stop - canvas.begin() + (has_stop ? 1 : 0);  // the stop id is emitted
  const int64_t wanted = state.options.max_new_tokens;
  const int64_t left = wanted > 0 ? wanted - static_cast<int64_t>(state.tokens.size()) : until_stop;
  if (has_stop && until_stop <= left) return {until_stop, FinishReason::kStop};
  const bool room = CanvasFits(plan.kv_len + state.model.canvas_len, state.model.canvas_len, state.model.context_len);
  const bool at_limit = wanted > 0 && left <= until_stop;
  return {std::min(until_stop, left), at_limit || !room ? FinishReason::kLength : FinishReason::kNone};
}

namespace {

void RunCommitPass(SessionState& state, const CanvasPlan& plan) {
  const HeldLane lane = TakeLaneToFinish(state, plan.num_rows);
  if (state.logprobs != nullptr) {
    ScoreCanvas(state, lane, plan);
  } else {
    StageTimer timer(&state.stats.commit_ms);
    state.executor->Prefill(state.canvas.argmax, plan.kv_len, state.kv.Views());
  }
  ++state.stats.commit_passes;
  state.stats.row_tokens += state.model.canvas_len;
}

}  // namespace

std::span<const int32_t> Commit(SessionState& state, const CanvasPlan& plan, Reservation rows, const Emission& emission,
                                GenerateSink* sink) {
  const std::span<const int32_t> emitted(state.canvas.argmax.data(), static_cast<size_t>(emission.num_tokens));
  const bool goes_on = emission.finish == FinishReason::kNone;
  Speculation* const speculation = state.speculation.get();
  const bool is_packed = speculation != nullptr && speculation->stage == Speculation::Stage::kRight;
  const Verification* const verification = state.verification.get();
  const bool is_verified = verification != nullptr && verification->is_in_kv;
  const bool is_in_kv = is_packed || is_verified;
  const bool needs_pass = state.options.logprobs || (goes_on && !is_in_kv);  // nobody looks back on the last canvas
  if (needs_pass) RunCommitPass(state, plan);
  FindOrigins(state);
  if (sink != nullptr) {
    GiveLaneBack(state);
    sink->OnCommit(plan.index, emitted, std::span(state.origins).first(emitted.size()));
  }
  DGRT_CHECK(state.tokens.size() + emitted.size() <= state.tokens.capacity());

  if (goes_on) rows.Publish(plan.num_rows);
  if (state.logprobs != nullptr && (needs_pass || is_verified)) PublishLogprobs(state, emission.num_tokens);
  if (goes_on && speculation != nullptr && speculation->stage != Speculation::Stage::kNone) {
    speculation->stage = Speculation::Stage::kCommitted;
  }
  state.stats.packed_commits += is_packed;
  const size_t before = state.tokens.size();
  state.tokens.insert(state.tokens.end(), emitted.begin(), emitted.end());
  ++state.canvas_index;
  state.has_start_canvas = false;
  state.finish = emission.finish;
  state.stats.steps_per_canvas.push_back(state.canvas.num_steps);  // capacity for all was taken in prefill
  ++state.stats.canvases;
  state.stats.tokens += emission.num_tokens;
  LearnFromDraft(state, emission.num_tokens);
  ShowDrafter(state, emitted);
  return std::span<const int32_t>(state.tokens).subspan(before);
}

}  // namespace dgrt
