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
  const int64_t width = state.model.hidden_size;
  AlignedBuffer<float> hidden(chunk.size() * static_cast<size_t>(width));
  state.executor->Score(chunk, state.kv.kv_len(), state.kv.Views(), hidden.data());
  std::copy(hidden.end() - width, hidden.end(), state.logprobs->hidden.begin());
}

void ScoreCanvas(SessionState& state, const CanvasPlan& plan) {
  Canvas& canvas = state.canvas;
  Logprobs& out = *state.logprobs;
  const int64_t width = state.model.hidden_size, length = state.model.canvas_len;
  {
    StageTimer timer(&state.stats.commit_ms);
    // Row i holds the prediction of token i: behind the row of the token in front of the canvas come the canvas's own.
    state.executor->Score(canvas.argmax, plan.kv_len, state.kv.Views(), out.hidden.data() + width);
  }
  const auto where = [&] { return Message("canvas ", plan.index, ", causal pass"); };
  RequireFinite({out.hidden.data(), out.hidden.size()}, "hidden states are", where);
  StageTimer timer(&state.stats.head_ms);
  std::fill(canvas.uniform.begin(), canvas.uniform.end(), 0.0);  // nothing is sampled
  VocabularyHeadParams params = HeadParams(state, canvas);
  params.hidden = out.hidden.data();
  params.canvas_len = length;
  params.argmax = canvas.previous_argmax.data();  // the argmax canvas is what is being committed
  params.scored = canvas.argmax.data();
  params.log_prob = out.canvas.data();
  LaunchVocabularyHead(params, state.pool);
}

void PublishLogprobs(SessionState& state, int64_t num_tokens) noexcept {
  Logprobs& out = *state.logprobs;
  out.tokens.insert(out.tokens.end(), out.canvas.begin(), out.canvas.begin() + num_tokens);  // room: prefill.cc
  std::copy(out.hidden.end() - state.model.hidden_size, out.hidden.end(), out.hidden.begin());
}

}  // namespace dgrt
