// Overlapping canvases: the next canvas begins while this one settles, is kept as a warm start or begins again, and may not
// stop before a step behind the committed text. Whatever fails in between, the outcome is that of an undisturbed run. (The
// fake engine checks every KV row that a pass is shown.)
#include <random>

#include "common/check.h"
#include "session_fixture.h"

namespace dgrt {
namespace {

constexpr size_t kCanvas = 20;  // one changed position is 5 %

struct Outcome {
  std::vector<RecordingSink::Step> steps;
  Tokens tokens;
  std::vector<int32_t> steps_per_canvas;
  FinishReason finish;
  int64_t kv_len;
  bool operator==(const Outcome&) const = default;
};

// Three canvases. Each settles at its step 20, one row per step, and stops with its step 24.
struct OverlapFixture : SessionFixture {
  OverlapFixture() {
    script->canvas_len = kCanvas;
    script->num_steps = 20;
    script->knows_steps = true;
    options.guarantee = Guarantee::kVerified;
    options.drafter = DrafterKind::kOverlap;
    options.max_new_tokens = 3 * kCanvas;
    options.sampler.max_denoising_steps = 40;
    options.sampler.stability_threshold = 4;
  }

  Outcome Run(Session& session) {
    RecordingSink sink;
    session.Prefill(prompt);
    FinishThroughFailures(session, &sink);
    CHECK(sink.committed == ToVector(session.tokens()));
    for (int64_t kv_len = static_cast<int64_t>(prompt.size()); kv_len < session.kv_len(); kv_len += kCanvas) {
      CHECK(RowsAt(kv_len) == ToVector(session.tokens().subspan(static_cast<size_t>(kv_len) - prompt.size(), kCanvas)));
    }
    return {sink.steps, sink.committed, session.stats().steps_per_canvas, session.finish_reason(), session.kv_len()};
  }
  Outcome Run() {
    Session session = MakeSession();
    return Run(session);
  }

  // What was written last to the rows of a canvas.
  Tokens RowsAt(int64_t kv_len) const {
    Tokens tokens;
    for (const auto& call : log->prefills) {
      if (call.kv_len == kv_len) tokens = call.tokens;
    }
    return tokens;
  }

  // Writes another token to so many positions of the canvas in front, before the first call that `when` holds for.
  void ChangeMind(size_t first, size_t num_positions, std::function<bool()> when) {
    script->on_call = [this, first, num_positions, when, done = false](int64_t) mutable {
      if (done || !when()) return;
      done = true;
      for (size_t i = first; i < first + num_positions; ++i) script->target[i] = (script->target[i] + 1) % 40;
    };
  }
};

std::vector<RecordingSink::Step> StepsOf(const Outcome& outcome, int32_t canvas) {
  std::vector<RecordingSink::Step> steps;
  for (const auto& step : outcome.steps) {
    if (step.canvas_index == canvas) steps.push_back(step);
  }
  return steps;
}

}  // namespace

TEST(ANextCanvasThatBeganEarlySavesItsSteps) {
  OverlapFixture plain;
  plain.options.drafter = DrafterKind::kNone;
  const Outcome expected = plain.Run();
  OverlapFixture f;
  Session session = f.MakeSession();
  const Outcome found = f.Run(session);
  CHECK(found.tokens == expected.tokens);  // the script knows one text only
  CHECK_EQ(found.kv_len, expected.kv_len);
  // The first canvas is as without: 20 steps until all is settled, then four that change nothing. The last four are packed.
  CHECK_EQ(plain.log->num_calls, 1 + 3 * 24 + 2);
  const Stats& stats = session.stats();
  CHECK_EQ(stats.packed_commits, 2);
  CHECK_EQ(stats.commit_passes, 0);
  CHECK_EQ(stats.draft_calls, 2);
  CHECK_EQ(stats.accepted_drafts, 0);
  CHECK_EQ(stats.packed_passes, f.log->num_packed_calls);
  CHECK_EQ(stats.packed_passes, 8);
  CHECK(found.steps_per_canvas == std::vector<int32_t>({24, 24, 24}));
  CHECK_EQ(f.log->num_calls, plain.log->num_calls - 2 - 2 * 4);  // two commits, and four steps of two canvases
  // The sink hears of a canvas from the committed text on, and that the schedule goes on where it was.
  CHECK_EQ(StepsOf(found, 1).front().step, 40 - 4);
  CHECK_EQ(StepsOf(found, 1).size(), size_t{20});
  CHECK_EQ(StepsOf(found, 1).front().kv_len, static_cast<int64_t>(f.prompt.size() + kCanvas));
}

TEST(AStepAheadHasTheTemperatureAndNoiseOfItsOwnNumber) {
  OverlapFixture plain, f;
  plain.options.drafter = DrafterKind::kNone;
  // What was computed ahead of a commit that was foreseen in time is what the plain loop computes behind it.
  const Outcome expected = plain.Run(), found = f.Run();
  for (const int32_t canvas : {1, 2}) {
    const auto all = StepsOf(expected, canvas), rest = StepsOf(found, canvas);
    CHECK_EQ(all.size(), rest.size() + 4);
    CHECK(std::equal(rest.begin(), rest.end(), all.begin() + 4));
  }
}

TEST(AWarmStartOutlivesAChangeOfMind) {
  for (const size_t num_changed : {1, 8}) {
    OverlapFixture f;
    f.ChangeMind(3, num_changed, [&] { return f.log->num_packed_calls == 2; });
    Session session = f.MakeSession();
    const Outcome found = f.Run(session);
    // The third packed pass has a stale candidate; the canvas settles again for four steps, beside all of which the next
    // one goes on.
    CHECK(found.steps_per_canvas == std::vector<int32_t>({27, 24, 24}));
    CHECK_EQ(session.stats().draft_calls, 2);
    CHECK_EQ(session.stats().packed_commits, 2);
    CHECK_EQ(session.stats().packed_passes, 7 + 4);
    CHECK_EQ(StepsOf(found, 1).front().step, 40 - 7);
    CHECK(ToVector(session.tokens()) == Tokens(f.script->target.begin(), f.script->target.begin() + 3 * kCanvas));
  }
}

TEST(ANextCanvasBeginsAgainAfterTooManyChanges) {
  OverlapFixture f;
  f.ChangeMind(3, 9, [&] { return f.log->num_packed_calls == 2; });
  Session session = f.MakeSession();
  const Outcome found = f.Run(session);
  CHECK(found.steps_per_canvas == std::vector<int32_t>({27, 24, 24}));
  CHECK_EQ(session.stats().draft_calls, 3);
  // Three in vain, a plain step that shows the share of 95 % again, three more.
  CHECK_EQ(session.stats().packed_passes, 3 + 3 + 4);
  CHECK_EQ(StepsOf(found, 1).front().step, 40 - 3);

  OverlapFixture strict;
  strict.options.overlap.max_changed = 0;
  strict.ChangeMind(3, 1, [&] { return strict.log->num_packed_calls == 2; });
  Session strict_session = strict.MakeSession();
  const Outcome strictly = strict.Run(strict_session);
  CHECK_EQ(strict_session.stats().draft_calls, 3);
  CHECK_EQ(StepsOf(strictly, 1).front().step, 40 - 4);  // one position is still 95 %, so it begins at once
}

TEST(ChangesThatAddUpCountToo) {
  OverlapFixture f;
  f.options.overlap.max_changed = 1;
  int64_t changed = 0;
  f.script->on_call = [&](int64_t) {
    if (f.log->num_packed_calls != changed + 1 || changed == 2) return;
    f.script->target[static_cast<size_t>(changed++)] = 39;
  };
  Session session = f.MakeSession();
  f.Run(session);
  CHECK_EQ(session.stats().draft_calls, 3);
}

TEST(WhatIsCommittedHasTheRowsOfACommitPassIfItWasNotForeseen) {
  OverlapFixture f;
  f.options.sampler.stability_threshold = 0;  // stops as soon as it is sure, stable or not
  f.options.sampler.confidence_threshold = 0.05f;
  f.options.overlap.min_settled = 0.5f;
  Session session = f.MakeSession();
  const Outcome found = f.Run(session);
  CHECK_EQ(session.stats().commit_passes + session.stats().packed_commits, 2);
  CHECK(session.stats().commit_passes > 0);
  CHECK(session.stats().draft_calls > 0);
  CHECK(found.tokens == Counting(0, 3 * kCanvas));
}

TEST(NoCanvasStopsBeforeAStepBehindTheCommittedText) {
  // The next canvas is sure of everything long before it is put in work.
  OverlapFixture f;
  f.script->num_steps = 1;
  f.options.sampler.stability_threshold = 9;
  Session session = f.MakeSession();
  const Outcome found = f.Run(session);
  for (const int32_t canvas : {1, 2}) {
    const auto steps = StepsOf(found, canvas);
    CHECK(steps.front().step < 40);
    CHECK_EQ(steps.size(), size_t{9});  // each compared with the one before; none of those ahead counts
    CHECK(steps.back().stopped);
    for (const auto& step : steps) CHECK_EQ(step.kv_len, static_cast<int64_t>(4 + canvas * kCanvas));
  }
  OverlapFixture hasty;
  hasty.script->num_steps = 1;
  hasty.options.sampler.stability_threshold = 2;
  const Outcome at_once = hasty.Run();
  CHECK_EQ(StepsOf(at_once, 1).size(), size_t{2});
}

TEST(AScheduleThatIsUsedUpLeavesAStep) {
  for (int32_t most = 1; most <= 12; ++most) {
    OverlapFixture f;
    f.script->num_steps = 1;
    f.options.sampler.max_denoising_steps = most;
    f.options.sampler.stability_threshold = 100;  // none ever stops
    Session session = f.MakeSession();
    const Outcome found = f.Run(session);
    CHECK(found.steps_per_canvas == std::vector<int32_t>(3, most));
    CHECK_EQ(session.stats().draft_calls, most < 3 ? 0 : 2);
    for (const int32_t canvas : {0, 1, 2}) CHECK_EQ(StepsOf(found, canvas).back().step, 1);
    CHECK_EQ(StepsOf(found, 1).size(), most < 3 ? static_cast<size_t>(most) : size_t{2});
  }
}

TEST(NothingBeginsBehindACanvasThatEndsTheRequest) {
  OverlapFixture one;
  one.options.max_new_tokens = kCanvas;
  one.Run();
  CHECK_EQ(one.log->num_packed_calls, 0);
  OverlapFixture stopped;
  stopped.options.stop_ids = {stopped.script->target[3]};
  stopped.Run();
  CHECK_EQ(stopped.log->num_packed_calls, 0);
  // A stop id that turns up late: what had begun is dropped with the rest.
  OverlapFixture late;
  late.options.stop_ids = {41};
  late.script->on_call = [&](int64_t) {
    if (late.log->num_packed_calls == 2) late.script->target[5] = 41;
  };
  Session session = late.MakeSession();
  const Outcome found = late.Run(session);
  CHECK(found.finish == FinishReason::kStop);
  CHECK_EQ(found.tokens.size(), size_t{6});
  CHECK_EQ(late.log->num_packed_calls, 3);
  CHECK_EQ(session.stats().packed_commits, 0);
  // Another turn knows nothing of it.
  late.script->on_call = nullptr;
  session.Extend(Tokens{3, 5});
  RecordingSink sink;
  session.NextCanvas(&sink);
  CHECK_EQ(sink.steps.front().step, 40);
}

TEST(AFailureAtAnyCallLosesNothingThatHadBegun) {
  const auto make = [] {
    OverlapFixture f;
    f.script->num_steps = 6;
    f.options.overlap.min_settled = 0.5f;  // so that candidates are wrong, too
    f.options.sampler.max_denoising_steps = 14;
    f.options.sampler.stability_threshold = 2;
    return f;
  };
  OverlapFixture undisturbed = make();
  Session expected_session = undisturbed.MakeSession();
  const Outcome expected = undisturbed.Run(expected_session);
  CHECK(expected_session.stats().packed_passes > 4);
  for (const bool nan : {false, true}) {
    for (int64_t call = 2; call <= undisturbed.log->num_calls; ++call) {
      OverlapFixture f = make();
      (nan ? f.script->nan_at_call : f.script->fail_at_call) = call;
      Session session = f.MakeSession();
      session.Prefill(f.prompt);
      f.FinishThroughFailures(session);
      CHECK(ToVector(session.tokens()) == expected.tokens);
      CHECK(session.stats().steps_per_canvas == expected.steps_per_canvas);
      CHECK_EQ(session.kv_len(), expected.kv_len);
    }
  }
}

TEST(ASinkThatFailsAnywhereLosesNothingThatHadBegun) {
  struct Failing : GenerateSink {
    void OnStep(const StepView&) override { Call(); }
    void OnCommit(int32_t, std::span<const int32_t>, std::span<const TokenOrigin>) override { Call(); }
    void Call() {
      if (++calls == fail_at) throw DeviceError("sink");
    }
    int calls = 0, fail_at = 0;
  };
  OverlapFixture undisturbed;
  const Outcome expected = undisturbed.Run();
  const int num_calls = static_cast<int>(expected.steps.size() + expected.steps_per_canvas.size());
  for (int fail_at = 1; fail_at <= num_calls; ++fail_at) {
    OverlapFixture f;
    Session session = f.MakeSession();
    session.Prefill(f.prompt);
    Failing sink;
    sink.fail_at = fail_at;
    CHECK_EQ(f.FinishThroughFailures(session, &sink), 1);
    CHECK(ToVector(session.tokens()) == expected.tokens);
    CHECK(session.stats().steps_per_canvas == expected.steps_per_canvas);
  }
}

TEST(ANextCanvasThatIsNotFiniteIsDroppedAndBeginsAgain) {
  for (int64_t packed = 0; packed < 4; ++packed) {
    OverlapFixture f;
    f.script->spoil_next = true;
    f.script->on_call = [&, packed](int64_t call) {
      if (f.log->num_packed_calls == packed && f.log->num_denoise_calls == 20) f.script->nan_at_call = call;
    };
    Session session = f.MakeSession();
    session.Prefill(f.prompt);
    RecordingSink sink;
    session.NextCanvas(&sink);
    CHECK_EQ(session.stats().draft_calls, packed < 3 ? 2 : 1);
    CHECK_EQ(session.stats().packed_commits, packed < 3 ? 1 : 0);  // what the last pass wrote was forgotten with it
    CHECK_EQ(session.stats().commit_passes, packed < 3 ? 0 : 1);
    f.script->nan_at_call = 0;
    f.script->on_call = nullptr;
    CHECK_EQ(f.FinishThroughFailures(session, &sink), 0);
    CHECK(sink.committed == Counting(0, 3 * kCanvas));
  }
}

TEST(CancellingAnywhereShowsAndCommitsNoMoreThanWithoutOverlap) {
  OverlapFixture undisturbed;
  undisturbed.Run();
  for (int64_t call = 2; call <= undisturbed.log->num_calls; ++call) {
    OverlapFixture f;
    Session session = f.MakeSession();
    session.Prefill(f.prompt);
    f.script->on_call = [&, call](int64_t now) {
      if (now == call) session.Cancel();
    };
    while (session.finish_reason() == FinishReason::kNone) session.NextCanvas(nullptr);
    f.CheckInvariants(session);
    const Tokens whole = Counting(0, 3 * kCanvas);
    CHECK(session.tokens().size() % kCanvas == 0);
    CHECK(std::equal(session.tokens().begin(), session.tokens().end(), whole.begin()));
    CHECK(session.NextCanvas(nullptr).empty());
  }
}

TEST(AStartCanvasReplacesWhatHadBegun) {
  OverlapFixture f;
  Session session = f.MakeSession();
  session.Prefill(f.prompt);
  session.NextCanvas(nullptr);
  CHECK_EQ(session.stats().draft_calls, 1);
  session.SetCanvas(Counting(3, kCanvas));
  RecordingSink sink;
  session.NextCanvas(&sink);
  CHECK(sink.steps.front().canvas_in == Counting(3, kCanvas));
  CHECK_EQ(sink.steps.front().step, 40);
}

TEST(ARequestIsAFunctionOfItsSeedAlsoWithOverlap) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const auto run = [seed](int threads) {
      std::mt19937_64 random(seed);
      OverlapFixture f;
      f.options.seed = seed;
      f.script->num_steps = 1 + static_cast<int32_t>(random() % 9);
      if (random() % 2 == 0) f.script->new_mind_at = f.script->num_steps + static_cast<int32_t>(random() % 4);
      f.options.sampler.max_denoising_steps = 1 + static_cast<int32_t>(random() % 14);
      f.options.sampler.stability_threshold = static_cast<int32_t>(random() % 4);
      f.options.sampler.confidence_threshold = random() % 3 == 0 ? 1e-12f : 0.05f;
      f.options.overlap.min_settled = random() % 2 == 0 ? 0.95f : 0.3f;
      f.options.overlap.max_changed = static_cast<int32_t>(random() % 12);
      f.options.max_new_tokens = random() % 2 == 0 ? -1 : 1 + static_cast<int64_t>(random() % 100);
      f.script->context_len = 60 + static_cast<int64_t>(random() % 100);
      if (random() % 2 == 0) f.options.stop_ids = {f.script->target[10 + random() % 40]};
      Session session = f.MakeSession(threads);
      Outcome outcome = f.Run(session);
      const Stats& stats = session.stats();
      CHECK_EQ(stats.packed_passes, f.log->num_packed_calls);
      CHECK_EQ(stats.denoise_passes, f.log->num_denoise_calls);
      CHECK(stats.packed_commits <= stats.draft_calls && stats.draft_calls <= stats.packed_passes);
      CHECK_EQ(stats.commit_passes + stats.packed_commits, stats.canvases - 1);
      return outcome;
    };
    CHECK(run(1) == run(3));
  }
}

TEST(OverlapIsRefusedWhereItDoesNotFit) {
  OverlapFixture f;
  f.options.guarantee = Guarantee::kCausal;
  CHECK_THROWS(InvalidArgument, "drafter: expected none, suffix, model or auto with guarantee causal, found overlap",
               f.MakeSession());
  f.options.guarantee = Guarantee::kExact;
  CHECK_THROWS(InvalidArgument, "drafter: expected none or auto with guarantee exact", f.MakeSession());
  f.options.guarantee = Guarantee::kVerified;
  f.options.draft = {5, 6};
  CHECK_THROWS(InvalidArgument, "draft: expected none with drafter overlap, found one", f.MakeSession());
  f.options.draft.clear();
  f.options.overlap.min_settled = 1.5f;
  CHECK_THROWS(InvalidArgument, "overlap.min_settled: expected 0 to 1, found 1.5", f.MakeSession());
  f.options.overlap = {.max_changed = -1};
  CHECK_THROWS(InvalidArgument, "overlap.max_changed: expected 0 to", f.MakeSession());
  f.options.overlap = {};
  f.script->can_pack = false;
  CHECK_THROWS(Unsupported, "drafter: expected none, suffix, model or auto with this engine, found overlap",
               f.MakeSession());
}

TEST(AutoNeverOverlaps) {
  for (const Guarantee guarantee : {Guarantee::kExact, Guarantee::kVerified}) {
    OverlapFixture f;
    f.options.guarantee = guarantee;
    f.options.drafter = DrafterKind::kAuto;
    f.options.pipeline = Pipeline::kOff;
    Session session = f.MakeSession();
    Generate(session, f.prompt, nullptr);
    CHECK_EQ(f.log->num_packed_calls, 0);
  }
}

TEST(OverlapTakesTheMemoryItSays) {
  OverlapFixture f;
  const int64_t workspace = f.Open()->memory().workspace_bytes;
  f.options.drafter = DrafterKind::kNone;
  const int64_t canvas = 3 * static_cast<int64_t>(kCanvas) * 48 * 4;
  const int64_t kept = static_cast<int64_t>(kCanvas) * (48 + 4) * 4;
  CHECK(workspace - f.Open()->memory().workspace_bytes >= canvas + kept);
}

}  // namespace dgrt
