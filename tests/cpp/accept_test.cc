// kernels/cpu/accept.cc against the rule written out: sort, running sum, compare.
#include <algorithm>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/kernels.h"
#include "test.h"

namespace dgrt {
namespace {

std::vector<uint8_t> Accept(const std::vector<float>& entropy, float bound) {
  std::vector<uint8_t> accepted(entropy.size(), 9);
  AcceptByEntropy(entropy, bound, accepted);
  return accepted;
}

// The reference's arithmetic: running sum in double, stored as float; subtraction and comparison in float.
std::vector<uint8_t> AcceptSlowly(const std::vector<float>& entropy, float bound) {
  std::vector<size_t> order(entropy.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return entropy[a] < entropy[b]; });
  std::vector<uint8_t> accepted(entropy.size());
  double sum = 0;
  for (const size_t i : order) {
    sum += static_cast<double>(entropy[i]);
    const float cumulative = static_cast<float>(sum);
    accepted[i] = cumulative - entropy[i] <= bound;
  }
  return accepted;
}

}  // namespace

TEST(TheMostCertainPositionIsAlwaysAccepted) {
  CHECK((Accept({9.0f, 8.0f, 9.5f}, 0.1f) == std::vector<uint8_t>{0, 1, 0}));
  CHECK((Accept({}, 0.1f).empty()));
}

TEST(PositionsAreAcceptedWhileTheSumBeforeThemIsWithinTheBound) {
  // Sums before each in ascending order: 0, 0.25, 0.75 (equal to the bound), 1.5.
  CHECK((Accept({0.75f, 0.25f, 1.0f, 0.5f}, 0.75f) == std::vector<uint8_t>{1, 1, 0, 1}));
}

TEST(TiesAreTakenInOrderOfPosition) {
  CHECK((Accept({0.5f, 0.5f, 0.5f, 0.5f}, 0.5f) == std::vector<uint8_t>{1, 1, 0, 0}));
}

TEST(PinnedPositionsTakeNoPartInTheSum) {
  CHECK((Accept({0.0f, 3.0f, 0.0f, 2.0f}, 0.1f) == std::vector<uint8_t>{1, 0, 1, 1}));
}

TEST(NotANumberIsNeverAccepted) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK((Accept({nan, 1.0f, nan}, 0.1f) == std::vector<uint8_t>{0, 1, 0}));
  CHECK((Accept({nan, nan}, 0.1f) == std::vector<uint8_t>{0, 0}));
}

TEST(AcceptanceFollowsTheReferenceOnRandomEntropies) {
  std::mt19937 random(1);
  std::exponential_distribution<float> entropy(3.0f);
  for (const size_t len : {1u, 3u, 17u, 96u, 256u, 700u}) {
    for (int repeat = 0; repeat < 20; ++repeat) {
      std::vector<float> values(len);
      for (float& value : values) value = entropy(random);
      for (size_t i = 5; i < len; i += 5) values[i] = values[i - 5];  // ties
      for (const float bound : {0.001f, 0.1f, 3.0f, 100.0f}) {
        CHECK(Accept(values, bound) == AcceptSlowly(values, bound));
      }
    }
  }
}

}  // namespace dgrt
