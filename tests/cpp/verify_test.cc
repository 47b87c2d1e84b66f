// The verified tier on the fake engine: what each check decides and costs; a discarded draft leaves no trace in the tokens;
// a failure anywhere leaves the sequence as it was; what a drafter does wrong costs time and nothing else.
#include <random>

#include "common/check.h"
#include "drafting/drafter.h"
#include "drafting/suffix_drafter.h"
#include "session_fixture.h"

namespace dgrt {
namespace {

using Propose = std::function<int64_t(const Tokens& text, std::span<int32_t> draft, std::span<float> confidence)>;

struct FunctionDrafter : Drafter {
  explicit FunctionDrafter(Propose with) : function(std::move(with)) {}
  void Append(std::span<const int32_t> tokens) override { text.insert(text.end(), tokens.begin(), tokens.end()); }
  int64_t Draft(std::span<int32_t> draft, std::span<float> confidence) override {
    return function(text, draft, confidence);
  }
  Propose function;
  Tokens text;
};

struct VerifyFixture : SessionFixture {
  VerifyFixture() {
    options.guarantee = Guarantee::kVerified;
    options.verify.always = true;
    options.verify.min_confirmed = 0.5f;  // one wrong token is an eighth of a canvas here
    options.max_new_tokens = 40;
    script->num_steps = 3;
    script->causal_doubt = 1000;  // never
  }
  void Draft(Propose with) {
    options.make_drafter = [with] { return std::make_unique<FunctionDrafter>(with); };
  }
  // The text of the script, with `edit` applied to each canvas.
  void DraftTarget(std::function<void(std::span<int32_t>)> edit = [](auto) {}) {
    Draft([this, edit](const Tokens& text, std::span<int32_t> draft, std::span<float>) {
      for (size_t i = 0; i < draft.size(); ++i) draft[i] = script->target[text.size() - prompt.size() + i];
      edit(draft);
      return static_cast<int64_t>(draft.size());
    });
  }
  std::unique_ptr<Session> Run(GenerateSink* sink = nullptr) {
    auto session = std::make_unique<Session>(Open(), options);
    Generate(*session, prompt, sink);
    CheckInvariants(*session);
    return session;
  }
};

Tokens ExactTokens(const VerifyFixture& like, std::vector<RecordingSink::Step>* steps = nullptr) {
  SessionFixture f;
  *f.script = *like.script;
  f.options = like.options;
  f.options.guarantee = Guarantee::kExact;
  f.options.make_drafter = nullptr;
  f.options.drafter = DrafterKind::kNone;
  f.options.draft.clear();
  Session session = f.MakeSession();
  RecordingSink sink;
  Generate(session, f.prompt, &sink);
  if (steps != nullptr) *steps = sink.steps;
  return ToVector(session.tokens());
}

struct Counts {
  int64_t commits, refines, discards, verify_passes, denoise_passes, commit_passes;
  bool operator==(const Counts&) const = default;
};
Counts CountsOf(const Session& session) {
  const Stats& s = session.stats();
  return {s.draft_commits, s.draft_refines, s.draft_discards, s.verify_passes, s.denoise_passes, s.commit_passes};
}

// A draft of some kind for each canvas, and checks that depend on the number too: right, spoiled, cut short, with a stop id.
void Vary(uint64_t seed, VerifyFixture& f) {
  std::mt19937 random(static_cast<uint32_t>(seed));
  const auto below = [&random](uint32_t n) { return static_cast<int32_t>(random() % n); };
  f.options.seed = seed;
  f.script->num_steps = below(3) == 0 ? 1 + below(4) : 0;
  f.script->causal_doubt = below(3) == 0 ? 5 : 1000;
  f.script->copies_from_row = below(6) == 0 ? 5 : -1;
  f.options.verify.folds = below(5);
  f.options.verify.causal_floor = below(4) == 0 ? 0.0f : below(2) == 0 ? 1.0f : 7.0f;
  f.options.verify.min_confirmed = below(2) == 0 ? 0.25f : 0.75f;
  f.options.verify.one_pass = below(5) != 0;
  if (below(3) == 0) f.options.stop_ids = {f.script->target[static_cast<size_t>(13 + below(8))]};
  const int32_t spoiled = below(6) * 4, length = 3 + below(12);  // 8 and more: no such position, the whole canvas
  f.Draft([target = f.script->target, spoiled, length](const Tokens& text, std::span<int32_t> draft, std::span<float>) {
    for (size_t i = 0; i < draft.size(); ++i) draft[i] = target[text.size() - 4 + i];
    if (spoiled < std::ssize(draft)) draft[static_cast<size_t>(spoiled)] = 46;
    return std::min<int64_t>(length, std::ssize(draft));
  });
}

}  // namespace

TEST(WithoutADrafterTheVerifiedTierIsThePlainLoop) {
  VerifyFixture f;
  const auto session_of_run = f.Run();
  Session& session = *session_of_run;
  CHECK(ToVector(session.tokens()) == ExactTokens(f));
  CHECK_EQ(session.stats().verify_passes + session.stats().draft_calls, 0);
}

TEST(ARightDraftIsCommittedByItsChecksAlone) {
  VerifyFixture f;
  f.script->num_steps = 0;  // sure at once, so that all checks hold
  f.DraftTarget();
  RecordingSink sink;
  const auto session_of_run = f.Run(&sink);
  Session& session = *session_of_run;
  CHECK(ToVector(session.tokens()) == ExactTokens(f));
  // Five canvases: a causal pass that is the commit too, the draft, two folds. Every one is accounted for.
  CHECK(CountsOf(session) == (Counts{5, 0, 0, 20, 0, 0}));
  CHECK_EQ(f.log->num_calls, 1 + 20);
  CHECK_EQ(session.stats().row_tokens, 4 + 20 * 8);
  CHECK_EQ(session.stats().accepted_drafts, 40);
  CHECK(session.stats().steps_per_canvas == std::vector<int32_t>(5, 1));
  CHECK_EQ(session.stats().tokens_per_pass(), 2.0);
  CHECK_EQ(session.kv_len(), 4 + 32);
  CHECK(sink.steps.empty() && sink.commits == (std::vector<int32_t>{0, 1, 2, 3, 4}));
}

TEST(ACommitSaysWhereItsTokensCameFrom) {
  VerifyFixture f;
  f.script->num_steps = 0;
  f.options.verify.causal_floor = 0;
  f.options.verify.folds = 0;
  f.options.max_new_tokens = 24;
  int32_t canvas = 0;  // the first as it should be, one token wrong in the second, no draft of the third
  f.Draft([&](const Tokens& text, std::span<int32_t> draft, std::span<float>) -> int64_t {
    for (size_t i = 0; i < draft.size(); ++i) draft[i] = f.script->target[text.size() - 4 + i];
    if (canvas == 1) draft[3] = 46;
    return canvas++ == 2 ? 0 : 8;
  });
  RecordingSink sink;
  const auto session = f.Run(&sink);
  std::vector<TokenOrigin> expected(24, TokenOrigin::kUndrafted);
  std::fill_n(expected.begin(), 16, TokenOrigin::kDrafted);
  expected[11] = TokenOrigin::kRevised;
  CHECK(sink.origins == expected);
  CHECK_EQ(session->stats().accepted_drafts, 15);
  // Of a draft that is discarded nothing came.
  VerifyFixture g;
  g.options.verify.min_confirmed = 1;
  g.options.max_new_tokens = 8;
  g.DraftTarget([](std::span<int32_t> draft) { draft[0] = 46; });
  RecordingSink other;
  CHECK_EQ(g.Run(&other)->stats().draft_discards, 1);
  CHECK(other.origins == std::vector<TokenOrigin>(8, TokenOrigin::kUndrafted));
}

TEST(ADraftWithAStopIdIsWholeWithPaddingBehindIt) {
  VerifyFixture f;
  f.script->num_steps = 0;
  f.options.stop_ids = {45};
  f.script->target = Counting(0, 12);
  f.script->target.push_back(45);
  f.script->target.push_back(0);  // padding from there on
  f.DraftTarget([](std::span<int32_t> draft) { draft.back() = draft.back() == 0 ? 17 : draft.back(); });  // rubbish behind
  f.script->target.resize(60, 0);
  const auto session_of_run = f.Run();
  Session& session = *session_of_run;
  CHECK_EQ(session.tokens().size(), 13u);
  CHECK(session.finish_reason() == FinishReason::kStop);
  CHECK(CountsOf(session) == (Counts{2, 0, 0, 8, 0, 0}));
  CHECK_EQ(session.stats().row_tokens, 4 + 4 * 8 + 5 + 3 * 8);  // the causal pass ends with the stop id
  CHECK_EQ(session.kv_len(), 4 + 8);
}

TEST(EachCheckAloneStopsACommit) {
  const auto run = [](auto change) {
    VerifyFixture f;
    f.script->num_steps = 0;
    f.options.max_new_tokens = 8;
    f.DraftTarget();
    change(f);
    const auto session_of_run = f.Run();
    Session& session = *session_of_run;
    CHECK_EQ(session.stats().verify_passes, f.log->num_denoise_calls + f.log->num_score_calls - 1 - session.stats().denoise_passes);
    return CountsOf(session);
  };
  const auto nothing = [](VerifyFixture&) {};
  CHECK(run(nothing) == (Counts{1, 0, 0, 4, 0, 0}));
  // Fixed point: one row answers otherwise. It is refined; the next step settles it.
  const auto only_fixed_point = [](VerifyFixture& f) { f.options.verify.folds = 0, f.options.verify.causal_floor = 0; };
  CHECK(run(only_fixed_point) == (Counts{1, 0, 0, 1, 0, 0}));
  CHECK(run([&](VerifyFixture& f) { only_fixed_point(f), f.script->new_mind_at = 1; }) == (Counts{0, 1, 0, 1, 1, 0}));
  // Leave-out: three rows repeat what they are shown, all of them do. Most are enough to refine, none is not.
  const auto no_floor = [](VerifyFixture& f) { f.options.verify.causal_floor = 0; };
  CHECK(run([&](VerifyFixture& f) { no_floor(f), f.script->copies_from_row = 5; }).refines == 1);
  const Counts none = run([&](VerifyFixture& f) { no_floor(f), f.script->copies_from_row = 0; });
  CHECK(none.discards == 1 && none.commits == 0);
  // Causal floor: positions 5, 10 lean elsewhere by 2.5 nats; all do.
  const auto no_folds = [](VerifyFixture& f) { f.options.verify.folds = 0, f.options.verify.causal_floor = 1; };
  CHECK(run(no_folds) == (Counts{1, 0, 0, 2, 0, 0}));
  // It is asked again of what refinement made of the draft.
  CHECK(run([&](VerifyFixture& f) { no_folds(f), f.script->causal_doubt = 5; }) == (Counts{0, 0, 1, 3, 3, 0}));
  const auto one_wrong = [](std::span<int32_t> draft) { draft[6] = 46; };
  CHECK(run([&](VerifyFixture& f) { no_folds(f), f.DraftTarget(one_wrong); }) == (Counts{0, 1, 0, 3, 1, 0}));
  const Counts all = run([&](VerifyFixture& f) { no_folds(f), f.script->causal_doubt = 1; });
  CHECK(all.discards == 1 && all.verify_passes == 1);  // the other checks could not have saved it
  // Its sum: no position is too low, together they are.
  const auto sum = [](VerifyFixture& f) { f.script->causal_doubt = 1, f.options.verify.causal_budget = 10; };
  CHECK(run(sum).discards == 1);  // so is what became of it
  CHECK(run([&](VerifyFixture& f) { sum(f), f.options.verify.causal_budget = 25; }).commits == 1);
  // Confidence: all agree, but the entropy is too high.
  CHECK(run([](VerifyFixture& f) { f.options.sampler.confidence_threshold = 1e-20f; }).refines == 1);
  CHECK(run([](VerifyFixture& f) { f.options.verify.one_pass = false; }).refines == 1);
}

TEST(ARefusedDraftIsNotCommittedByItsOwnCheck) {
  VerifyFixture f;
  f.script->num_steps = 0;
  f.script->copies_from_row = 5;
  f.options.sampler.stability_threshold = 0;  // the first step would be enough
  f.options.verify.causal_floor = 0;
  f.options.max_new_tokens = 8;
  f.DraftTarget([](std::span<int32_t> draft) { draft[6] = 47; });
  RecordingSink sink;
  const auto session_of_run = f.Run(&sink);
  Session& session = *session_of_run;
  CHECK(CountsOf(session).refines == 1);
  CHECK_EQ(sink.steps.size(), 2u);
  CHECK_EQ(sink.steps[0].argmax[6], 47);        // it speaks for itself
  CHECK(sink.steps[0].canvas_out[6] != 47);     // and is noise in the next step
  for (size_t i = 0; i < 5; ++i) CHECK_EQ(sink.steps[0].canvas_out[i], f.script->target[i]);
  CHECK(session.tokens()[6] != 47);
}

TEST(WhatRefinementMadeOfADraftIsCheckedBeforeItIsCommitted) {
  for (const bool is_good : {true, false}) {
    VerifyFixture f;
    f.options.verify.folds = 0;
    f.options.verify.causal_floor = 1;
    f.script->num_steps = 0;
    f.script->causal_doubt = is_good ? 1000 : 2;  // 2.5 nats at positions 2, 4, ...
    f.DraftTarget([](std::span<int32_t> draft) { draft[6] = 46; });
    std::vector<RecordingSink::Step> expected;
    const Tokens tokens = ExactTokens(f, &expected);
    RecordingSink sink;
    const auto session = f.Run(&sink);
    CHECK(ToVector(session->tokens()) == tokens);  // the fake engine has one answer
    CHECK_EQ(session->kv_len(), 4 + 32);
    const Counts counts = CountsOf(*session);
    if (is_good) {  // the check is the commit, too, but of the last canvas
      CHECK_EQ(counts.refines, 5);
      CHECK_EQ(counts.verify_passes, 3 * 5);
      CHECK_EQ(counts.commit_passes, 0);
    } else {  // the canvas is refined again, as without a draft
      CHECK_EQ(counts.discards, 5);
      CHECK_EQ(counts.commit_passes, 4);
      CHECK(std::equal(expected.end() - 2, expected.end(), sink.steps.end() - 2));
      CHECK(sink.steps.size() > expected.size());
    }
  }
}

TEST(ADiscardedDraftLeavesNoTrace) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    VerifyFixture f;
    f.options.seed = seed;
    f.script->num_steps = 1 + static_cast<int32_t>(seed % 6);
    std::mt19937 random(static_cast<uint32_t>(seed));
    f.options.verify.min_confirmed = 1;
    f.options.verify.folds = static_cast<int32_t>(seed % 4);
    f.options.verify.causal_floor = seed % 3 == 0 ? 0.0f : 7.0f;
    f.DraftTarget([&](std::span<int32_t> draft) { draft[random() % 8] = 46; });
    std::vector<RecordingSink::Step> expected;
    const Tokens tokens = ExactTokens(f, &expected);
    RecordingSink sink;
    const auto session_of_run = f.Run(&sink);
    Session& session = *session_of_run;
    if (f.options.verify.folds == 0 && f.options.verify.causal_floor == 0) continue;  // nothing to discard it
    CHECK_EQ(session.stats().draft_discards, 5);
    CHECK(ToVector(session.tokens()) == tokens);
    CHECK(sink.steps == expected);
  }
}

TEST(ADraftThatIsNotTriedLeavesNoTrace) {
  VerifyFixture f;
  f.options.verify.always = false;
  f.Draft([&](const Tokens& text, std::span<int32_t> draft, std::span<float> confidence) {
    for (size_t i = 0; i < draft.size(); ++i) draft[i] = f.script->target[text.size() - 4 + i];
    float chance = 0.9f;
    for (float& c : confidence) c = chance, chance *= 0.7f;
    return static_cast<int64_t>(draft.size());
  });
  const auto session_of_run = f.Run();
  Session& session = *session_of_run;
  CHECK_EQ(session.stats().draft_calls, 5);
  CHECK_EQ(session.stats().verify_passes, 0);
  CHECK(ToVector(session.tokens()) == ExactTokens(f));
}

TEST(AFailureAtAnyCallLeavesTheCanvasBefore) {
  const auto prepare = [](VerifyFixture& f, int kind) {
    f.script->num_steps = kind == 0 ? 0 : 3;
    if (kind == 1) f.options.verify.min_confirmed = 0.2f;
    f.DraftTarget();
  };
  for (int number = 0; number < 6; ++number) {  // committed, refined, discarded; checks on their own or packed
    const int kind = number % 3;
    const Packing packing = number < 3 ? Packing::kOff : Packing::kOn;
    VerifyFixture undisturbed;
    undisturbed.options.verify.packing = packing;
    prepare(undisturbed, kind);
    const auto whole_of_run = undisturbed.Run();
    Session& whole = *whole_of_run;
    const Counts counts = CountsOf(whole);
    CHECK((kind == 0 ? counts.commits : kind == 1 ? counts.refines : counts.discards) == 5);
    for (int how = 0; how < 4; ++how) {
      for (int64_t call = 2; call <= undisturbed.log->num_calls; ++call) {
        VerifyFixture f;
        f.options.verify.packing = packing;
        prepare(f, kind);
        if (how == 0) f.script->fail_at_call = call;
        if (how == 1 || how == 3) f.script->nan_at_call = call;
        if (how == 3) f.script->spoil_next = f.script->spoil_last_row = true;
        Session session = f.MakeSession();
        session.Prefill(f.prompt);
        if (how == 2) f.script->on_call = [&](int64_t at) { if (at == call) session.Cancel(); };
        f.FinishThroughFailures(session);
        const Tokens tokens = ToVector(session.tokens()), all = ToVector(whole.tokens());
        CHECK(std::equal(tokens.begin(), tokens.end(), all.begin()));
        if (how != 2) CHECK(tokens == all);
        if (how != 2) CHECK(session.stats().steps_per_canvas == whole.stats().steps_per_canvas);
      }
    }
  }
}

TEST(ADrafterThatThrowsOrTalksRubbishCostsTimeOnly) {
  std::mt19937 random(5);
  for (int kind = 0; kind < 4; ++kind) {
    for (uint64_t seed = 0; seed < 20; ++seed) {
      VerifyFixture f;
      f.options.seed = seed;
      f.Draft([&](const Tokens&, std::span<int32_t> draft, std::span<float> confidence) -> int64_t {
        for (int32_t& token : draft) token = static_cast<int32_t>(random() % 60) - 5;
        if (kind == 1) std::fill(confidence.begin(), confidence.end(), std::nanf(""));
        if (kind == 2) throw std::runtime_error("drafter");
        if (kind == 3) return -7;
        return 1'000'000;
      });
      const auto session_of_run = f.Run();
      Session& session = *session_of_run;
      CHECK(ToVector(session.tokens()) == ExactTokens(f));
      CHECK_EQ(session.stats().draft_commits, 0);
      if (kind > 0) CHECK_EQ(session.stats().verify_passes, 0);
    }
  }
}

TEST(AnExpectedOutputIsWhereTheFirstDraftComesFrom) {
  VerifyFixture f;
  f.script->num_steps = 0;
  f.options.draft = Tokens(f.script->target.begin(), f.script->target.begin() + 40);
  f.options.verify.always = false;
  const auto session_of_run = f.Run();
  Session& session = *session_of_run;
  CHECK_EQ(session.stats().draft_commits, 5);
  CHECK_EQ(session.stats().accepted_drafts, 40);
  // One that departs in the second canvas is of use in the others.
  VerifyFixture g;
  g.script->num_steps = 0;
  g.options.draft = f.options.draft;
  g.options.draft[10] = 44;
  const auto departed_of_run = g.Run();
  Session& departed = *departed_of_run;
  CHECK(departed.stats().draft_commits >= 3);
  CHECK(ToVector(departed.tokens()) == ToVector(session.tokens()));
}

TEST(NoCopyRunsOnFromAnExpectedOutputIntoThePrompt) {
  const Tokens expected = Counting(0, 12), prompt = Counting(20, 15);
  SuffixDrafter drafter(expected);
  drafter.Append(prompt);
  Tokens draft(40);
  std::vector<float> confidence(40, 1.0f);
  CHECK_EQ(drafter.Draft(draft, confidence), 12);
  CHECK(Tokens(draft.begin(), draft.begin() + 12) == expected);
  CHECK(confidence[11] > 0.9f);
  drafter.Append(std::span(expected).first(7));
  CHECK_EQ(drafter.Draft(draft, confidence), 5);
  CHECK(Tokens(draft.begin(), draft.begin() + 5) == Tokens(expected.begin() + 7, expected.end()));
}

TEST(WithoutChecksADraftIsAStartCanvas) {
  VerifyFixture f;
  f.options.verify.folds = 0;
  f.options.verify.causal_floor = 0;
  f.options.verify.one_pass = false;
  f.options.max_new_tokens = 8;
  f.DraftTarget([](std::span<int32_t> draft) { draft[3] = 46; });
  RecordingSink sink;
  const auto session_of_run = f.Run(&sink);
  Session& session = *session_of_run;
  VerifyFixture g;
  g.options.max_new_tokens = 8;
  Session started = g.MakeSession();
  started.Prefill(g.prompt);
  Tokens canvas(g.script->target.begin(), g.script->target.begin() + 8);
  canvas[3] = 46;
  started.SetCanvas(canvas);
  RecordingSink expected;
  started.NextCanvas(&expected);
  CHECK(sink.steps == expected.steps);
  CHECK_EQ(session.stats().draft_refines, 1);
}

TEST(AnotherTurnDraftsAnew) {
  VerifyFixture f;
  f.script->num_steps = 0;
  f.options.max_new_tokens = 8;
  f.DraftTarget();
  const auto session_of_run = f.Run();
  Session& session = *session_of_run;
  session.Extend(Tokens{3, 4});
  session.NextCanvas(nullptr);
  CHECK_EQ(session.stats().draft_calls, 1);
}

TEST(PackedChecksDecideWhatChecksOnTheirOwnDecide) {
  Counts sum{};
  int64_t partial_rows = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    VerifyFixture alone, packed;
    RecordingSink alone_sink, packed_sink;
    for (VerifyFixture* f : {&alone, &packed}) Vary(seed, *f);
    alone.options.verify.packing = Packing::kOff;
    packed.options.verify.packing = Packing::kOn;
    const auto expected = alone.Run(&alone_sink), session = packed.Run(&packed_sink);
    CHECK(ToVector(session->tokens()) == ToVector(expected->tokens()));
    CHECK(packed_sink.steps == alone_sink.steps);
    CHECK(packed_sink.origins == alone_sink.origins);
    const std::vector<TokenOrigin>& origins = packed_sink.origins;
    CHECK_EQ(session->stats().accepted_drafts, std::count(origins.begin(), origins.end(), TokenOrigin::kDrafted));
    CHECK(session->finish_reason() == expected->finish_reason());
    CHECK_EQ(session->kv_len(), expected->kv_len());
    const Stats &stats = session->stats(), &others = expected->stats();
    CHECK_EQ(stats.accepted_drafts, others.accepted_drafts);
    CHECK(stats.steps_per_canvas == others.steps_per_canvas);
    const Counts one = CountsOf(*session), many = CountsOf(*expected);
    CHECK(one.commits == many.commits && one.refines == many.refines && one.discards == many.discards);
    // A packed check does a step of the plain loop along: a draft that is discarded at once costs no pass.
    CHECK(one.denoise_passes <= many.denoise_passes && many.denoise_passes - one.denoise_passes <= one.discards);
    // A pass for each draft that is checked at all, and nothing beside it but what the plain loop has.
    const bool checks = packed.options.verify.one_pass || packed.options.verify.folds > 0 ||
                        packed.options.verify.causal_floor > 0;
    const int64_t drafts = one.commits + one.refines + one.discards;
    CHECK_EQ(packed.log->num_check_calls, checks ? drafts : 0);
    // And one more for what became of a draft by refinement, if the causal pass has a say.
    const int64_t final_checks = one.verify_passes - packed.log->num_check_calls;
    const bool is_asked = packed.options.verify.causal_floor > 0;
    CHECK(is_asked ? final_checks >= one.refines && final_checks <= drafts - one.commits : final_checks == 0);
    CHECK_EQ(alone.log->num_check_calls, 0);
    CHECK(one.commit_passes <= many.commit_passes);  // without the causal check, packing still writes the rows
    CHECK_EQ(packed.log->num_calls, 1 + one.verify_passes + one.denoise_passes + one.commit_passes);
    CHECK(checks == (stats.row_tokens > 4 + 8 * (one.denoise_passes + one.commit_passes)));
    partial_rows += (stats.row_tokens - 4) % 8 != 0;
    sum.commits += one.commits, sum.refines += one.refines, sum.discards += one.discards;
  }
  CHECK(sum.commits > 100 && sum.refines > 100 && sum.discards > 100 && partial_rows > 100);
}

TEST(APackedCheckCountsAsOnePassWithAllItsRows) {
  VerifyFixture f;
  f.script->num_steps = 0;
  f.options.verify.packing = Packing::kOn;
  f.options.max_new_tokens = 40;
  f.DraftTarget();
  const auto session = f.Run();
  CHECK(CountsOf(*session) == (Counts{5, 0, 0, 5, 0, 0}));
  CHECK_EQ(f.log->num_calls, 1 + 5);
  CHECK_EQ(session->stats().row_tokens, 4 + 5 * (4 * 8 + 8));  // a step from noise, the draft, two folds, the causal rows
  CHECK_EQ(session->stats().tokens_per_pass(), 8.0);
}

TEST(AutoPacksChecksWhereWeightsAreWhatAPassCosts) {
  const auto passes = [](Packing packing, bool is_row_bound, bool can_pack) {
    VerifyFixture f;
    f.script->num_steps = 0;
    f.script->is_row_bound = is_row_bound;
    f.script->can_pack = can_pack;
    f.options.verify.packing = packing;
    f.DraftTarget();
    return f.Run()->stats().verify_passes;
  };
  CHECK_EQ(passes(Packing::kAuto, true, true), 20);
  CHECK_EQ(passes(Packing::kAuto, false, true), 5);
  CHECK_EQ(passes(Packing::kAuto, false, false), 20);
  CHECK_EQ(passes(Packing::kOff, false, true), 20);
  CHECK_EQ(passes(Packing::kOn, true, true), 5);
}

TEST(AnEngineThatCannotPackChecksExactlyRefusesToBeAsked) {
  VerifyFixture f;
  f.script->can_pack = false;
  f.options.verify.packing = Packing::kOn;
  CHECK_THROWS(Unsupported, "verify.packing: expected auto or off with this engine, found on", f.MakeSession());
  f.options.guarantee = Guarantee::kExact;  // where it says nothing
  f.MakeSession();
}

TEST(WhetherADraftIsTriedDoesNotDependOnPacking) {
  for (const bool is_row_bound : {true, false}) {
    int64_t tries = -1;
    for (const Packing packing : {Packing::kOff, Packing::kOn}) {
      VerifyFixture f;
      f.script->is_row_bound = is_row_bound;
      f.options.verify.always = false;
      f.options.verify.folds = 6;  // as many passes as a right draft saves
      f.options.verify.packing = packing;
      f.options.max_new_tokens = 8;
      f.DraftTarget();
      const Counts counts = CountsOf(*f.Run());
      const int64_t tried = counts.commits + counts.refines + counts.discards;
      if (tries >= 0) CHECK_EQ(tried, tries);
      tries = tried;
    }
    CHECK_EQ(tries, is_row_bound ? 0 : 1);
  }
}

TEST(VerifyOptionsThatDoNotFitAreRefused) {
  const auto refuse = [](const char* text, auto change) {
    VerifyFixture f;
    change(f.options);
    CHECK_THROWS(InvalidArgument, text, f.MakeSession());
  };
  refuse("draft: expected none without guarantee verified, found 2 tokens", [](GenerateOptions& o) {
    o.guarantee = Guarantee::kExact, o.draft = {1, 2};
  });
  refuse("draft[1]: expected a token id", [](GenerateOptions& o) { o.draft = {1, 48}; });
  refuse("verify.folds", [](GenerateOptions& o) { o.verify.folds = 17; });
  refuse("verify.trust", [](GenerateOptions& o) { o.verify.trust = 1.5f; });
  refuse("verify.causal_floor", [](GenerateOptions& o) { o.verify.causal_floor = std::nanf(""); });
  refuse("verify.packing: expected 0 (auto), 1 (off) or 2 (on), found 3", [](GenerateOptions& o) {
    o.verify.packing = static_cast<Packing>(3);
  });
  refuse("pipeline: expected auto or off with guarantee verified", [](GenerateOptions& o) { o.pipeline = Pipeline::kOn; });
  refuse("logprobs: expected guarantee exact, found verified", [](GenerateOptions& o) { o.logprobs = true; });
}

}  // namespace dgrt
