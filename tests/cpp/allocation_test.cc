// A canvas allocates nothing in steady state: all memory is taken when the session is made and when the prompt is
// given. Replaces the global operator new of this test program to count.
#include <atomic>
#include <cstdlib>
#include <new>

#include "session_fixture.h"

namespace {
std::atomic<bool> counting{false};
std::atomic<long> allocations{0};

// malloc for the usual alignment: it takes the size as it is, so that a sanitizer sees the first byte behind it.
void* Allocate(std::size_t bytes, std::size_t alignment) {
  if (counting) ++allocations;
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
  int steps = 0;
};

}  // namespace

#ifdef NDEBUG
TEST(ACanvasAllocatesNothing) {
#else  // debug builds take a snapshot for the invariants after each canvas
TEST(DenoiseStepsAllocateNothing) {
#endif
  SessionFixture f;
  f.script->record_prefills = false;
#ifndef NDEBUG
  f.script->on_call = [&](int64_t call) { counting = call >= 7 && call < 11; };  // the steps of canvas 1
#endif
  Session session = f.MakeSession(2);
  session.Prefill(f.prompt);
  CountingSink sink;
  session.NextCanvas(&sink);
#ifdef NDEBUG
  counting = true;
#endif
  session.NextCanvas(&sink);
  counting = false;
  CHECK_EQ(sink.steps, 8);
  CHECK_EQ(allocations.load(), 0);
}

}  // namespace dgrt
