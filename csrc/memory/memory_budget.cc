// Implementation of memory/memory_budget.h.
#include "memory/memory_budget.h"

#include <algorithm>

#include "common/check.h"

namespace dgrt {

bool MemoryBudget::TryCharge(MemoryUse use, int64_t bytes) {
  DGRT_CHECK(bytes >= 0);
  const std::lock_guard lock(mutex_);
  if (refuse_in_ > 0 && --refuse_in_ == 0) return false;
  if (usage_.limit_bytes > 0 && bytes > usage_.limit_bytes - usage_.total_bytes()) return false;
  BytesOf(use) += bytes;
  usage_.peak_bytes = std::max(usage_.peak_bytes, usage_.total_bytes());
  return true;
}

bool MemoryBudget::Charge(MemoryUse use, int64_t bytes) {
  // Others may take what was given back, so again, as long as anything is given back.
  while (!TryCharge(use, bytes)) {
    const MemoryUsage now = usage();
    const int64_t missing = now.limit_bytes > 0 ? bytes - (now.limit_bytes - now.total_bytes()) : 0;
    if (missing <= 0 || reclaim_ == nullptr || reclaim_(missing) == 0) return false;
  }
  return true;
}

void MemoryBudget::Release(MemoryUse use, int64_t bytes) noexcept {
  if (!home_.IsHere()) return;
  const std::lock_guard lock(mutex_);
  BytesOf(use) -= bytes;
}

MemoryUsage MemoryBudget::usage() const {
  const std::lock_guard lock(mutex_);
  return usage_;
}

std::string MemoryBudget::Refusal(const std::string& what, int64_t bytes) const {
  const MemoryUsage now = usage();
  return Message("KV memory: ", what, " needs ", bytes, " bytes more; of the limit of ", now.limit_bytes,
                 " for all sessions, sequences use ", now.sequence_bytes, " and prefixes ", now.prefix_bytes);
}

void MemoryBudget::RefuseChargeForTest(int64_t n) {
  const std::lock_guard lock(mutex_);
  refuse_in_ = n;
}

}  // namespace dgrt
