// Implementation of lanes.h.
#include "runtime/lanes.h"

namespace dgrt {

// 2 would give everyone half an equal share, and a short request among seven long ones a longer wait at each pass.
constexpr uint64_t kPatience = 4;

LaneUser* NextInTurn(LaneUser* first, uint64_t num_passes, int64_t num_requests) {
  const auto patience = kPatience * static_cast<uint64_t>(num_requests);
  LaneUser* least = first;
  for (LaneUser* user = first; user != nullptr; user = user->next) {
    if (num_passes - user->waits_since >= patience) return user;  // the first such waits longest
    if (user->served_rows < least->served_rows) least = user;
  }
  return least;
}

void Lanes::Join() {
  const std::lock_guard lock(mutex_);
  ++stats_.requests;
}

void Lanes::Leave() {
  const std::lock_guard lock(mutex_);
  --stats_.requests;
  Grant();  // lanes may be wide again
}

void Lanes::Enqueue(LaneUser& user) {
  user.waits_since = static_cast<uint64_t>(stats_.passes);
  user.next = nullptr;
  LaneUser** end = &first_;
  while (*end != nullptr) end = &(*end)->next;
  *end = &user;
  ++stats_.waiting;
  Grant();
}

void Lanes::Remove(LaneUser& user) {
  LaneUser** link = &first_;
  while (*link != &user) link = &(*link)->next;
  *link = user.next;
  --stats_.waiting;
}

// Hands out lanes as long as there are free ones and someone waits.
void Lanes::Grant() {
  const int64_t num_threads = all_.num_threads();
  const bool narrow = num_threads > 1 && stats_.requests >= num_threads;
  while (first_ != nullptr) {
    const bool free = num_wide_ == 0 && (narrow ? num_narrow_ < num_threads : num_narrow_ == 0);
    if (!free) return;
    LaneUser& user = *NextInTurn(first_, static_cast<uint64_t>(stats_.passes), stats_.requests);
    Remove(user);
    user.has_lane = true;
    user.threads = narrow ? PassThreads::kOne : PassThreads::kAll;
    ++(narrow ? num_narrow_ : num_wide_);
    ++stats_.passes;
    stats_.narrow_passes += narrow ? 1 : 0;
    user.turn.notify_one();
  }
}

void Lanes::Exit(LaneUser& user, int64_t num_rows, Clock::duration time) {
  const std::lock_guard lock(mutex_);
  const bool wide = user.threads == PassThreads::kAll;
  user.has_lane = false;
  user.served_rows += num_rows;
  stats_.busy_thread_ms +=
      std::chrono::duration<double, std::milli>(time).count() * (wide ? static_cast<double>(all_.num_threads()) : 1.0);
  --(wide ? num_wide_ : num_narrow_);
  Grant();
}

void Lanes::Wake(LaneUser& user) {
  const std::lock_guard lock(mutex_);
  user.turn.notify_one();
}

LaneStats Lanes::stats() {
  const std::lock_guard lock(mutex_);
  return stats_;
}

}  // namespace dgrt
