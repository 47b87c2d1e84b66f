// Commit speculation: whatever is computed ahead, right or wrong, on any schedule, with failures in between, the steps,
// tokens and KV rows are those of the plain loop. (The fake engine checks every KV row that a pass is shown.)
#include <random>

#include "common/check.h"
#include "session_fixture.h"

namespace dgrt {
namespace {

struct Outcome {
  std::vector<RecordingSink::Step> steps;
  Tokens tokens;
  std::vector<int32_t> steps_per_canvas;
  FinishReason finish;
  int64_t kv_len;
  bool operator==(const Outcome&) const = default;
};

struct PipelineFixture : SessionFixture {
  explicit PipelineFixture(Pipeline pipeline) {
    options.pipeline = pipeline;
    options.max_new_tokens = 60;
  }
  Outcome Run(Session& session) {
    RecordingSink sink;
    Generate(session, prompt, &sink);
    CheckInvariants(session);
    CHECK(sink.committed == ToVector(session.tokens()));
    return {sink.steps, sink.committed, session.stats().steps_per_canvas, session.finish_reason(), session.kv_len()};
  }
  Outcome Run() {
    Session session = MakeSession();
    return Run(session);
  }
};

// A request whose canvases settle early or late, some never, some in the middle of the schedule.
void Vary(uint64_t seed, PipelineFixture& f) {
  std::mt19937_64 random(seed);
  f.options.seed = seed;
  f.options.request = static_cast<uint32_t>(seed % 7);
  f.script->num_steps = 1 + static_cast<int32_t>(random() % 9);
  if (random() % 2 == 0) f.script->new_mind_at = f.script->num_steps + static_cast<int32_t>(random() % 4);
  f.options.sampler.max_denoising_steps = 1 + static_cast<int32_t>(random() % 10);
  f.options.sampler.stability_threshold = static_cast<int32_t>(random() % 4);
  f.options.sampler.confidence_threshold = random() % 3 == 0 ? 1e-12f : 0.05f;
  f.options.sampler.entropy_bound = random() % 2 == 0 ? 0.1f : 3.0f;
  f.options.max_new_tokens = random() % 2 == 0 ? -1 : 1 + static_cast<int64_t>(random() % 100);
  f.script->context_len = 60 + static_cast<int64_t>(random() % 100);
  if (random() % 2 == 0) f.options.stop_ids = {f.script->target[10 + random() % 40]};
  f.script->is_row_bound = random() % 2 == 0;
}

}  // namespace

TEST(ComputingAheadChangesNeitherStepsNorTokens) {
  int64_t passes = 0, commits = 0, plain_passes = 0;
  for (uint64_t seed = 0; seed < 1500; ++seed) {
    PipelineFixture plain(Pipeline::kOff);
    Vary(seed, plain);
    Session expected_session = plain.MakeSession();
    const Outcome expected = plain.Run(expected_session);
    CHECK_EQ(plain.log->num_packed_calls, 0);
    plain_passes += plain.log->num_calls;
    for (const Pipeline pipeline : {Pipeline::kOn, Pipeline::kAuto}) {
      PipelineFixture f(pipeline);
      Vary(seed, f);
      Session session = f.MakeSession(seed % 50 == 0 ? 3 : 1);
      CHECK(f.Run(session) == expected);
      const Stats& stats = session.stats();
      CHECK_EQ(stats.packed_passes, f.log->num_packed_calls);
      CHECK_EQ(stats.denoise_passes, f.log->num_denoise_calls);
      CHECK_EQ(stats.packed_commits + stats.commit_passes, expected_session.stats().commit_passes);
      CHECK_EQ(stats.denoise_passes + stats.packed_passes + stats.packed_commits,
               expected_session.stats().denoise_passes);
      if (pipeline == Pipeline::kOn) passes += f.log->num_calls, commits += stats.packed_commits;
    }
  }
  CHECK(commits > 1000);
  CHECK_EQ(passes, plain_passes - 2 * commits);  // a commit and a first step each
}

TEST(AForeseenCommitSavesTwoPasses) {
  PipelineFixture plain(Pipeline::kOff), ahead(Pipeline::kOn);
  for (PipelineFixture* f : {&plain, &ahead}) f->options.max_new_tokens = 24;
  CHECK(ahead.Run() == plain.Run());
  // Prompt, three canvases of s steps, two commits; ahead: the commits and two first steps ride along.
  CHECK_EQ(ahead.log->num_calls, plain.log->num_calls - 4);
  CHECK_EQ(ahead.log->prefills.size() - 1, static_cast<size_t>(ahead.log->num_packed_calls));
}

TEST(AutoComputesAheadWhereWeightsAreWhatAPassCosts) {
  PipelineFixture cpu(Pipeline::kAuto), gpu(Pipeline::kAuto), other(Pipeline::kAuto), on(Pipeline::kOn);
  gpu.script->is_row_bound = other.script->is_row_bound = false;
  other.script->can_pack = false;
  const Outcome expected = cpu.Run();
  CHECK(gpu.Run() == expected && other.Run() == expected && on.Run() == expected);
  CHECK_EQ(cpu.log->num_packed_calls, 0);
  CHECK_EQ(other.log->num_packed_calls, 0);
  CHECK(gpu.log->num_packed_calls > 0);
  CHECK_EQ(gpu.log->num_packed_calls, on.log->num_packed_calls);
}

TEST(AnEngineThatCannotPackExactlyRefusesToBeAsked) {
  PipelineFixture f(Pipeline::kOn);
  f.script->can_pack = false;
  CHECK_THROWS(Unsupported, "pipeline: expected auto or off with this engine", f.MakeSession());
}

TEST(NothingIsComputedAheadOfTheEnd) {
  PipelineFixture one(Pipeline::kOn);
  one.options.max_new_tokens = 8;
  one.Run();
  CHECK_EQ(one.log->num_packed_calls, 0);
  PipelineFixture stopped(Pipeline::kOn);
  stopped.options.stop_ids = {stopped.script->target[3]};
  stopped.script->num_steps = 1;
  stopped.Run();
  CHECK_EQ(stopped.log->num_packed_calls, 0);
}

TEST(AFailureAtAnyCallLosesNothingThatWasComputedAhead) {
  const auto make = [](Pipeline pipeline) {
    PipelineFixture f(pipeline);
    f.options.max_new_tokens = 40;
    f.options.sampler.stability_threshold = 2;
    return f;
  };
  PipelineFixture plain = make(Pipeline::kOff);
  const Outcome expected = plain.Run();
  PipelineFixture undisturbed = make(Pipeline::kOn);
  CHECK(undisturbed.Run() == expected);
  for (const bool nan : {false, true}) {
    for (int64_t call = 2; call <= undisturbed.log->num_calls; ++call) {
      PipelineFixture f = make(Pipeline::kOn);
      (nan ? f.script->nan_at_call : f.script->fail_at_call) = call;
      Session session = f.MakeSession();
      session.Prefill(f.prompt);
      f.FinishThroughFailures(session);
      CHECK(ToVector(session.tokens()) == expected.tokens);
      CHECK(session.stats().steps_per_canvas == expected.steps_per_canvas);
    }
  }
}

TEST(ANextCanvasThatIsNotFiniteDoesNotStopTheOneBefore) {
  PipelineFixture undisturbed(Pipeline::kOn);
  std::vector<int64_t> packed_before;  // [call]: packed passes before it
  undisturbed.script->on_call = [&](int64_t) { packed_before.push_back(undisturbed.log->num_packed_calls); };
  const Outcome expected = undisturbed.Run();
  int64_t num_packed = 0;
  for (size_t call = 0; call + 1 < packed_before.size(); ++call) {
    if (packed_before[call + 1] == packed_before[call]) continue;
    ++num_packed;
    PipelineFixture f(Pipeline::kOn);
    f.script->spoil_next = true;
    f.script->nan_at_call = static_cast<int64_t>(call) + 1;
    CHECK(f.Run() == expected);
  }
  CHECK(num_packed > 10);
}

TEST(AStartCanvasReplacesWhatWasComputedAhead) {
  const auto run = [](Pipeline pipeline) {
    PipelineFixture f(pipeline);
    Session session = f.MakeSession();
    session.Prefill(f.prompt);
    session.NextCanvas(nullptr);
    session.SetCanvas(Counting(3, 8));
    RecordingSink sink;
    session.NextCanvas(&sink);
    CHECK(sink.steps.front().canvas_in == Counting(3, 8));
    CHECK(pipeline == Pipeline::kOff || f.log->num_packed_calls > 0);
    return sink.steps;
  };
  CHECK(run(Pipeline::kOn) == run(Pipeline::kOff));
}

TEST(ASinkThatFailsAnywhereLosesNothing) {
  struct Failing : GenerateSink {
    void OnStep(const StepView&) override { Call(); }
    void OnCommit(int32_t, std::span<const int32_t>, std::span<const TokenOrigin>) override { Call(); }
    void Call() {
      if (++calls == fail_at) throw std::runtime_error("sink");
    }
    int calls = 0, fail_at = 0;
  };
  PipelineFixture plain(Pipeline::kOff);
  plain.options.max_new_tokens = 24;
  const Outcome expected = plain.Run();
  const int num_calls = static_cast<int>(expected.steps.size() + expected.steps_per_canvas.size());
  for (int fail_at = 1; fail_at <= num_calls; ++fail_at) {
    PipelineFixture f(Pipeline::kOn);
    f.options.max_new_tokens = 24;
    Session session = f.MakeSession();
    session.Prefill(f.prompt);
    Failing sink;
    sink.fail_at = fail_at;
    int failures = 0;
    while (session.finish_reason() == FinishReason::kNone) {
      const size_t before = session.tokens().size();
      try {
        session.NextCanvas(&sink);
      } catch (const std::runtime_error&) {
        ++failures;
        CHECK_EQ(session.tokens().size(), before);
      }
    }
    CHECK_EQ(failures, 1);
    CHECK(session.stats().packed_commits > 0);
    CHECK(ToVector(session.tokens()) == expected.tokens);
  }
}

TEST(CancellingAtABorderShowsTheSameCanvas) {
  const auto run = [](Pipeline pipeline) {
    PipelineFixture f(pipeline);
    Session session = f.MakeSession();
    session.Prefill(f.prompt);
    session.NextCanvas(nullptr);
    CHECK_EQ(session.stats().packed_commits, pipeline == Pipeline::kOn ? 1 : 0);
    session.Cancel();
    CHECK(session.NextCanvas(nullptr).empty());
    CHECK(session.finish_reason() == FinishReason::kCancelled);
    return ToVector(session.canvas());
  };
  CHECK(run(Pipeline::kOn) == run(Pipeline::kOff));
}

TEST(APipelineThatDoesNotExistIsRefused) {
  PipelineFixture f(static_cast<Pipeline>(5));
  CHECK_THROWS(InvalidArgument, "pipeline: expected 0 (auto), 1 (off) or 2 (on), found 5", f.MakeSession());
  f.options.pipeline = Pipeline::kOn;
  f.options.guarantee = Guarantee::kCausal;
  CHECK_THROWS(InvalidArgument, "expected auto or off with guarantee causal", f.MakeSession());
}

TEST(ThePlainLoopTakesNoMemoryForASecondCanvas) {
  PipelineFixture f(Pipeline::kOff);
  const int64_t workspace = f.Open()->memory().workspace_bytes;
  f.options.pipeline = Pipeline::kOn;
  CHECK(f.Open()->memory().workspace_bytes >= workspace + 3 * 8 * 48 * 4);
}

}  // namespace dgrt
