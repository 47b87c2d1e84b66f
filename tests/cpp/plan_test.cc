// runtime/plan.h: positions, chunks, temperatures. Mostly compile-time facts.
#include "runtime/plan.h"

#include <utility>
#include <vector>

#include "test.h"

namespace dgrt {

TEST(PromptsAreCutAtFixedPlaces) {
  static_assert(PrefillChunkEnd(0, 10) == 10);
  static_assert(PrefillChunkEnd(0, kPrefillChunkTokens) == kPrefillChunkTokens);
  static_assert(PrefillChunkEnd(0, kPrefillChunkTokens + 1) == kPrefillChunkTokens);
  static_assert(PrefillChunkEnd(kPrefillChunkTokens, kPrefillChunkTokens + 1) == kPrefillChunkTokens + 1);
  static_assert(NumPrefillChunks(1) == 1 && NumPrefillChunks(kPrefillChunkTokens + 1) == 2);
}

TEST(ReservationsAreThePromptsChunksAndThenTheCanvas) {
  std::vector<std::pair<int64_t, int64_t>> seen;
  ForEachReservation(kPrefillChunkTokens + 3, 8, [&](int64_t kv_len, int64_t num_rows) { seen.push_back({kv_len, num_rows}); });
  const std::vector<std::pair<int64_t, int64_t>> expected = {
      {0, kPrefillChunkTokens}, {kPrefillChunkTokens, 3}, {kPrefillChunkTokens + 3, 8}};
  CHECK(seen == expected);
}

TEST(ACanvasNeedsAllItsPositions) {
  static_assert(CanvasFits(0, 8, 8) && !CanvasFits(1, 8, 8));
  static_assert(MaxCanvases(4, 8, 256) == 31 && MaxCanvases(250, 8, 256) == 0 && MaxCanvases(300, 8, 256) == 0);
}

TEST(TheTemperatureFallsLinearlyAndIsRoundedLikeTheReference) {
  static_assert(TemperatureOfStep(0.4f, 0.8f, 48, 48) == 0.8f);
  static_assert(TemperatureOfStep(0.0f, 1.0f, 1, 4) == 0.25f);
  for (int32_t step = 1; step <= 48; ++step) {
    const double exact = 0.4 + 0.4 * step / 48;
    CHECK_NEAR(TemperatureOfStep(0.4f, 0.8f, step, 48), exact, 6e-8);
  }
}

}  // namespace dgrt
