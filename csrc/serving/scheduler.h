// Many requests of one runtime: a bounded queue in front of a bounded number that run at once. Requests that run share the
// machine pass by pass (runtime/lanes.h); what decides who may start is order of arrival and memory. Used by capi/ and
// python/ for `submit`; a Session used directly shares lanes with these requests but not the queue.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "common/home_process.h"
#include "runtime/runtime.h"

namespace dgrt {

struct SchedulerOptions {
  int32_t max_running = 8;   // requests that hold KV memory at once
  int32_t max_queued = 256;  // that wait beyond those; one more is refused
};

struct SchedulerStats {
  int64_t queued = 0, running = 0;            // now
  int64_t finished = 0;                       // ended by a stop id, their length or the context
  int64_t failed = 0, cancelled = 0;          // a deadline counts as a failure
  int64_t refused = 0;                        // by Submit, because the queue was full
  int64_t planned_kv_bytes = 0;               // what running requests may come to take
};

// How a request ended.
struct RequestResult {
  std::vector<int32_t> tokens;     // emitted; also when it failed or was cancelled
  std::vector<float> logprobs;     // one per token if asked for
  FinishReason finish = FinishReason::kNone;  // kNone: failed
  std::exception_ptr error;        // null: did not fail
  Stats stats;                     // with queued_ms
  int64_t kv_len = 0;              // KV rows that were committed
};

// What happens to a request, told on a thread of the scheduler, one call at a time. A sink that throws fails its own request.
class RequestSink : public GenerateSink {
 public:
  // The last call. Must not throw.
  virtual void OnDone(const RequestResult&) noexcept {}
};

// One lock for a scheduler and its requests, and one signal for every change of theirs. Outlives both.
struct Monitor {
  // Held by whoever looks at or changes what it guards. Throws InvalidArgument in a child of fork(), where the threads that
  // would ever change anything do not exist.
  std::unique_lock<std::mutex> Lock();

  std::mutex mutex;
  std::condition_variable changed;
  HomeProcess home;
};

// A request that was accepted. Any thread. May outlive its scheduler.
class Request {
 public:
  // Ends it as kCancelled: at once in the queue, between two passes when it runs. Later calls do nothing.
  void Cancel();
  bool is_done() const;
  // Waits until it is done (true) or the time has passed (false).
  bool WaitFor(std::chrono::duration<double, std::milli> time) const;
  void Wait() const;
  // Throws InvalidArgument before it is done.
  const RequestResult& result() const;

 private:
  friend class Scheduler;
  using Clock = std::chrono::steady_clock;

  std::vector<int32_t> prompt_;
  GenerateOptions options_;
  std::unique_ptr<RequestSink> sink_;  // null: nobody listens
  int64_t kv_bytes_ = 0;               // the most it can come to take
  Clock::time_point submitted_ = Clock::now();
  Clock::time_point deadline_ = Clock::time_point::max();

  std::shared_ptr<Monitor> monitor_;   // guards what follows
  bool is_cancelled_ = false;
  Session* session_ = nullptr;         // while it runs
  bool is_done_ = false;
  RequestResult result_;               // complete, and never changed again, when is_done_
};

class Scheduler {
 public:
  // Throws InvalidArgument, OutOfMemory (threads). Dropping the last reference cancels what is queued or running and waits
  // until all have been told; on a thread of the scheduler itself (in a sink) this happens in the background.
  static std::shared_ptr<Scheduler> Create(std::shared_ptr<Runtime> runtime, const SchedulerOptions& options);
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Checks everything that can be checked now. Throws QueueFull, OutOfMemory (it could never run within the KV limit), and
  // what Session and Prefill throw for wrong options or prompts. `sink` may be null.
  std::shared_ptr<Request> Submit(std::vector<int32_t> prompt, const GenerateOptions& options,
                                  std::unique_ptr<RequestSink> sink);
  SchedulerStats stats() const;
  const std::shared_ptr<Runtime>& runtime() const { return runtime_; }

 private:
  using RequestRef = std::shared_ptr<Request>;
  using Clock = std::chrono::steady_clock;

  Scheduler(std::shared_ptr<Runtime> runtime, const SchedulerOptions& options);
  ~Scheduler();
  static void Destroy(Scheduler* scheduler);
  void Stop() noexcept;
  void WorkerLoop();
  RequestRef TakeLeaver();
  RequestRef TakeNext();
  void Run(const RequestRef& request);
  void Leave(const RequestRef& request);
  void Finish(const RequestRef& request, RequestResult result);

  const std::shared_ptr<Runtime> runtime_;
  const SchedulerOptions options_;
  const std::shared_ptr<Monitor> monitor_;  // guards what follows
  std::deque<RequestRef> queue_;            // in order of arrival
  int64_t num_leaving_ = 0;                 // out of the queue without having run, not yet told
  std::vector<RequestRef> running_;
  SchedulerStats stats_;
  bool is_stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace dgrt
