// common/thread_pool.h and common/env.h.
#include "common/thread_pool.h"

#include <cstdlib>
#include <stdexcept>

#include "common/check.h"
#include "common/env.h"
#include "lowered_limit.h"
#include "test.h"

namespace dgrt {

TEST(EveryChunkRunsExactlyOnce) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    CHECK_EQ(pool.num_threads(), threads);
    for (int64_t chunks : {0, 1, 2, 3, 100}) {
      std::vector<std::atomic<int>> runs(static_cast<size_t>(chunks));
      for (int repeat = 0; repeat < 50; ++repeat) {
        pool.ParallelFor(chunks, [&](int64_t chunk) { ++runs[static_cast<size_t>(chunk)]; });
      }
      for (const auto& count : runs) CHECK_EQ(count.load(), 50);
    }
  }
}

TEST(AnExceptionInAWorkerReachesTheCallerAndThePoolStaysUsable) {
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    CHECK_THROWS(std::runtime_error, "chunk 5", pool.ParallelFor(64, [](int64_t chunk) {
      if (chunk == 5) throw std::runtime_error("chunk 5");
    }));
    std::atomic<int> runs{0};
    pool.ParallelFor(64, [&](int64_t) { ++runs; });
    CHECK_EQ(runs.load(), 64);
  }
}

TEST(SeveralCallersTakeTurns) {
  ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      for (int repeat = 0; repeat < 100; ++repeat) pool.ParallelFor(10, [&](int64_t chunk) { sum += chunk; });
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK_EQ(sum.load(), 4 * 100 * 45);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they reserve address space of their own
TEST(APoolThatCannotHaveItsThreadsIsRefusedAndLeavesNone) {
  {
    test::LoweredLimit few_stacks(RLIMIT_AS, 64 << 20);
    CHECK_THROWS(OutOfMemory, "expected 1024 threads, found room for", ThreadPool(1024));
  }
  std::atomic<int> runs{0};
  ThreadPool pool(3);
  pool.ParallelFor(8, [&](int64_t) { ++runs; });
  CHECK_EQ(runs.load(), 8);
}
#endif

TEST(AnIdlePoolSleepsAndWakesAgain) {
  ThreadPool pool(3);
  std::atomic<int> runs{0};
  for (int repeat = 0; repeat < 5; ++repeat) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    pool.ParallelFor(8, [&](int64_t) { ++runs; });
  }
  CHECK_EQ(runs.load(), 40);
}

TEST(ABadEnvironmentValueIsAnErrorThatNamesTheVariable) {
  ::setenv("DGRT_TEST_NUMBER", "12", 1);
  CHECK_EQ(EnvInteger("DGRT_TEST_NUMBER", 1, 100).value(), 12);
  for (const char* bad : {"twelve", "12x", "0", "101", "1e3"}) {
    ::setenv("DGRT_TEST_NUMBER", bad, 1);
    CHECK_THROWS(InvalidArgument, "DGRT_TEST_NUMBER", EnvInteger("DGRT_TEST_NUMBER", 1, 100));
  }
  ::setenv("DGRT_TEST_NUMBER", "", 1);
  CHECK(!EnvInteger("DGRT_TEST_NUMBER", 1, 100));
  ::unsetenv("DGRT_TEST_NUMBER");
  CHECK(!EnvString("DGRT_TEST_NUMBER"));
}

}  // namespace dgrt
