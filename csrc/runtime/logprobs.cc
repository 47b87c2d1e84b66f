// What the causal pass thinks of what refinement wrote: the log-probability of each committed token, given all tokens
// before it. Costs the hidden states of the commit pass and one vocabulary head per canvas; the last canvas of a request,
// which is not committed otherwise, costs a pass as well. Called by prefill.cc and commit.cc.
#include <algorithm>

#include "kernels/kernels.h"
#include "runtime/head.h"
#include "runtime/session.h"
#include "runtime/stage_timer.h"

namespace dgrt {

void ScorePrompt(SessionState& state, std::span<const int32_t> chunk) {
  AlignedBuffer<float>& hidden = state.logprobs->hidden;
  const auto width = static_cast<size_t>(state.model.hidden_size);
  state.executor->Score(chunk, state.kv.kv_len(), state.kv.Views(), hidden.data());
  const std::span<const float> last(hidden.data() + (chunk.size() - 1) * width, width);
  RequireFinite(last, "hidden states are", [] { return std::string("causal pass over the prompt"); });
  std::copy(last.begin(), last.end(), hidden.begin());
}

void PredictBehind(SessionState& state, const CanvasPlan& plan, std::span<const int32_t> tokens) {
  const auto width = static_cast<size_t>(state.model.hidden_size);
  float* hidden = state.logprobs->hidden.data();
  // Row i holds the prediction of token i: behind the row of the token in front of the canvas come the canvas's own.
  state.executor->Score(tokens, plan.kv_len, state.kv.Views(), hidden + width);
  const auto where = [&] { return Message("canvas ", plan.index, ", causal pass"); };
  RequireFinite({hidden, (tokens.size() + 1) * width}, "hidden states are", where);
}

void ScoreCanvas(SessionState& state, const HeldLane& lane, const CanvasPlan& plan) {
  Logprobs& out = *state.logprobs;
  {
    StageTimer timer(&state.stats.commit_ms);
    PredictBehind(state, plan, state.canvas.argmax);
  }
  if (!state.options.logprobs) return;
  const auto where = [&] { return Message("canvas ", plan.index, ", causal pass"); };
  StageTimer timer(&state.stats.head_ms);
  VocabularyHeadParams params = HeadParams(state, state.canvas);
  params.hidden = out.hidden.data();
  params.canvas_len = state.model.canvas_len;
  params.argmax = params.sampled = nullptr;  // the canvas is finished: nothing of it may change
  params.entropy = nullptr;
  params.scored = state.canvas.argmax.data();
  params.log_prob = out.canvas.data();
  LaunchVocabularyHead(params, lane.pool());
  RequireFinite(out.canvas, "log-probabilities are", where);
}

void PublishLogprobs(SessionState& state, int64_t num_tokens) noexcept {
  Logprobs& out = *state.logprobs;
  if (state.options.logprobs) {  // room: prefill.cc
    out.tokens.insert(out.tokens.end(), out.canvas.begin(), out.canvas.begin() + num_tokens);
  }
  const int64_t width = state.model.hidden_size;
  std::copy_n(out.hidden.begin() + state.model.canvas_len * width, width, out.hidden.begin());
}

}  // namespace dgrt
