// The table of contents: one canvas from plan to commit, and the loop around it. Each line is a stage with a file of
// its own; nothing clever happens here. If a stage throws, the reservation gives its rows back and committed tokens
// and KV length are as they were.
#include <utility>

#include "common/check.h"
#include "runtime/invariants.h"
#include "runtime/session.h"
#include "runtime/stage_timer.h"

namespace dgrt {
namespace {

CanvasPlan PlanCanvas(const SessionState& state) {
  return {state.canvas_index, state.kv.kv_len(), state.model.canvas_len};
}

}  // namespace

void CheckInvariants([[maybe_unused]] const SessionState& state) {
#ifndef NDEBUG
  const SessionSnapshot snapshot{state.is_causal(), state.prompt_len, state.model.canvas_len, state.model.context_len,
                                 state.kv.kv_len(), static_cast<int64_t>(state.tokens.size()), state.stats.canvases,
                                 state.finish};
  for (const std::string& broken : {BrokenSessionInvariant(snapshot), BrokenKvInvariant(state.kv.Snapshot())}) {
    if (!broken.empty()) throw InternalError("broken invariant: " + broken);
  }
#endif
}

std::span<const int32_t> RunCanvas(SessionState& state, GenerateSink* sink) {
  if (state.finish != FinishReason::kNone) return {};
  if (state.prompt_len == 0) throw InvalidArgument("the session has no prompt: call Prefill first");
  StageTimer timer(&state.stats.total_ms);

  const CanvasPlan plan = PlanCanvas(state);                       // numbers only
  Reservation rows = state.kv.Reserve(plan.num_rows);              // all or nothing
  state.stats.peak_kv_bytes = state.kv.peak_bytes();
  Verdict verdict = VerifyDraft(state, plan);                      // verified tier: a draft, if one is worth it
  while (verdict != Verdict::kCommit) {
    const bool is_done = verdict != Verdict::kCancelled && Refine(state, plan, sink) == RefineOutcome::kDone;
    verdict = is_done ? ConfirmRefined(state, plan) : Verdict::kCancelled;  // of a draft; kDiscard: once more, from noise
    if (verdict == Verdict::kCancelled) {
      state.finish = FinishReason::kCancelled;
      return {};
    }
  }
  const Emission emission = PlanEmission(state, plan);             // what is emitted, and whether it ends here
  const auto emitted = Commit(state, plan, std::move(rows), emission, sink);
  CheckInvariants(state);
  return emitted;
}

void Generate(Session& session, std::span<const int32_t> prompt, GenerateSink* sink) {
  session.Prefill(prompt);
  while (session.finish_reason() == FinishReason::kNone) session.NextCanvas(sink);
}

}  // namespace dgrt
