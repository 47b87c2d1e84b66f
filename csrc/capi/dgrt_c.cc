// The exported functions of dgrt.h around runtimes and sessions (others: scheduler_c.cc, prefix_c.cc, tokenizer_c.cc):
// argument checks and one call of the C++ facade each. Nothing else is exported
// (exports.map lists the same names; a test compares header, list and library).
#include <cstring>
#include <memory>
#include <string>

#include "capi/handles.h"
#include "capi/sized_struct.h"
#include "capi/status.h"

using dgrt::Message;
using dgrt::RuntimeOptions;
using dgrt::capi::Guarded;
using dgrt::capi::ReadSized;
using dgrt::capi::RequireNotNull;
using dgrt::capi::RequireZero;
using dgrt::capi::RuntimeState;
using dgrt::capi::TokenSpan;
using dgrt::capi::WriteSized;
using dgrt::capi::WriteSpan;

namespace {

dgrt_runtime_options DefaultRuntimeOptions() {
  const RuntimeOptions defaults;
  dgrt_runtime_options options{};
  options.struct_size = sizeof(options);
  options.threads = defaults.threads;
  options.memory_limit_bytes = defaults.memory_limit_bytes;
  options.verify_weights = defaults.verify_weights ? 1 : 0;
  options.kv_limit_bytes = defaults.kv_limit_bytes;
  options.prefix_cache_bytes = defaults.prefix_cache_bytes;
  return options;
}

RuntimeOptions ReadRuntimeOptions(const dgrt_runtime_options* given) {
  const auto options = ReadSized(given, DefaultRuntimeOptions(), "dgrt_runtime_options");
  RequireZero(options.reserved, "dgrt_runtime_options.reserved");
  RuntimeOptions result;
  result.threads = options.threads;
  if (options.ort_library != nullptr) result.ort_library = options.ort_library;
  result.memory_limit_bytes = options.memory_limit_bytes;
  result.verify_weights = dgrt::capi::ReadFlag(options.verify_weights, "dgrt_runtime_options.verify_weights");
  result.kv_limit_bytes = options.kv_limit_bytes;
  result.prefix_cache_bytes = options.prefix_cache_bytes;
  return result;
}

std::unique_ptr<dgrt_session> NewSession(const dgrt_runtime* runtime, const dgrt_session_options* given) {
  RequireNotNull(runtime, "runtime");
  const auto options = dgrt::capi::ReadSessionOptions(given, *runtime->state->runtime);
  return std::unique_ptr<dgrt_session>(
      new dgrt_session{runtime->state, dgrt::Session(runtime->state->runtime.get(), options)});
}

dgrt_stats StatsOf(const dgrt::Session& session) {
  return dgrt::capi::ToStats(session.stats(), session.finish_reason(), session.kv_len());
}

}  // namespace

extern "C" {

const char* dgrt_version(void) { return DGRT_VERSION; }

int32_t dgrt_abi_version(void) { return DGRT_ABI_VERSION; }

const char* dgrt_status_name(dgrt_status status) { return dgrt::capi::StatusName(status); }

const char* dgrt_last_error(void) { return dgrt::capi::LastError(); }

int64_t dgrt_live_handles(void) { return dgrt::LiveHandles(); }

dgrt_status dgrt_runtime_options_init(dgrt_runtime_options* options, size_t struct_size) {
  return Guarded([&] { WriteSized(options, struct_size, DefaultRuntimeOptions(), "dgrt_runtime_options"); });
}

dgrt_status dgrt_runtime_create(const char* path, const dgrt_runtime_options* options, dgrt_runtime** runtime) {
  return Guarded([&] {
    RequireNotNull(path, "path");
    RequireNotNull(runtime, "runtime");
    auto opened = dgrt::Runtime::Open(path, ReadRuntimeOptions(options));
    std::string description = opened->description();
    *runtime = new dgrt_runtime{std::make_shared<RuntimeState>(dgrt::HomeProcessRef(std::move(opened)),
                                                               std::move(description))};
  });
}

void dgrt_runtime_destroy(dgrt_runtime* runtime) { delete runtime; }

dgrt_status dgrt_runtime_info(const dgrt_runtime* runtime, dgrt_runtime_facts* facts) {
  return Guarded([&] {
    RequireNotNull(runtime, "runtime");
    RequireNotNull(facts, "facts");
    const dgrt::ModelFacts& model = runtime->state->runtime->model();
    dgrt_runtime_facts result{};
    result.threads = runtime->state->runtime->threads();
    result.vocab_size = model.vocab_size;
    result.hidden_size = model.hidden_size;
    result.canvas_len = model.canvas_len;
    result.context_len = model.context_len;
    result.num_layers = static_cast<int64_t>(model.layers.size());
    result.pad_token_id = model.pad_token_id;
    result.bos_token_id = model.bos_token_id;
    result.description = runtime->state->description.c_str();
    result.manifest_json = runtime->state->runtime->manifest_json().c_str();
    WriteSized(facts, facts->struct_size, result, "dgrt_runtime_facts");
  });
}

dgrt_status dgrt_runtime_memory(const dgrt_runtime* runtime, dgrt_memory* memory) {
  return Guarded([&] {
    RequireNotNull(runtime, "runtime");
    RequireNotNull(memory, "memory");
    const dgrt::MemoryPlan plan = runtime->state->runtime->memory();
    dgrt_memory result{};
    result.weight_bytes = plan.weight_bytes;
    result.kv_bytes_full_context = plan.kv_bytes_full_context;
    result.workspace_bytes = plan.workspace_bytes;
    result.kv_bytes_per_token = plan.kv_bytes_per_token;
    result.kv_window_bytes = plan.kv_window_bytes;
    WriteSized(memory, memory->struct_size, result, "dgrt_memory");
  });
}

dgrt_status dgrt_session_options_init(const dgrt_runtime* runtime, dgrt_session_options* options, size_t struct_size) {
  return Guarded([&] {
    RequireNotNull(runtime, "runtime");
    WriteSized(options, struct_size, dgrt::capi::DefaultSessionOptions(*runtime->state->runtime),
               "dgrt_session_options");
  });
}

dgrt_status dgrt_session_create(const dgrt_runtime* runtime, const dgrt_session_options* options,
                                dgrt_session** session) {
  return Guarded([&] {
    RequireNotNull(session, "session");
    *session = NewSession(runtime, options).release();
  });
}

void dgrt_session_destroy(dgrt_session* session) { delete session; }

dgrt_status dgrt_session_prefill(dgrt_session* session, const int32_t* prompt, size_t num_tokens) {
  return Guarded([&] {
    RequireNotNull(session, "session");
    const auto use = session->use.Enter();
    session->session.Prefill(TokenSpan(prompt, num_tokens, "prompt", session->context_len()));
  });
}

dgrt_status dgrt_session_next_canvas(dgrt_session* session, const dgrt_callbacks* callbacks, const int32_t** tokens,
                                     size_t* num_tokens, int32_t* finish_reason) {
  return Guarded([&] {
    RequireNotNull(session, "session");
    RequireNotNull(tokens, "tokens");
    RequireNotNull(num_tokens, "num_tokens");
    RequireNotNull(finish_reason, "finish_reason");
    const auto use = session->use.Enter();
    dgrt::capi::CallbackSink sink(dgrt::capi::ReadCallbacks(callbacks), session->state->runtime->model());
    WriteSpan(session->session.NextCanvas(&sink), tokens, num_tokens);
    *finish_reason = static_cast<int32_t>(session->session.finish_reason());
  });
}

dgrt_status dgrt_session_tokens(dgrt_session* session, const int32_t** tokens, size_t* num_tokens) {
  return Guarded([&] {
    RequireNotNull(session, "session");
    RequireNotNull(tokens, "tokens");
    RequireNotNull(num_tokens, "num_tokens");
    const auto use = session->use.Enter();
    WriteSpan(session->session.tokens(), tokens, num_tokens);
  });
}

dgrt_status dgrt_session_logprobs(dgrt_session* session, const float** logprobs, size_t* num_tokens) {
  return Guarded([&] {
    RequireNotNull(session, "session");
    RequireNotNull(logprobs, "logprobs");
    RequireNotNull(num_tokens, "num_tokens");
    const auto use = session->use.Enter();
    WriteSpan(session->session.logprobs(), logprobs, num_tokens);
  });
}

dgrt_status dgrt_session_cancel(dgrt_session* session) {
  return Guarded([&] {
    RequireNotNull(session, "session");
    session->session.Cancel();
  });
}

dgrt_status dgrt_session_stats(dgrt_session* session, dgrt_stats* stats) {
  return Guarded([&] {
    RequireNotNull(session, "session");
    RequireNotNull(stats, "stats");
    const auto use = session->use.Enter();
    WriteSized(stats, stats->struct_size, StatsOf(session->session), "dgrt_stats");
  });
}

dgrt_status dgrt_session_set_canvas(dgrt_session* session, const int32_t* canvas, size_t num_tokens) {
  return Guarded([&] {
    RequireNotNull(session, "session");
    const auto use = session->use.Enter();
    session->session.SetCanvas(TokenSpan(canvas, num_tokens, "canvas", session->context_len()));
  });
}

dgrt_status dgrt_session_get_canvas(dgrt_session* session, const int32_t** canvas, size_t* num_tokens) {
  return Guarded([&] {
    RequireNotNull(session, "session");
    RequireNotNull(canvas, "canvas");
    RequireNotNull(num_tokens, "num_tokens");
    const auto use = session->use.Enter();
    WriteSpan(session->session.canvas(), canvas, num_tokens);
  });
}

dgrt_status dgrt_generate(const dgrt_runtime* runtime, const dgrt_session_options* options, const int32_t* prompt,
                          size_t num_tokens, const dgrt_callbacks* callbacks, dgrt_stats* stats) {
  return Guarded([&] {
    const auto session = NewSession(runtime, options);
    dgrt::capi::CallbackSink sink(dgrt::capi::ReadCallbacks(callbacks), runtime->state->runtime->model());
    dgrt::Generate(session->session, TokenSpan(prompt, num_tokens, "prompt", session->context_len()), &sink);
    if (stats != nullptr) {
      dgrt_stats result = StatsOf(session->session);
      result.steps_per_canvas = nullptr;
      result.num_steps_per_canvas = 0;
      WriteSized(stats, stats->struct_size, result, "dgrt_stats");
    }
  });
}

}  // extern "C"
