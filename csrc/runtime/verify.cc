// Stage 3a, verify: whether the draft of a canvas is committed, refined or discarded (verified tier). Called by
// generate.cc before refine. A draft that is on the canvas speaks for itself, right or wrong, so a pass over it alone
// proves little; the other checks do not see what they judge. Cheapest and most telling first, and none that cannot
// change the verdict any more: with fewer positions left than a verdict other than kDiscard needs, nothing that follows
// could help.
// Limit: each check is a pass of its own. Where weights are what a pass costs, one packed pass would do.
#include <algorithm>
#include <cmath>

#include "common/check.h"
#include "kernels/kernels.h"
#include "runtime/head.h"
#include "runtime/noise.h"
#include "runtime/session.h"
#include "runtime/stage_timer.h"

namespace dgrt {

Verification::Verification(const ModelFacts& model)
    : draft(static_cast<size_t>(model.canvas_len)),
      confirmed(static_cast<size_t>(model.canvas_len)),
      fold(static_cast<size_t>(model.canvas_len)),
      log_prob(static_cast<size_t>(model.canvas_len)),
      best_log_prob(static_cast<size_t>(model.canvas_len)),
      left_out(model) {}

namespace {

// Neighbours give a left-out token away, so a fold leaves out runs of up to this many.
constexpr uint32_t kMostLeftOutTogether = 8;
// The noise of leave-out passes has a stream of its own (kVerificationFolds): step 0 cuts the folds, step 1 fills them.
constexpr int32_t kCutStep = 0, kFillStep = 1;

bool ChecksCausally(const VerifyOptions& verify) { return verify.causal_floor > 0; }

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

// One draft per canvas, also if the canvas has to be tried again after a failure.
void ProposeDraft(SessionState& state, const CanvasPlan& plan) {
  Verification& v = *state.verification;
  if (v.draft_of == plan.index) return;
  v.is_whole = false;
  v.num_drafted = NumTrusted(state, AskDrafter(state, v.draft));
  v.draft_of = plan.index;
  if (v.num_drafted == 0) return;
  const std::vector<int32_t>& stop_ids = state.options.stop_ids;
  const int32_t last = v.draft[static_cast<size_t>(v.num_drafted - 1)];
  const bool has_stop = std::find(stop_ids.begin(), stop_ids.end(), last) != stop_ids.end();
  v.is_whole = has_stop || v.num_drafted == state.model.canvas_len;
}

// Of the canvas from noise. One that a stop id cuts short takes fewer steps than the whole ones before it, and no fewer than
// the two that it takes to see that nothing changes.
double ExpectedSteps(const SessionState& state) {
  const Verification& v = *state.verification;
  if (v.measured_steps == 0) return static_cast<double>(state.options.verify.expected_steps);
  const double share = static_cast<double>(v.num_drafted) / static_cast<double>(state.model.canvas_len);
  return v.is_whole ? std::max(2.0, share * v.measured_steps) : v.measured_steps;
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
  const double first_check = ChecksCausally(verify) ? (state.is_row_bound ? share : 1.0) : 0.0;
  return chance * (saved - verify.folds) > first_check;
}

// Positions that are emitted if the draft is right: what the checks other than the fixed point are about. The padding
// behind a stop id is not.
size_t NumJudged(const Verification& v) { return static_cast<size_t>(v.num_drafted); }

bool IsHopeless(const SessionState& state) {
  const Verification& v = *state.verification;
  const auto first = v.confirmed.begin();
  const auto confirmed = std::count(first, first + v.num_drafted, 1);
  const int64_t wanted = v.is_whole ? v.num_drafted : state.model.canvas_len;
  const auto least = static_cast<double>(state.options.verify.min_confirmed) * static_cast<double>(wanted);
  return static_cast<double>(confirmed) < least;
}

float FirstTemperature(const SessionState& state) {
  const SamplerOptions& sampler = state.options.sampler;
  return TemperatureOfStep(sampler.t_min, sampler.t_max, sampler.max_denoising_steps, sampler.max_denoising_steps);
}

// The draft over the noise of the plain loop.
void PutOnCanvas(SessionState& state, const CanvasPlan& plan) {
  Verification& v = *state.verification;
  Canvas& canvas = state.canvas;
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

void CountPass(SessionState& state, int64_t num_rows) {
  ++state.stats.verify_passes;
  state.stats.row_tokens += num_rows;
}

// C3. Nats that the draft is below the causal pass's favourites, over all positions; negative: cancelled.
double CheckCausalFloor(SessionState& state, const CanvasPlan& plan) {
  Verification& v = *state.verification;
  const HeldLane lane = TakeLane(state, v.num_drafted);
  if (!lane) return -1;
  const std::span<const int32_t> draft(v.draft.data(), NumJudged(v));
  {
    StageTimer timer(&state.stats.verify_ms);
    PredictBehind(state, plan, draft);
  }
  CountPass(state, v.num_drafted);
  v.is_in_kv = v.num_drafted == plan.num_rows;
  StageTimer timer(&state.stats.head_ms);
  VocabularyHeadParams params = HeadParams(state, v.left_out);
  params.hidden = state.logprobs->hidden.data();
  params.canvas_len = v.num_drafted;
  params.temperature = FirstTemperature(state);
  params.sampled = nullptr;
  params.entropy = nullptr;
  params.scored = draft.data();
  params.log_prob = v.log_prob.data();
  params.best_log_prob = v.best_log_prob.data();
  LaunchVocabularyHead(params, lane.pool());
  const auto where = [&] { return Message("canvas ", plan.index, ", causal pass"); };
  RequireFinite({v.log_prob.data(), draft.size()}, "log-probabilities are", where);
  double missing = 0;
  for (size_t i = 0; i < draft.size(); ++i) {
    const double below = std::max(0.0, static_cast<double>(v.best_log_prob[i]) - static_cast<double>(v.log_prob[i]));
    missing += below;
    if (below > static_cast<double>(state.options.verify.causal_floor)) v.confirmed[i] = 0;
  }
  return missing;
}

// C1, and the first denoise step of the canvas in one. False: cancelled.
bool CheckFixedPoint(SessionState& state, const CanvasPlan& plan) {
  const HeldLane lane = TakeLane(state, state.model.canvas_len);
  if (!lane) return false;
  Canvas& canvas = state.canvas;
  {
    StageTimer timer(&state.stats.verify_ms);
    state.executor->Denoise(canvas.tokens, plan.kv_len, state.kv.Views(), canvas.soft.data(), canvas.hidden.data());
  }
  CountPass(state, state.model.canvas_len);
  UpdateCanvas(state, lane, plan.index, state.options.sampler.max_denoising_steps, canvas);
  Verification& v = *state.verification;
  for (size_t i = 0; i < v.confirmed.size(); ++i) v.confirmed[i] &= canvas.argmax[i] == canvas.tokens[i];
  return true;
}

// Each judged position is in exactly one fold; runs next to each other are in different ones.
void CutFolds(SessionState& state, const CanvasPlan& plan) {
  Verification& v = *state.verification;
  const auto num_folds = static_cast<uint32_t>(state.options.verify.folds);
  const NoiseKey key = state.noise_key(plan.index, kCutStep);
  uint32_t fold = 0;
  for (uint32_t i = 0; i < NumJudged(v);) {
    const auto words = NoiseWords(key, NoiseStream::kVerificationFolds, i);
    const uint32_t length = 1 + words[0] % kMostLeftOutTogether;
    if (num_folds > 1) fold = i == 0 ? words[1] % num_folds : (fold + 1 + words[1] % (num_folds - 1)) % num_folds;
    for (const uint32_t end = i + length; i < end && i < NumJudged(v); ++i) v.fold[i] = static_cast<uint8_t>(fold);
  }
}

// C2 for the positions of one fold. False: cancelled. Where the draft is not confirmed, the pass that did not see it says
// what the next step hears of that position: the pass that saw it would only repeat it.
bool CheckLeftOut(SessionState& state, const CanvasPlan& plan, uint8_t fold) {
  Verification& v = *state.verification;
  if (std::find(v.fold.begin(), v.fold.begin() + v.num_drafted, fold) == v.fold.begin() + v.num_drafted) return true;
  const HeldLane lane = TakeLane(state, state.model.canvas_len);
  if (!lane) return false;
  const NoiseKey key = state.noise_key(plan.index, kFillStep);
  Canvas& left_out = v.left_out;
  left_out.tokens = state.canvas.tokens;
  for (size_t i = 0; i < NumJudged(v); ++i) {
    if (v.fold[i] != fold) continue;
    const int64_t vocab_size = state.model.vocab_size;
    const int32_t noise = DrawToken(key, NoiseStream::kVerificationFolds, static_cast<uint32_t>(i), vocab_size, {});
    left_out.tokens[i] = noise != v.draft[i] ? noise : (noise + 1) % static_cast<int32_t>(vocab_size);
  }
  {
    StageTimer timer(&state.stats.verify_ms);
    state.executor->Denoise(left_out.tokens, plan.kv_len, state.kv.Views(), left_out.soft.data(),
                            left_out.hidden.data());
  }
  CountPass(state, state.model.canvas_len);
  RequireFinite({left_out.hidden.data(), left_out.hidden.size()}, "hidden states are", [&] {
    return Message("canvas ", plan.index, ", leave-out pass ", static_cast<int>(fold));
  });
  StageTimer timer(&state.stats.head_ms);
  VocabularyHeadParams params = HeadParams(state, left_out);
  params.canvas_len = state.model.canvas_len;
  params.temperature = FirstTemperature(state);
  params.sampled = nullptr;
  params.soft = left_out.next_soft.data();
  LaunchVocabularyHead(params, lane.pool());
  const int64_t width = state.model.hidden_size;
  for (size_t i = 0; i < NumJudged(v); ++i) {
    if (v.fold[i] != fold) continue;
    v.confirmed[i] &= left_out.argmax[i] == v.draft[i];
    const auto at = static_cast<int64_t>(i) * width;
    if (v.confirmed[i] == 0) std::copy_n(left_out.next_soft.begin() + at, width, state.canvas.next_soft.begin() + at);
  }
  return true;
}

bool IsConfident(const SessionState& state) {
  double sum = 0;
  for (const float entropy : state.canvas.entropy) sum += static_cast<double>(entropy);
  const auto mean = static_cast<float>(sum / static_cast<double>(state.canvas.entropy.size()));
  return mean < state.options.sampler.confidence_threshold;
}

// The next step starts from what was confirmed, from noise where the draft was not, from what the sampler says elsewhere.
void KeepConfirmed(SessionState& state, const CanvasPlan& plan) {
  Verification& v = *state.verification;
  Canvas& canvas = state.canvas;
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

Verdict Check(SessionState& state, const CanvasPlan& plan) {
  Verification& v = *state.verification;
  const VerifyOptions& verify = state.options.verify;
  const bool only_fixed_point = verify.folds == 0 && !ChecksCausally(verify);
  v.is_in_kv = false;
  PutOnCanvas(state, plan);
  if (only_fixed_point && !verify.one_pass) return Verdict::kWarmStart;

  double missing = 0;
  if (ChecksCausally(verify)) {
    missing = CheckCausalFloor(state, plan);
    if (missing < 0) return Verdict::kCancelled;
    if (IsHopeless(state)) return Verdict::kDiscard;
  }
  if (!CheckFixedPoint(state, plan)) return Verdict::kCancelled;
  if (!only_fixed_point && IsHopeless(state)) return Verdict::kDiscard;
  if (verify.folds > 0) CutFolds(state, plan);
  for (int32_t fold = 0; fold < verify.folds; ++fold) {
    if (!CheckLeftOut(state, plan, static_cast<uint8_t>(fold))) return Verdict::kCancelled;
    if (IsHopeless(state)) return Verdict::kDiscard;
  }
  const bool all = std::find(v.confirmed.begin(), v.confirmed.end(), 0) == v.confirmed.end();
  const bool is_likely = missing <= static_cast<double>(verify.causal_budget);
  if (v.is_whole && all && verify.one_pass && IsConfident(state) && is_likely) {
    state.canvas.num_steps = 1;
    return Verdict::kCommit;
  }
  if (!only_fixed_point) KeepConfirmed(state, plan);  // else the plain loop goes on by itself
  return Verdict::kRefine;
}

}  // namespace

Verdict VerifyDraft(SessionState& state, const CanvasPlan& plan) {
  if (state.verification == nullptr) return Verdict::kNone;
  Verification& v = *state.verification;
  v.verdict = Verdict::kNone;
  if (state.cancelled.load()) return Verdict::kCancelled;
  // With one step there is none left to correct a draft; a start canvas is another's draft.
  if (state.has_start_canvas || state.options.sampler.max_denoising_steps < 2) return Verdict::kNone;
  ProposeDraft(state, plan);
  if (v.num_drafted == 0 || !IsWorthTrying(state)) return Verdict::kNone;
  v.verdict = Check(state, plan);
  return v.verdict;
}

void LearnFromDraft(SessionState& state, int64_t num_tokens) noexcept {
  if (state.verification == nullptr) return;
  Verification& v = *state.verification;
  const auto num_steps = static_cast<double>(state.canvas.num_steps);
  const bool is_from_noise = v.verdict == Verdict::kNone || v.verdict == Verdict::kDiscard;
  if (v.verdict != Verdict::kNone) {
    ++v.tries;
    const double checks = static_cast<double>(state.options.verify.folds + 1);
    v.gains += v.verdict == Verdict::kCommit || (!is_from_noise && num_steps + checks <= ExpectedSteps(state));
  }
  if (is_from_noise) {
    v.measured_steps = v.measured_steps > 0 ? 0.5 * (v.measured_steps + num_steps) : num_steps;
  } else {
    const int64_t most = std::min(num_tokens, v.num_drafted);
    for (size_t i = 0; i < static_cast<size_t>(most); ++i) {
      state.stats.accepted_drafts += state.canvas.argmax[i] == v.draft[i];
    }
  }
  state.stats.draft_commits += v.verdict == Verdict::kCommit;
  state.stats.draft_refines += v.verdict == Verdict::kRefine || v.verdict == Verdict::kWarmStart;
  state.stats.draft_discards += v.verdict == Verdict::kDiscard;
  v.verdict = Verdict::kNone;
}

}  // namespace dgrt
