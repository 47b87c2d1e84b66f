// A canvas allocates nothing in steady state: all memory is taken when the session is made and when the prompt is
// given; and whichever of these allocations fails, nothing but its request does. Replaces the global operator new of this test program to count.
#include <atomic>
#include <cstdlib>
#include <new>

#include "session_fixture.h"

namespace {
std::atomic<bool> counting{false};
std::atomic<long> allocations{0};
std::atomic<long> fail_in{0};  // the n-th allocation from now on is refused; 0: none

// malloc for the usual alignment: it takes the size as it is, so that a sanitizer sees the first byte behind it.
void* Allocate(std::size_t bytes, std::size_t alignment) {
  if (counting) ++allocations;
  if (fail_in > 0 && --fail_in == 0) throw std::bad_alloc();
  void* memory = alignment <= alignof(std::max_align_t)
                     ? std::malloc(bytes)
                     : std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
}  // namespace

// Not inlined: GCC would see free() on memory from new and warn.
void* operator new(std::size_t bytes) { return Allocate(bytes > 0 ? bytes : 1, alignof(std::max_align_t)); }
void* operator new[](std::size_t bytes) { return Allocate(bytes > 0 ? bytes : 1, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return Allocate(bytes > 0 ? bytes : 1, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return operator new(bytes); }
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept { return operator new[](bytes); }
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace dgrt {
namespace {

struct CountingSink : GenerateSink {
  void OnStep(const StepView&) override { ++steps; }
#ifndef NDEBUG
  void OnCommit(int32_t, std::span<const int32_t>, std::span<const TokenOrigin>) override { counting = false; }
#endif
  int steps = 0;
};

// In a release build a whole canvas; debug builds take a snapshot for the invariants after each, so there the steps alone.
void CheckSecondCanvas(Pipeline pipeline, int64_t first_step, int64_t packed_passes) {
  SessionFixture f;
  f.script->record_prefills = false;
  f.options.pipeline = pipeline;
#ifndef NDEBUG
  f.script->on_call = [&](int64_t call) { counting = call >= first_step; };
#endif
  Session session = f.MakeSession(2);
  session.Prefill(f.prompt);
  CountingSink sink;
  session.NextCanvas(&sink);
#ifdef NDEBUG
  static_cast<void>(first_step);
  counting = true;
#endif
  session.NextCanvas(&sink);
  counting = false;
  CHECK_EQ(sink.steps, 8);
  CHECK_EQ(session.stats().packed_passes, packed_passes);
  CHECK_EQ(allocations.load(), 0);
}

}  // namespace

// Whichever allocation fails, the request fails for want of memory, and the same request works afterwards.
TEST(EveryAllocationMayFail) {
  SessionFixture f;
  f.options.logprobs = true;
  const auto runtime = f.Open(2);
  const auto run = [&] {
    Session session(runtime, f.options);
    Generate(session, f.prompt, nullptr);
    return ToVector(session.tokens());
  };
  const Tokens expected = run();
  long refusals = 0;
  for (;; ++refusals) {
    fail_in = refusals + 1;
    try {
      const Tokens found = run();
      fail_in = 0;
      CHECK(found == expected);
      break;
    } catch (const std::bad_alloc&) {
    } catch (const OutOfMemory&) {
    }
    CHECK_EQ(fail_in.load(), 0L);
    CHECK(run() == expected);
  }
  CHECK(refusals > 20);
  CHECK_EQ(runtime->lane_stats().requests, int64_t{0});
}

TEST(ACanvasAllocatesNothing) { CheckSecondCanvas(Pipeline::kOff, 7, 0); }

#ifdef NDEBUG
TEST(ADraftOfTheNetworkAllocatesNothing) {
  for (const Guarantee guarantee : {Guarantee::kCausal, Guarantee::kVerified}) {
    SessionFixture f;
    f.script->record_prefills = false;
    f.script->block_len = 8;
    f.script->causal_doubt = 1000;
    f.options.guarantee = guarantee;
    f.options.drafter = DrafterKind::kModel;
    Session session = f.MakeSession(2);
    session.Prefill(f.prompt);
    session.NextCanvas(nullptr);
    counting = true;
    session.NextCanvas(nullptr);
    counting = false;
    CHECK_EQ(session.stats().draft_passes, 2);
    CHECK_EQ(allocations.load(), 0);
  }
}

TEST(ACanvasThatOverlapsAllocatesNothing) {
  SessionFixture f;
  f.script->record_prefills = false;
  f.options.guarantee = Guarantee::kVerified;
  f.options.drafter = DrafterKind::kOverlap;
  f.options.sampler.stability_threshold = 3;
  f.options.max_new_tokens = 32;
  Session session = f.MakeSession(2);
  session.Prefill(f.prompt);
  session.NextCanvas(nullptr);
  CHECK_EQ(session.stats().draft_calls, 1);
  counting = true;
  session.NextCanvas(nullptr);
  counting = false;
  CHECK_EQ(session.stats().draft_calls, 2);
  CHECK_EQ(allocations.load(), 0);
}
#endif

TEST(ComputingAheadAllocatesNothing) { CheckSecondCanvas(Pipeline::kOn, 6, 6); }

}  // namespace dgrt
