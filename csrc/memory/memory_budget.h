// What all KV memory of a runtime may take together: every KvCache and every block of the prefix cache charges it
// before it takes memory. Any thread. Knows neither of them: whoever can give memory back registers as the reclaimer.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <utility>

#include "common/home_process.h"
#include "memory/memory_stats.h"

namespace dgrt {

// Who holds the bytes, for the statistics and the text of a refusal.
enum class MemoryUse : int32_t { kSequences = 0, kPrefixes = 1 };

class MemoryBudget {
 public:
  explicit MemoryBudget(int64_t limit_bytes) : usage_{.limit_bytes = limit_bytes} {}
  MemoryBudget(const MemoryBudget&) = delete;
  MemoryBudget& operator=(const MemoryBudget&) = delete;

  // Charges the bytes, or changes nothing and returns false where the limit does not allow them.
  [[nodiscard]] bool TryCharge(MemoryUse use, int64_t bytes);
  // As TryCharge, but first asks the reclaimer for what is missing.
  [[nodiscard]] bool Charge(MemoryUse use, int64_t bytes);
  // In a child of fork() nothing: another thread may have held the lock.
  void Release(MemoryUse use, int64_t bytes) noexcept;

  // `reclaim(bytes)` gives back at least that much, or what it can, and returns how much that was. It is called without
  // the budget's lock and calls Release. Empty: nobody. Set before the budget is shared between threads.
  void SetReclaimer(std::function<int64_t(int64_t bytes)> reclaim) { reclaim_ = std::move(reclaim); }

  MemoryUsage usage() const;
  int64_t limit_bytes() const { return usage_.limit_bytes; }  // constant
  // The text of a refusal: who needs how much, who has how much, the limit.
  std::string Refusal(const std::string& what, int64_t bytes) const;

  // For tests: the n-th charge from now on is refused (1: the next one, 0: none).
  void RefuseChargeForTest(int64_t n);

 private:
  int64_t& BytesOf(MemoryUse use) { return use == MemoryUse::kSequences ? usage_.sequence_bytes : usage_.prefix_bytes; }

  mutable std::mutex mutex_;
  MemoryUsage usage_;      // guarded by mutex_, but for the limit
  int64_t refuse_in_ = 0;  // guarded by mutex_
  std::function<int64_t(int64_t)> reclaim_;
  HomeProcess home_;
};

}  // namespace dgrt
