// Log-probabilities of the causal pass beside the exact tier: the tokens stay what they are, every emitted token has a
// number, and a failure loses or doubles none.
#include <cmath>

#include "common/check.h"
#include "session_fixture.h"

namespace dgrt {
namespace {

struct LogprobFixture : SessionFixture {
  explicit LogprobFixture(bool logprobs = true) {
    options.logprobs = logprobs;
    options.max_new_tokens = 21;
  }
};

std::vector<float> Numbers(const Session& session) { return {session.logprobs().begin(), session.logprobs().end()}; }

}  // namespace

TEST(EveryEmittedTokenHasALogProbability) {
  LogprobFixture f, without(false);
  Session session = f.MakeSession(), plain = without.MakeSession();
  RecordingSink sink, plain_sink;
  Generate(session, f.prompt, &sink);
  Generate(plain, f.prompt, &plain_sink);
  CHECK(sink.steps == plain_sink.steps);
  CHECK(sink.committed == plain_sink.committed);
  CHECK(plain.logprobs().empty());
  CHECK_EQ(session.logprobs().size(), 21u);
  // Where the scripted causal pass is sure, it is sure of the script's token; elsewhere it leans towards another one.
  for (size_t i = 0; i < 21; ++i) {
    const bool sure = (4 + static_cast<int64_t>(i)) % f.script->causal_doubt != 0;
    CHECK(sure ? std::fabs(session.logprobs()[i]) < 1e-6f : session.logprobs()[i] < -1.0f);
  }
  CHECK_EQ(session.stats().commit_passes, 3);  // also the last canvas
  CHECK_EQ(session.stats().commit_passes, plain.stats().commit_passes + 1);
  CHECK_EQ(session.kv_len(), plain.kv_len());  // which is still not kept
  CHECK_EQ(f.log->num_packed_calls, 0);
  f.CheckInvariants(session);
}

TEST(AFailureLosesAndDoublesNoLogProbability) {
  LogprobFixture undisturbed;
  Session expected = undisturbed.MakeSession();
  Generate(expected, undisturbed.prompt, nullptr);
  for (const bool nan : {false, true}) {
    for (int64_t call = 1; call <= undisturbed.log->num_calls; ++call) {
      LogprobFixture f;
      (nan ? f.script->nan_at_call : f.script->fail_at_call) = call;
      f.script->spoil_last_row = true;
      Session session = f.MakeSession();
      try {
        session.Prefill(f.prompt);
        CHECK(call > 1);
      } catch (const DeviceError&) {
        CHECK_EQ(session.kv_len(), 0);
        session.Prefill(f.prompt);
      }
      while (session.finish_reason() == FinishReason::kNone) {
        try {
          session.NextCanvas(nullptr);
        } catch (const DeviceError&) {
        }
        CHECK_EQ(session.logprobs().size(), session.tokens().size());
        f.CheckInvariants(session);
      }
      CHECK(Numbers(session) == Numbers(expected));
      CHECK(ToVector(session.tokens()) == ToVector(expected.tokens()));
    }
  }
}

TEST(ALongPromptIsScoredInItsLastChunkOnly) {
  LogprobFixture f;
  f.script->context_len = 1200;
  f.prompt = Counting(0, 1100);
  f.script->prompt_len = 1100;
  f.options.max_new_tokens = 8;
  Session session = f.MakeSession();
  Generate(session, f.prompt, nullptr);
  CHECK_EQ(session.stats().prefill_passes, 3);
  CHECK_EQ(f.log->num_score_calls, 1 + 1);  // the last chunk, the only canvas
  CHECK_EQ(session.logprobs().size(), 8u);
}

TEST(LogProbabilitiesNeedAPassOfTheirOwn) {
  LogprobFixture f;
  f.options.pipeline = Pipeline::kOn;
  CHECK_THROWS(InvalidArgument, "logprobs: expected pipeline auto or off", f.MakeSession());
  f.options.pipeline = Pipeline::kAuto;
  f.options.guarantee = Guarantee::kCausal;
  CHECK_THROWS(InvalidArgument, "logprobs: expected guarantee exact", f.MakeSession());
}

}  // namespace dgrt
