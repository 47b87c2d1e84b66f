// Implementation of scheduler.h. Every worker does the same: it answers for requests that leave the queue without having run,
// or runs the first in line. There is one worker more than requests may run, so one is always free to answer.
#include "serving/scheduler.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "common/check.h"

namespace dgrt {
namespace {

using Milliseconds = std::chrono::duration<double, std::milli>;

constexpr int32_t kMostRunning = 1024, kMostQueued = 1 << 20;

SchedulerOptions Checked(const SchedulerOptions& options) {
  const auto require = [](const char* name, int32_t found, int32_t least, int32_t most) {
    if (found >= least && found <= most) return;
    throw InvalidArgument(Message(name, ": expected ", least, " to ", most, ", found ", found));
  };
  require("max_running", options.max_running, 1, kMostRunning);
  require("max_queued", options.max_queued, 0, kMostQueued);
  return options;
}

// What was committed before the end, whatever that was.
void Collect(const Session& session, RequestResult& result) {
  result.tokens.assign(session.tokens().begin(), session.tokens().end());
  result.logprobs.assign(session.logprobs().begin(), session.logprobs().end());
  result.stats = session.stats();
  result.finish = session.finish_reason();
  result.kv_len = session.kv_len();
}

}  // namespace

std::unique_lock<std::mutex> Monitor::Lock() {
  home.Require("scheduler");
  return std::unique_lock(mutex);
}

// --- Request ---

void Request::Cancel() {
  const auto lock = monitor_->Lock();
  is_cancelled_ = true;
  if (session_ != nullptr) session_->Cancel();
  monitor_->changed.notify_all();
}

bool Request::is_done() const {
  const auto lock = monitor_->Lock();
  return is_done_;
}

bool Request::WaitFor(std::chrono::duration<double, std::milli> time) const {
  auto lock = monitor_->Lock();
  return monitor_->changed.wait_for(lock, time, [this] { return is_done_; });
}

void Request::Wait() const {
  auto lock = monitor_->Lock();
  monitor_->changed.wait(lock, [this] { return is_done_; });
}

const RequestResult& Request::result() const {
  const auto lock = monitor_->Lock();
  if (!is_done_) throw InvalidArgument("result: expected a request that is done, found one that is not: wait for it");
  return result_;
}

// --- Scheduler ---

Scheduler::Scheduler(std::shared_ptr<Runtime> runtime, const SchedulerOptions& options)
    : runtime_(std::move(runtime)), options_(Checked(options)), monitor_(std::make_shared<Monitor>()) {
  if (runtime_ == nullptr) throw InvalidArgument("runtime: expected an open runtime, found none");
  runtime_->RequireHome();
  const int32_t num_workers = options_.max_running + 1;
  running_.reserve(static_cast<size_t>(options_.max_running));
  workers_.reserve(static_cast<size_t>(num_workers));
  try {
    for (int32_t i = 0; i < num_workers; ++i) workers_.emplace_back([this] { WorkerLoop(); });
  } catch (const std::system_error& error) {
    const size_t started = workers_.size();
    Stop();
    throw OutOfMemory(Message("scheduler: expected ", num_workers, " threads, found room for ", started, ": ", error.what()));
  }
}

Scheduler::~Scheduler() { Stop(); }

std::shared_ptr<Scheduler> Scheduler::Create(std::shared_ptr<Runtime> runtime, const SchedulerOptions& options) {
  return {new Scheduler(std::move(runtime), options), Destroy};
}

void Scheduler::Destroy(Scheduler* scheduler) {
  const auto is_this_thread = [](const std::thread& worker) { return worker.get_id() == std::this_thread::get_id(); };
  if (std::any_of(scheduler->workers_.begin(), scheduler->workers_.end(), is_this_thread)) {
    std::thread([scheduler] { delete scheduler; }).detach();  // a thread cannot wait for itself
  } else {
    delete scheduler;
  }
}

void Scheduler::Stop() noexcept {
  {
    const std::lock_guard lock(monitor_->mutex);
    is_stopping_ = true;
    for (const RequestRef& request : running_) {
      request->is_cancelled_ = true;
      if (request->session_ != nullptr) request->session_->Cancel();
    }
    for (const RequestRef& request : queue_) request->is_cancelled_ = true;
    monitor_->changed.notify_all();
  }
  for (std::thread& worker : workers_) worker.join();
}

std::shared_ptr<Request> Scheduler::Submit(std::vector<int32_t> prompt, const GenerateOptions& options,
                                           std::unique_ptr<RequestSink> sink) {
  runtime_->CheckRequest(prompt, options);
  const auto request = std::make_shared<Request>();
  request->kv_bytes_ = runtime_->PlannedKvBytes(static_cast<int64_t>(prompt.size()), options);
  const int64_t limit = runtime_->kv_limit_bytes();
  if (limit > 0 && request->kv_bytes_ > limit) {
    const std::string bound =
        options.max_new_tokens < 0 ? "no max_new_tokens" : Message("max_new_tokens ", options.max_new_tokens);
    throw OutOfMemory(Message("KV memory: prompt of ", prompt.size(), " tokens and ", bound, " may take ",
                              request->kv_bytes_, " bytes, the limit is ", limit));
  }
  request->prompt_ = std::move(prompt);
  request->options_ = options;
  request->sink_ = std::move(sink);
  request->monitor_ = monitor_;
  request->deadline_ = DeadlineOf(options, request->submitted_);

  const auto lock = monitor_->Lock();
  if (is_stopping_) throw Cancelled("the scheduler is being closed");
  const int64_t found = static_cast<int64_t>(queue_.size() + running_.size()) + num_leaving_;
  const int64_t most = int64_t{options_.max_running} + options_.max_queued;
  if (found >= most) {
    ++stats_.refused;
    throw QueueFull(Message("queue: expected fewer than ", most, " requests (max_running ", options_.max_running,
                            ", max_queued ", options_.max_queued, "), found ", found));
  }
  queue_.push_back(request);
  monitor_->changed.notify_all();
  return request;
}

SchedulerStats Scheduler::stats() const {
  const auto lock = monitor_->Lock();
  SchedulerStats out = stats_;
  out.queued = static_cast<int64_t>(queue_.size()) + num_leaving_;
  out.running = static_cast<int64_t>(running_.size());
  return out;
}

// A request that was cancelled or whose deadline has passed before its turn. Null: none. The lock is held.
Scheduler::RequestRef Scheduler::TakeLeaver() {
  const auto now = Clock::now();
  const auto leaves = [&](const RequestRef& request) { return request->is_cancelled_ || now >= request->deadline_; };
  const auto found = std::find_if(queue_.begin(), queue_.end(), leaves);
  if (found == queue_.end()) return nullptr;
  const RequestRef request = *found;
  queue_.erase(found);
  ++num_leaving_;
  return request;
}

// The first in line if it may run now: strictly in order, so that a large request is not overtaken for ever. Null: it may
// not, or there is none. The lock is held.
Scheduler::RequestRef Scheduler::TakeNext() {
  if (queue_.empty() || static_cast<int32_t>(running_.size()) >= options_.max_running) return nullptr;
  const RequestRef request = queue_.front();
  const int64_t limit = runtime_->kv_limit_bytes();
  if (limit > 0 && !running_.empty() && stats_.planned_kv_bytes + request->kv_bytes_ > limit) return nullptr;
  queue_.pop_front();
  running_.push_back(request);
  stats_.planned_kv_bytes += request->kv_bytes_;
  return request;
}

void Scheduler::WorkerLoop() {
  std::unique_lock lock(monitor_->mutex);
  while (true) {
    if (const RequestRef request = TakeLeaver()) {
      lock.unlock();
      Leave(request);
      lock.lock();
    } else if (const RequestRef next = is_stopping_ ? nullptr : TakeNext()) {
      lock.unlock();
      Run(next);
      lock.lock();
    } else if (is_stopping_) {
      return;
    } else {
      auto earliest = Clock::time_point::max();
      for (const RequestRef& waiting : queue_) earliest = std::min(earliest, waiting->deadline_);
      if (earliest == Clock::time_point::max()) {
        monitor_->changed.wait(lock);
      } else {
        monitor_->changed.wait_until(lock, earliest);
      }
    }
  }
}

// A request that never ran.
void Scheduler::Leave(const RequestRef& request) {
  RequestResult result;
  result.stats.queued_ms = Milliseconds(Clock::now() - request->submitted_).count();
  result.stats.prompt_tokens = static_cast<int64_t>(request->prompt_.size());
  const bool is_cancelled = [&] {
    const std::lock_guard lock(monitor_->mutex);
    return request->is_cancelled_;
  }();
  if (is_cancelled) {
    result.finish = FinishReason::kCancelled;
  } else {
    result.error = std::make_exception_ptr(DeadlineExceeded(
        Message("deadline of ", request->options_.deadline_ms, " ms passed in the queue")));
  }
  Finish(request, std::move(result));
}

void Scheduler::Run(const RequestRef& request) {
  RequestResult result;
  const auto start = Clock::now();
  try {
    Session session(runtime_, request->options_, request->submitted_);
    {
      const std::lock_guard lock(monitor_->mutex);
      request->session_ = &session;
      if (request->is_cancelled_) session.Cancel();
    }
    bool is_cancelled = false;
    try {
      Generate(session, request->prompt_, request->sink_.get());
    } catch (const Cancelled&) {  // inside the prompt, or by the sink
      is_cancelled = true;
    } catch (...) {
      result.error = std::current_exception();
    }
    {
      const std::lock_guard lock(monitor_->mutex);
      request->session_ = nullptr;
    }
    Collect(session, result);
    result.stats.queued_ms = Milliseconds(start - request->submitted_).count();
    if (is_cancelled) result.finish = FinishReason::kCancelled;
  } catch (...) {
    result.error = std::current_exception();
  }
  Finish(request, std::move(result));
}

// The last thing that happens to a request. Its sink is told first, so that who waits for it finds everything done.
void Scheduler::Finish(const RequestRef& request, RequestResult result) {
  if (request->sink_ != nullptr) request->sink_->OnDone(result);
  request->sink_.reset();
  const std::lock_guard lock(monitor_->mutex);
  ++(result.error != nullptr ? stats_.failed
     : result.finish == FinishReason::kCancelled ? stats_.cancelled
                                                 : stats_.finished);
  const auto running = std::find(running_.begin(), running_.end(), request);
  if (running != running_.end()) {
    running_.erase(running);
    stats_.planned_kv_bytes -= request->kv_bytes_;
  } else {
    --num_leaving_;
  }
  request->result_ = std::move(result);
  request->is_done_ = true;
  monitor_->changed.notify_all();
}

}  // namespace dgrt
