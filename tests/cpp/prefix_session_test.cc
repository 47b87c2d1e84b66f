// The prefix cache under sessions: how much of a prompt is left to prefill, that tokens and rows are those of a cold
// session, and another turn without prefilling what is there.
#include "runtime/plan.h"
#include "session_fixture.h"

namespace dgrt {
namespace {

struct PrefixSessionFixture : SessionFixture {
  PrefixSessionFixture() {
    script->full_width = 8;
    script->context_len = 4000;
  }

  void SetPrompt(int64_t length) {
    prompt = Counting(5, static_cast<size_t>(length));
    script->prompt_len = length;
  }
};

struct Outcome {
  Tokens tokens;
  std::vector<float> logprobs;
  Stats stats;
  int64_t kv_len;
};

Outcome Run(std::shared_ptr<Runtime> runtime, const PrefixSessionFixture& f) {
  Session session(std::move(runtime), f.options);
  Generate(session, f.prompt, nullptr);
  f.CheckInvariants(session);
  return {ToVector(session.tokens()), {session.logprobs().begin(), session.logprobs().end()}, session.stats(),
          session.kv_len()};
}

}  // namespace

TEST(APromptIsPrefilledFromItsLastWholeChunkOn) {
  for (const int64_t length : {511, 512, 513, 1023, 1024, 1025, 1536}) {
    for (const int mode : {0, 1, 2}) {  // exact, exact with log-probabilities, causal
      PrefixSessionFixture f;
      f.SetPrompt(length);
      f.options.logprobs = mode == 1;
      if (mode == 2) f.options.guarantee = Guarantee::kCausal;
      auto runtime = f.Open();
      const Outcome cold = Run(runtime, f);
      CHECK_EQ(cold.stats.prefix_tokens, 0);
      const int64_t scored = f.log->num_score_calls;
      const Outcome warm = Run(runtime, f), again = Run(runtime, f);
      // Log-probabilities compute the last chunk again and keep none that the score graph wrote.
      const int64_t num_rows = length - (mode == 2 ? 1 : 0) - (mode == 1 ? 1 : 0);
      const int64_t expected = num_rows / kPrefillChunkTokens * kPrefillChunkTokens;
      CHECK_EQ(warm.stats.prefix_tokens, expected);
      CHECK_EQ(warm.stats.prefill_passes, cold.stats.prefill_passes - expected / kPrefillChunkTokens);
      CHECK_EQ(again.stats.prefix_tokens, expected);
      CHECK(warm.tokens == cold.tokens && again.tokens == cold.tokens);
      CHECK(warm.logprobs == cold.logprobs);
      CHECK_EQ(warm.kv_len, cold.kv_len);
      CHECK_EQ(warm.stats.prompt_tokens, length);
      CHECK_EQ(warm.stats.peak_kv_bytes <= cold.stats.peak_kv_bytes, true);
      if (mode == 1) CHECK_EQ(f.log->num_score_calls, 3 * scored);
    }
  }
}

TEST(ACacheThatIsOffOrImpossibleChangesNothing) {
  PrefixSessionFixture f;
  f.SetPrompt(1100);
  RuntimeOptions options;
  options.threads = 1;
  options.prefix_cache_bytes = 0;
  const auto open = [&] {
    return Runtime::FromEngine(std::make_unique<FakeEngine>(f.script, f.log), f.options, options);
  };
  auto off = open();
  CHECK_EQ(Run(off, f).stats.prefill_passes, 3);
  CHECK_EQ(Run(off, f).stats.prefill_passes, 3);
  CHECK_EQ(off->prefix_stats().limit_bytes, 0);
  CHECK_THROWS(Unsupported, "prefix cache: it is off", off->SavePrefixes("x"));
  CHECK_THROWS(Unsupported, "prefix cache: it is off", off->LoadPrefixes("x"));
  options.prefix_cache_bytes = 1000;
  CHECK_THROWS(InvalidArgument, "prefix_cache_bytes: expected 0, or at least the 57344 bytes", open());
  options.prefix_cache_bytes = -2;
  CHECK_THROWS(InvalidArgument, "prefix_cache_bytes: expected -1 or more", open());
  options.prefix_cache_bytes = -1;
  options.kv_limit_bytes = -1;
  CHECK_THROWS(InvalidArgument, "kv_limit_bytes: expected 0 or more", open());
  options.kv_limit_bytes = 0;
  f.script->full_width = 5;  // rows that do not fill pages: off by default, an error when asked for
  CHECK_EQ(open()->prefix_stats().limit_bytes, 0);
  options.prefix_cache_bytes = 1 << 20;
  CHECK_THROWS(Unsupported, "512 rows of layer 1 are 10240 bytes", open());
}

TEST(APromptThatFailsInTheMiddleKeepsItsFinishedChunks) {
  PrefixSessionFixture f;
  f.SetPrompt(1400);
  f.script->fail_at_call = 3;
  auto runtime = f.Open();
  Session session(runtime, f.options);
  CHECK_THROWS(DeviceError, "fake failure at call 3", session.Prefill(f.prompt));
  CHECK_EQ(session.kv_len(), 0);
  CHECK_EQ(runtime->kv_usage().sequence_bytes, 0);
  CHECK_EQ(runtime->prefix_stats().num_chunks, 2);
  session.Prefill(f.prompt);
  CHECK_EQ(session.stats().prefix_tokens, 1024);
  while (session.finish_reason() == FinishReason::kNone) session.NextCanvas(nullptr);
  CHECK(ToVector(session.tokens()) == Counting(0, 20));
}

TEST(OneLimitHoldsForAllSessionsAndPrefixesGoFirst) {
  PrefixSessionFixture f;
  f.SetPrompt(1024);
  RuntimeOptions options;
  options.threads = 1;
  options.kv_limit_bytes = 400'000;
  auto runtime = Runtime::FromEngine(std::make_unique<FakeEngine>(f.script, f.log), f.options, options);
  Run(runtime, f);
  CHECK(runtime->kv_usage().prefix_bytes > 0);
  f.options.max_new_tokens = 4;
  std::vector<std::unique_ptr<Session>> sessions;
  const auto add = [&](int32_t first) {
    sessions.push_back(std::make_unique<Session>(runtime, f.options));
    Tokens other = Counting(first, 1000);
    other[0] = first % 40;
    sessions.back()->Prefill(other);
  };
  CHECK_THROWS(OutOfMemory, "of the limit of 400000 for all sessions, sequences use",
               for (int32_t i = 0; i < 40; ++i) add(i));
  CHECK(sessions.size() > 3);
  CHECK(runtime->kv_usage().peak_bytes <= 400'000);
  sessions.clear();
  CHECK_EQ(runtime->kv_usage().sequence_bytes, 0);
  Tokens too_long = Counting(0, 3900);
  options.kv_limit_bytes = 100'000;
  auto small = Runtime::FromEngine(std::make_unique<FakeEngine>(f.script, f.log), f.options, options);
  Session session(small, f.options);
  CHECK_THROWS(OutOfMemory, "the limit for all sessions is 100000", session.Prefill(too_long));
}

TEST(AnotherTurnGoesOnWithoutPrefillingWhatIsThere) {
  for (const bool causal : {false, true}) {
    PrefixSessionFixture f;
    if (causal) f.options.guarantee = Guarantee::kCausal;
    Session session(f.Open(), f.options);
    Generate(session, f.prompt, nullptr);
    const Tokens first = ToVector(session.tokens());
    const auto passes_before = f.log->prefills.size() + static_cast<size_t>(f.log->num_score_calls);
    const int64_t kv_len = session.kv_len();
    f.script->prompt_len = 4 + 20 + 3;  // where the script goes on
    f.script->target = Counting(9, 50);
    session.Extend(Tokens{30, 31, 32});
    CHECK_EQ(f.log->prefills.size() + static_cast<size_t>(f.log->num_score_calls), passes_before + 1);
    CHECK_EQ(f.log->prefills.back().kv_len, kv_len);
    Tokens written(first.begin() + (kv_len - 4), first.end());  // what was emitted last, then the new tokens
    written.insert(written.end(), {30, 31, 32});
    if (causal) written.pop_back();
    CHECK(f.log->prefills.back().tokens == written);
    CHECK_EQ(session.stats().prompt_tokens, 27);
    CHECK_EQ(session.stats().prefix_tokens, kv_len);
    CHECK(session.tokens().empty() && session.finish_reason() == FinishReason::kNone);
    f.CheckInvariants(session);
    while (session.finish_reason() == FinishReason::kNone) session.NextCanvas(nullptr);
    CHECK_EQ(session.tokens().size(), 20u);
    f.CheckInvariants(session);
    // As a session whose prompt is all of it.
    Tokens all = f.prompt;
    all.insert(all.end(), first.begin(), first.end());
    all.insert(all.end(), {30, 31, 32});
    Session fresh(f.Open(), f.options);
    Generate(fresh, all, nullptr);
    CHECK(ToVector(fresh.tokens()) == ToVector(session.tokens()));
    CHECK_EQ(fresh.kv_len(), session.kv_len());
  }
}

TEST(ATurnThatFailsLeavesTheSessionAsItWasOrAsNew) {
  PrefixSessionFixture f;
  Session session(f.Open(), f.options);
  CHECK_THROWS(InvalidArgument, "extend: expected a session that has ended", session.Extend(Tokens{1}));
  Generate(session, f.prompt, nullptr);
  const Tokens tokens = ToVector(session.tokens());
  CHECK_THROWS(InvalidArgument, "tokens[1]: expected a token id", session.Extend(Tokens{1, 1000}));
  CHECK_THROWS(InvalidArgument, "leaves no room", session.Extend(Tokens(4000, 1)));
  f.script->fail_at_call = f.log->num_calls + 1;
  CHECK_THROWS(DeviceError, "fake failure", session.Extend(Tokens{1, 2}));
  CHECK(ToVector(session.tokens()) == tokens && session.finish_reason() == FinishReason::kLength);
  f.CheckInvariants(session);
  session.Extend(Tokens{1, 2});
  CHECK_EQ(session.kv_len(), 4 + 20 + 2);
  while (session.finish_reason() == FinishReason::kNone) session.NextCanvas(nullptr);
  f.script->fail_at_call = f.log->num_calls + 2;  // the second of two chunks
  CHECK_THROWS(DeviceError, "fake failure", session.Extend(Tokens(600, 3)));
  CHECK(session.kv_len() == 0 && session.tokens().empty() && session.finish_reason() == FinishReason::kNone);
  session.Cancel();
  CHECK_THROWS(Cancelled, "cancelled after 0 of", session.Prefill(f.prompt));
  CHECK_THROWS(InvalidArgument, "found a cancelled one", session.Extend(Tokens{1}));
}

TEST(ATurnWithLogProbabilitiesScoresItsOwnTokens) {
  PrefixSessionFixture f;
  f.options.logprobs = true;
  Session session(f.Open(), f.options);
  Generate(session, f.prompt, nullptr);
  session.Extend(Tokens{3});
  CHECK(session.logprobs().empty());
  while (session.finish_reason() == FinishReason::kNone) session.NextCanvas(nullptr);
  CHECK_EQ(session.logprobs().size(), session.tokens().size());
}

TEST(ATurnAfterACanvasThatWasComputedAheadStartsAnew) {
  for (const Pipeline pipeline : {Pipeline::kOff, Pipeline::kOn}) {
    PrefixSessionFixture f;
    f.options.pipeline = pipeline;
    f.options.stop_ids = {Counting(11, 1)[0]};
    Session session(f.Open(), f.options);
    Generate(session, f.prompt, nullptr);
    CHECK(session.finish_reason() == FinishReason::kStop);
    session.Extend(Tokens{3, 4});
    RecordingSink sink;
    session.NextCanvas(&sink);
    CHECK_EQ(sink.steps[0].kv_len, 4 + 12 + 2);
    f.CheckInvariants(session);
  }
}

}  // namespace dgrt
