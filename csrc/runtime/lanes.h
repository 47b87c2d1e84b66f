// Whose turn it is. Every pass of every session runs in a lane: a share of the threads. One active request has one lane
// with all of them; as soon as there are as many requests as threads, each pass has one thread and as many run at once, which
// wastes none on waiting for each other. Requests of any phase (prefill chunk, denoise step, commit) take turns pass by
// pass, so they join and leave between two steps. A pass computes the same bits in either kind of lane, therefore the
// order of turns never shows in a result. Called by the stages that run passes.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "common/thread_pool.h"
#include "engine/engine.h"
#include "runtime/stats.h"

namespace dgrt {

// One request's place in the queue for lanes. Lives in its session; all fields are written by Lanes, under its mutex.
struct LaneUser {
  int64_t served_rows = 0;     // token rows of the passes it has had
  bool has_lane = false;
  PassThreads threads = PassThreads::kAll;  // of the lane it has
  uint64_t waits_since = 0;    // passes that Lanes had begun when it began to wait
  LaneUser* next = nullptr;    // behind it in the queue
  std::condition_variable turn;
};

// The request that gets the next lane: one that has been passed over by four passes per request since it began to wait, if
// there is one, else the one that was served least. So a short request among long ones is soon done, and each has at least a
// quarter of an equal share. `first` is the front of the queue, in order of arrival, not null.
LaneUser* NextInTurn(LaneUser* first, uint64_t num_passes, int64_t num_requests);

class Lanes {
 public:
  // `all`: what a wide lane may use; `one`: a pool of one thread, for narrow lanes. Both outlive this.
  Lanes(ThreadPool& all, ThreadPool& one) : all_(all), one_(one) {}
  Lanes(const Lanes&) = delete;
  Lanes& operator=(const Lanes&) = delete;

  // Around every call that runs passes: how many requests are active decides how wide lanes are.
  void Join();
  void Leave(LaneUser& user);

  enum class Turn { kGranted, kStopped, kLate };
  using Clock = std::chrono::steady_clock;
  // Waits until the user may run a pass, `is_stopped` holds (looked at when woken by Wake), or the deadline has passed. A
  // user that still has its lane keeps it if it would be the next in turn.
  template <typename IsStopped>
  Turn Enter(LaneUser& user, Clock::time_point deadline, IsStopped is_stopped) {
    std::unique_lock lock(mutex_);
    if (is_stopped()) return Turn::kStopped;
    if (deadline != Clock::time_point::max() && Clock::now() >= deadline) return Turn::kLate;
    if (MayKeep(user)) return Turn::kGranted;
    Enqueue(user);
    const auto is_over = [&] { return user.has_lane || is_stopped(); };
    if (deadline == Clock::time_point::max()) {
      user.turn.wait(lock, is_over);
    } else {
      user.turn.wait_until(lock, deadline, is_over);
    }
    if (user.has_lane) return Turn::kGranted;
    Remove(user);
    return is_stopped() ? Turn::kStopped : Turn::kLate;
  }
  // The pass is over; it had this many token rows. The lane stays the user's until it enters again, gives it back or leaves.
  void EndPass(LaneUser& user, int64_t num_rows, Clock::duration time);
  // Before anything that may take long without a pass. Does nothing for a user without a lane.
  void GiveBack(LaneUser& user);
  // Makes a waiting user look at `is_stopped` again.
  void Wake(LaneUser& user);

  ThreadPool& pool(PassThreads threads) { return threads == PassThreads::kAll ? all_ : one_; }
  LaneStats stats();

 private:
  bool IsNarrow() const { return all_.num_threads() > 1 && stats_.requests >= all_.num_threads(); }
  bool MayKeep(LaneUser& user);
  void Release(LaneUser& user);
  void Enqueue(LaneUser& user);
  void Remove(LaneUser& user);
  void Grant();
  void CountPass(PassThreads threads);

  ThreadPool& all_;
  ThreadPool& one_;
  std::mutex mutex_;
  LaneUser* first_ = nullptr;  // of the queue
  int64_t num_wide_ = 0, num_narrow_ = 0;  // lanes in use
  LaneStats stats_;
};

// While it lives, its request counts as active.
class ActiveRequest {
 public:
  ActiveRequest(Lanes& lanes, LaneUser& user) : lanes_(lanes), user_(user) { lanes_.Join(); }
  ~ActiveRequest() { lanes_.Leave(user_); }
  ActiveRequest(const ActiveRequest&) = delete;
  ActiveRequest& operator=(const ActiveRequest&) = delete;

 private:
  Lanes& lanes_;
  LaneUser& user_;
};

// A lane that was granted for one pass, which ends with the scope. Empty: none was.
class HeldLane {
 public:
  HeldLane() = default;
  HeldLane(Lanes& lanes, LaneUser& user, int64_t num_rows) : lanes_(&lanes), user_(&user), num_rows_(num_rows) {}
  ~HeldLane() {
    if (lanes_ != nullptr) lanes_->EndPass(*user_, num_rows_, Lanes::Clock::now() - start_);
  }
  HeldLane(const HeldLane&) = delete;
  HeldLane& operator=(const HeldLane&) = delete;

  explicit operator bool() const { return lanes_ != nullptr; }
  ThreadPool& pool() const { return lanes_->pool(user_->threads); }

 private:
  Lanes* lanes_ = nullptr;
  LaneUser* user_ = nullptr;
  int64_t num_rows_ = 0;
  Lanes::Clock::time_point start_ = Lanes::Clock::now();
};

}  // namespace dgrt
