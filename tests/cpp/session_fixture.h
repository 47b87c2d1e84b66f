// A runtime over the fake engine with its script and log at hand, and a sink that writes down what it is told. Shared
// by the session tests.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/fake_engine.h"
#include "runtime/invariants.h"
#include "runtime/runtime.h"
#include "test.h"

namespace dgrt {

using Tokens = std::vector<int32_t>;

inline Tokens ToVector(std::span<const int32_t> tokens) { return {tokens.begin(), tokens.end()}; }

// first, first + 1, ... below 40; with 5 steps per canvas no token repeats inside one.
inline Tokens Counting(int32_t first, size_t count) {
  Tokens out;
  for (size_t i = 0; i < count; ++i) out.push_back(2 + (first + static_cast<int32_t>(i)) % 38);
  return out;
}

struct RecordingSink : GenerateSink {
  struct Step {
    int32_t canvas_index, step;
    float temperature;
    int64_t kv_len;
    Tokens canvas_in, argmax, sampled, canvas_out;
    std::vector<uint8_t> accepted;
    std::vector<float> entropy, soft_in, soft_out;
    bool stopped;
    bool operator==(const Step&) const = default;
  };
  void OnStep(const StepView& view) override {
    steps.push_back({view.canvas_index, view.step, view.temperature, view.kv_len, ToVector(view.canvas_in),
                     ToVector(view.argmax), ToVector(view.sampled), ToVector(view.canvas_out),
                     {view.accepted.begin(), view.accepted.end()}, {view.entropy.begin(), view.entropy.end()},
                     {view.soft_in.begin(), view.soft_in.end()}, {view.soft_out.begin(), view.soft_out.end()},
                     view.stopped});
  }
  void OnCommit(int32_t index, std::span<const int32_t> tokens, std::span<const TokenOrigin> where) override {
    CHECK_EQ(where.size(), tokens.size());
    origins.insert(origins.end(), where.begin(), where.end());
    commits.push_back(index);
    committed.insert(committed.end(), tokens.begin(), tokens.end());
  }
  std::vector<Step> steps;
  std::vector<int32_t> commits;
  Tokens committed;
  std::vector<TokenOrigin> origins;  // of the committed tokens
};

struct SessionFixture {
  SessionFixture() {
    script->target = Counting(0, 200);
    options.sampler.max_denoising_steps = 12;
    options.seed = 17;
    options.max_new_tokens = 20;
  }

  std::shared_ptr<Runtime> Open(int threads = 1, int64_t memory_limit_bytes = 0) {
    RuntimeOptions runtime_options;
    runtime_options.threads = threads;
    runtime_options.memory_limit_bytes = memory_limit_bytes;
    return Runtime::FromEngine(std::make_unique<FakeEngine>(script, log), options, runtime_options);
  }

  Session MakeSession(int threads = 1) { return Session(Open(threads), options); }

  void CheckInvariants(const Session& session) const {
    const Stats& stats = session.stats();
    const SessionSnapshot snapshot{options.guarantee == Guarantee::kCausal, stats.prompt_tokens, script->canvas_len, script->context_len, session.kv_len(),
                                   static_cast<int64_t>(session.tokens().size()), stats.canvases,
                                   session.finish_reason()};
    CHECK_EQ(BrokenSessionInvariant(snapshot), std::string());
    CHECK_EQ(stats.tokens, static_cast<int64_t>(session.tokens().size()));
    CHECK_EQ(stats.canvases, static_cast<int64_t>(stats.steps_per_canvas.size()));
  }

  // Generates to the end, trying again after each failure, which must leave the session as it was. Returns their number.
  int FinishThroughFailures(Session& session, GenerateSink* sink = nullptr) const {
    int failures = 0;
    while (session.finish_reason() == FinishReason::kNone) {
      const size_t before = session.tokens().size();
      const int64_t kv_len = session.kv_len();
      try {
        session.NextCanvas(sink);
      } catch (const DeviceError&) {
        ++failures;
        CHECK_EQ(session.tokens().size(), before);
        CHECK_EQ(session.kv_len(), kv_len);
      }
      CheckInvariants(session);
    }
    return failures;
  }

  std::shared_ptr<FakeScript> script = std::make_shared<FakeScript>();
  std::shared_ptr<FakeLog> log = std::make_shared<FakeLog>();
  GenerateOptions options;
  Tokens prompt = {1, 2, 3, 4};
};

}  // namespace dgrt
