// The exported functions of dgrt.h around the prefix cache and turns: argument checks and one call of the C++ facade
// each.
#include "capi/handles.h"
#include "capi/sized_struct.h"
#include "capi/status.h"

using dgrt::capi::Guarded;
using dgrt::capi::RequireNotNull;
using dgrt::capi::TokenSpan;
using dgrt::capi::WriteSized;

extern "C" {

dgrt_status dgrt_prefix_cache_stats(const dgrt_runtime* runtime, dgrt_prefix_stats* stats) {
  return Guarded([&] {
    RequireNotNull(runtime, "runtime");
    RequireNotNull(stats, "stats");
    const dgrt::PrefixStats from = runtime->state->runtime->prefix_stats();
    const dgrt::MemoryUsage kv = runtime->state->runtime->kv_usage();
    dgrt_prefix_stats to{};
    to.lookups = from.lookups;
    to.hits = from.hits;
    to.prompt_tokens = from.prompt_tokens;
    to.hit_tokens = from.hit_tokens;
    to.stored_chunks = from.stored_chunks;
    to.evicted_chunks = from.evicted_chunks;
    to.evicted_windows = from.evicted_windows;
    to.num_chunks = from.num_chunks;
    to.bytes = from.bytes;
    to.limit_bytes = from.limit_bytes;
    to.kv_sequence_bytes = kv.sequence_bytes;
    to.kv_prefix_bytes = kv.prefix_bytes;
    to.kv_peak_bytes = kv.peak_bytes;
    to.kv_limit_bytes = kv.limit_bytes;
    WriteSized(stats, stats->struct_size, to, "dgrt_prefix_stats");
  });
}

dgrt_status dgrt_prefix_cache_clear(dgrt_runtime* runtime) {
  return Guarded([&] {
    RequireNotNull(runtime, "runtime");
    runtime->state->runtime->ClearPrefixes();
  });
}

dgrt_status dgrt_prefix_cache_save(const dgrt_runtime* runtime, const char* path) {
  return Guarded([&] {
    RequireNotNull(runtime, "runtime");
    RequireNotNull(path, "path");
    runtime->state->runtime->SavePrefixes(path);
  });
}

dgrt_status dgrt_prefix_cache_load(dgrt_runtime* runtime, const char* path, int64_t* num_chunks) {
  return Guarded([&] {
    RequireNotNull(runtime, "runtime");
    RequireNotNull(path, "path");
    RequireNotNull(num_chunks, "num_chunks");
    *num_chunks = runtime->state->runtime->LoadPrefixes(path);
  });
}

dgrt_status dgrt_session_extend(dgrt_session* session, const int32_t* tokens, size_t num_tokens) {
  return Guarded([&] {
    RequireNotNull(session, "session");
    const auto use = session->use.Enter();
    session->session.Extend(TokenSpan(tokens, num_tokens, "tokens", session->context_len()));
  });
}

}  // extern "C"
