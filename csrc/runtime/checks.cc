// Implementation of checks.h. A draft that is on the canvas speaks for itself, right or wrong, so a pass over it alone
// proves little; the other checks do not see what they judge. Cheapest and most telling first, and none that cannot
// change the verdict any more: with fewer positions left than a verdict other than kDiscard needs, nothing that follows
// could help. Where weights are what a pass costs, one pass holds the rows of all (VerifyOptions::packing): the same
// numbers, from which the same checks speak in the same order.
#include "runtime/checks.h"

#include <algorithm>

#include "common/check.h"
#include "kernels/kernels.h"
#include "runtime/head.h"
#include "runtime/noise.h"
#include "runtime/stage_timer.h"

namespace dgrt {

Verification::Verification(const ModelFacts& model, int64_t num_packed)
    : draft(static_cast<size_t>(model.canvas_len)),
      refused(static_cast<size_t>(model.canvas_len)),
      confirmed(static_cast<size_t>(model.canvas_len)),
      fold(static_cast<size_t>(model.canvas_len)),
      log_prob(static_cast<size_t>(model.canvas_len)),
      best_log_prob(static_cast<size_t>(model.canvas_len)),
      drafted(model),
      left_out(model),
      packed_canvases(static_cast<size_t>(num_packed * model.canvas_len)),
      packed_hidden(static_cast<size_t>(num_packed * model.canvas_len * model.hidden_size)) {}

bool ChecksCausally(const VerifyOptions& verify) { return verify.causal_floor > 0; }

size_t NumJudged(const Verification& v) { return static_cast<size_t>(v.num_drafted); }

namespace {

// C3, C1, and behind them C2, a check for each fold: kFixedPoint + 1 + fold.
constexpr int32_t kCausalFloor = -1, kFixedPoint = 0;
// Neighbours give a left-out token away, so a fold leaves out runs of up to this many.
constexpr uint32_t kMostLeftOutTogether = 8;
// The noise of leave-out passes has a stream of its own (kVerificationFolds): step 0 cuts the folds, step 1 fills them.
constexpr int32_t kCutStep = 0, kFillStep = 1;

std::span<const int32_t> Judged(const Verification& v) { return {v.draft.data(), NumJudged(v)}; }

float FirstTemperature(const SessionState& state) {
  const SamplerOptions& sampler = state.options.sampler;
  return TemperatureOfStep(sampler.t_min, sampler.t_max, sampler.max_denoising_steps, sampler.max_denoising_steps);
}

// Each judged position is in exactly one fold; runs next to each other are in different ones.
void CutFolds(SessionState& state, const CanvasPlan& plan) {
  Verification& v = *state.verification;
  const auto num_folds = static_cast<uint32_t>(state.options.verify.folds);
  const NoiseKey key = state.noise_key(plan.index, kCutStep);
  uint32_t fold = 0;
  for (uint32_t i = 0; num_folds > 0 && i < NumJudged(v);) {
    const auto words = NoiseWords(key, NoiseStream::kVerificationFolds, i);
    const uint32_t length = 1 + words[0] % kMostLeftOutTogether;
    if (num_folds > 1) fold = i == 0 ? words[1] % num_folds : (fold + 1 + words[1] % (num_folds - 1)) % num_folds;
    for (const uint32_t end = i + length; i < end && i < NumJudged(v); ++i) v.fold[i] = static_cast<uint8_t>(fold);
  }
}

// Whether the check of a fold leaves this position out.
bool LeavesOut(const Verification& v, int32_t check, size_t i) { return v.fold[i] == check - kFixedPoint - 1; }

// A short draft may leave folds without a position.
bool HasSomethingToSay(const Verification& v, int32_t check) {
  if (check <= kFixedPoint) return true;
  for (size_t i = 0; i < NumJudged(v); ++i) {
    if (LeavesOut(v, check, i)) return true;
  }
  return false;
}

// --- passes: hidden states of each check where it looks for them ---

// The canvas that the check of a fold sees.
void PutNoise(const SessionState& state, const CanvasPlan& plan, int32_t check, std::span<int32_t> canvas) {
  const Verification& v = *state.verification;
  const NoiseKey key = state.noise_key(plan.index, kFillStep);
  const auto vocab_size = static_cast<int32_t>(state.model.vocab_size);
  std::copy(v.drafted.tokens.begin(), v.drafted.tokens.end(), canvas.begin());
  for (size_t i = 0; i < NumJudged(v); ++i) {
    if (!LeavesOut(v, check, i)) continue;
    const int32_t noise = DrawToken(key, NoiseStream::kVerificationFolds, static_cast<uint32_t>(i), vocab_size, {});
    canvas[i] = noise != v.draft[i] ? noise : (noise + 1) % vocab_size;
  }
}

void Denoise(SessionState& state, const CanvasPlan& plan, Canvas& canvas) {
  state.executor->Denoise(canvas.tokens, plan.kv_len, state.kv.Views(), canvas.soft.data(), canvas.hidden.data());
}

int64_t NumRows(const SessionState& state, int32_t check) {
  return check == kCausalFloor ? state.verification->num_drafted : state.model.canvas_len;
}

void CountPass(SessionState& state, int64_t num_rows) {
  ++state.stats.verify_passes;
  state.stats.row_tokens += num_rows;
}

// The causal pass over what is to be committed is its commit as well, if there is a row for each position of the canvas.
void MarkInKv(Verification& v, const CanvasPlan& plan, int64_t num_rows) { v.is_in_kv = num_rows == plan.num_rows; }

void RunPass(SessionState& state, const CanvasPlan& plan, int32_t check) {
  Verification& v = *state.verification;
  StageTimer timer(&state.stats.verify_ms);
  if (check == kCausalFloor) {
    PredictBehind(state, plan, Judged(v));
    MarkInKv(v, plan, v.num_drafted);
  } else if (check == kFixedPoint) {
    Denoise(state, plan, v.drafted);
  } else {
    PutNoise(state, plan, check, v.left_out.tokens);
    Denoise(state, plan, v.left_out);
  }
  CountPass(state, NumRows(state, check));
}

// Puts the canvas in work and those of all checks behind one another; returns how many tokens they have.
int64_t PackCanvases(SessionState& state, const CanvasPlan& plan) {
  Verification& v = *state.verification;
  const auto length = static_cast<size_t>(state.model.canvas_len);
  std::copy(state.canvas.tokens.begin(), state.canvas.tokens.end(), v.packed_canvases.begin());
  size_t packed = length;
  for (int32_t check = kFixedPoint; check <= state.options.verify.folds; ++check) {
    if (!HasSomethingToSay(v, check)) continue;
    const auto canvas = std::span(v.packed_canvases).subspan(packed, length);
    if (check == kFixedPoint) std::copy(v.drafted.tokens.begin(), v.drafted.tokens.end(), canvas.begin());
    if (check > kFixedPoint) PutNoise(state, plan, check, canvas);
    packed += length;
  }
  return static_cast<int64_t>(packed);
}

void RunPackedPass(SessionState& state, const CanvasPlan& plan, int64_t num_packed) {
  Verification& v = *state.verification;
  float* const causal = state.logprobs->hidden.data();  // row 0 is there: behind the token in front of the canvas
  const CheckRows rows{.canvases = std::span(v.packed_canvases).first(static_cast<size_t>(num_packed)),
                       .soft = state.canvas.soft.data(),
                       .canvas_hidden = v.packed_hidden.data(),
                       .draft = Judged(v),
                       .draft_hidden = causal + state.model.hidden_size};
  {
    StageTimer timer(&state.stats.verify_ms);
    state.executor->Check(rows, plan.kv_len, state.kv.Views());
  }
  CountPass(state, num_packed + v.num_drafted);
  RequireFinite({causal, (NumJudged(v) + 1) * static_cast<size_t>(state.model.hidden_size)}, "hidden states are",
                [&] { return Message("canvas ", plan.index, ", causal pass"); });
  MarkInKv(v, plan, v.num_drafted);
}

// --- what the hidden states say ---

// What the causal pass over `tokens` says of each: whether it is far below the favourite there, by refuse(i).
template <typename Refuse>
void JudgeCausally(SessionState& state, const HeldLane& lane, const CanvasPlan& plan, std::span<const int32_t> tokens,
                   Refuse refuse) {
  Verification& v = *state.verification;
  StageTimer timer(&state.stats.head_ms);
  VocabularyHeadParams params = HeadParams(state, v.left_out);
  params.hidden = state.logprobs->hidden.data();
  params.canvas_len = std::ssize(tokens);
  params.temperature = FirstTemperature(state);
  params.sampled = nullptr;
  params.entropy = nullptr;
  params.scored = tokens.data();
  params.log_prob = v.log_prob.data();
  params.best_log_prob = v.best_log_prob.data();
  LaunchVocabularyHead(params, lane.pool());
  const auto where = [&] { return Message("canvas ", plan.index, ", causal pass"); };
  RequireFinite({v.log_prob.data(), tokens.size()}, "log-probabilities are", where);
  v.missing = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const double below = std::max(0.0, static_cast<double>(v.best_log_prob[i]) - static_cast<double>(v.log_prob[i]));
    v.missing += below;
    if (below > static_cast<double>(state.options.verify.causal_floor)) refuse(i);
  }
}

// Also the first denoise step of the drafted canvas.
void JudgeFixedPoint(SessionState& state, const HeldLane& lane, const CanvasPlan& plan) {
  Verification& v = *state.verification;
  Canvas& canvas = v.drafted;
  UpdateCanvas(state, lane, plan.index, state.options.sampler.max_denoising_steps, canvas);
  for (size_t i = 0; i < v.confirmed.size(); ++i) v.confirmed[i] &= canvas.argmax[i] == canvas.tokens[i];
}

// Where the draft is not confirmed, the pass that did not see it says what the next step hears of that position: the pass
// that saw it would only repeat it.
void JudgeLeftOut(SessionState& state, const HeldLane& lane, const CanvasPlan& plan, int32_t check) {
  Verification& v = *state.verification;
  Canvas& left_out = v.left_out;
  RequireFinite({left_out.hidden.data(), left_out.hidden.size()}, "hidden states are", [&] {
    return Message("canvas ", plan.index, ", leave-out pass ", check - kFixedPoint - 1);
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
    if (!LeavesOut(v, check, i)) continue;
    v.confirmed[i] &= left_out.argmax[i] == v.draft[i];
    const auto at = static_cast<int64_t>(i) * width;
    if (v.confirmed[i] == 0) std::copy_n(left_out.next_soft.begin() + at, width, v.drafted.next_soft.begin() + at);
  }
}

void Judge(SessionState& state, const HeldLane& lane, const CanvasPlan& plan, int32_t check) {
  if (check == kCausalFloor) {
    Verification& v = *state.verification;
    return JudgeCausally(state, lane, plan, Judged(v), [&v](size_t i) { v.confirmed[i] = 0; });
  }
  if (check == kFixedPoint) return JudgeFixedPoint(state, lane, plan);
  JudgeLeftOut(state, lane, plan, check);
}

// --- one after the other ---

bool IsHopeless(const SessionState& state) {
  const Verification& v = *state.verification;
  const auto first = v.confirmed.begin();
  const auto confirmed = std::count(first, first + v.num_drafted, 1);
  const int64_t wanted = v.is_whole ? v.num_drafted : state.model.canvas_len;
  const double share = v.is_redraft ? 1.0 : static_cast<double>(state.options.verify.min_confirmed);
  const double least = share * static_cast<double>(wanted);
  return static_cast<double>(confirmed) < least;
}

// `speak(check)`: false if it was cancelled.
template <typename Speak>
Verdict InTurn(const SessionState& state, Speak speak) {
  const VerifyOptions& verify = state.options.verify;
  const bool may_discard = verify.folds > 0 || ChecksCausally(verify);  // the fixed point alone is a first step in any case
  for (int32_t check = ChecksCausally(verify) ? kCausalFloor : kFixedPoint; check <= verify.folds; ++check) {
    if (!HasSomethingToSay(*state.verification, check)) continue;
    if (!speak(check)) return Verdict::kCancelled;
    if (may_discard && IsHopeless(state)) return Verdict::kDiscard;
  }
  return Verdict::kNone;
}

Verdict RunOneByOne(SessionState& state, const CanvasPlan& plan) {
  return InTurn(state, [&](int32_t check) {
    const HeldLane lane = TakeLane(state, NumRows(state, check));
    if (!lane) return false;
    RunPass(state, plan, check);
    Judge(state, lane, plan, check);
    return true;
  });
}

// With the next step of the canvas in work: if the draft is of no use, the pass was not for nothing.
Verdict RunPacked(SessionState& state, const CanvasPlan& plan, int32_t step) {
  Verification& v = *state.verification;
  const int64_t num_packed = PackCanvases(state, plan);
  const HeldLane lane = TakeLane(state, num_packed + v.num_drafted);
  if (!lane) return Verdict::kCancelled;
  RunPackedPass(state, plan, num_packed);
  const float* hidden = v.packed_hidden.data();
  const auto take_hidden = [&hidden](Canvas& canvas) {
    std::copy_n(hidden, canvas.hidden.size(), canvas.hidden.data());
    hidden += canvas.hidden.size();
  };
  take_hidden(state.canvas);
  UpdateCanvas(state, lane, plan.index, step, state.canvas);
  v.has_plain_step = true;
  return InTurn(state, [&](int32_t check) {
    if (check != kCausalFloor) take_hidden(check == kFixedPoint ? v.drafted : v.left_out);
    Judge(state, lane, plan, check);
    return true;
  });
}

}  // namespace

Verdict RunChecks(SessionState& state, const CanvasPlan& plan, int32_t step) {
  Verification& v = *state.verification;
  v.missing = 0;
  v.is_in_kv = false;
  CutFolds(state, plan);
  return v.packed_canvases.empty() ? RunOneByOne(state, plan) : RunPacked(state, plan, step);
}

Verdict RunFinalCheck(SessionState& state, const CanvasPlan& plan, int64_t num_tokens) {
  const std::span<const int32_t> tokens(state.canvas.argmax.data(), static_cast<size_t>(num_tokens));
  const HeldLane lane = TakeLane(state, num_tokens);
  if (!lane) return Verdict::kCancelled;
  {
    StageTimer timer(&state.stats.verify_ms);
    PredictBehind(state, plan, tokens);
  }
  CountPass(state, num_tokens);
  bool is_refused = false;
  JudgeCausally(state, lane, plan, tokens, [&is_refused](size_t) { is_refused = true; });
  Verification& v = *state.verification;
  is_refused |= v.missing > static_cast<double>(state.options.verify.causal_budget);
  if (is_refused) return Verdict::kDiscard;
  MarkInKv(v, plan, num_tokens);
  return Verdict::kNone;
}

}  // namespace dgrt
