// Drafter kOverlap (verified tier): the next canvas begins while the tail of this one is still settling. In each packed
// pass it takes a step of its own, behind the argmax canvas of the step before. If that canvas changes afterwards, its KV
// rows are wrong and the next canvas stood behind a text that will not be committed; it is a draft all the same, and kept
// as one: once this canvas is committed, refinement goes on where the next one stands, from the committed text, and may
// not stop before it has done a step behind that. Called by speculate.cc, which has the passes, and refine.cc.
#include <algorithm>
#include <utility>

#include "common/check.h"
#include "runtime/session.h"

namespace dgrt {
namespace {

int64_t NumDifferent(std::span<const int32_t> a, std::span<const int32_t> b) {
  int64_t different = 0;
  for (size_t i = 0; i < a.size(); ++i) different += a[i] != b[i];
  return different;
}

// What UpdateCanvas and StartCanvas do not write anew. The next canvas begins again before it is used again, so its buffers
// may go.
void TakeOver(Overlap& overlap, Canvas& next, int32_t index) noexcept {
  overlap.canvas_index = index;
  overlap.num_steps = next.num_steps;
  std::swap(overlap.tokens, next.tokens);
  std::swap(overlap.argmax, next.argmax);
  std::swap(overlap.previous_argmax, next.previous_argmax);
  std::swap(overlap.soft, next.soft);
}

}  // namespace

Overlap::Overlap(const ModelFacts& model)
    : soft(static_cast<size_t>(model.canvas_len) * static_cast<size_t>(model.hidden_size)) {
  for (std::vector<int32_t>* row : {&began_behind, &tokens, &argmax, &previous_argmax}) {
    row->assign(static_cast<size_t>(model.canvas_len), model.pad_token_id);
  }
}

bool IsSettled(const SessionState& state) {
  const Canvas& canvas = state.canvas;
  if (canvas.num_steps < 2) return false;  // the noise that a canvas begins with is no argmax canvas
  const int64_t same = state.model.canvas_len - NumDifferent(canvas.argmax, canvas.previous_argmax);
  return static_cast<float>(same) >= state.options.overlap.min_settled * static_cast<float>(state.model.canvas_len);
}

void BeginNextCanvas(SessionState& state, const CanvasPlan& plan) {
  Speculation& speculation = *state.speculation;
  StartCanvas(state, plan.index + 1, speculation.next);
  if (speculation.overlap == nullptr) return;
  std::copy(state.canvas.argmax.begin(), state.canvas.argmax.end(), speculation.overlap->began_behind.begin());
  ++state.stats.draft_calls;
}

bool IsWorthKeeping(const SessionState& state) {
  return NumDifferent(state.canvas.argmax, state.speculation->overlap->began_behind) <= state.options.overlap.max_changed;
}

void FinishStepAhead(Canvas& next) {
  ++next.num_steps;
  std::swap(next.tokens, next.next_tokens);
  std::swap(next.soft, next.next_soft);
}

int32_t ResumeOverlapped(SessionState& state, const CanvasPlan& plan) {
  Speculation* speculation = state.speculation.get();
  if (speculation == nullptr || speculation->overlap == nullptr) return 0;
  Overlap& overlap = *speculation->overlap;
  // What this canvas computed ahead before it failed is forgotten: it stood in KV rows that were given back.
  const bool is_begun = std::exchange(speculation->stage, Speculation::Stage::kNone) == Speculation::Stage::kCommitted;
  if (is_begun) TakeOver(overlap, speculation->next, plan.index);
  if (overlap.canvas_index != plan.index || state.has_start_canvas) return 0;
  // It began when this one had done two steps already, so of the schedule at least that many are left.
  DGRT_CHECK(overlap.num_steps < state.options.sampler.max_denoising_steps);
  Canvas& canvas = state.canvas;
  std::copy(overlap.tokens.begin(), overlap.tokens.end(), canvas.tokens.begin());
  std::copy(overlap.argmax.begin(), overlap.argmax.end(), canvas.argmax.begin());
  std::copy(overlap.previous_argmax.begin(), overlap.previous_argmax.end(), canvas.previous_argmax.begin());
  std::copy(overlap.soft.begin(), overlap.soft.end(), canvas.soft.begin());
  canvas.num_steps = overlap.num_steps;
  canvas.num_equal = 0;  // the stop rule counts steps behind the committed text
  return overlap.num_steps;
}

void ForgetWhatIsAhead(SessionState& state) noexcept {
  if (state.speculation == nullptr) return;
  state.speculation->stage = Speculation::Stage::kNone;
  if (state.speculation->overlap != nullptr) state.speculation->overlap->canvas_index = -1;
}

}  // namespace dgrt
