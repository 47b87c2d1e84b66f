// The exported functions of dgrt.h that serve many requests: argument checks and one call of serving/scheduler.h each.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <string>
#include <utility>

#include "capi/handles.h"
#include "capi/sized_struct.h"
#include "capi/status.h"
#include "serving/scheduler.h"

using dgrt::capi::Guarded;
using dgrt::capi::ReadSized;
using dgrt::capi::RequireNotNull;
using dgrt::capi::RequireZero;
using dgrt::capi::WriteSized;
using dgrt::capi::WriteSpan;

struct dgrt_scheduler {
  std::shared_ptr<const dgrt::capi::RuntimeState> state;  // first: dropped last
  dgrt::HomeProcessRef<dgrt::Scheduler> scheduler;
  dgrt::LiveHandle live{};
};

struct dgrt_request {
  std::shared_ptr<dgrt::Request> request;
  dgrt::LiveHandle live{};
};

namespace {

constexpr double kLongestTimeoutMs = 1e12;  // a number of milliseconds that every clock can add; more is for ever

// The status of a result; its text becomes the last error of this thread.
dgrt_status StatusOf(const dgrt::RequestResult& result) {
  return Guarded([&] {
    if (result.error != nullptr) std::rethrow_exception(result.error);
  });
}

class RequestCallbacks : public dgrt::RequestSink {
 public:
  RequestCallbacks(const dgrt_callbacks& callbacks, const dgrt::ModelFacts& model)
      : callbacks_(callbacks), sink_(callbacks, model) {}
  bool WantsSteps() const override { return sink_.WantsSteps(); }
  void OnStep(const dgrt::StepView& step) override { sink_.OnStep(step); }
  void OnCommit(int32_t canvas_index, std::span<const int32_t> tokens,
                std::span<const dgrt::TokenOrigin> origins) override {
    sink_.OnCommit(canvas_index, tokens, origins);
  }
  void OnDone(const dgrt::RequestResult& result) noexcept override {
    if (callbacks_.on_done == nullptr) return;
    const dgrt_status status = StatusOf(result);
    callbacks_.on_done(callbacks_.user_data, status, static_cast<int32_t>(result.finish),
                       status == DGRT_OK ? "" : dgrt::capi::LastError());
  }

 private:
  dgrt_callbacks callbacks_;
  dgrt::capi::CallbackSink sink_;
};

dgrt_scheduler_options DefaultSchedulerOptions() {
  const dgrt::SchedulerOptions defaults;
  dgrt_scheduler_options options{};
  options.struct_size = sizeof(options);
  options.max_running = defaults.max_running;
  options.max_queued = defaults.max_queued;
  return options;
}

}  // namespace

extern "C" {

dgrt_status dgrt_scheduler_options_init(dgrt_scheduler_options* options, size_t struct_size) {
  return Guarded([&] { WriteSized(options, struct_size, DefaultSchedulerOptions(), "dgrt_scheduler_options"); });
}

dgrt_status dgrt_scheduler_create(const dgrt_runtime* runtime, const dgrt_scheduler_options* given,
                                  dgrt_scheduler** scheduler) {
  return Guarded([&] {
    RequireNotNull(runtime, "runtime");
    RequireNotNull(scheduler, "scheduler");
    const auto options = ReadSized(given, DefaultSchedulerOptions(), "dgrt_scheduler_options");
    RequireZero(options.reserved, "dgrt_scheduler_options.reserved");
    auto created = dgrt::Scheduler::Create(runtime->state->runtime.get(), {options.max_running, options.max_queued});
    *scheduler = new dgrt_scheduler{runtime->state, dgrt::HomeProcessRef(std::move(created))};
  });
}

void dgrt_scheduler_destroy(dgrt_scheduler* scheduler) { delete scheduler; }

dgrt_status dgrt_scheduler_submit(dgrt_scheduler* scheduler, const dgrt_session_options* session_options,
                                  const int32_t* prompt, size_t num_tokens, const dgrt_callbacks* callbacks,
                                  dgrt_request** request) {
  return Guarded([&] {
    RequireNotNull(scheduler, "scheduler");
    const dgrt::Runtime& runtime = *scheduler->state->runtime;
    const auto tokens = dgrt::capi::TokenSpan(prompt, num_tokens, "prompt", runtime.model().context_len);
    const auto options = dgrt::capi::ReadSessionOptions(session_options, runtime);
    auto sink = std::make_unique<RequestCallbacks>(dgrt::capi::ReadCallbacks(callbacks), runtime.model());
    auto handle = request != nullptr ? std::make_unique<dgrt_request>() : nullptr;  // before the point of no return
    auto submitted = scheduler->scheduler->Submit({tokens.begin(), tokens.end()}, options, std::move(sink));
    if (handle == nullptr) return;
    handle->request = std::move(submitted);
    *request = handle.release();
  });
}

dgrt_status dgrt_scheduler_stats(dgrt_scheduler* scheduler, dgrt_scheduler_counts* counts) {
  return Guarded([&] {
    RequireNotNull(scheduler, "scheduler");
    RequireNotNull(counts, "counts");
    const dgrt::SchedulerStats from = scheduler->scheduler->stats();
    const dgrt::LaneStats lanes = scheduler->state->runtime->lane_stats();
    dgrt_scheduler_counts to{};
    to.queued = from.queued;
    to.running = from.running;
    to.finished = from.finished;
    to.failed = from.failed;
    to.cancelled = from.cancelled;
    to.refused = from.refused;
    to.planned_kv_bytes = from.planned_kv_bytes;
    to.passes = lanes.passes;
    to.narrow_passes = lanes.narrow_passes;
    to.busy_thread_ms = lanes.busy_thread_ms;
    WriteSized(counts, counts->struct_size, to, "dgrt_scheduler_counts");
  });
}

void dgrt_request_destroy(dgrt_request* request) { delete request; }

dgrt_status dgrt_request_cancel(dgrt_request* request) {
  return Guarded([&] {
    RequireNotNull(request, "request");
    request->request->Cancel();
  });
}

dgrt_status dgrt_request_wait(dgrt_request* request, double timeout_ms, int32_t* is_done) {
  return Guarded([&] {
    RequireNotNull(request, "request");
    RequireNotNull(is_done, "is_done");
    if (std::isnan(timeout_ms)) throw dgrt::InvalidArgument("timeout_ms: expected a number, found NaN");
    if (timeout_ms < 0 || timeout_ms > kLongestTimeoutMs) request->request->Wait();
    const double time_ms = std::clamp(timeout_ms, 0.0, kLongestTimeoutMs);
    *is_done = request->request->WaitFor(std::chrono::duration<double, std::milli>(time_ms)) ? 1 : 0;
  });
}

dgrt_status dgrt_request_result(dgrt_request* request, const int32_t** tokens, size_t* num_tokens,
                                int32_t* finish_reason) {
  return Guarded([&] {
    RequireNotNull(request, "request");
    RequireNotNull(tokens, "tokens");
    RequireNotNull(num_tokens, "num_tokens");
    RequireNotNull(finish_reason, "finish_reason");
    const dgrt::RequestResult& result = request->request->result();
    WriteSpan(std::span<const int32_t>(result.tokens), tokens, num_tokens);
    *finish_reason = static_cast<int32_t>(result.finish);
    if (result.error != nullptr) std::rethrow_exception(result.error);
  });
}

dgrt_status dgrt_request_logprobs(dgrt_request* request, const float** logprobs, size_t* num_tokens) {
  return Guarded([&] {
    RequireNotNull(request, "request");
    RequireNotNull(logprobs, "logprobs");
    RequireNotNull(num_tokens, "num_tokens");
    WriteSpan(std::span<const float>(request->request->result().logprobs), logprobs, num_tokens);
  });
}

dgrt_status dgrt_request_stats(dgrt_request* request, dgrt_stats* stats) {
  return Guarded([&] {
    RequireNotNull(request, "request");
    RequireNotNull(stats, "stats");
    const dgrt::RequestResult& result = request->request->result();
    const auto to = dgrt::capi::ToStats(result.stats, result.finish, result.kv_len);
    WriteSized(stats, stats->struct_size, to, "dgrt_stats");
  });
}

}  // extern "C"
