// What a session does when nothing goes wrong: tokens, lengths, stop rules, steps, statistics, option checks.
#include <algorithm>
#include <limits>
#include <set>

#include "common/philox.h"
#include "runtime/plan.h"
#include "session_fixture.h"

namespace dgrt {

TEST(GeneratesTheScriptedTextOverSeveralCanvases) {
  SessionFixture f;
  Session session = f.MakeSession();
  RecordingSink sink;
  Generate(session, f.prompt, &sink);
  CHECK(ToVector(session.tokens()) == Counting(0, 20));  // 8 + 8 + 4 of 8
  CHECK(session.finish_reason() == FinishReason::kLength);
  CHECK(sink.committed == Counting(0, 20));
  CHECK((sink.commits == std::vector<int32_t>{0, 1, 2}));
  f.CheckInvariants(session);
}

TEST(WholeCanvasesAreWrittenIntoKvAndTheLastOneIsNot) {
  SessionFixture f;
  Session session = f.MakeSession();
  Generate(session, f.prompt, nullptr);
  CHECK_EQ(f.log->prefills.size(), 3u);  // prompt and two canvases
  CHECK(f.log->prefills[0].tokens == f.prompt);
  CHECK_EQ(f.log->prefills[1].kv_len, 4);
  CHECK(f.log->prefills[1].tokens == Counting(0, 8));
  CHECK_EQ(f.log->prefills[2].kv_len, 12);
  CHECK(f.log->prefills[2].tokens == Counting(8, 8));
  CHECK_EQ(session.kv_len(), 20);
}

TEST(StatisticsCountEveryPass) {
  SessionFixture f;
  Session session = f.MakeSession();
  Generate(session, f.prompt, nullptr);
  const Stats& stats = session.stats();
  // Rows are sure after 3 steps; a fourth confirms that the argmax canvas stays.
  CHECK((stats.steps_per_canvas == std::vector<int32_t>{4, 4, 4}));
  CHECK_EQ(stats.denoise_passes, 12);
  CHECK_EQ(stats.denoise_passes, f.log->num_denoise_calls);
  CHECK_EQ(stats.prefill_passes, 1);
  CHECK_EQ(stats.commit_passes, 2);
  CHECK_EQ(stats.canvases, 3);
  CHECK_EQ(stats.prompt_tokens, 4);
  CHECK_EQ(stats.tokens, 20);
  CHECK_EQ(stats.row_tokens, 4 + 12 * 8 + 2 * 8);
  CHECK_NEAR(stats.tokens_per_pass(), 20.0 / 14, 1e-12);
  CHECK(stats.total_ms > 0 && stats.denoise_ms > 0 && stats.head_ms > 0 && stats.peak_kv_bytes > 0);
}

TEST(LongPromptsAreCutIntoChunks) {
  SessionFixture f;
  f.script->context_len = 2000;
  f.script->prompt_len = 1100;
  f.prompt = Counting(5, 1100);
  Session session = f.MakeSession();
  Generate(session, f.prompt, nullptr);
  CHECK_EQ(session.stats().prefill_passes, NumPrefillChunks(1100));
  CHECK_EQ(f.log->prefills[1].kv_len, kPrefillChunkTokens);
  CHECK(ToVector(session.tokens()) == Counting(0, 20));
  f.CheckInvariants(session);
}

TEST(TheFirstStopIdEndsTheTextAndIsPartOfIt) {
  SessionFixture f;
  f.options.stop_ids = {47, Counting(11, 1)[0]};
  Session session = f.MakeSession();
  Generate(session, f.prompt, nullptr);
  CHECK(ToVector(session.tokens()) == Counting(0, 12));
  CHECK(session.finish_reason() == FinishReason::kStop);
  CHECK_EQ(session.kv_len(), 12);
  f.CheckInvariants(session);
}

TEST(AStopIdOnTheLastWantedTokenCountsAsStop) {
  SessionFixture f;
  f.options.max_new_tokens = 5;
  f.options.stop_ids = {Counting(4, 1)[0]};
  Session at_border = f.MakeSession();
  Generate(at_border, f.prompt, nullptr);
  CHECK(at_border.finish_reason() == FinishReason::kStop);
  CHECK_EQ(at_border.tokens().size(), 5u);
  f.options.max_new_tokens = 4;
  Session before = f.MakeSession();
  Generate(before, f.prompt, nullptr);
  CHECK(before.finish_reason() == FinishReason::kLength);
  CHECK_EQ(before.tokens().size(), 4u);
}

TEST(AWantedLengthOfWholeCanvasesNeedsNoFurtherPass) {
  SessionFixture f;
  f.options.max_new_tokens = 16;
  Session session = f.MakeSession();
  Generate(session, f.prompt, nullptr);
  CHECK_EQ(session.tokens().size(), 16u);
  CHECK(session.finish_reason() == FinishReason::kLength);
  CHECK_EQ(session.stats().commit_passes, 1);
}

TEST(WithoutALimitTheTextEndsWithTheContext) {
  SessionFixture f;
  f.options.max_new_tokens = -1;
  f.script->context_len = 39;  // prompt 4, four canvases, three positions to spare
  Session session = f.MakeSession();
  Generate(session, f.prompt, nullptr);
  CHECK(ToVector(session.tokens()) == Counting(0, 32));
  CHECK(session.finish_reason() == FinishReason::kLength);
  CHECK_EQ(session.kv_len(), 28);
  f.CheckInvariants(session);
}

TEST(AFinishedSessionGivesNothingMore) {
  SessionFixture f;
  Session session = f.MakeSession();
  Generate(session, f.prompt, nullptr);
  const int64_t calls = f.log->num_calls;
  CHECK(session.NextCanvas(nullptr).empty());
  CHECK_EQ(f.log->num_calls, calls);
  CHECK_EQ(session.tokens().size(), 20u);
}

TEST(TheSameSeedGivesTheSameStepsForAnyNumberOfThreadsAndInCompany) {
  SessionFixture f;
  RecordingSink expected;
  Session alone = f.MakeSession(1);
  Generate(alone, f.prompt, &expected);
  CHECK(!expected.steps.empty());
  for (const int threads : {1, 2, 3}) {
    SessionFixture g;
    auto runtime = g.Open(threads);
    Session first(runtime, g.options);
    GenerateOptions other_options = g.options;
    other_options.seed = 99;
    Session other(runtime, other_options);
    first.Prefill(g.prompt);
    other.Prefill(Tokens{9, 9, 9, 9});
    RecordingSink sink;
    while (first.finish_reason() == FinishReason::kNone) {
      first.NextCanvas(&sink);
      other.NextCanvas(nullptr);
    }
    CHECK(sink.steps == expected.steps);
  }
}

TEST(SeedAndRequestChangeTheNoise) {
  std::set<Tokens> first_canvases;
  for (const auto& [seed, request] : {std::pair<uint64_t, uint32_t>{1, 0}, {2, 0}, {1, 1}}) {
    SessionFixture f;
    f.options.seed = seed;
    f.options.request = request;
    Session session = f.MakeSession();
    RecordingSink sink;
    Generate(session, f.prompt, &sink);
    first_canvases.insert(sink.steps[0].canvas_in);
    CHECK(ToVector(session.tokens()) == Counting(0, 20));  // the script wins in the end
  }
  CHECK_EQ(first_canvases.size(), 3u);
}

TEST(EachStepIsReportedWithWhatWentInAndCameOut) {
  SessionFixture f;
  Session session = f.MakeSession();
  RecordingSink sink;
  Generate(session, f.prompt, &sink);
  CHECK_EQ(sink.steps.size(), 12u);
  for (size_t i = 0; i < sink.steps.size(); ++i) {
    const auto& step = sink.steps[i];
    const bool first = i % 4 == 0, last = i % 4 == 3;
    CHECK_EQ(step.canvas_index, static_cast<int32_t>(i / 4));
    CHECK_EQ(step.step, 12 - static_cast<int32_t>(i % 4));
    CHECK_EQ(step.temperature, TemperatureOfStep(0.4f, 0.8f, step.step, 12));
    CHECK_EQ(step.kv_len, 4 + 8 * step.canvas_index);
    CHECK_EQ(step.stopped, last);
    CHECK_EQ(step.soft_out.empty(), last);
    const bool zero_soft = std::all_of(step.soft_in.begin(), step.soft_in.end(), [](float x) { return x == 0; });
    CHECK_EQ(zero_soft, first);
    const NoiseKey key{17, 0, static_cast<uint32_t>(step.canvas_index), static_cast<uint32_t>(step.step)};
    for (uint32_t l = 0; l < 8; ++l) {
      if (first) {
        const NoiseKey start{17, 0, static_cast<uint32_t>(step.canvas_index), 0};
        CHECK_EQ(step.canvas_in[l], static_cast<int32_t>(NoiseInteger(start, NoiseStream::kInitialCanvas, l, 48)));
      }
      const int32_t noise = static_cast<int32_t>(NoiseInteger(key, NoiseStream::kRenoise, l, 48));
      CHECK_EQ(step.canvas_out[l], step.accepted[l] ? step.sampled[l] : noise);
    }
    if (!last) {
      CHECK(step.canvas_out == sink.steps[i + 1].canvas_in);
      CHECK(step.soft_out == sink.steps[i + 1].soft_in);
    }
  }
}

TEST(TheStopRuleAsksForAsManyEqualStepsAsTold) {
  for (const int32_t threshold : {0, 1, 2, 4}) {
    SessionFixture f;
    f.options.sampler.stability_threshold = threshold;
    f.options.max_new_tokens = 8;
    Session session = f.MakeSession();
    Generate(session, f.prompt, nullptr);
    CHECK_EQ(session.stats().steps_per_canvas[0], 3 + threshold);
  }
}

TEST(TheStartingCanvasDoesNotCountAsAStep) {
  SessionFixture f;
  f.script->num_steps = 1;
  f.options.max_new_tokens = 8;
  Session session = f.MakeSession();
  session.SetCanvas(Counting(0, 8));  // already what the first step will say
  Generate(session, f.prompt, nullptr);
  CHECK_EQ(session.stats().steps_per_canvas[0], 2);
}

TEST(TheStopRuleAsksForConfidence) {
  SessionFixture f;
  f.script->num_steps = 100;  // most rows never become sure
  f.options.max_new_tokens = 8;
  Session session = f.MakeSession();
  RecordingSink sink;
  Generate(session, f.prompt, &sink);
  CHECK_EQ(session.stats().steps_per_canvas[0], 12);
  CHECK_EQ(sink.steps.back().step, 1);
  CHECK(!sink.steps.back().stopped);
  CHECK(sink.steps.back().soft_out.empty());  // nothing follows step 1
  CHECK(ToVector(session.tokens()) == sink.steps.back().argmax);
}

TEST(ASingleStepIsEnoughWhenToldSo) {
  SessionFixture f;
  f.options.sampler.max_denoising_steps = 1;
  Session session = f.MakeSession();
  Generate(session, f.prompt, nullptr);
  CHECK((session.stats().steps_per_canvas == std::vector<int32_t>{1, 1, 1}));
}

TEST(AGivenCanvasReplacesTheFirstNoiseOnce) {
  SessionFixture f;
  const Tokens start = {40, 41, 42, 43, 44, 45, 46, 47};
  Session session = f.MakeSession();
  session.SetCanvas(start);
  RecordingSink sink;
  Generate(session, f.prompt, &sink);
  CHECK(sink.steps[0].canvas_in == start);
  CHECK(sink.steps[4].canvas_in != start);
  CHECK_THROWS(InvalidArgument, "canvas: expected 8 tokens, found 3", session.SetCanvas(Tokens{1, 2, 3}));
  CHECK_THROWS(InvalidArgument, "[0, 48), found 48", session.SetCanvas(Tokens{1, 2, 3, 4, 5, 6, 7, 48}));
}

TEST(TheCanvasShowsTheArgmaxOfTheLastStep) {
  SessionFixture f;
  f.options.max_new_tokens = 3;
  Session session = f.MakeSession();
  CHECK_EQ(session.canvas().size(), 8u);
  Generate(session, f.prompt, nullptr);
  CHECK(ToVector(session.canvas()) == Counting(0, 8));  // also beyond what was emitted
}

TEST(UnusablePromptsAreRefused) {
  SessionFixture f;
  Session session = f.MakeSession();
  CHECK_THROWS(InvalidArgument, "call Prefill first", session.NextCanvas(nullptr));
  CHECK_THROWS(InvalidArgument, "empty", session.Prefill({}));
  CHECK_THROWS(InvalidArgument, "prompt[1]: expected a token id in [0, 48), found 48", session.Prefill(Tokens{1, 48}));
  CHECK_THROWS(InvalidArgument, "found -1", session.Prefill(Tokens{-1}));
  CHECK_THROWS(InvalidArgument, "expected at most 248", session.Prefill(Tokens(249, 1)));
  CHECK_EQ(f.log->num_calls, 0);
  session.Prefill(Tokens(248, 1));
  CHECK_THROWS(InvalidArgument, "has a prompt already", session.Prefill(f.prompt));
}

TEST(UnusableOptionsAreRefused) {
  const auto refused = [](const char* message, auto change) {
    SessionFixture f;
    change(f.options);
    CHECK_THROWS(InvalidArgument, message, f.MakeSession());
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  refused("max_denoising_steps: expected at least 1, found 0", [](auto& o) { o.sampler.max_denoising_steps = 0; });
  refused("entropy_bound", [](auto& o) { o.sampler.entropy_bound = 0; });
  refused("entropy_bound", [nan](auto& o) { o.sampler.entropy_bound = nan; });
  refused("t_max: expected a number above t_min", [](auto& o) { o.sampler.t_max = o.sampler.t_min; });
  refused("t_max", [nan](auto& o) { o.sampler.t_max = nan; });
  refused("t_min", [](auto& o) { o.sampler.t_min = -0.1f; });
  refused("t_min: expected a temperature of at least", [](auto& o) { o.sampler.t_min = 0, o.sampler.t_max = 1e-37f; });
  refused("stability_threshold", [](auto& o) { o.sampler.stability_threshold = -1; });
  refused("confidence_threshold", [nan](auto& o) { o.sampler.confidence_threshold = nan; });
  refused("request: expected a number below 2^24, found 16777216", [](auto& o) { o.request = kMaxRequest; });
  refused("max_new_tokens", [](auto& o) { o.max_new_tokens = 0; });
  refused("max_new_tokens", [](auto& o) { o.max_new_tokens = -2; });
  refused("stop_ids", [](auto& o) { o.stop_ids = {48}; });
  CHECK_THROWS(InvalidArgument, "runtime", Session(nullptr, {}));
}

TEST(ARuntimeTellsWhatItWillNeed) {
  SessionFixture f;
  const auto runtime = f.Open(2);
  CHECK_EQ(runtime->threads(), 2);
  CHECK_EQ(runtime->description(), std::string("fake engine"));
  CHECK_EQ(runtime->default_options().max_new_tokens, 20);
  const MemoryPlan plan = runtime->memory();
  CHECK(plan.workspace_bytes > 3 * 8 * 48 * 4);
  CHECK(plan.kv_bytes_full_context >= 2 * 256 * 5 * 4);
  RuntimeOptions bad;
  bad.threads = -1;
  CHECK_THROWS(InvalidArgument, "threads", Runtime::FromEngine(std::make_unique<FakeEngine>(f.script, f.log), {}, bad));
}

TEST(TheMemoryPlanHoldsForTheLongestPrompt) {
  SessionFixture f;
  f.script->context_len = 2000;
  f.script->prompt_len = 1992;
  f.prompt = Counting(5, 1992);
  const auto runtime = f.Open();
  Session session(runtime, f.options);
  Generate(session, f.prompt, nullptr);
  CHECK_EQ(session.stats().peak_kv_bytes, runtime->memory().kv_bytes_full_context);
}

TEST(AMemoryLimitThatAPromptsChunkWouldExceedIsFoundBeforeAnyPass) {
  SessionFixture f;
  f.script->context_len = 4000;
  f.script->prompt_len = 3000;
  f.prompt = Counting(5, 3000);
  Session unlimited(f.Open(), f.options);
  unlimited.Prefill(f.prompt);
  const int64_t needed = f.Open()->memory().workspace_bytes + unlimited.stats().peak_kv_bytes;
  f.log->num_calls = 0;
  Session limited(f.Open(1, needed - 1), f.options);
  CHECK_THROWS(OutOfMemory, "the limit leaves", limited.Prefill(f.prompt));
  CHECK_EQ(f.log->num_calls, 0);
  Session enough(f.Open(1, needed), f.options);
  enough.Prefill(f.prompt);
}

}  // namespace dgrt
