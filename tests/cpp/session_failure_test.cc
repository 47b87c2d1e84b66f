// A canvas is a transaction: whatever fails or is cancelled, at whatever call, committed tokens and KV length stay as
// they were, and trying again gives the tokens of an undisturbed run.
#include <atomic>
#include <stdexcept>
#include <thread>

#include "common/check.h"
#include "session_fixture.h"

namespace dgrt {
namespace {

struct ThrowingSink : GenerateSink {
  explicit ThrowingSink(int32_t canvas) : canvas_index(canvas) {}
  void OnStep(const StepView& view) override {
    if (on_step && view.canvas_index == canvas_index && view.step == 11) throw std::runtime_error("step sink");
  }
  void OnCommit(int32_t index, std::span<const int32_t>, std::span<const TokenOrigin>) override {
    if (!on_step && index == canvas_index) throw std::runtime_error("commit sink");
  }
  int32_t canvas_index;
  bool on_step = false;
};

// Runs to the end, retrying after errors; before and after each failed call the committed state must be the same.
Tokens RunWithRetries(const SessionFixture& f, Session& session, int* failures) {
  const auto attempt = [&](auto call) {
    const Tokens tokens = ToVector(session.tokens());
    const int64_t kv_len = session.kv_len();
    try {
      call();
    } catch (const DeviceError&) {
      ++*failures;
      CHECK(ToVector(session.tokens()) == tokens);
      CHECK_EQ(session.kv_len(), kv_len);
      CHECK(session.finish_reason() == FinishReason::kNone);
      f.log->num_calls = 1000;  // past the injected failure
    }
    f.CheckInvariants(session);
  };
  while (session.stats().prompt_tokens == 0) attempt([&] { session.Prefill(f.prompt); });
  while (session.finish_reason() == FinishReason::kNone) attempt([&] { session.NextCanvas(nullptr); });
  return ToVector(session.tokens());
}

}  // namespace

TEST(AnEngineFailureAtAnyCallLeavesTheSequenceAsItWas) {
  SessionFixture undisturbed;
  Session session = undisturbed.MakeSession();
  Generate(session, undisturbed.prompt, nullptr);
  const int64_t num_calls = undisturbed.log->num_calls;
  CHECK_EQ(num_calls, 15);
  for (int64_t call = 1; call <= num_calls; ++call) {
    SessionFixture f;
    f.script->fail_at_call = call;
    Session retried = f.MakeSession();
    int failures = 0;
    CHECK(RunWithRetries(f, retried, &failures) == ToVector(session.tokens()));
    CHECK_EQ(failures, 1);
    CHECK_EQ(retried.kv_len(), session.kv_len());
  }
}

TEST(AFailedPromptCanBeGivenAgain) {
  SessionFixture f;
  f.script->context_len = 2000;
  f.script->prompt_len = 1100;
  f.prompt = Counting(5, 1100);
  f.script->fail_at_call = 3;  // the last of three chunks
  Session session = f.MakeSession();
  CHECK_THROWS(DeviceError, "fake failure at call 3", session.Prefill(f.prompt));
  CHECK_EQ(session.kv_len(), 0);
  Generate(session, f.prompt, nullptr);
  CHECK(ToVector(session.tokens()) == Counting(0, 20));
}

TEST(NumbersThatAreNotFiniteAreCaughtBeforeAnythingIsEmitted) {
  SessionFixture f;
  f.script->nan_at_call = 8;  // calls: prompt, 4 steps, commit, then the second step of canvas 1
  Session session = f.MakeSession();
  session.Prefill(f.prompt);
  CHECK_EQ(session.NextCanvas(nullptr).size(), 8u);
  RecordingSink sink;
  CHECK_THROWS(DeviceError, "canvas 1, denoise step 11: hidden states are not finite", session.NextCanvas(&sink));
  CHECK(sink.commits.empty());
  CHECK_EQ(sink.steps.size(), 1u);
  CHECK_EQ(session.tokens().size(), 8u);
  CHECK_EQ(session.kv_len(), 12);
  f.CheckInvariants(session);
  while (session.finish_reason() == FinishReason::kNone) session.NextCanvas(nullptr);
  CHECK(ToVector(session.tokens()) == Counting(0, 20));
}

TEST(ASinkThatThrowsLeavesTheSequenceAsItWas) {
  for (const bool on_step : {false, true}) {
    for (const int32_t canvas : {0, 1, 2}) {
      SessionFixture f;
      Session session = f.MakeSession();
      session.Prefill(f.prompt);
      ThrowingSink sink(canvas);
      sink.on_step = on_step;
      for (int32_t i = 0; i < canvas; ++i) session.NextCanvas(&sink);
      CHECK_THROWS(std::runtime_error, on_step ? "step sink" : "commit sink", session.NextCanvas(&sink));
      CHECK_EQ(session.tokens().size(), static_cast<size_t>(8 * canvas));
      CHECK_EQ(session.kv_len(), 4 + 8 * canvas);
      f.CheckInvariants(session);
      while (session.finish_reason() == FinishReason::kNone) session.NextCanvas(nullptr);
      CHECK(ToVector(session.tokens()) == Counting(0, 20));
    }
  }
}

TEST(CancelBetweenTwoStepsEmitsNothingAndKeepsWhatWasCommitted) {
  SessionFixture f;
  Session* running = nullptr;
  f.script->on_call = [&](int64_t call) {
    if (call == 8) running->Cancel();
  };
  Session session = f.MakeSession();
  running = &session;
  session.Prefill(f.prompt);
  session.NextCanvas(nullptr);
  CHECK(session.NextCanvas(nullptr).empty());
  CHECK(session.finish_reason() == FinishReason::kCancelled);
  CHECK_EQ(f.log->num_calls, 8);  // no step after the one that ran
  CHECK(ToVector(session.tokens()) == Counting(0, 8));
  CHECK_EQ(session.kv_len(), 12);
  CHECK(session.NextCanvas(nullptr).empty());
  f.CheckInvariants(session);
}

TEST(CancelFromAnotherThreadEndsAnEndlessGeneration) {
  SessionFixture f;
  f.options.max_new_tokens = -1;
  f.options.sampler.max_denoising_steps = 1 << 20;
  f.script->num_steps = 1 << 30;  // never sure
  std::atomic<bool> started{false};
  f.script->on_call = [&](int64_t call) { started = call > 5; };
  Session session = f.MakeSession(2);
  std::thread canceller([&] {
    while (!started) std::this_thread::yield();
    session.Cancel();
  });
  Generate(session, f.prompt, nullptr);
  canceller.join();
  CHECK(session.finish_reason() == FinishReason::kCancelled);
  CHECK(session.tokens().empty());
}

TEST(CancelDuringThePromptThrowsAndLeavesNoRows) {
  SessionFixture f;
  f.script->context_len = 2000;
  f.prompt = Counting(5, 1100);
  Session* running = nullptr;
  f.script->on_call = [&](int64_t) { running->Cancel(); };
  Session session = f.MakeSession();
  running = &session;
  CHECK_THROWS(Cancelled, "after 512 of 1100", session.Prefill(f.prompt));
  CHECK_EQ(session.kv_len(), 0);
  CHECK(session.finish_reason() == FinishReason::kCancelled);
  CHECK(session.NextCanvas(nullptr).empty());
}

TEST(AMemoryLimitIsReportedWithNumbersAndLeavesTheSequenceAsItWas) {
  SessionFixture f;
  f.script->context_len = 4096;
  f.options.max_new_tokens = -1;
  const int64_t workspace = f.Open()->memory().workspace_bytes;
  CHECK_THROWS(OutOfMemory, "workspace of a session alone needs", Session(f.Open(1, workspace), f.options));
  Session session(f.Open(1, workspace + 60'000), f.options);
  CHECK_THROWS(OutOfMemory, "the limit leaves 60000", session.Prefill(Tokens(4000, 1)));
  CHECK_EQ(f.log->num_calls, 0);  // refused before any work
  session.Prefill(f.prompt);
  bool out_of_memory = false;
  while (!out_of_memory) {
    const size_t tokens = session.tokens().size();
    const int64_t kv_len = session.kv_len();
    try {
      session.NextCanvas(nullptr);
    } catch (const OutOfMemory&) {
      out_of_memory = true;
      CHECK_EQ(session.tokens().size(), tokens);
      CHECK_EQ(session.kv_len(), kv_len);
    }
    f.CheckInvariants(session);
  }
  CHECK(session.tokens().size() > 100);
  CHECK(session.stats().peak_kv_bytes <= 60'000);
}

TEST(AnEngineThatRefusesToRunIsNotASessionThatEnds) {
  SessionFixture f;
  f.script->on_call = [](int64_t call) {
    if (call > 1) throw OutOfMemory("engine scratch");
  };
  Session session = f.MakeSession();
  session.Prefill(f.prompt);
  for (int i = 0; i < 3; ++i) CHECK_THROWS(OutOfMemory, "engine scratch", session.NextCanvas(nullptr));
  CHECK(session.finish_reason() == FinishReason::kNone);
  f.script->on_call = nullptr;
  while (session.finish_reason() == FinishReason::kNone) session.NextCanvas(nullptr);
  CHECK(ToVector(session.tokens()) == Counting(0, 20));
}

TEST(ASessionOutlivesEveryOtherHandleToItsRuntime) {
  SessionFixture f;
  auto runtime = f.Open(2);
  Session session(runtime, f.options);
  runtime.reset();
  Generate(session, f.prompt, nullptr);
  CHECK_EQ(session.tokens().size(), 20u);
}

}  // namespace dgrt
