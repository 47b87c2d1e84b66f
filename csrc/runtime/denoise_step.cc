// One denoise step: a decoder forward, the vocabulary head, acceptance, renoise. Called by refine.cc; the second half also
// by speculate.cc. Takes tokens and soft of a canvas, leaves the outcome in argmax, entropy, sampled, accepted,
// next_tokens and next_soft.
#include "common/check.h"
#include "kernels/kernels.h"
#include "runtime/head.h"
#include "runtime/noise.h"
#include "runtime/session.h"
#include "runtime/stage_timer.h"

namespace dgrt {
namespace {

void RunHead(SessionState& state, ThreadPool& pool, int32_t index, int32_t step, Canvas& canvas) {
  const SamplerOptions& sampler = state.options.sampler;
  DrawUniforms(state.noise_key(index, step), canvas.uniform);
  VocabularyHeadParams params = HeadParams(state, canvas);
  params.canvas_len = state.model.canvas_len;
  params.temperature = TemperatureOfStep(sampler.t_min, sampler.t_max, step, sampler.max_denoising_steps);
  params.soft = step > 1 ? canvas.next_soft.data() : nullptr;  // nothing follows step 1
  LaunchVocabularyHead(params, pool);
}

}  // namespace

bool DenoiseStep(SessionState& state, const CanvasPlan& plan, int32_t step) {
  const HeldLane lane = TakeLane(state, state.model.canvas_len);
  if (!lane) return false;
  Canvas& canvas = state.canvas;
  {
    StageTimer timer(&state.stats.denoise_ms);
    state.executor->Denoise(canvas.tokens, plan.kv_len, state.kv.Views(), canvas.soft.data(), canvas.hidden.data());
  }
  ++state.stats.denoise_passes;
  state.stats.row_tokens += state.model.canvas_len;
  UpdateCanvas(state, lane, plan.index, step, canvas);
  return true;
}

void UpdateCanvas(SessionState& state, const HeldLane& lane, int32_t index, int32_t step, Canvas& canvas) {
  const auto where = [&] { return Message("canvas ", index, ", denoise step ", step); };
  RequireFinite({canvas.hidden.data(), canvas.hidden.size()}, "hidden states are", where);
  StageTimer timer(&state.stats.head_ms);
  std::swap(canvas.argmax, canvas.previous_argmax);
  RunHead(state, lane.pool(), index, step, canvas);
  RequireFinite(canvas.entropy, "entropies are", where);
  AcceptByEntropy(canvas.entropy, state.options.sampler.entropy_bound, canvas.accepted);
  Renoise(state.noise_key(index, step), state.model.vocab_size, {}, canvas.accepted, canvas.sampled, canvas.next_tokens);
}

}  // namespace dgrt
