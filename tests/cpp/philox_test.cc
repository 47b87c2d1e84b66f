// common/philox.h and runtime/noise.h: the numbers themselves and the addressing of draws.
#include "common/philox.h"

#include <algorithm>
#include <cstdint>
#include <set>
#include <vector>

#include "runtime/noise.h"
#include "test.h"

namespace dgrt {

// Known answers of the authors' library Random123 (kat_vectors, philox 4x32 10).
TEST(PhiloxGivesThePublishedKnownAnswers) {
  using Words = std::array<uint32_t, 4>;
  CHECK((Philox4x32({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint32_t ones = 0xffffffff;
  CHECK((Philox4x32({ones, ones, ones, ones}, {ones, ones}) == Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  CHECK((Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
         Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(EveryPartOfTheKeyChangesTheDraw) {
  const NoiseKey base{1, 2, 3, 4};
  std::vector<NoiseKey> keys(6, base);
  keys[1].seed = 5;
  keys[2].seed = uint64_t{1} << 32 | 1;
  keys[3].request = 5;
  keys[4].canvas = 5;
  keys[5].step = 5;
  std::set<double> draws;
  for (const NoiseKey& key : keys) draws.insert(NoiseUniform(key, NoiseStream::kSampling, 0));
  draws.insert(NoiseUniform(base, NoiseStream::kRenoise, 0));
  draws.insert(NoiseUniform(base, NoiseStream::kSampling, 1));
  CHECK_EQ(draws.size(), 8u);
}

TEST(UniformsLieInTheUnitIntervalWithTheRightMoments) {
  double sum = 0, squares = 0;
  const int count = 100000;
  for (int i = 0; i < count; ++i) {
    const double u = NoiseUniform({7, 0, 0, 0}, NoiseStream::kSampling, static_cast<uint32_t>(i));
    CHECK(u >= 0 && u < 1);
    sum += u;
    squares += u * u;
  }
  CHECK_NEAR(sum / count, 0.5, 6 * 0.2887 / std::sqrt(count));
  CHECK_NEAR(squares / count, 1.0 / 3, 6 * 0.2981 / std::sqrt(count));
}

TEST(InitialCanvasUsesItsOwnStreamAndStepZero) {
  std::vector<int32_t> canvas(17);
  DrawInitialCanvas({9, 1, 2, 40}, 111, {}, canvas);
  for (uint32_t i = 0; i < canvas.size(); ++i) {
    CHECK_EQ(canvas[i], static_cast<int32_t>(NoiseInteger({9, 1, 2, 0}, NoiseStream::kInitialCanvas, i, 111)));
    CHECK(canvas[i] >= 0 && canvas[i] < 111);
  }
}

TEST(RenoiseKeepsAcceptedTokensAndRedrawsTheOthers) {
  const std::vector<int32_t> sampled = {5, 6, 7};
  const std::vector<uint8_t> accepted = {1, 0, 1};
  std::vector<int32_t> canvas(3);
  const NoiseKey key{9, 0, 0, 3};
  Renoise(key, 111, {}, accepted, sampled, canvas);
  CHECK_EQ(canvas[0], 5);
  CHECK_EQ(canvas[1], static_cast<int32_t>(NoiseInteger(key, NoiseStream::kRenoise, 1, 111)));
  CHECK_EQ(canvas[2], 7);
}

TEST(DrawsRespectPinnedTokensAndAllowedSets) {
  const std::vector<int32_t> allowed = {3, 50, 100};
  std::set<int32_t> seen;
  for (uint32_t i = 0; i < 100; ++i) {
    seen.insert(DrawToken({1, 0, 0, 0}, NoiseStream::kRenoise, i, 111, {-1, allowed}));
    CHECK_EQ(DrawToken({1, 0, 0, 0}, NoiseStream::kRenoise, i, 111, {42, {}}), 42);
  }
  CHECK(seen == std::set<int32_t>(allowed.begin(), allowed.end()));
}

TEST(NoiseOfACanvasKeepsToTheConstraintsOfEachPosition) {
  const std::vector<int32_t> allowed = {3, 50, 110};
  const std::vector<PositionConstraint> constraints = {{}, {42, {}}, {-1, allowed}};
  const std::vector<uint8_t> none = {0, 0, 0};
  const std::vector<int32_t> sampled = {7, 8, 9};
  std::set<int32_t> free_tokens;
  for (uint32_t step = 0; step < 200; ++step) {
    const NoiseKey key{1, 0, step, step};
    std::vector<int32_t> first(3), again(3), unconstrained(3);
    DrawInitialCanvas(key, 111, constraints, first);
    Renoise(key, 111, constraints, none, sampled, again);
    Renoise(key, 111, {}, none, sampled, unconstrained);
    for (const auto& canvas : {first, again}) {
      CHECK_EQ(canvas[1], 42);
      CHECK(std::find(allowed.begin(), allowed.end(), canvas[2]) != allowed.end());
    }
    CHECK_EQ(again[0], unconstrained[0]);  // the neighbours' constraints change nothing
    free_tokens.insert(again[0]);
  }
  CHECK(free_tokens.size() > 50);
}

}  // namespace dgrt
