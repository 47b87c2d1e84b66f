// Implementation of common/thread_pool.h. A worker joins a job only while it is open; the caller closes it when no
// chunk is left and then waits for those inside. So a worker that the system has put aside delays nobody.
#include "common/thread_pool.h"

#include <system_error>
#include <utility>

#include "common/check.h"

namespace dgrt {
namespace {

// 10 to 40 microseconds, by processor: longer than the gap between two steps of a layer, not much longer than a sleep and a
// wake-up. (Of 400, 1,000, 1,500, 2,500 and 4,000: 5.9, 5.7, 5.4, 5.4 and 5.4 ms for a short answer of mini.)
constexpr int kSpins = 1000;

inline void SpinPause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

template <typename Condition>
bool SpinUntil(Condition condition) {
  for (int i = 0; i < kSpins; ++i) {
    if (condition()) return true;
    SpinPause();
  }
  return condition();
}

}  // namespace

ThreadPool::ThreadPool(int num_threads) {
  DGRT_CHECK(num_threads >= 1);
  workers_.reserve(static_cast<size_t>(num_threads - 1));
  try {
    for (int i = 1; i < num_threads; ++i) workers_.emplace_back([this] { WorkerLoop(); });
  } catch (const std::system_error& error) {
    const size_t started = workers_.size() + 1;
    Stop();
    throw OutOfMemory(Message("thread pool: expected ", num_threads, " threads, found room for ", started, ": ",
                              error.what()));
  }
}

ThreadPool::~ThreadPool() { Stop(); }

void ThreadPool::Stop() noexcept {
  {
    std::lock_guard lock(mutex_);
    shutdown_ = true;
    job_.fetch_add(1, std::memory_order_release);
  }
  start_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(int64_t num_chunks, void* context, ChunkFunction function) {
  if (workers_.empty() || num_chunks <= 1) {
    for (int64_t chunk = 0; chunk < num_chunks; ++chunk) function(context, chunk);
    return;
  }
  std::lock_guard turn(callers_);
  {
    std::lock_guard lock(mutex_);
    context_ = context;
    function_ = function;
    num_chunks_ = num_chunks;
    next_chunk_.store(0, std::memory_order_relaxed);
    error_ = nullptr;
    open_ = true;
    job_.fetch_add(1, std::memory_order_release);
  }
  start_.notify_all();
  TakeChunks();

  std::unique_lock lock(mutex_);
  open_ = false;
  lock.unlock();
  const auto all_out = [this] { return inside_.load(std::memory_order_acquire) == 0; };
  SpinUntil(all_out);
  lock.lock();
  done_.wait(lock, all_out);
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void ThreadPool::WorkerLoop() {
  uint64_t seen = 0;
  while (true) {
    SpinUntil([&] { return job_.load(std::memory_order_acquire) != seen; });
    std::unique_lock lock(mutex_);
    start_.wait(lock, [&] { return job_.load(std::memory_order_relaxed) != seen; });
    seen = job_.load(std::memory_order_relaxed);
    if (shutdown_) return;
    if (!open_) continue;
    inside_.fetch_add(1, std::memory_order_relaxed);
    lock.unlock();
    TakeChunks();
    lock.lock();
    if (inside_.fetch_sub(1, std::memory_order_release) == 1) done_.notify_one();
  }
}

void ThreadPool::TakeChunks() noexcept {
  while (true) {
    const int64_t chunk = next_chunk_.fetch_add(1, std::memory_order_relaxed);
    if (chunk >= num_chunks_) return;
    try {
      function_(context_, chunk);
    } catch (...) {
      next_chunk_.store(num_chunks_, std::memory_order_relaxed);
      std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
    }
  }
}

}  // namespace dgrt
