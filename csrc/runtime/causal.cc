// The causal tier: tokens of the causal pass's own distribution, several per pass where a drafter guesses them
// (speculative decoding by sample-and-match). One pass over the pending token and a draft gives the distribution behind
// each of them; what is sampled there is emitted as long as the draft foresaw it. The random number of a token depends on
// its position alone, so a draft changes how many passes a text takes, never the text. Counterpart of RunCanvas.
#include <algorithm>

#include "common/check.h"
#include "kernels/kernels.h"
#include "runtime/head.h"
#include "runtime/noise.h"
#include "runtime/session.h"
#include "runtime/stage_timer.h"

namespace dgrt {
namespace {

// The pass works in the buffers of the canvas: `tokens` are its rows (the pending token, then the draft).
struct CausalPlan {
  int64_t kv_len = 0;    // position of the pending token
  int64_t num_rows = 0;  // 1 + drafted
};

// As many drafted tokens as are worth their row.
int64_t DraftTokens(SessionState& state, std::span<int32_t> draft) {
  const auto drafted = static_cast<size_t>(AskDrafter(state, draft));
  return NumWorthTheirRow(std::span(state.draft_confidence).first(drafted), state.draft_costs.row);
}

CausalPlan PlanPass(SessionState& state) {
  CausalPlan plan;
  plan.kv_len = state.kv.kv_len();
  // A pass of n rows emits at most n tokens, the last of them at position kv_len + n.
  int64_t room = std::min(state.model.context_len - plan.kv_len - 1, state.model.canvas_len);
  if (state.options.max_new_tokens > 0) {
    room = std::min(room, state.options.max_new_tokens - static_cast<int64_t>(state.tokens.size()));
  }
  std::vector<int32_t>& rows = state.canvas.tokens;
  rows[0] = state.pending_token;
  const int64_t drafted = DraftTokens(state, std::span(rows).subspan(1, static_cast<size_t>(room - 1)));
  plan.num_rows = 1 + drafted;
  return plan;
}

void Forward(SessionState& state, const CausalPlan& plan) {
  const std::span<const int32_t> rows(state.canvas.tokens.data(), static_cast<size_t>(plan.num_rows));
  const auto num_floats = static_cast<size_t>(plan.num_rows * state.model.hidden_size);
  {
    StageTimer timer(&state.stats.causal_ms);
    state.executor->Score(rows, plan.kv_len, state.kv.Views(), state.canvas.hidden.data());
  }
  ++state.stats.causal_passes;
  state.stats.row_tokens += plan.num_rows;
  RequireFinite({state.canvas.hidden.data(), num_floats}, "hidden states are", [&] {
    return Message("causal pass at position ", plan.kv_len);
  });
}

// The token behind each row, into canvas.sampled.
void Sample(SessionState& state, const HeldLane& lane, const CausalPlan& plan) {
  StageTimer timer(&state.stats.head_ms);
  Canvas& canvas = state.canvas;
  const NoiseKey key = state.noise_key(0, 0);
  const auto num_rows = static_cast<size_t>(plan.num_rows);
  for (size_t i = 0; i < num_rows; ++i) {
    const int64_t position = plan.kv_len + 1 + static_cast<int64_t>(i);
    canvas.uniform[i] = NoiseUniform(key, NoiseStream::kCausalSampling, static_cast<uint32_t>(position));
  }
  const bool greedy = state.options.causal_temperature == 0;
  VocabularyHeadParams params = HeadParams(state, canvas);
  params.canvas_len = plan.num_rows;
  params.temperature = greedy ? 1.0f : state.options.causal_temperature;
  LaunchVocabularyHead(params, lane.pool());
  RequireFinite({canvas.entropy.data(), num_rows}, "entropies are", [&] {
    return Message("causal pass at position ", plan.kv_len);
  });
  if (greedy) std::copy_n(canvas.argmax.begin(), num_rows, canvas.sampled.begin());
}

// How many of the sampled tokens the draft foresaw, from the first on.
int64_t NumMatched(const SessionState& state, const CausalPlan& plan) {
  const Canvas& canvas = state.canvas;
  int64_t matched = 0;
  while (matched + 1 < plan.num_rows &&
         canvas.sampled[static_cast<size_t>(matched)] == canvas.tokens[static_cast<size_t>(matched + 1)]) {
    ++matched;
  }
  return matched;
}

// Behind the draft, and behind the token that it did not foresee, nothing is drafted.
void FindOrigins(SessionState& state, const CausalPlan& plan, int64_t matched) {
  const auto first = state.origins.begin();
  std::fill_n(first, matched, TokenOrigin::kDrafted);
  first[matched] = matched + 1 < plan.num_rows ? TokenOrigin::kRevised : TokenOrigin::kUndrafted;
}

FinishReason FinishOf(const SessionState& state, const CausalPlan& plan, std::span<const int32_t> emitted) {
  const std::vector<int32_t>& stop_ids = state.options.stop_ids;
  if (std::find(stop_ids.begin(), stop_ids.end(), emitted.back()) != stop_ids.end()) return FinishReason::kStop;
  const auto count = static_cast<int64_t>(state.tokens.size() + emitted.size());
  const bool no_room = plan.kv_len + static_cast<int64_t>(emitted.size()) + 1 >= state.model.context_len;
  return no_room || count == state.options.max_new_tokens ? FinishReason::kLength : FinishReason::kNone;
}

// The only irreversible part; nothing in it can fail.
std::span<const int32_t> Publish(SessionState& state, Reservation rows, int64_t matched,
                                 std::span<const int32_t> emitted, FinishReason finish) noexcept {
  rows.Publish(static_cast<int64_t>(emitted.size()));  // the pending token and all but the last of these
  const size_t before = state.tokens.size();
  state.tokens.insert(state.tokens.end(), emitted.begin(), emitted.end());  // room was taken in prefill
  state.pending_token = emitted.back();
  state.finish = finish;
  state.stats.accepted_drafts += std::min(matched, static_cast<int64_t>(emitted.size()));
  state.stats.tokens += static_cast<int64_t>(emitted.size());
  ShowDrafter(state, emitted);
  return std::span<const int32_t>(state.tokens).subspan(before);
}

}  // namespace

std::span<const int32_t> RunCausalPass(SessionState& state, GenerateSink* sink) {
  if (state.finish != FinishReason::kNone) return {};
  if (state.prompt_len == 0) throw InvalidArgument("the session has no prompt: call Prefill first");
  StageTimer timer(&state.stats.total_ms);
  const CausalPlan plan = PlanPass(state);
  Reservation rows = state.kv.Reserve(plan.num_rows);
  state.stats.peak_kv_bytes = state.kv.peak_bytes();
  {
    const HeldLane lane = TakeLane(state, plan.num_rows);
    if (!lane) {
      state.finish = FinishReason::kCancelled;
      return {};
    }
    Forward(state, plan);
    Sample(state, lane, plan);
  }
  const int64_t matched = NumMatched(state, plan);
  std::span<const int32_t> emitted(state.canvas.sampled.data(), static_cast<size_t>(matched + 1));
  const auto& stop_ids = state.options.stop_ids;
  const auto stop = std::find_first_of(emitted.begin(), emitted.end(), stop_ids.begin(), stop_ids.end());
  if (stop != emitted.end()) emitted = emitted.first(static_cast<size_t>(stop - emitted.begin()) + 1);
  const FinishReason finish = FinishOf(state, plan, emitted);
  if (sink != nullptr) {
    GiveLaneBack(state);
    FindOrigins(state, plan, matched);
    const auto origins = std::span(state.origins).first(emitted.size());
    sink->OnCommit(static_cast<int32_t>(state.stats.causal_passes - 1), emitted, origins);
  }
  DGRT_CHECK(state.tokens.size() + emitted.size() <= state.tokens.capacity());
  const auto published = Publish(state, std::move(rows), matched, emitted, finish);
  CheckInvariants(state);
  return published;
}

}  // namespace dgrt
