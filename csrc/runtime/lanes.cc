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

namespace {

LaneUser& LastOf(LaneUser* first) {
  while (first->next != nullptr) first = first->next;
  return *first;
}

}  // namespace

void Lanes::Join() {
  const std::lock_guard lock(mutex_);
  ++stats_.requests;
}

void Lanes::Leave(LaneUser& user) {
  const std::lock_guard lock(mutex_);
  --stats_.requests;
  Release(user);
  Grant();  // lanes may be wide again
}

// The lock is held in all functions from here to Grant.
bool Lanes::MayKeep(LaneUser& user) {
  if (!user.has_lane) return false;
  const bool is_narrow = user.threads == PassThreads::kOne;
  bool may = is_narrow == IsNarrow();
  if (may && first_ != nullptr) {
    LaneUser& last = LastOf(first_);  // it would queue behind that one
    user.waits_since = static_cast<uint64_t>(stats_.passes);
    user.next = nullptr;
    last.next = &user;
    may = NextInTurn(first_, static_cast<uint64_t>(stats_.passes), stats_.requests) == &user;
    last.next = nullptr;
  }
  if (may) {
    CountPass(user.threads);
  } else {
    Release(user);
  }
  return may;
}

void Lanes::Release(LaneUser& user) {
  if (!user.has_lane) return;
  user.has_lane = false;
  --(user.threads == PassThreads::kAll ? num_wide_ : num_narrow_);
}

void Lanes::Enqueue(LaneUser& user) {
  user.waits_since = static_cast<uint64_t>(stats_.passes);
  user.next = nullptr;
  (first_ == nullptr ? first_ : LastOf(first_).next) = &user;
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
  const bool narrow = IsNarrow();
  while (first_ != nullptr) {
    const bool free = num_wide_ == 0 && (narrow ? num_narrow_ < all_.num_threads() : num_narrow_ == 0);
    if (!free) return;
    LaneUser& user = *NextInTurn(first_, static_cast<uint64_t>(stats_.passes), stats_.requests);
    Remove(user);
    user.has_lane = true;
    user.threads = narrow ? PassThreads::kOne : PassThreads::kAll;
    ++(narrow ? num_narrow_ : num_wide_);
    CountPass(user.threads);
    user.turn.notify_one();
  }
}

void Lanes::CountPass(PassThreads threads) {
  ++stats_.passes;
  stats_.narrow_passes += threads == PassThreads::kOne ? 1 : 0;
}

void Lanes::EndPass(LaneUser& user, int64_t num_rows, Clock::duration time) {
  const std::lock_guard lock(mutex_);
  const double num_threads = user.threads == PassThreads::kAll ? static_cast<double>(all_.num_threads()) : 1.0;
  user.served_rows += num_rows;
  stats_.busy_thread_ms += std::chrono::duration<double, std::milli>(time).count() * num_threads;
}

void Lanes::GiveBack(LaneUser& user) {
  const std::lock_guard lock(mutex_);
  Release(user);
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
