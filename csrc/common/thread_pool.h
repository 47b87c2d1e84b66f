// A fixed set of threads for the kernels. The caller takes part, so a pool of one starts no thread at all.
// Made by Runtime, handed to Launch... functions. Waiting is passive: a short spin, then a condition variable, because
// the engine's own threads want the same cores between two kernels.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace dgrt {

class ThreadPool {
 public:
  // `num_threads` counts the caller; at least 1. Throws OutOfMemory if the system refuses a thread.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls fn(chunk) once for each chunk in [0, num_chunks), in no particular order; returns when all are done. The
  // first exception is rethrown here and the chunks not yet started are dropped. Any thread may call it (calls take
  // turns), but not from inside fn. Never allocates.
  template <typename Fn>
  void ParallelFor(int64_t num_chunks, Fn&& fn) {
    using Function = std::remove_reference_t<Fn>;
    Run(num_chunks, const_cast<void*>(static_cast<const void*>(std::addressof(fn))),
        [](void* function, int64_t chunk) { (*static_cast<Function*>(function))(chunk); });
  }

 private:
  using ChunkFunction = void (*)(void* context, int64_t chunk);

  void Run(int64_t num_chunks, void* context, ChunkFunction function);
  void WorkerLoop();
  void Stop() noexcept;
  void TakeChunks() noexcept;

  std::mutex callers_;               // one ParallelFor at a time

  // The job; written by the caller while no worker is inside.
  void* context_ = nullptr;
  ChunkFunction function_ = nullptr;
  int64_t num_chunks_ = 0;
  std::atomic<int64_t> next_chunk_{0};

  std::mutex mutex_;                 // guards open_, error_, shutdown_ and changes of the two atomics below
  std::condition_variable start_, done_;
  bool open_ = false;                // workers may still join the job
  bool shutdown_ = false;
  std::exception_ptr error_;
  std::atomic<uint64_t> job_{0};     // number of the job; a change wakes spinning workers
  std::atomic<int> inside_{0};       // workers inside the job
  std::vector<std::thread> workers_;
};

}  // namespace dgrt
