// How the stages talk to the drafter: the causal tier and the verified tier ask it, everything that adds text shows it.
// Whatever a drafter does costs time and no more: one that fails is dropped, and the text goes on without it.
#include <algorithm>

#include "common/check.h"
#include "runtime/session.h"
#include "runtime/stage_timer.h"

namespace dgrt {

namespace {

// `ask(confidence)`: what the drafter says.
template <typename Ask>
int64_t Guarded(SessionState& state, std::span<int32_t> draft, Ask ask) {
  if (state.drafter == nullptr || draft.empty()) return 0;
  StageTimer timer(&state.stats.draft_ms);
  ++state.stats.draft_calls;
  const auto confidence = std::span(state.draft_confidence).first(draft.size());
  std::fill(confidence.begin(), confidence.end(), 1.0f);
  int64_t drafted = 0;
  try {
    drafted = ask(confidence);
  } catch (const ContractMismatch&) {  // a damaged package is an error, whichever graph it shows in
    throw;
  } catch (const DeadlineExceeded&) {  // the pass that the draft is for will say so
    return 0;
  } catch (...) {
    state.drafter.reset();
    return 0;
  }
  const auto end = draft.begin() + std::clamp<int64_t>(drafted, 0, std::ssize(draft));
  const auto is_rubbish = [&](int32_t token) { return token < 0 || token >= state.model.vocab_size; };
  return std::find_if(draft.begin(), end, is_rubbish) - draft.begin();
}

}  // namespace

int64_t AskDrafter(SessionState& state, std::span<int32_t> draft) {
  return Guarded(state, draft, [&](std::span<float> confidence) { return state.drafter->Draft(draft, confidence); });
}

int64_t AskDrafterAgain(SessionState& state, std::span<int32_t> draft) {
  const AlignedBuffer<float>& seen = state.canvas.hidden;
  return Guarded(state, draft, [&](std::span<float> confidence) {
    return state.drafter->Redraft({seen.data(), seen.size()}, draft, confidence);
  });
}

void ShowDrafter(SessionState& state, std::span<const int32_t> tokens) noexcept {
  if (state.drafter == nullptr) return;
  StageTimer timer(&state.stats.draft_ms);
  try {
    state.drafter->Append(tokens);
  } catch (...) {
    state.drafter.reset();
  }
}

}  // namespace dgrt
