// Stage 1, prefill: runs the prompt through the engine in chunks and writes its KV rows. Called by Session::Prefill.
// Chunks are published one by one so that sliding layers hold a window and not the whole prompt; a failure in the
// middle therefore clears the cache.
#include <algorithm>

#include "common/check.h"
#include "runtime/session.h"
#include "runtime/stage_timer.h"

namespace dgrt {
namespace {

// False: cancelled before it began.
bool RunChunk(SessionState& state, std::span<const int32_t> chunk, bool is_last) {
  const int64_t num_rows = static_cast<int64_t>(chunk.size());
  Reservation rows = state.kv.Reserve(num_rows);
  const HeldLane lane = TakeLane(state, num_rows);
  if (!lane) return false;
  {
    StageTimer timer(&state.stats.prefill_ms);
    if (is_last && state.logprobs != nullptr) {
      ScorePrompt(state, chunk);
    } else {
      state.executor->Prefill(chunk, state.kv.kv_len(), state.kv.Views());
    }
  }
  ++state.stats.prefill_passes;
  state.stats.row_tokens += num_rows;
  rows.Publish(num_rows);
  return true;
}

// Room for everything this request can emit, so that no canvas has to grow a vector.
void ReserveOutput(SessionState& state, int64_t prompt_len) {
  const int64_t canvases = MaxCanvases(prompt_len, state.model.canvas_len, state.model.context_len);
  const int64_t by_context = state.is_causal() ? state.model.context_len - prompt_len : canvases * state.model.canvas_len;
  const int64_t wanted = state.options.max_new_tokens;
  const auto most = static_cast<size_t>(wanted > 0 ? std::min(wanted, by_context) : by_context);
  state.tokens.reserve(most);
  if (state.logprobs != nullptr) state.logprobs->tokens.reserve(most);
  state.stats.steps_per_canvas.reserve(static_cast<size_t>(canvases));
}

}  // namespace

void CheckPrompt(std::span<const int32_t> prompt, Guarantee guarantee, const ModelFacts& model) {
  if (prompt.empty()) throw InvalidArgument("the prompt is empty: expected at least one token");
  const int64_t prompt_len = static_cast<int64_t>(prompt.size());
  const bool is_causal = guarantee == Guarantee::kCausal;
  const int64_t needed = is_causal ? 1 : model.canvas_len;  // positions after the prompt
  if (prompt_len + needed > model.context_len) {
    throw InvalidArgument(Message("prompt of ", prompt_len, " tokens leaves no room for one ",
                                  is_causal ? "token" : "canvas", ": expected at most ", model.context_len - needed,
                                  " (context ", model.context_len, ", canvas ", model.canvas_len, ")"));
  }
  RequireTokens("prompt", prompt, model.vocab_size);
}

void PrefillPrompt(SessionState& state, std::span<const int32_t> prompt) {
  if (state.prompt_len > 0) throw InvalidArgument("the session has a prompt already: make a new session");
  CheckPrompt(prompt, state.options.guarantee, state.model);
  const int64_t prompt_len = static_cast<int64_t>(prompt.size());
  // The causal tier predicts from the row of the last token, which its first pass writes.
  const int64_t num_rows = prompt_len - (state.is_causal() ? 1 : 0);
  const int64_t rows_after = std::min(state.model.canvas_len, state.model.context_len - num_rows);
  // Before minutes of work: everything that the first canvas needs.
  ForEachReservation(num_rows, rows_after, [&](int64_t kv_len, int64_t rows) { state.kv.RequireFits(kv_len, rows); });
  ReserveOutput(state, prompt_len);
  try {
    for (int64_t begin = 0; begin < num_rows; begin = PrefillChunkEnd(begin, num_rows)) {
      const int64_t end = PrefillChunkEnd(begin, num_rows);
      const auto chunk = prompt.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
      if (RunChunk(state, chunk, end == num_rows)) continue;
      throw Cancelled(Message("cancelled after ", begin, " of ", prompt_len, " prompt tokens"));
    }
  } catch (...) {
    state.kv.Clear();
    if (state.cancelled.load()) state.finish = FinishReason::kCancelled;
    throw;
  }
  ShowDrafter(state, prompt);
  state.pending_token = prompt.back();
  state.prompt_len = prompt_len;
  state.stats.prompt_tokens = prompt_len;
  state.stats.peak_kv_bytes = state.kv.peak_bytes();
}

}  // namespace dgrt
