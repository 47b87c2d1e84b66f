// Conversions between the structs of dgrt.h and the C++ facade.
#include "capi/handles.h"
#include "capi/sized_struct.h"

namespace dgrt::capi {

static_assert(DGRT_FINISH_NONE == static_cast<int>(FinishReason::kNone));
static_assert(DGRT_FINISH_STOP == static_cast<int>(FinishReason::kStop));
static_assert(DGRT_FINISH_LENGTH == static_cast<int>(FinishReason::kLength));
static_assert(DGRT_FINISH_CANCELLED == static_cast<int>(FinishReason::kCancelled));
static_assert(DGRT_GUARANTEE_EXACT == static_cast<int>(Guarantee::kExact));
static_assert(DGRT_GUARANTEE_CAUSAL == static_cast<int>(Guarantee::kCausal));
static_assert(DGRT_GUARANTEE_VERIFIED == static_cast<int>(Guarantee::kVerified));
static_assert(DGRT_PIPELINE_AUTO == static_cast<int>(Pipeline::kAuto));
static_assert(DGRT_PIPELINE_OFF == static_cast<int>(Pipeline::kOff));
static_assert(DGRT_PIPELINE_ON == static_cast<int>(Pipeline::kOn));
static_assert(DGRT_PACKING_AUTO == static_cast<int>(Packing::kAuto));
static_assert(DGRT_PACKING_OFF == static_cast<int>(Packing::kOff));
static_assert(DGRT_PACKING_ON == static_cast<int>(Packing::kOn));
static_assert(DGRT_REDRAFT_AUTO == static_cast<int>(Redraft::kAuto));
static_assert(DGRT_REDRAFT_OFF == static_cast<int>(Redraft::kOff));
static_assert(DGRT_REDRAFT_ON == static_cast<int>(Redraft::kOn));
static_assert(DGRT_DRAFTER_NONE == static_cast<int>(DrafterKind::kNone));
static_assert(DGRT_DRAFTER_SUFFIX == static_cast<int>(DrafterKind::kSuffix));
static_assert(DGRT_DRAFTER_MODEL == static_cast<int>(DrafterKind::kModel));
static_assert(DGRT_DRAFTER_AUTO == static_cast<int>(DrafterKind::kAuto));
static_assert(DGRT_DRAFTER_OVERLAP == static_cast<int>(DrafterKind::kOverlap));

void RequireCount(uint64_t count, int64_t most, const char* name, const char* what) {
  if (count <= static_cast<uint64_t>(most)) return;
  throw InvalidArgument(Message(name, ": expected at most ", most, " ", what, ", found ", count));
}

std::span<const int32_t> TokenSpan(const int32_t* tokens, uint64_t num_tokens, const char* name, int64_t most) {
  RequireCount(num_tokens, most, name, "tokens");
  if (num_tokens > 0) RequireNotNull(tokens, name);
  return {tokens, static_cast<size_t>(num_tokens)};
}

dgrt_session_options DefaultSessionOptions(const Runtime& runtime) {
  const GenerateOptions& from = runtime.default_options();
  dgrt_session_options to{};
  to.struct_size = sizeof(to);
  to.request = from.request;
  to.seed = from.seed;
  to.max_new_tokens = from.max_new_tokens;
  to.max_denoising_steps = from.sampler.max_denoising_steps;
  to.stability_threshold = from.sampler.stability_threshold;
  to.entropy_bound = from.sampler.entropy_bound;
  to.confidence_threshold = from.sampler.confidence_threshold;
  to.t_min = from.sampler.t_min;
  to.t_max = from.sampler.t_max;
  to.stop_ids = from.stop_ids.data();
  to.num_stop_ids = from.stop_ids.size();
  to.guarantee = static_cast<int32_t>(from.guarantee);
  to.drafter = static_cast<int32_t>(from.drafter);
  to.causal_temperature = from.causal_temperature;
  to.pipeline = static_cast<int32_t>(from.pipeline);
  to.logprobs = from.logprobs;
  to.verify_packing = static_cast<int32_t>(from.verify.packing);
  to.deadline_ms = from.deadline_ms;
  to.draft = from.draft.data();
  to.num_draft = from.draft.size();
  to.verify_trust = from.verify.trust;
  to.verify_folds = from.verify.folds;
  to.verify_causal_floor = from.verify.causal_floor;
  to.verify_causal_budget = from.verify.causal_budget;
  to.verify_min_confirmed = from.verify.min_confirmed;
  to.verify_one_pass = from.verify.one_pass;
  to.verify_always = from.verify.always;
  to.verify_expected_steps = from.verify.expected_steps;
  to.verify_redraft = static_cast<int32_t>(from.verify.redraft);
  return to;
}

GenerateOptions ReadSessionOptions(const dgrt_session_options* given, const Runtime& runtime) {
  const auto from = ReadSized(given, DefaultSessionOptions(runtime), "dgrt_session_options");
  RequireZero(from.reserved, "dgrt_session_options.reserved");
  const ModelFacts& model = runtime.model();
  GenerateOptions to;
  to.request = from.request;
  to.seed = from.seed;
  to.max_new_tokens = from.max_new_tokens;
  to.sampler.max_denoising_steps = from.max_denoising_steps;
  to.sampler.stability_threshold = from.stability_threshold;
  to.sampler.entropy_bound = from.entropy_bound;
  to.sampler.confidence_threshold = from.confidence_threshold;
  to.sampler.t_min = from.t_min;
  to.sampler.t_max = from.t_max;
  const auto stop_ids = TokenSpan(from.stop_ids, from.num_stop_ids, "dgrt_session_options.stop_ids", model.vocab_size);
  to.stop_ids.assign(stop_ids.begin(), stop_ids.end());
  to.guarantee = static_cast<Guarantee>(from.guarantee);
  to.drafter = static_cast<DrafterKind>(from.drafter);
  to.causal_temperature = from.causal_temperature;
  to.pipeline = static_cast<Pipeline>(from.pipeline);
  to.logprobs = ReadFlag(from.logprobs, "dgrt_session_options.logprobs");
  to.verify.packing = static_cast<Packing>(from.verify_packing);
  to.deadline_ms = from.deadline_ms;
  const auto draft = TokenSpan(from.draft, from.num_draft, "dgrt_session_options.draft", model.context_len);
  to.draft.assign(draft.begin(), draft.end());
  to.verify.trust = from.verify_trust;
  to.verify.folds = from.verify_folds;
  to.verify.causal_floor = from.verify_causal_floor;
  to.verify.causal_budget = from.verify_causal_budget;
  to.verify.min_confirmed = from.verify_min_confirmed;
  to.verify.one_pass = ReadFlag(from.verify_one_pass, "dgrt_session_options.verify_one_pass");
  to.verify.always = ReadFlag(from.verify_always, "dgrt_session_options.verify_always");
  to.verify.expected_steps = from.verify_expected_steps;
  to.verify.redraft = static_cast<Redraft>(from.verify_redraft);
  return to;
}

dgrt_stats ToStats(const Stats& from, FinishReason finish, int64_t kv_len) {
  dgrt_stats to{};
  to.struct_size = sizeof(to);
  to.finish_reason = static_cast<int32_t>(finish);
  to.prefill_passes = from.prefill_passes;
  to.denoise_passes = from.denoise_passes;
  to.commit_passes = from.commit_passes;
  to.packed_passes = from.packed_passes;
  to.draft_calls = from.draft_calls;
  to.accepted_drafts = from.accepted_drafts;
  to.row_tokens = from.row_tokens;
  to.canvases = from.canvases;
  to.prompt_tokens = from.prompt_tokens;
  to.tokens = from.tokens;
  to.kv_len = kv_len;
  to.peak_kv_bytes = from.peak_kv_bytes;
  to.tokens_per_pass = from.tokens_per_pass();
  to.prefill_ms = from.prefill_ms;
  to.denoise_ms = from.denoise_ms;
  to.commit_ms = from.commit_ms;
  to.head_ms = from.head_ms;
  to.draft_ms = from.draft_ms;
  to.total_ms = from.total_ms;
  to.steps_per_canvas = from.steps_per_canvas.data();
  to.num_steps_per_canvas = from.steps_per_canvas.size();
  to.causal_passes = from.causal_passes;
  to.causal_ms = from.causal_ms;
  to.packed_commits = from.packed_commits;
  to.packed_ms = from.packed_ms;
  to.queued_ms = from.queued_ms;
  to.wait_ms = from.wait_ms;
  to.prefix_tokens = from.prefix_tokens;
  to.verify_passes = from.verify_passes;
  to.verify_ms = from.verify_ms;
  to.draft_commits = from.draft_commits;
  to.draft_refines = from.draft_refines;
  to.draft_discards = from.draft_discards;
  to.draft_passes = from.draft_passes;
  to.draft_rows = from.draft_rows;
  return to;
}

dgrt_callbacks ReadCallbacks(const dgrt_callbacks* callbacks) {
  dgrt_callbacks none{};
  none.struct_size = sizeof(none);
  const auto read = ReadSized(callbacks, none, "dgrt_callbacks");
  RequireZero(read.reserved, "dgrt_callbacks.reserved");
  return read;
}

void CallbackSink::OnStep(const StepView& from) {
  dgrt_step to{};
  to.struct_size = sizeof(to);
  to.canvas_index = from.canvas_index;
  to.step = from.step;
  to.temperature = from.temperature;
  to.kv_len = from.kv_len;
  to.canvas_len = model_.canvas_len;
  to.hidden_size = model_.hidden_size;
  to.canvas_in = from.canvas_in.data();
  to.argmax = from.argmax.data();
  to.entropy = from.entropy.data();
  to.sampled = from.sampled.data();
  to.accepted = from.accepted.data();
  to.canvas_out = from.canvas_out.data();
  to.soft_in = from.soft_in.data();
  to.soft_out = from.soft_out.empty() ? nullptr : from.soft_out.data();
  to.stopped = from.stopped ? 1 : 0;
  if (callbacks_.on_step(callbacks_.user_data, &to) != 0) throw Cancelled("on_step asked to stop");
}

void CallbackSink::OnCommit(int32_t canvas_index, std::span<const int32_t> tokens, std::span<const TokenOrigin>) {
  if (callbacks_.on_commit == nullptr) return;
  if (callbacks_.on_commit(callbacks_.user_data, canvas_index, tokens.data(), tokens.size()) != 0) {
    throw Cancelled("on_commit asked to stop");
  }
}

}  // namespace dgrt::capi
