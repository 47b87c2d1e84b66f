// Stage 1, prefill: runs the prompt through the engine in chunks and writes its KV rows, but for what the prefix cache
// has of it. Called by Session::Prefill, for another turn by Session::Extend.
// Chunks are published one by one so that sliding layers hold a window and not the whole prompt; a failure in the
// middle therefore clears the cache.
#include <algorithm>
#include <utility>

#include "common/check.h"
#include "runtime/session.h"
#include "runtime/stage_timer.h"

namespace dgrt {
namespace {

// Rows that are written for a text. The causal tier predicts from the row of the last token, which its first pass
// writes.
int64_t NumRows(const SessionState& state, std::span<const int32_t> text) {
  return static_cast<int64_t>(text.size()) - (state.is_causal() ? 1 : 0);
}

void CheckRoom(int64_t prompt_len, Guarantee guarantee, const ModelFacts& model) {
  const bool is_causal = guarantee == Guarantee::kCausal;
  const int64_t needed = is_causal ? 1 : model.canvas_len;  // positions after the prompt
  if (prompt_len + needed > model.context_len) {
    throw InvalidArgument(Message("prompt of ", prompt_len, " tokens leaves no room for one ",
                                  is_causal ? "token" : "canvas", ": expected at most ", model.context_len - needed,
                                  " (context ", model.context_len, ", canvas ", model.canvas_len, ")"));
  }
}

// The rows of text[begin, end), behind those that are there. `keep`: they are a prompt's, from its start on.
void RunChunk(SessionState& state, std::span<const int32_t> text, int64_t begin, int64_t end, bool keep) {
  const int64_t num_rows = end - begin;
  const auto chunk = text.subspan(static_cast<size_t>(begin), static_cast<size_t>(num_rows));
  const bool scores = end == NumRows(state, text) && state.logprobs != nullptr;
  Reservation rows = state.kv.Reserve(num_rows);
  const HeldLane lane = TakeLane(state, num_rows);
  if (!lane) throw Cancelled(Message("cancelled after ", begin, " of ", text.size(), " prompt tokens"));
  {
    StageTimer timer(&state.stats.prefill_ms);
    if (scores) {
      ScorePrompt(state, chunk);
    } else {
      state.executor->Prefill(chunk, state.kv.kv_len(), state.kv.Views());
    }
  }
  ++state.stats.prefill_passes;
  state.stats.row_tokens += num_rows;
  // Rows of the score graph are not kept: nothing promises that they have the bits of the prefill graph's.
  if (keep && !scores) KeepPrefix(state, text.first(static_cast<size_t>(end)));
  rows.Publish(num_rows);
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
  CheckRoom(static_cast<int64_t>(prompt.size()), guarantee, model);
  RequireTokens("prompt", prompt, model.vocab_size);
}

void PrefillPrompt(SessionState& state, std::span<const int32_t> prompt) {
  if (state.prompt_len > 0) throw InvalidArgument("the session has a prompt already: make a new session");
  CheckPrompt(prompt, state.options.guarantee, state.model);
  const int64_t prompt_len = static_cast<int64_t>(prompt.size());
  const int64_t num_rows = NumRows(state, prompt);
  const int64_t rows_after = std::min(state.model.canvas_len, state.model.context_len - num_rows);
  // Before minutes of work: everything that the first canvas needs.
  ForEachReservation(num_rows, rows_after, [&](int64_t kv_len, int64_t rows) { state.kv.RequireFits(kv_len, rows); });
  ReserveOutput(state, prompt_len);
  try {
    int64_t begin = ResumeFromPrefix(state, prompt, num_rows);
    for (; begin < num_rows; begin = PrefillChunkEnd(begin, num_rows)) {
      RunChunk(state, prompt, begin, PrefillChunkEnd(begin, num_rows), true);
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

void ExtendPrompt(SessionState& state, std::span<const int32_t> tokens) {
  if (state.finish != FinishReason::kStop && state.finish != FinishReason::kLength) {
    throw InvalidArgument(Message("extend: expected a session that has ended with stop or length, found ",
                                  state.finish == FinishReason::kNone ? "one that goes on" : "a cancelled one"));
  }
  RequireTokens("tokens", tokens, state.model.vocab_size);
  const int64_t kv_len = state.kv.kv_len();
  // What was emitted last is not in KV: the canvas that ended the turn, or the causal tier's pending token.
  std::vector<int32_t> text(state.tokens.begin() + (kv_len - state.prompt_len), state.tokens.end());
  text.insert(text.end(), tokens.begin(), tokens.end());
  const int64_t prompt_len = kv_len + static_cast<int64_t>(text.size());
  CheckRoom(prompt_len, state.options.guarantee, state.model);
  const int64_t num_rows = NumRows(state, text);
  const int64_t rows_after = std::min(state.model.canvas_len, state.model.context_len - kv_len - num_rows);
  ForEachReservation(num_rows, rows_after, [&](int64_t begin, int64_t rows) {
    state.kv.RequireFits(kv_len + begin, rows);
  });
  Stats before = std::exchange(state.stats, Stats{});
  state.deadline = DeadlineOf(state.options, Lanes::Clock::now());
  try {
    ReserveOutput(state, prompt_len);
    for (int64_t begin = 0; begin < num_rows; begin = PrefillChunkEnd(begin, num_rows)) {
      RunChunk(state, text, begin, PrefillChunkEnd(begin, num_rows), false);
    }
  } catch (...) {
    state.stats = std::move(before);
    if (state.kv.kv_len() == kv_len && !state.cancelled.load()) throw;  // nothing has changed
    state.kv.Clear();
    state.tokens.clear();
    state.prompt_len = 0;
    state.finish = state.cancelled.load() ? FinishReason::kCancelled : FinishReason::kNone;
    throw;
  }
  ShowDrafter(state, tokens);
  state.pending_token = text.back();
  state.prompt_len = prompt_len;
  state.tokens.clear();
  state.canvas_index = 0;
  state.finish = FinishReason::kNone;
  ForgetWhatIsAhead(state);
  if (state.verification != nullptr) state.verification->draft_of = -1;
  if (state.logprobs != nullptr) state.logprobs->tokens.clear();
  state.stats.prompt_tokens = prompt_len;
  state.stats.prefix_tokens = kv_len;
  state.stats.peak_kv_bytes = state.kv.peak_bytes();
}

}  // namespace dgrt
