// memory/memory_budget.h: limits, who is asked to give back, refusals on demand, and many threads at once.
#include "memory/memory_budget.h"

#include <thread>
#include <vector>

#include "test.h"

namespace dgrt {

TEST(ABudgetCountsBothUsesAndNeverExceedsItsLimit) {
  MemoryBudget budget(100);
  CHECK(budget.TryCharge(MemoryUse::kSequences, 60));
  CHECK(budget.TryCharge(MemoryUse::kPrefixes, 40));
  CHECK(!budget.TryCharge(MemoryUse::kSequences, 1));
  budget.Release(MemoryUse::kPrefixes, 15);
  CHECK(!budget.TryCharge(MemoryUse::kSequences, 16));
  CHECK(budget.TryCharge(MemoryUse::kSequences, 15));
  CHECK_EQ(budget.usage().sequence_bytes, 75);
  CHECK_EQ(budget.usage().prefix_bytes, 25);
  CHECK_EQ(budget.usage().peak_bytes, 100);
  CHECK_EQ(budget.Refusal("a sequence of 7 tokens", 16),
           std::string("KV memory: a sequence of 7 tokens needs 16 bytes more; of the limit of 100 for all sessions, "
                       "sequences use 75 and prefixes 25"));
}

TEST(WithoutALimitABudgetOnlyCounts) {
  MemoryBudget budget(0);
  CHECK(budget.Charge(MemoryUse::kSequences, int64_t{1} << 60));
  budget.Release(MemoryUse::kSequences, int64_t{1} << 60);
  CHECK_EQ(budget.usage().total_bytes(), 0);
  CHECK_EQ(budget.usage().peak_bytes, int64_t{1} << 60);
}

TEST(AChargeFirstAsksForWhatIsMissing) {
  MemoryBudget budget(100);
  CHECK(budget.TryCharge(MemoryUse::kPrefixes, 70));
  std::vector<int64_t> asked;
  int64_t can_give = 30;
  budget.SetReclaimer([&](int64_t bytes) {
    asked.push_back(bytes);
    const int64_t given = std::min<int64_t>(can_give, 10);  // less than asked for: it is asked again
    can_give -= given;
    if (given > 0) budget.Release(MemoryUse::kPrefixes, given);
    return given;
  });
  CHECK(budget.Charge(MemoryUse::kSequences, 50));
  CHECK((asked == std::vector<int64_t>{20, 10}));
  CHECK(!budget.Charge(MemoryUse::kSequences, 11));
  CHECK_EQ(budget.usage().total_bytes(), 90);  // the reclaimer gave 10 before it had no more
  CHECK_EQ(budget.usage().peak_bytes, 100);
}

TEST(TheChosenChargeIsRefused) {
  MemoryBudget budget(0);
  budget.RefuseChargeForTest(2);
  CHECK(budget.Charge(MemoryUse::kSequences, 1));
  CHECK(!budget.Charge(MemoryUse::kSequences, 1));
  CHECK(budget.Charge(MemoryUse::kSequences, 1));
  CHECK_EQ(budget.usage().sequence_bytes, 2);
}

TEST(ThreadsShareABudget) {
  MemoryBudget budget(1000);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 2000; ++n) {
        if (budget.Charge(MemoryUse::kSequences, 300)) budget.Release(MemoryUse::kSequences, 300);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(budget.usage().total_bytes(), 0);
  CHECK(budget.usage().peak_bytes <= 900);
}

}  // namespace dgrt
