// When a block drafter is asked, and for how much: what the policy learns from drafts of known quality, and what the
// calibration makes of probabilities that say too much or too little.
#include "drafting/block_policy.h"

#include "drafting/calibration.h"
#include "test.h"

namespace dgrt {
namespace {

constexpr float kRow = 0.25f, kNetwork = 0.4f, kNetworkRow = 0.25f;

// Lets `right` of each draft be right, until so many tokens are written. Returns the drafts that were asked for.
int64_t Write(BlockPolicy& policy, int64_t num_tokens, int64_t right) {
  int64_t drafts = 0;
  while (num_tokens > 0) {
    int64_t emitted = 1;
    if (policy.Offer(96) >= 0) {
      const int64_t rows = policy.NumRows(96), run = std::min(right, rows);
      policy.Learn(rows, run, rows, run);
      emitted += run;
      ++drafts;
    }
    policy.Advance(emitted);
    num_tokens -= emitted;
  }
  return drafts;
}

}  // namespace

TEST(ABlockPolicyAsksForMoreWhileDraftsAreRightAndForLessWhenTheyAreNot) {
  BlockPolicy policy(kRow, kNetwork, kNetworkRow, 4);
  CHECK(policy.Offer(96) > 0);
  CHECK_EQ(policy.NumRows(3), 3);  // never more than there is room for
  int64_t before = policy.NumRows(96);
  CHECK(before > 4 && before < 20);
  for (int i = 0; i < 4; ++i) {
    policy.Learn(before, before, before, before);
    CHECK(policy.NumRows(96) > before || before == 96);
    before = policy.NumRows(96);
  }
  CHECK_EQ(before, 96);
  for (int i = 0; i < 12; ++i) policy.Learn(96, 1, 3, 1);
  CHECK_EQ(policy.NumRows(96), 4);
  CHECK_NEAR(policy.Cost(4), 0.4 * (1 + 0.25 * 4), 1e-6);
}

TEST(DraftsThatDoNotPayAreLookedAtEverLessOften) {
  BlockPolicy policy(kRow, kNetwork, kNetworkRow, 4);
  CHECK_EQ(Write(policy, 32, 0), 1);
  CHECK_EQ(Write(policy, 64, 0), 1);   // 32 tokens on, then 64, ...
  CHECK_EQ(Write(policy, 900, 0), 4);  // 96, 224, 480, 992
  CHECK_EQ(Write(policy, 10000, 0), 3);
}

TEST(ALookThatShowsThatDraftsPayAgainTurnsThemOn) {
  BlockPolicy policy(kRow, kNetwork, kNetworkRow, 4);
  Write(policy, 40, 0);
  CHECK(policy.Offer(96) < 0);
  CHECK(Write(policy, 500, 90) > 5);
  CHECK(policy.Offer(96) > 10);
  CHECK_EQ(policy.NumRows(96), 96);
}

TEST(WhereRowsAreNearlyFreeLongerDraftsAreAskedFor) {
  const BlockPolicy dear(0.25f, 0.4f, 0.25f, 4), cheap(0.02f, 0.4f, 0.02f, 4);
  CHECK(cheap.NumRows(96) > dear.NumRows(96));
}

TEST(ProbabilitiesAreBelievedUntilTheTextSaysOtherwise) {
  Calibration calibration;
  for (const float p : {0.0f, 0.3f, 0.5f, 0.8f, 0.99f, 1.0f}) CHECK_NEAR(calibration.Of(p), p, 1e-6);
  for (int i = 0; i < 1000; ++i) calibration.Learn(0.9f, i % 2 == 0);  // says too much: half of them are right
  CHECK_NEAR(calibration.Of(0.9f), 0.5, 0.06);
  CHECK(calibration.Of(0.88f) < calibration.Of(0.92f));
  CHECK_NEAR(calibration.Of(0.99f), 0.99, 1e-6);  // another class
  for (int i = 0; i < 1000; ++i) calibration.Learn(0.6f, true);  // says too little
  CHECK(calibration.Of(0.6f) > 0.9f && calibration.Of(0.74f) == 1.0f);
  for (int i = 0; i < 1000; ++i) calibration.Learn(1.0f, false);
  CHECK(calibration.Of(1.0f) < 0.1f);
}

}  // namespace dgrt
