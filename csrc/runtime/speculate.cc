// Commit speculation: a step packed with what follows if it turns out to be the last one, that is the commit of the
// argmax canvas of the step before and the first step of the next canvas. If the argmax canvas stays as it is, both are
// what the plain loop would compute; if not, they are dropped and nothing has leaked: their KV rows lie behind kv_len and
// their noise is keyed by canvas and step. Called by refine.cc. Tokens never depend on it, unless canvases overlap: then
// the next canvas takes a step in each of these passes, and is kept while it may still be of use (overlap.cc).
#include <algorithm>

#include "common/check.h"
#include "runtime/session.h"
#include "runtime/stage_timer.h"

namespace dgrt {
namespace {

using Stage = Speculation::Stage;

// What the newest argmax canvas makes of that which was computed ahead.
Stage Outlook(const SessionState& state) {
  const Speculation& speculation = *state.speculation;
  if (state.canvas.argmax == speculation.candidate) return Stage::kRight;
  return speculation.overlap != nullptr && IsWorthKeeping(state) ? Stage::kBegun : Stage::kNone;
}

void RunPackedPass(SessionState& state, const CanvasPlan& plan) {
  Canvas& canvas = state.canvas;
  Canvas& next = state.speculation->next;
  {
    StageTimer timer(&state.stats.packed_ms);
    const PackedRows rows{.canvas = canvas.tokens, .soft = canvas.soft.data(), .hidden = canvas.hidden.data(),
                          .candidate = state.speculation->candidate,
                          .next = next.tokens, .next_soft = next.soft.data(), .next_hidden = next.hidden.data()};
    state.executor->Packed(rows, plan.kv_len, state.kv.Views(), state.kv.ViewsAfter(plan.num_rows));
  }
  ++state.stats.packed_passes;
  state.stats.row_tokens += 3 * state.model.canvas_len;
}

}  // namespace

Speculation::Speculation(const ModelFacts& model, const GenerateOptions& options)
    : next(model),
      candidate(static_cast<size_t>(model.canvas_len), model.pad_token_id),
      overlap(Overlaps(options) ? std::make_unique<Overlap>(model) : nullptr) {}

bool WorthPacking(const SessionState& state, const CanvasPlan& plan) {
  if (state.speculation == nullptr || state.canvas.num_steps == 0) return false;  // no argmax canvas yet
  const bool is_begun = state.speculation->stage != Stage::kNone;
  const bool overlaps = state.speculation->overlap != nullptr;
  if (overlaps ? !is_begun && !IsSettled(state) : is_begun) return false;
  return PlanEmission(state, plan).finish == FinishReason::kNone;                 // else nothing would follow it
}

bool PackedStep(SessionState& state, const CanvasPlan& plan, int32_t step) {
  const HeldLane lane = TakeLane(state, 3 * state.model.canvas_len);
  if (!lane) return false;
  Canvas& canvas = state.canvas;
  Speculation& speculation = *state.speculation;
  Canvas& next = speculation.next;
  std::copy(canvas.argmax.begin(), canvas.argmax.end(), speculation.candidate.begin());
  if (speculation.stage == Stage::kNone) BeginNextCanvas(state, plan);
  RunPackedPass(state, plan);
  UpdateCanvas(state, lane, plan.index, step, canvas);
  speculation.stage = Stage::kNone;
  const Stage outlook = Outlook(state);
  if (outlook == Stage::kNone) return true;
  try {
    UpdateCanvas(state, lane, plan.index + 1, state.options.sampler.max_denoising_steps - next.num_steps, next);
  } catch (const DeviceError&) {
    return true;  // a next canvas that is not finite must not stop this one: the plain loop commits it first
  }
  if (speculation.overlap != nullptr) FinishStepAhead(next);
  speculation.stage = outlook;
  return true;
}

void CheckSpeculation(SessionState& state) {
  Speculation* speculation = state.speculation.get();
  if (speculation == nullptr || speculation->stage == Stage::kNone) return;
  speculation->stage = Outlook(state);
}

bool AdoptNextCanvas(SessionState& state) {
  if (state.speculation == nullptr) return false;
  const bool committed = state.speculation->stage == Stage::kCommitted;
  state.speculation->stage = Stage::kNone;
  if (!committed || state.has_start_canvas) return false;  // a start canvas was given since
  std::swap(state.canvas, state.speculation->next);
  return true;
}

}  // namespace dgrt
