// Stage 3, refine: the loop of denoise steps on one canvas and its stop rule. Called by generate.cc. Writes the canvas
// only: tokens and KV length are not its business.
#include <algorithm>
#include <utility>

#include "runtime/head.h"
#include "runtime/noise.h"
#include "runtime/session.h"

namespace dgrt {
namespace {

// Stable: the argmax canvases of the `stability_threshold` steps before equal this one's (a run of equal canvases says
// the same as keeping them all; the starting canvas does not count). Confident: mean entropy below the threshold.
bool StopRuleHolds(Canvas& canvas, const SamplerOptions& sampler) {
  const bool equal = canvas.num_steps > 1 && canvas.argmax == canvas.previous_argmax;
  canvas.num_equal = equal ? canvas.num_equal + 1 : 0;
  return canvas.num_equal >= sampler.stability_threshold && MeanEntropy(canvas.entropy) < sampler.confidence_threshold;
}

// Whether a packed check has done the step.
bool TakePlainStep(SessionState& state) {
  return state.verification != nullptr && std::exchange(state.verification->has_plain_step, false);
}

// False: cancelled before it began.
bool RunStep(SessionState& state, const CanvasPlan& plan, int32_t step) {
  if (WorthPacking(state, plan)) return PackedStep(state, plan, step);
  if (!DenoiseStep(state, plan, step)) return false;
  CheckSpeculation(state);
  return true;
}

StepView ViewOfStep(const SessionState& state, const CanvasPlan& plan, int32_t step, bool stopped) {
  const Canvas& canvas = state.canvas;
  const SamplerOptions& sampler = state.options.sampler;
  StepView view;
  view.canvas_index = plan.index;
  view.step = step;
  view.temperature = TemperatureOfStep(sampler.t_min, sampler.t_max, step, sampler.max_denoising_steps);
  view.kv_len = plan.kv_len;
  view.canvas_in = canvas.tokens;
  view.soft_in = {canvas.soft.data(), canvas.soft.size()};
  view.argmax = canvas.argmax;
  view.entropy = canvas.entropy;
  view.sampled = canvas.sampled;
  view.accepted = canvas.accepted;
  view.canvas_out = canvas.next_tokens;
  if (step > 1 && !stopped) view.soft_out = {canvas.next_soft.data(), canvas.next_soft.size()};
  view.stopped = stopped;
  return view;
}

}  // namespace

void StartCanvas(const SessionState& state, int32_t index, Canvas& canvas) {
  DrawInitialCanvas(state.noise_key(index, 0), state.model.vocab_size, {}, canvas.tokens);
  std::copy(canvas.tokens.begin(), canvas.tokens.end(), canvas.argmax.begin());
  std::fill(canvas.soft.begin(), canvas.soft.end(), 0.0f);
  canvas.num_steps = 0;
  canvas.num_equal = 0;
}

RefineOutcome Refine(SessionState& state, const CanvasPlan& plan, GenerateSink* sink) {
  Canvas& canvas = state.canvas;
  if (state.cancelled.load()) return RefineOutcome::kCancelled;  // before anything is started or adopted
  const Verdict verdict = state.verification != nullptr ? state.verification->verdict : Verdict::kNone;
  const bool was_refused = verdict == Verdict::kRefine;  // the first step was a check, and said that this is not the end
  const int32_t num_ahead = ResumeOverlapped(state, plan);
  bool has_step = was_refused || TakePlainStep(state) || AdoptNextCanvas(state);
  if (!has_step && num_ahead == 0 && verdict != Verdict::kWarmStart) StartCanvas(state, plan.index, canvas);
  if (state.has_start_canvas) canvas.tokens = canvas.argmax = state.start_canvas;
  for (int32_t step = state.options.sampler.max_denoising_steps - num_ahead; step >= 1; --step) {
    if (state.cancelled.load()) return RefineOutcome::kCancelled;
    if (!has_step && canvas.num_steps > 0) {
      const Verdict redraft = VerifyRedraft(state, plan, step);
      if (redraft == Verdict::kCancelled) return RefineOutcome::kCancelled;
      if (redraft == Verdict::kCommit) return RefineOutcome::kDone;
      has_step = TakePlainStep(state);
    }
    if (!std::exchange(has_step, false) && !RunStep(state, plan, step)) return RefineOutcome::kCancelled;
    ++canvas.num_steps;
    const bool holds = StopRuleHolds(canvas, state.options.sampler);
    const bool stopped = holds && !(was_refused && canvas.num_steps == 1);
    if (sink != nullptr && sink->WantsSteps()) {
      GiveLaneBack(state);
      sink->OnStep(ViewOfStep(state, plan, step, stopped));
    }
    if (stopped) break;
    std::swap(canvas.tokens, canvas.next_tokens);
    std::swap(canvas.soft, canvas.next_soft);
  }
  return RefineOutcome::kDone;
}

}  // namespace dgrt
