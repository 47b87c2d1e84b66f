// Stage 3a, verify: whether the draft of a canvas is committed, refined or discarded (verified tier). Called by
// generate.cc before refine. The checks that decide are in checks.cc.
#include <algorithm>

#include "runtime/checks.h"
#include "runtime/head.h"
#include "runtime/noise.h"
#include "runtime/session.h"

namespace dgrt {
namespace {

int64_t NumTrusted(const SessionState& state, int64_t num_drafted) {
  const std::vector<int32_t>& draft = state.verification->draft;
  const std::vector<int32_t>& stop_ids = state.options.stop_ids;
  float before = 1;
  int64_t trusted = 0;
  for (; trusted < num_drafted; ++trusted) {
    const auto i = static_cast<size_t>(trusted);
    const float confidence = state.draft_confidence[i];
    if (!(confidence >= state.options.verify.trust * before && confidence <= 1)) return trusted;
    if (std::find(stop_ids.begin(), stop_ids.end(), draft[i]) != stop_ids.end()) return trusted + 1;
    before = confidence;
  }
  return trusted;
}

void TakeDraft(SessionState& state, int64_t num_drafted) {
  Verification& v = *state.verification;
  v.is_whole = false;
  v.num_drafted = NumTrusted(state, num_drafted);
  if (v.num_drafted == 0) return;
  const std::vector<int32_t>& stop_ids = state.options.stop_ids;
  const int32_t last = v.draft[static_cast<size_t>(v.num_drafted - 1)];
  const bool has_stop = std::find(stop_ids.begin(), stop_ids.end(), last) != stop_ids.end();
  v.is_whole = has_stop || v.num_drafted == state.model.canvas_len;
}

// One draft per canvas, also if the canvas has to be tried again after a failure.
void ProposeDraft(SessionState& state, const CanvasPlan& plan) {
  Verification& v = *state.verification;
  if (v.draft_of == plan.index) return;
  v.is_redraft = false;
  TakeDraft(state, AskDrafter(state, v.draft));
  v.draft_of = plan.index;
}

// Whether there is one that may be committed and has not been refused before.
bool ProposeRedraft(SessionState& state) {
  Verification& v = *state.verification;
  v.draft_of = -1;
  v.is_redraft = true;
  TakeDraft(state, AskDrafterAgain(state, v.draft));
  return v.is_whole && !(v.num_drafted == v.num_refused &&
                         std::equal(v.refused.begin(), v.refused.begin() + v.num_refused, v.draft.begin()));
}

// Of the canvas from noise. One that a stop id cuts short takes fewer steps than the whole ones before it, and no fewer than
// the two that it takes to see that nothing changes.
double ExpectedSteps(const SessionState& state) {
  const Verification& v = *state.verification;
  if (v.measured_steps == 0) return static_cast<double>(state.options.verify.expected_steps);
  const double share = static_cast<double>(v.num_drafted) / static_cast<double>(state.model.canvas_len);
  return v.is_whole ? std::max(2.0, share * v.measured_steps) : v.measured_steps;
}

// Whether rows are nearly free, so that checks are rows of one pass, and that does a step of the canvas as well. Whether
// they are (VerifyOptions::packing) must not matter here, for it decides no token.
bool RowsAreFree(const SessionState& state) { return state.redrafts || !state.is_row_bound; }

// Passes of the leave-out check.
double PassesOfFolds(const SessionState& state) {
  return RowsAreFree(state) ? 0.0 : static_cast<double>(state.options.verify.folds);
}

// Whether the passes that a right draft saves, times the chance that it is right, exceed what it costs to find out that it
// is wrong, in passes of L rows. Counts only, so that a request never depends on how fast the machine was.
bool IsWorthTrying(const SessionState& state) {
  const Verification& v = *state.verification;
  const VerifyOptions& verify = state.options.verify;
  if (verify.always) return true;
  const double share = static_cast<double>(v.num_drafted) / static_cast<double>(state.model.canvas_len);
  const double chance = static_cast<double>(state.draft_confidence[static_cast<size_t>(v.num_drafted - 1)]) *
                        static_cast<double>(v.gains + 1) / static_cast<double>(v.tries + 2);
  // Right to the end, all steps but one are saved, and the commit of a canvas that others follow. Partly right: about what
  // published traces show (steps still needed with a share of the canvas settled).
  const double commit = v.num_drafted == state.model.canvas_len ? 1 : 0;
  const double saved = v.is_whole ? ExpectedSteps(state) - 1 + commit : 0.8 * share * share * ExpectedSteps(state);
  const double first_check = ChecksCausally(verify) && !RowsAreFree(state) ? share : 0.0;
  return chance * (saved - PassesOfFolds(state)) > first_check;
}

// The draft over the noise of the plain loop.
void PutOnCanvas(SessionState& state, const CanvasPlan& plan) {
  Verification& v = *state.verification;
  Canvas& canvas = v.drafted;
  StartCanvas(state, plan.index, canvas);
  std::fill(v.confirmed.begin(), v.confirmed.end(), uint8_t{0});
  std::copy_n(v.draft.begin(), v.num_drafted, canvas.tokens.begin());
  std::fill_n(v.confirmed.begin(), v.num_drafted, uint8_t{1});
  if (v.is_whole) {
    std::fill(canvas.tokens.begin() + v.num_drafted, canvas.tokens.end(), state.model.pad_token_id);
    std::fill(v.confirmed.begin(), v.confirmed.end(), uint8_t{1});
  }
  canvas.argmax = canvas.tokens;
}

bool IsConfident(const SessionState& state) {
  return MeanEntropy(state.verification->drafted.entropy) < state.options.sampler.confidence_threshold;
}

// The next step starts from what was confirmed, from noise where the draft was not, from what the sampler says elsewhere.
void KeepConfirmed(SessionState& state, const CanvasPlan& plan) {
  Verification& v = *state.verification;
  Canvas& canvas = v.drafted;
  const NoiseKey key = state.noise_key(plan.index, state.options.sampler.max_denoising_steps);
  const size_t num_placed = v.is_whole ? v.confirmed.size() : NumJudged(v);
  if (v.is_whole && v.confirmed[NumJudged(v) - 1] == 0) {  // no stop id, no padding behind it
    std::fill(v.confirmed.begin() + v.num_drafted, v.confirmed.end(), uint8_t{0});
  }
  for (size_t i = 0; i < num_placed; ++i) {
    canvas.accepted[i] = v.confirmed[i];
    canvas.next_tokens[i] = v.confirmed[i] != 0 ? canvas.tokens[i]
                                                : DrawToken(key, NoiseStream::kRenoise, static_cast<uint32_t>(i),
                                                            state.model.vocab_size, {});
  }
}

// Whether the canvas was refined without what was drafted.
bool IsFromNoise(const Verification& v) { return v.verdict == Verdict::kNone || v.verdict == Verdict::kDiscard; }

// What all checks have confirmed, they have.
bool MayBeCommitted(const SessionState& state) {
  const Verification& v = *state.verification;
  const VerifyOptions& verify = state.options.verify;
  const bool all = std::find(v.confirmed.begin(), v.confirmed.end(), 0) == v.confirmed.end();
  const bool is_likely = v.missing <= static_cast<double>(verify.causal_budget);
  return v.is_whole && all && verify.one_pass && IsConfident(state) && is_likely;
}

Verdict Check(SessionState& state, const CanvasPlan& plan) {
  const VerifyOptions& verify = state.options.verify;
  const bool only_fixed_point = verify.folds == 0 && !ChecksCausally(verify);
  StartCanvas(state, plan.index, state.canvas);
  PutOnCanvas(state, plan);
  if (only_fixed_point && !verify.one_pass) return Verdict::kWarmStart;
  const Verdict early = RunChecks(state, plan, state.options.sampler.max_denoising_steps);
  if (early != Verdict::kNone) return early;
  if (MayBeCommitted(state)) return Verdict::kCommit;
  if (!only_fixed_point) KeepConfirmed(state, plan);  // else the plain loop goes on by itself
  return Verdict::kRefine;
}

// The drafted canvas becomes the one in work.
void AdoptDraft(SessionState& state, int32_t num_steps) {
  Verification& v = *state.verification;
  std::swap(state.canvas, v.drafted);
  state.canvas.num_steps = num_steps;
  v.has_plain_step = false;
}

void RememberRefused(Verification& v) {
  v.refused = v.draft;
  v.num_refused = v.num_drafted;
}

}  // namespace

Verdict VerifyDraft(SessionState& state, const CanvasPlan& plan) {
  if (state.verification == nullptr) return Verdict::kNone;
  Verification& v = *state.verification;
  v.verdict = Verdict::kNone;
  v.is_in_kv = v.has_plain_step = false;
  v.num_refused = 0;
  if (state.cancelled.load()) return Verdict::kCancelled;
  // With one step there is none left to correct a draft; a start canvas is another's draft.
  if (state.has_start_canvas || state.options.sampler.max_denoising_steps < 2) return Verdict::kNone;
  ProposeDraft(state, plan);
  if (v.num_drafted == 0 || !IsWorthTrying(state)) return Verdict::kNone;
  v.verdict = Check(state, plan);
  v.is_in_kv &= v.verdict == Verdict::kCommit;
  if (v.verdict == Verdict::kDiscard) {
    RememberRefused(v);
  } else if (v.verdict != Verdict::kCancelled) {
    AdoptDraft(state, v.verdict == Verdict::kCommit ? 1 : 0);
  }
  return v.verdict;
}

Verdict VerifyRedraft(SessionState& state, const CanvasPlan& plan, int32_t step) {
  if (!state.redrafts || state.has_start_canvas || !IsFromNoise(*state.verification)) return Verdict::kNone;
  Verification& v = *state.verification;
  if (!ProposeRedraft(state)) return Verdict::kNone;
  PutOnCanvas(state, plan);
  const Verdict found = RunChecks(state, plan, step);
  if (found == Verdict::kCancelled) return found;
  if (found == Verdict::kNone && MayBeCommitted(state)) {
    AdoptDraft(state, state.canvas.num_steps + 1);
    v.verdict = Verdict::kCommit;
    return v.verdict;
  }
  v.is_in_kv = false;
  RememberRefused(v);
  v.verdict = Verdict::kDiscard;
  return Verdict::kNone;
}

Verdict ConfirmRefined(SessionState& state, const CanvasPlan& plan) {
  const bool is_refined = state.verification != nullptr && state.verification->verdict == Verdict::kRefine;
  if (!is_refined || !ChecksCausally(state.options.verify)) return Verdict::kCommit;
  const Verdict found = RunFinalCheck(state, plan, PlanEmission(state, plan).num_tokens);
  if (found == Verdict::kNone) return Verdict::kCommit;
  if (found == Verdict::kDiscard) state.verification->verdict = found;
  return found;
}

void FindOrigins(SessionState& state) noexcept {
  std::fill(state.origins.begin(), state.origins.end(), TokenOrigin::kUndrafted);
  if (state.verification == nullptr || IsFromNoise(*state.verification)) return;
  const Verification& v = *state.verification;
  for (size_t i = 0; i < NumJudged(v); ++i) {
    state.origins[i] = state.canvas.argmax[i] == v.draft[i] ? TokenOrigin::kDrafted : TokenOrigin::kRevised;
  }
}

void LearnFromDraft(SessionState& state, int64_t num_tokens) noexcept {
  if (state.verification == nullptr) return;
  Verification& v = *state.verification;
  const auto num_steps = static_cast<double>(state.canvas.num_steps);
  const bool is_from_noise = IsFromNoise(v);
  if (v.verdict != Verdict::kNone) {
    ++v.tries;
    const double checks = PassesOfFolds(state) + 1;
    v.gains += v.verdict == Verdict::kCommit || (!is_from_noise && num_steps + checks <= ExpectedSteps(state));
  }
  if (is_from_noise) {
    v.measured_steps = v.measured_steps > 0 ? 0.5 * (v.measured_steps + num_steps) : num_steps;
  }
  const auto first = state.origins.begin();
  state.stats.accepted_drafts += std::count(first, first + num_tokens, TokenOrigin::kDrafted);
  state.stats.draft_commits += v.verdict == Verdict::kCommit;
  state.stats.draft_refines += v.verdict == Verdict::kRefine || v.verdict == Verdict::kWarmStart;
  state.stats.draft_discards += v.verdict == Verdict::kDiscard;
  v.verdict = Verdict::kNone;
}

}  // namespace dgrt
