// The drafter network and the drafter that chooses, on the fake engine: whatever the network answers, and wherever a pass of
// it fails, the tokens are those without it; it is asked behind the right token, as often as it pays, and what it costs is
// counted.
#include <chrono>
#include <numeric>
#include <thread>

#include "common/check.h"
#include "runtime/draft_costs.h"
#include "session_fixture.h"

namespace dgrt {
namespace {

struct DraftedFixture : SessionFixture {
  explicit DraftedFixture(DrafterKind drafter = DrafterKind::kModel, Guarantee guarantee = Guarantee::kCausal) {
    script->block_len = 8;
    options.guarantee = guarantee;
    options.drafter = drafter;
    options.max_new_tokens = 60;
  }
  std::unique_ptr<Session> Run(int threads = 1) {
    auto session = std::make_unique<Session>(Open(threads), options);
    Generate(*session, prompt, nullptr);
    CheckInvariants(*session);
    return session;
  }
  Tokens RunTokens() { return ToVector(Run()->tokens()); }
  // Those of one pass per token, or of the refinement loop.
  Tokens Undrafted() const {
    SessionFixture f;
    *f.script = *script;
    f.script->on_call = nullptr;
    f.script->fail_at_call = f.script->nan_at_call = 0;
    f.prompt = prompt;
    f.options = options;
    f.options.drafter = DrafterKind::kNone;
    Session session = f.MakeSession();
    Generate(session, f.prompt, nullptr);
    return ToVector(session.tokens());
  }
};

// What a text took in passes of one row, as draft_costs.h counts.
double Spent(const Stats& stats, const ModelFacts& model) {
  const DraftCosts costs = DraftCostsOf(model, true);
  const auto row = static_cast<double>(costs.row), network = static_cast<double>(costs.network);
  const auto network_row = static_cast<double>(costs.network_row);
  const auto tried = static_cast<double>(stats.row_tokens - (stats.prompt_tokens - 1) - stats.causal_passes);
  return static_cast<double>(stats.causal_passes) + row * tried +
         network * (static_cast<double>(stats.draft_passes) +
                    network_row * static_cast<double>(stats.draft_rows - stats.draft_passes));
}

}  // namespace

TEST(WhateverTheNetworkSaysTheTokensAreThoseWithoutIt) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    for (const float temperature : {0.0f, 1.0f, 20.0f}) {
      for (const DrafterKind drafter : {DrafterKind::kModel, DrafterKind::kAuto}) {
        for (const int64_t error : {0, 1, 3, 7}) {  // right, wrong, and in between
          for (const bool sure : {true, false}) {
            DraftedFixture f(drafter);
            f.script->block_len = 1 + static_cast<int64_t>(seed) % 8;
            f.script->draft_error = error;
            f.script->draft_is_sure = sure;
            f.options.seed = seed;
            f.options.causal_temperature = temperature;
            CHECK(f.RunTokens() == f.Undrafted());
          }
        }
      }
    }
  }
}

TEST(ARightNetworkSavesPasses) {
  DraftedFixture f;
  f.script->causal_doubt = 1000;
  const auto session = f.Run();
  const Stats& stats = session->stats();
  CHECK_EQ(stats.causal_passes, 60 / 8 + 1);
  CHECK_EQ(stats.accepted_drafts, 60 - stats.causal_passes);
  CHECK_EQ(stats.draft_passes, f.log->num_draft_calls);
  CHECK_EQ(stats.draft_calls, stats.causal_passes);
  CHECK(stats.draft_passes <= stats.causal_passes && stats.draft_passes > 4);
  CHECK(stats.draft_rows >= 5 * stats.draft_passes && stats.draft_rows <= 9 * stats.draft_passes);
  CHECK(stats.draft_ms > 0);
  CHECK_EQ(stats.row_tokens, 3 + 60);  // those of the network are counted apart
}

TEST(TheAnchorIsTheLastTokenOfTheText) {
  DraftedFixture f;
  f.script->causal_doubt = 1000;
  Session session = f.MakeSession();
  session.Prefill(f.prompt);
  for (int pass = 0; pass < 4; ++pass) {
    const int64_t length = 4 + std::ssize(session.tokens());
    const int32_t last = session.tokens().empty() ? 4 : session.tokens().back();
    session.NextCanvas(nullptr);
    CHECK_EQ(f.log->last_draft.position, length - 1);
    CHECK_EQ(f.log->last_draft.anchor, last);
  }
  DraftedFixture verified(DrafterKind::kModel, Guarantee::kVerified);
  verified.script->causal_doubt = 1000;
  Session canvases = verified.MakeSession();
  canvases.Prefill(verified.prompt);
  CHECK_EQ(canvases.kv_len(), 4);  // the anchor's own row is there, and not used
  for (int64_t canvas = 0; canvas < 3; ++canvas) {
    canvases.NextCanvas(nullptr);
    CHECK_EQ(verified.log->last_draft.position, 3 + 8 * canvas);
    CHECK_EQ(verified.log->last_draft.num_rows, 8);
  }
  CHECK_EQ(canvases.stats().draft_passes, 3);
  CHECK_EQ(canvases.stats().draft_rows, 3 * 9);
}

TEST(ANetworkThatIsNeverRightIsSeldomAsked) {
  for (const bool sure : {true, false}) {
    DraftedFixture f;
    f.script->draft_error = 1;
    f.script->draft_is_sure = sure;
    f.options.max_new_tokens = 200;
    const auto session = f.Run();
    const Stats& stats = session->stats();
    CHECK_EQ(stats.causal_passes, 200);
    CHECK_EQ(stats.accepted_drafts, 0);
    CHECK(stats.draft_passes >= 3 && stats.draft_passes <= 5);  // at the start, then 32, 96, 224 tokens on
  }
}

TEST(ANetworkThatComesToBeRightIsFoundOut) {
  DraftedFixture f;
  f.script->draft_error = 1;
  f.script->causal_doubt = 1000;
  f.options.max_new_tokens = 200;
  f.script->on_call = [&](int64_t call) {
    if (call == 60) f.script->draft_error = 0;
  };
  const auto session = f.Run();
  CHECK(session->stats().causal_passes < 130);
  CHECK(session->stats().draft_passes > 8);
}

TEST(AFailureAnywhereLeavesTheTokensAsTheyAre) {
  for (const DrafterKind drafter : {DrafterKind::kModel, DrafterKind::kAuto}) {
    for (const Guarantee guarantee : {Guarantee::kCausal, Guarantee::kVerified}) {
      DraftedFixture undisturbed(drafter, guarantee);
      const Tokens expected = undisturbed.RunTokens();
      for (int64_t call = 2; call <= undisturbed.log->num_calls; ++call) {
        for (const bool spoils : {false, true}) {
          DraftedFixture f(drafter, guarantee);
          (spoils ? f.script->nan_at_call : f.script->fail_at_call) = call;
          Session session = f.MakeSession();
          session.Prefill(f.prompt);
          CHECK(f.FinishThroughFailures(session) <= 1);  // none where it was a pass of the network
          if (guarantee == Guarantee::kCausal) CHECK(ToVector(session.tokens()) == expected);
          CHECK_EQ(session.tokens().size(), 60u);
        }
      }
    }
  }
}

TEST(ANetworkThatFailsIsDropped) {
  for (const bool spoils : {false, true}) {
    DraftedFixture f;
    (spoils ? f.script->nan_at_call : f.script->fail_at_call) = 2;  // behind the prefill
    const auto session = f.Run();
    CHECK(ToVector(session->tokens()) == f.Undrafted());
    CHECK_EQ(session->stats().draft_calls, 1);
    CHECK_EQ(session->stats().causal_passes, 60);
  }
}

TEST(ADrafterGraphThatIsNotTheContractsIsAnError) {
  for (const Guarantee guarantee : {Guarantee::kCausal, Guarantee::kVerified}) {
    DraftedFixture f(DrafterKind::kModel, guarantee);
    f.script->on_call = [](int64_t call) {
      if (call == 2 || call == 3) throw ContractMismatch("drafter.onnx: output hidden: expected");
    };
    Session session = f.MakeSession();
    session.Prefill(f.prompt);
    for (int i = 0; i < 2; ++i) CHECK_THROWS(ContractMismatch, "drafter.onnx", session.NextCanvas(nullptr));
    CHECK(session.tokens().empty());
    CHECK(!session.NextCanvas(nullptr).empty());
    CHECK(session.stats().draft_passes == 1);
  }
}

TEST(ADeadlineIsKeptAndTheNetworkWithIt) {
  DraftedFixture f;
  f.options.deadline_ms = 1e-6;
  Session session = f.MakeSession();
  CHECK_THROWS(DeadlineExceeded, "deadline", Generate(session, f.prompt, nullptr));
  DraftedFixture late;
  late.options.deadline_ms = 50;
  late.script->on_call = [&](int64_t call) {  // the first pass that emits takes its time
    if (call == 3) std::this_thread::sleep_for(std::chrono::milliseconds(60));
  };
  Session slow = late.MakeSession();
  slow.Prefill(late.prompt);
  slow.NextCanvas(nullptr);
  const int64_t passes = slow.stats().draft_passes;
  CHECK_THROWS(DeadlineExceeded, "passed after", slow.NextCanvas(nullptr));
  CHECK_EQ(slow.stats().draft_passes, passes);
}

TEST(ACancelledSessionDraftsNoMore) {
  DraftedFixture f;
  Session session = f.MakeSession();
  session.Prefill(f.prompt);
  f.script->on_call = [&](int64_t call) {
    if (call == 2) session.Cancel();  // while the network runs
  };
  CHECK(session.NextCanvas(nullptr).empty());
  CHECK(session.finish_reason() == FinishReason::kCancelled);
  CHECK_EQ(f.log->num_score_calls, 0);
}

TEST(ARightDraftOfTheNetworkIsCommitted) {
  DraftedFixture f(DrafterKind::kModel, Guarantee::kVerified);
  f.script->num_steps = 0;
  f.script->causal_doubt = 1000;
  f.options.max_new_tokens = 40;
  const auto session = f.Run();
  CHECK(ToVector(session->tokens()) == f.Undrafted());
  CHECK_EQ(session->stats().draft_commits, 5);
  CHECK_EQ(session->stats().draft_passes, 5);
  CHECK_EQ(session->stats().accepted_drafts, 40);
}

TEST(TheNetworkIsAskedAgainAfterEachStepOfACanvas) {
  const auto run = [](auto change) {
    DraftedFixture f(DrafterKind::kModel, Guarantee::kVerified);
    f.script->causal_doubt = 1000;
    f.script->num_steps = 6;
    f.script->draft_error = 3;  // of the first draft
    f.options.max_new_tokens = 40;
    f.options.verify.packing = Packing::kOn;
    f.options.verify.redraft = Redraft::kOn;
    change(f);
    const auto session = f.Run();
    CHECK(ToVector(session->tokens()) == f.Undrafted());
    CHECK_EQ(session->kv_len(), 4 + 32);
    return session->stats();
  };
  const auto in_sum = [](const std::vector<int32_t>& steps) { return std::accumulate(steps.begin(), steps.end(), int64_t{0}); };
  const Stats plain = run([](DraftedFixture& f) { f.options.guarantee = Guarantee::kExact, f.options.drafter = DrafterKind::kNone; });
  // The first draft is refused, beside the first step. It is no other after that: nothing more is checked, no pass is lost.
  const Stats stubborn = run([](DraftedFixture&) {});
  CHECK(stubborn.steps_per_canvas == plain.steps_per_canvas);
  CHECK_EQ(stubborn.verify_passes, 5);
  CHECK_EQ(stubborn.draft_discards, 5);
  CHECK_EQ(stubborn.verify_passes + stubborn.denoise_passes, plain.denoise_passes);
  CHECK_EQ(stubborn.draft_calls, in_sum(plain.steps_per_canvas));
  // The second, with what the first step found, is right; but the fake engine is sure of a canvas from its sixth step on.
  const auto sure_at_once = [](DraftedFixture& f) { f.script->evidence_helps = true, f.script->checks_are_sure = true; };
  const Stats helped = run(sure_at_once);
  CHECK(helped.steps_per_canvas == std::vector<int32_t>(5, 2));
  CHECK_EQ(helped.draft_commits, 5);
  CHECK_EQ(helped.verify_passes, 10);
  CHECK_EQ(helped.denoise_passes + helped.commit_passes, 0);
  CHECK_EQ(helped.accepted_drafts, 40);
  // Not asked where a pass costs its rows, or if told not to.
  for (const Redraft redraft : {Redraft::kAuto, Redraft::kOff}) {
    const Stats off = run([&](DraftedFixture& f) { sure_at_once(f), f.options.verify.redraft = redraft; });
    CHECK_EQ(off.draft_calls, 5);
    CHECK_EQ(off.draft_commits, 0);
  }
  const Stats light = run([&](DraftedFixture& f) {
    sure_at_once(f), f.options.verify.redraft = Redraft::kAuto, f.script->is_row_bound = false;
  });
  CHECK_EQ(light.draft_commits, 5);
}

TEST(AFailureInTheMiddleOfACanvasLeavesTheCanvasBefore) {
  const auto prepare = [](DraftedFixture& f) {
    f.script->causal_doubt = 1000;
    f.script->num_steps = 6;
    f.script->draft_error = 3;
    f.script->evidence_helps = f.script->checks_are_sure = true;
    f.options.max_new_tokens = 24;
    f.options.verify.packing = Packing::kOn;
    f.options.verify.redraft = Redraft::kOn;
  };
  DraftedFixture undisturbed(DrafterKind::kModel, Guarantee::kVerified);
  prepare(undisturbed);
  const auto whole = undisturbed.Run();
  CHECK_EQ(whole->stats().draft_commits, 3);
  for (int64_t call = 2; call <= undisturbed.log->num_calls; ++call) {
    for (int how = 0; how < 3; ++how) {
      DraftedFixture f(DrafterKind::kModel, Guarantee::kVerified);
      prepare(f);
      if (how == 0) f.script->fail_at_call = call;
      if (how == 1) f.script->nan_at_call = call;
      Session session = f.MakeSession();
      session.Prefill(f.prompt);
      if (how == 2) f.script->on_call = [&](int64_t at) { if (at == call) session.Cancel(); };
      f.FinishThroughFailures(session);
      const Tokens tokens = ToVector(session.tokens()), all = ToVector(whole->tokens());
      CHECK(std::equal(tokens.begin(), tokens.end(), all.begin()));
      if (how < 2) CHECK(tokens == all);
    }
  }
}

TEST(ADraftOfTheNetworkThatIsDoubtfulIsNotTried) {
  DraftedFixture f(DrafterKind::kModel, Guarantee::kVerified);
  f.script->draft_is_sure = false;
  const auto session = f.Run();
  CHECK(ToVector(session->tokens()) == f.Undrafted());
  CHECK_EQ(session->stats().verify_passes, 0);
}

TEST(AutoSpendsNoMoreThanItMay) {
  for (const int64_t error : {0, 1, 2, 3, 5}) {
    for (const int64_t doubt : {1, 2, 3, 1000}) {
      for (const int64_t length : {20, 60, 200}) {
        DraftedFixture f(DrafterKind::kAuto);
        f.script->draft_error = error;
        f.script->causal_doubt = doubt;
        f.script->target = Counting(0, 7);  // and then the same token for ever: a trap for copies
        f.options.max_new_tokens = length;
        const auto session = f.Run();
        const double without = static_cast<double>(length);
        CHECK(Spent(session->stats(), f.Open()->model()) <= without + std::max(0.8, 0.03 * without) + 1e-3);
      }
    }
  }
}

TEST(AutoUsesCopiesAndTheNetworkWhereEachPays) {
  DraftedFixture network(DrafterKind::kAuto);  // a text without repetitions
  network.script->causal_doubt = 1000;
  network.script->vocab_size = 300;
  network.script->target.clear();
  for (int32_t i = 0; i < 200; ++i) network.script->target.push_back(10 + i);
  network.options.max_new_tokens = 200;
  const auto drafted = network.Run();
  CHECK(drafted->stats().draft_passes > 5);
  CHECK(drafted->stats().causal_passes < 140);

  DraftedFixture copies(DrafterKind::kAuto);  // one that repeats itself, and a network that is always wrong
  copies.script->causal_doubt = 1000;
  copies.script->draft_error = 1;
  copies.options.max_new_tokens = 200;
  const auto copied = copies.Run();
  CHECK(copied->stats().draft_passes <= 3);
  CHECK(copied->stats().causal_passes < 120);

  DraftedFixture neither(DrafterKind::kAuto);
  neither.script->block_len = 0;  // an engine without a network
  CHECK(neither.RunTokens() == neither.Undrafted());
}

TEST(AutoLooksAtCanvasesOnlyOnceTheyCanPayForIt) {
  DraftedFixture f(DrafterKind::kAuto, Guarantee::kVerified);
  f.script->num_steps = 5;
  f.script->causal_doubt = 1000;
  f.script->vocab_size = 300;
  f.script->target.clear();
  for (int32_t i = 0; i < 250; ++i) f.script->target.push_back(10 + i);
  f.options.max_new_tokens = 200;
  Session session = f.MakeSession();
  session.Prefill(f.prompt);
  session.NextCanvas(nullptr);
  CHECK_EQ(session.stats().draft_passes, 0);
  while (session.finish_reason() == FinishReason::kNone) session.NextCanvas(nullptr);
  CHECK(session.stats().draft_passes > 0);
  CHECK(ToVector(session.tokens()) == f.Undrafted());
}

TEST(WithGuaranteeExactAutoIsNone) {
  DraftedFixture f(DrafterKind::kAuto, Guarantee::kExact);
  const auto session = f.Run();
  CHECK(ToVector(session->tokens()) == f.Undrafted());
  CHECK_EQ(session->stats().draft_calls + f.log->num_draft_calls, 0);
}

TEST(AnotherTurnAndACachedPrefixAreDraftedAlike) {
  for (const DrafterKind drafter : {DrafterKind::kModel, DrafterKind::kAuto}) {
    DraftedFixture f(drafter);
    f.script->full_width = 8;
    f.script->context_len = 2000;
    f.prompt = Counting(5, 700);
    f.script->prompt_len = 700;
    f.options.max_new_tokens = 30;
    const Tokens more = Counting(11, 20);
    const auto run = [&](std::shared_ptr<Runtime> runtime, DrafterKind kind) {
      GenerateOptions options = f.options;
      options.drafter = kind;
      Session session(std::move(runtime), options);
      Generate(session, f.prompt, nullptr);
      Tokens all = ToVector(session.tokens());
      session.Extend(more);
      while (session.finish_reason() == FinishReason::kNone) session.NextCanvas(nullptr);
      all.insert(all.end(), session.tokens().begin(), session.tokens().end());
      return all;
    };
    auto runtime = f.Open();
    const Tokens cold = run(runtime, drafter), warm = run(runtime, drafter);
    CHECK_EQ(runtime->prefix_stats().hits, 1);
    CHECK(f.log->num_draft_calls > 0 || drafter == DrafterKind::kAuto);  // which cannot afford it in 30 tokens
    CHECK(warm == cold && run(runtime, DrafterKind::kNone) == cold);
  }
}

TEST(OptionsOfTheNetworkThatDoNotFitAreRefused) {
  DraftedFixture f;
  f.script->block_len = 0;
  CHECK_THROWS(Unsupported, "found model: the package has no drafter; `dgrt export CHECKPOINT -o ENGINE --drafter DRAFTER`",
               f.MakeSession());
  DraftedFixture exact(DrafterKind::kModel, Guarantee::kExact);
  CHECK_THROWS(InvalidArgument, "expected none or auto with guarantee exact", exact.MakeSession());
  DraftedFixture draft(DrafterKind::kModel, Guarantee::kVerified);
  draft.options.draft = {1, 2, 3};
  CHECK_THROWS(InvalidArgument, "drafters suffix and auto copy from it", draft.MakeSession());
  draft.options.drafter = DrafterKind::kAuto;
  draft.MakeSession();
  draft.options.drafter = static_cast<DrafterKind>(5);
  CHECK_THROWS(InvalidArgument, "3 (auto) or 4 (overlap), found 5", draft.MakeSession());
}

TEST(WhatADrafterExpectsCanBeAsked) {
  DraftedFixture f(DrafterKind::kModel, Guarantee::kVerified);
  Session session = f.MakeSession();
  Tokens draft(5);
  std::vector<float> confidence(5);
  CHECK_THROWS(InvalidArgument, "no prompt", session.Draft(draft, confidence));
  session.Prefill(f.prompt);
  CHECK_EQ(session.Draft(draft, confidence), 5);
  CHECK(draft == Tokens(f.script->target.begin(), f.script->target.begin() + 5));
  for (const float chance : confidence) CHECK_NEAR(chance, 1, 1e-3);
  CHECK_EQ(f.log->last_draft.num_rows, 5);
  CHECK_THROWS(InvalidArgument, "at most 8 tokens", session.Draft(draft, std::span(confidence).first(4)));
  SessionFixture none;
  Session without = none.MakeSession();
  without.Prefill(none.prompt);
  CHECK_EQ(without.Draft(draft, confidence), 0);
}

TEST(TheBuffersOfTheNetworkAreCounted) {
  const auto workspace = [](DrafterKind drafter) {
    DraftedFixture f(drafter);
    return f.Open()->memory().workspace_bytes;
  };
  CHECK_EQ(workspace(DrafterKind::kModel) - workspace(DrafterKind::kNone), 8 * (4 + 4));
  CHECK_EQ(workspace(DrafterKind::kAuto) - workspace(DrafterKind::kModel), 8 * 4);
}

}  // namespace dgrt
