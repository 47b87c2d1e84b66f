// Commit speculation: a step packed with what follows if it turns out to be the last one, that is the commit of the
// argmax canvas of the step before and the first step of the next canvas. If the argmax canvas stays as it is, both are
// what the plain loop would compute; if not, they are dropped and nothing has leaked: their KV rows lie behind kv_len and
// their noise is keyed by canvas and step. Called by refine.cc. Tokens never depend on it.
#include <algorithm>

#include "common/check.h"
#include "runtime/head.h"
#include "runtime/session.h"
#include "runtime/stage_timer.h"

namespace dgrt {
namespace {

// On a device where rows cost, speculation must be right nearly always. Measured on mini (README.md beside this file): an
// argmax canvas that has not changed for a step and has this many times the entropy at which it may stop is final in
// nine cases of ten; with more entropy in one of two.
constexpr float kNearlyConfident = 4;

bool PolicyAgrees(const SessionState& state) {
  if (state.options.pipeline == Pipeline::kOn || !state.is_row_bound) return true;
  const Canvas& canvas = state.canvas;
  return canvas.num_equal > 0 && canvas.mean_entropy < kNearlyConfident * state.options.sampler.confidence_threshold;
}

}  // namespace

bool WorthPacking(const SessionState& state, const CanvasPlan& plan) {
  if (state.speculation == nullptr || state.speculation->stage != Speculation::Stage::kNone) return false;
  if (state.canvas.num_steps == 0) return false;                                  // no argmax canvas yet
  if (PlanEmission(state, plan).finish != FinishReason::kNone) return false;      // nothing would follow it
  return PolicyAgrees(state);
}

void PackedStep(SessionState& state, const CanvasPlan& plan, int32_t step) {
  Canvas& canvas = state.canvas;
  Speculation& speculation = *state.speculation;
  Canvas& next = speculation.next;
  std::copy(canvas.argmax.begin(), canvas.argmax.end(), speculation.candidate.begin());
  StartCanvas(state, plan.index + 1, next);
  {
    StageTimer timer(&state.stats.packed_ms);
    const PackedRows rows{.canvas = canvas.tokens, .soft = canvas.soft.data(), .hidden = canvas.hidden.data(),
                          .candidate = speculation.candidate,
                          .next = next.tokens, .next_soft = next.soft.data(), .next_hidden = next.hidden.data()};
    state.executor->Packed(rows, plan.kv_len, state.kv.Views(), state.kv.ViewsAfter(plan.num_rows));
  }
  ++state.stats.packed_passes;
  state.stats.row_tokens += 3 * state.model.canvas_len;
  UpdateCanvas(state, plan.index, step, canvas);
  if (canvas.argmax != speculation.candidate) return;
  // A next canvas that cannot go on must not stop this one: the plain loop would commit it first.
  if (!AllFinite({next.hidden.data(), next.hidden.size()})) return;
  UpdateCanvas(state, plan.index + 1, state.options.sampler.max_denoising_steps, next);
  speculation.stage = Speculation::Stage::kRight;
}

void CheckSpeculation(SessionState& state) {
  Speculation* speculation = state.speculation.get();
  if (speculation == nullptr || speculation->stage != Speculation::Stage::kRight) return;
  if (state.canvas.argmax != speculation->candidate) speculation->stage = Speculation::Stage::kNone;
}

bool AdoptNextCanvas(SessionState& state) {
  if (state.speculation == nullptr) return false;
  const bool committed = state.speculation->stage == Speculation::Stage::kCommitted;
  state.speculation->stage = Speculation::Stage::kNone;
  if (!committed || state.has_start_canvas) return false;  // a start canvas was given since
  std::swap(state.canvas, state.speculation->next);
  return true;
}

}  // namespace dgrt
