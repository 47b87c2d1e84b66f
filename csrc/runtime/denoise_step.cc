// One denoise step: a decoder forward, the vocabulary head, acceptance, renoise. Called by refine.cc. Takes
// canvas.tokens and canvas.soft, leaves the outcome in argmax, entropy, sampled, accepted, next_tokens and next_soft.
#include <bit>
#include <cmath>

#include "common/check.h"
#include "kernels/kernels.h"
#include "runtime/noise.h"
#include "runtime/session.h"
#include "runtime/stage_timer.h"

namespace dgrt {
namespace {

// All exponent bits set means infinite or NaN. Integers, because compilers may not reorder a sum of floats.
bool AllFinite(std::span<const float> numbers) {
  constexpr uint32_t kExponent = 0x7f800000u;
  uint32_t found = 0;
  for (const float x : numbers) found |= static_cast<uint32_t>((std::bit_cast<uint32_t>(x) & kExponent) == kExponent);
  return found == 0;
}

void RequireFinite(std::span<const float> numbers, const char* what, const CanvasPlan& plan, int32_t step) {
  if (AllFinite(numbers)) return;
  throw DeviceError(Message("canvas ", plan.index, ", denoise step ", step, ": ", what, " not finite"));
}

void Forward(SessionState& state, const CanvasPlan& plan, int32_t step) {
  Canvas& canvas = state.canvas;
  {
    StageTimer timer(&state.stats.denoise_ms);
    state.executor->Denoise(canvas.tokens, plan.kv_len, state.kv.Views(), canvas.soft.data(), canvas.hidden.data());
  }
  ++state.stats.denoise_passes;
  state.stats.row_tokens += state.model.canvas_len;
  RequireFinite({canvas.hidden.data(), canvas.hidden.size()}, "hidden states are", plan, step);
}

void RunHead(SessionState& state, const CanvasPlan& plan, int32_t step) {
  Canvas& canvas = state.canvas;
  const SamplerOptions& sampler = state.options.sampler;
  DrawUniforms(state.noise_key(plan.index, step), canvas.uniform);
  VocabularyHeadParams params;
  params.hidden = canvas.hidden.data();
  params.table = state.table;
  params.canvas_len = state.model.canvas_len;
  params.softcap = state.model.final_logit_softcap;
  params.temperature = TemperatureOfStep(sampler.t_min, sampler.t_max, step, sampler.max_denoising_steps);
  params.embed_scale = std::sqrt(static_cast<float>(state.model.hidden_size));
  params.uniform = canvas.uniform.data();
  params.argmax = canvas.argmax.data();
  params.entropy = canvas.entropy.data();
  params.sampled = canvas.sampled.data();
  params.soft = step > 1 ? canvas.next_soft.data() : nullptr;  // nothing follows step 1
  params.workspace = canvas.head_workspace.data();
  LaunchVocabularyHead(params, state.pool);
  RequireFinite(canvas.entropy, "entropies are", plan, step);
}

}  // namespace

void DenoiseStep(SessionState& state, const CanvasPlan& plan, int32_t step) {
  Canvas& canvas = state.canvas;
  Forward(state, plan, step);
  StageTimer timer(&state.stats.head_ms);
  std::swap(canvas.argmax, canvas.previous_argmax);
  RunHead(state, plan, step);
  AcceptByEntropy(canvas.entropy, state.options.sampler.entropy_bound, canvas.accepted);
  Renoise(state.noise_key(plan.index, step), state.model.vocab_size, {}, canvas.accepted, canvas.sampled,
          canvas.next_tokens);
}

}  // namespace dgrt
