// The causal tier on the fake engine: whatever is drafted, the tokens are those of one pass per token; a pass that fails
// leaves the sequence as it was.
#include <random>

#include "common/check.h"
#include "drafting/drafter.h"
#include "session_fixture.h"

namespace dgrt {
namespace {

struct CausalFixture : SessionFixture {
  CausalFixture() {
    options.guarantee = Guarantee::kCausal;
    options.max_new_tokens = 60;
  }
  Tokens Run(int threads = 1) {
    Session session = MakeSession(threads);
    Generate(session, prompt, nullptr);
    CheckInvariants(session);
    return ToVector(session.tokens());
  }
  void Draft(std::function<int64_t(const Tokens& text, std::span<int32_t> draft)> with);
};

// A drafter of one function over the text so far.
struct FunctionDrafter : Drafter {
  using Function = std::function<int64_t(const Tokens& text, std::span<int32_t> draft)>;
  explicit FunctionDrafter(Function with) : function(std::move(with)) {}
  void Append(std::span<const int32_t> tokens) override { text.insert(text.end(), tokens.begin(), tokens.end()); }
  int64_t Draft(std::span<int32_t> draft, std::span<float>) override { return function(text, draft); }
  Function function;
  Tokens text;
};

void CausalFixture::Draft(FunctionDrafter::Function with) {
  options.make_drafter = [with] { return std::make_unique<FunctionDrafter>(with); };
}

Tokens Plain(uint64_t seed, float temperature) {
  CausalFixture f;
  f.options.seed = seed;
  f.options.causal_temperature = temperature;
  return f.Run();
}

}  // namespace

TEST(WithoutADrafterEveryPassEmitsOneToken) {
  CausalFixture f;
  Session session = f.MakeSession();
  RecordingSink sink;
  Generate(session, f.prompt, &sink);
  CHECK_EQ(session.tokens().size(), 60u);
  CHECK(session.finish_reason() == FinishReason::kLength);
  CHECK(sink.committed == ToVector(session.tokens()));
  const Stats& stats = session.stats();
  CHECK_EQ(stats.causal_passes, 60);
  CHECK_EQ(stats.causal_passes, f.log->num_score_calls);
  CHECK_EQ(stats.denoise_passes + stats.commit_passes + stats.canvases + stats.draft_calls, 0);
  CHECK_EQ(stats.row_tokens, 3 + 60);  // the prompt's last row belongs to the first pass
  CHECK_NEAR(stats.tokens_per_pass(), 1.0, 1e-12);
  CHECK_EQ(session.kv_len(), 63);
  // Sure positions follow the script, doubtful ones do not have to.
  for (int64_t i = 0; i < 60; ++i) {
    if ((4 + i) % f.script->causal_doubt != 0) CHECK_EQ(session.tokens()[static_cast<size_t>(i)], f.script->target[static_cast<size_t>(i)]);
  }
}

TEST(NoDraftChangesTheTokens) {
  std::mt19937 random(1);
  for (uint64_t seed = 0; seed < 60; ++seed) {
    for (const float temperature : {0.0f, 0.7f, 1.0f, 20.0f}) {
      const Tokens expected = Plain(seed, temperature);
      const auto check = [&](auto with) {
        CausalFixture f;
        f.options.seed = seed;
        f.options.causal_temperature = temperature;
        f.Draft(with);
        CHECK(f.Run() == expected);
      };
      check([&](const Tokens& text, std::span<int32_t> draft) -> int64_t {  // the right text
        for (size_t i = 0; i < draft.size(); ++i) draft[i] = expected[std::min(text.size() - 4 + i, expected.size() - 1)];
        return static_cast<int64_t>(draft.size());
      });
      check([&](const Tokens& text, std::span<int32_t> draft) -> int64_t {  // right up to some place, then wrong
        for (size_t i = 0; i < draft.size(); ++i) {
          const int32_t right = expected[std::min(text.size() - 4 + i, expected.size() - 1)];
          draft[i] = random() % 4 == 0 ? (right + 1) % 48 : right;
        }
        return static_cast<int64_t>(draft.size());
      });
      check([&](const Tokens&, std::span<int32_t> draft) -> int64_t {  // noise of any length, ids out of range too
        for (int32_t& token : draft) token = static_cast<int32_t>(random() % 60) - 5;
        return static_cast<int64_t>(random() % 20) - 5;
      });
      for (const DrafterKind drafter : {DrafterKind::kSuffix, DrafterKind::kModel, DrafterKind::kAuto}) {
        CausalFixture f;
        f.script->block_len = 8;
        f.options.seed = seed;
        f.options.causal_temperature = temperature;
        f.options.drafter = drafter;
        CHECK(f.Run() == expected);
      }
    }
  }
}

TEST(ACausalCommitSaysWhereItsTokensCameFrom) {
  using enum TokenOrigin;
  const Tokens expected = Plain(17, 1);
  CausalFixture f;
  f.options.max_new_tokens = 9;
  f.Draft([&](const Tokens& text, std::span<int32_t> draft) -> int64_t {
    const size_t done = text.size() - 4;
    for (size_t i = 0; i < 3 && i < draft.size(); ++i) draft[i] = expected[done + i];
    if (done == 0) draft[1] = (expected[1] + 1) % 48;       // foresees one token and misses the second
    return std::min<int64_t>(3, std::ssize(draft));        // foresees all three, and the pass samples one more
  });
  Session session = f.MakeSession();
  RecordingSink sink;
  Generate(session, f.prompt, &sink);
  const std::vector<TokenOrigin> wanted = {kDrafted, kRevised, kDrafted, kDrafted, kDrafted, kUndrafted,
                                           kDrafted, kDrafted, kUndrafted};
  CHECK(sink.origins == wanted);
}

TEST(ARightDraftSavesPasses) {
  const Tokens expected = Plain(17, 1);
  CausalFixture f;
  f.Draft([&](const Tokens& text, std::span<int32_t> draft) -> int64_t {
    for (size_t i = 0; i < draft.size(); ++i) draft[i] = expected[std::min(text.size() - 4 + i, expected.size() - 1)];
    return static_cast<int64_t>(draft.size());
  });
  Session session = f.MakeSession();
  Generate(session, f.prompt, nullptr);
  CHECK_EQ(session.stats().causal_passes, 60 / 8 + 1);  // at most L rows, so at most L tokens per pass
  CHECK_EQ(session.stats().accepted_drafts, 60 - session.stats().causal_passes);
  CHECK(session.stats().tokens_per_pass() > 7);
}

TEST(TokensThatAreNotWorthTheirRowAreNotTried) {
  struct Doubting : Drafter {
    void Append(std::span<const int32_t>) override {}
    int64_t Draft(std::span<int32_t> draft, std::span<float> confidence) override {
      const std::vector<float> chances = {1, 0.8f, 0.6f, 0.05f, 0.03f, 0.01f};
      std::fill(draft.begin(), draft.end(), 7);
      std::copy(chances.begin(), chances.end(), confidence.begin());
      return std::ssize(chances);
    }
  };
  for (const bool is_row_bound : {true, false}) {
    CausalFixture f;
    f.script->is_row_bound = is_row_bound;
    f.options.make_drafter = [] { return std::make_unique<Doubting>(); };
    Session session = f.MakeSession();
    session.Prefill(f.prompt);
    session.NextCanvas(nullptr);
    CHECK_EQ(session.stats().row_tokens, 3 + 1 + (is_row_bound ? 4 : 5));  // at 0.04 to 0.05, at 0.02 to 0.03
  }
}

TEST(ADrafterThatFailsIsDropped) {
  const Tokens expected = Plain(17, 1);
  CausalFixture f;
  f.Draft([](const Tokens& text, std::span<int32_t>) -> int64_t {
    if (text.size() > 10) throw std::runtime_error("drafter");
    return 0;
  });
  Session session = f.MakeSession();
  Generate(session, f.prompt, nullptr);
  CHECK(ToVector(session.tokens()) == expected);
  CHECK(session.stats().draft_calls < 60);
}

TEST(ADrafterThatFailsOnThePromptIsDropped) {
  struct Failing : Drafter {
    void Append(std::span<const int32_t>) override { throw 7; }
    int64_t Draft(std::span<int32_t>, std::span<float>) override { return 0; }
  };
  CausalFixture f;
  f.options.make_drafter = [] { return std::make_unique<Failing>(); };
  CHECK(f.Run() == Plain(17, 1));
}

TEST(AFailedCausalPassCanBeRepeated) {
  const Tokens expected = Plain(17, 1);
  CausalFixture undisturbed;
  undisturbed.options.drafter = DrafterKind::kSuffix;
  undisturbed.Run();
  for (int64_t call = 2; call <= undisturbed.log->num_calls; ++call) {
    CausalFixture f;
    f.options.drafter = DrafterKind::kSuffix;
    f.script->fail_at_call = call;
    Session session = f.MakeSession();
    session.Prefill(f.prompt);
    CHECK_EQ(f.FinishThroughFailures(session), 1);
    CHECK(ToVector(session.tokens()) == expected);
  }
}

TEST(NumbersThatAreNotFiniteEndACausalPass) {
  CausalFixture f;
  f.script->nan_at_call = 4;
  Session session = f.MakeSession();
  CHECK_THROWS(DeviceError, "causal pass at position 5: hidden states are not finite", Generate(session, f.prompt, nullptr));
  CHECK_EQ(session.tokens().size(), 2u);
}

TEST(ACausalTextEndsAtAStopIdALimitOrTheContext) {
  const Tokens expected = Plain(17, 1);
  for (const DrafterKind drafter : {DrafterKind::kNone, DrafterKind::kSuffix}) {
    CausalFixture stop;
    stop.options.drafter = drafter;
    stop.options.stop_ids = {expected[22]};
    Session stopped = stop.MakeSession();
    Generate(stopped, stop.prompt, nullptr);
    const auto first = std::find(expected.begin(), expected.end(), expected[22]);
    CHECK(ToVector(stopped.tokens()) == Tokens(expected.begin(), first + 1));
    CHECK(stopped.finish_reason() == FinishReason::kStop);
    stop.CheckInvariants(stopped);

    CausalFixture limited;
    limited.options.drafter = drafter;
    limited.options.max_new_tokens = 1;
    CHECK(limited.Run() == Tokens(expected.begin(), expected.begin() + 1));

    CausalFixture full;
    full.options.drafter = drafter;
    full.options.max_new_tokens = -1;
    full.script->context_len = 20;
    Session to_the_end = full.MakeSession();
    Generate(to_the_end, full.prompt, nullptr);
    CHECK(ToVector(to_the_end.tokens()) == Tokens(expected.begin(), expected.begin() + 16));
    CHECK(to_the_end.finish_reason() == FinishReason::kLength);
    full.CheckInvariants(to_the_end);
  }
}

TEST(APromptOfOneTokenAndOneThatFillsTheContext) {
  CausalFixture one;
  one.prompt = {3};
  one.script->prompt_len = 1;
  CHECK_EQ(one.Run().size(), 60u);
  CausalFixture full;
  full.prompt = Counting(0, 255);
  full.script->prompt_len = 255;
  CHECK_EQ(full.Run().size(), 1u);
  full.prompt = Counting(0, 256);
  Session session = full.MakeSession();
  CHECK_THROWS(InvalidArgument, "no room for one token: expected at most 255", session.Prefill(full.prompt));
}

TEST(CausalOptionsThatDoNotFitAreRefused) {
  SessionFixture exact;
  exact.options.drafter = DrafterKind::kSuffix;
  CHECK_THROWS(InvalidArgument, "expected none or auto with guarantee exact", exact.MakeSession());
  CausalFixture f;
  f.options.causal_temperature = -1;
  CHECK_THROWS(InvalidArgument, "causal_temperature", f.MakeSession());
  f.options.causal_temperature = 1;
  f.options.guarantee = static_cast<Guarantee>(7);
  CHECK_THROWS(InvalidArgument, "guarantee: expected 0 (exact), 1 (causal) or 2 (verified), found 7", f.MakeSession());
  f.options.guarantee = Guarantee::kCausal;
  Session session = f.MakeSession();
  CHECK_THROWS(InvalidArgument, "has no canvas", session.SetCanvas(Tokens(8, 1)));
}

TEST(ACausalTextIsCancelledBetweenPasses) {
  CausalFixture f;
  Session session = f.MakeSession();
  session.Prefill(f.prompt);
  session.NextCanvas(nullptr);
  session.Cancel();
  CHECK(session.NextCanvas(nullptr).empty());
  CHECK(session.finish_reason() == FinishReason::kCancelled);
  CHECK_EQ(session.tokens().size(), 1u);
}

}  // namespace dgrt
