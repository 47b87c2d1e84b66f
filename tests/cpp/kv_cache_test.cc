// memory/kv_cache.h: a model of ten lines against random operations, with the invariants checked after each; limits;
// rollback. Every visible row must keep what was written to it.
#include "memory/kv_cache.h"

#include <fstream>
#include <random>
#include <utility>

#include "common/check.h"
#include "lowered_limit.h"
#include "test.h"

namespace dgrt {
namespace {

// Widths that make rows cross pages in different ways; one window smaller and one larger than a page of rows.
const std::vector<KvLayerShape> kLayers = {{8, 5}, {96, 0}, {1030, 40}, {64, 0}};

void CheckInvariants(const KvCache& cache) { CHECK_EQ(BrokenKvInvariant(cache.Snapshot()), std::string()); }

float Number(size_t layer, int64_t token, int64_t version) {
  return static_cast<float>(layer * 100000 + static_cast<size_t>(token)) + static_cast<float>(version % 8) / 8;
}

void Write(KvCache& cache, int64_t begin, int64_t end, int64_t version) {
  const auto views = cache.Views();
  for (size_t layer = 0; layer < views.size(); ++layer) {
    for (int64_t token = begin; token < end; ++token) {
      for (int64_t i = 0; i < views[layer].width; ++i) {
        views[layer].k[token * views[layer].width + i] = Number(layer, token, version);
        views[layer].v[token * views[layer].width + i] = -Number(layer, token, version);
      }
    }
  }
}

// versions[t]: what was last published at token t.
void CheckVisibleRows(KvCache& cache, const std::vector<int64_t>& versions) {
  const auto views = cache.Views();
  CHECK_EQ(cache.kv_len(), static_cast<int64_t>(versions.size()));
  for (size_t layer = 0; layer < views.size(); ++layer) {
    for (int64_t token = views[layer].first; token < cache.kv_len(); ++token) {
      const float expected = Number(layer, token, versions[static_cast<size_t>(token)]);
      const int64_t last = (token + 1) * views[layer].width - 1;
      CHECK_EQ(views[layer].k[token * views[layer].width], expected);
      CHECK_EQ(views[layer].v[last], -expected);
    }
  }
}

}  // namespace

TEST(ASlidingQuerySeesTheWindowBeforeIt) {
  // The reference keeps the last W - 1 tokens of a sliding layer for the next pass.
  static_assert(FirstVisibleToken(0, 4) == 0);
  static_assert(FirstVisibleToken(3, 4) == 0);
  static_assert(FirstVisibleToken(4, 4) == 1);
  static_assert(FirstVisibleToken(100, 4) == 97);
  static_assert(FirstVisibleToken(100, 1) == 100);
  KvCache cache(kLayers, 100, 0);
  cache.Reserve(60).Publish(60);
  CHECK_EQ(cache.Views()[0].first, 56);
  CHECK_EQ(cache.Views()[1].first, 0);
  CHECK_EQ(cache.Views()[2].first, 21);
}

TEST(RandomOperationsKeepRowsAndInvariants) {
  for (uint32_t seed = 0; seed < 5; ++seed) {
    std::mt19937 random(seed);
    KvCache cache(kLayers, 700, seed % 2 ? 6'000'000 : 0);
    std::vector<int64_t> versions;
    for (int64_t operation = 0; operation < 300; ++operation) {
      const int64_t len = cache.kv_len(), room = 700 - len;
      const int64_t rows = room > 0 ? 1 + static_cast<int64_t>(random() % 80) % room : 0;
      const uint32_t kind = random() % 16;
      if (kind == 0 || rows == 0) {
        cache.Clear();
        versions.clear();
      } else if (kind == 1) {
        const auto kept = static_cast<int64_t>(random() % static_cast<uint32_t>(len + 1));
        try {
          cache.Truncate(kept);
          versions.resize(static_cast<size_t>(kept));
        } catch (const Unsupported&) {  // a window has moved on; nothing has changed
        }
      } else {
        Reservation reservation = cache.Reserve(rows);
        CheckInvariants(cache);
        Write(cache, len, len + rows, operation);
        if (kind < 12) {  // otherwise it is given up
          const int64_t published = kind < 4 ? rows / 2 : rows;
          reservation.Publish(published);
          versions.resize(static_cast<size_t>(len + published), operation);
        }
      }
      CheckInvariants(cache);
      CheckVisibleRows(cache, versions);
    }
  }
}

TEST(AReservationThatIsNotPublishedGivesItsMemoryBack) {
  KvCache cache(kLayers, 1000, 0);
  cache.Reserve(10).Publish(10);
  const int64_t before = cache.current_bytes();
  {
    Reservation reservation = cache.Reserve(500);
    CHECK(cache.current_bytes() > before + 500 * 1030 * 8);
    Reservation moved = std::move(reservation);
    CheckInvariants(cache);
  }
  CHECK_EQ(cache.kv_len(), 10);
  CHECK_EQ(cache.current_bytes(), before);
  CHECK(cache.peak_bytes() > before);
}

TEST(AReservationBeyondTheLimitChangesNothingAndStatesTheNumbers) {
  KvCache cache(kLayers, 1000, 1'000'000);
  cache.Reserve(20).Publish(20);
  const int64_t before = cache.current_bytes();
  CHECK_THROWS(OutOfMemory, "520 tokens need ", (void)cache.Reserve(500));
  CHECK_THROWS(OutOfMemory, "the limit leaves 1000000", (void)cache.Reserve(500));
  CHECK_EQ(cache.kv_len(), 20);
  CHECK_EQ(cache.current_bytes(), before);
  CheckInvariants(cache);
  cache.Reserve(20).Publish(20);
  CHECK_EQ(cache.kv_len(), 40);
}

TEST(AReservationThatTheSystemRefusesChangesNothing) {
  KvCache cache(kLayers, 100000, 0);
  cache.Reserve(20).Publish(20);
  const int64_t before = cache.current_bytes();
  {
    test::LoweredLimit no_more_memory(RLIMIT_DATA, 64 << 20);
    CHECK_THROWS(OutOfMemory, "the system refused after", (void)cache.Reserve(50000));
    CHECK_EQ(cache.current_bytes(), before);
    CheckInvariants(cache);
  }
  cache.Reserve(50000).Publish(50000);
  CheckInvariants(cache);
}

TEST(SlidingLayersHoldNoMoreThanWindowAndReservation) {
  KvCache cache({{1024, 16}}, 100000, 0);  // a row is a page
  for (int i = 0; i < 100; ++i) cache.Reserve(32).Publish(32);
  CHECK_EQ(cache.current_bytes(), 2 * 15 * 4096);
  CHECK_EQ(cache.peak_bytes(), 2 * (15 + 32) * 4096);
  CHECK_EQ(KvBytes(std::vector<KvLayerShape>{{1024, 16}}, 3200, 32), cache.peak_bytes());
}

TEST(ARewindKeepsWhatIsBeforeIt) {
  KvCache cache({{96, 0}, {1030, 40}}, 1000, 0);
  cache.Reserve(30).Publish(30);
  Write(cache, 0, 30, 1);
  cache.Truncate(7);
  CheckInvariants(cache);
  CHECK_EQ(cache.current_bytes(), KvBytes(std::vector<KvLayerShape>{{96, 0}, {1030, 40}}, 7, 0));
  std::vector<int64_t> versions(7, 1);
  CheckVisibleRows(cache, versions);
  cache.Reserve(60).Publish(60);
  Write(cache, 28, 67, 2);
  CHECK_THROWS(Unsupported,
               "from 67 to 20 tokens: the window of layer 1 needs token 0, the oldest that it still has is 28",
               cache.Truncate(20));
  CHECK_EQ(cache.kv_len(), 67);
  cache.Truncate(67);
  CheckInvariants(cache);
  CHECK_EQ(cache.kv_len(), 67);
}

// The formula of export/README.md: bytes per token of the full layers, and W - 1 rows of the sliding ones.
TEST(CommittedBytesFollowTheFormulaWithinAPageAtEachOpenEnd) {
  const std::vector<KvLayerShape> shapes = {{512, 128}, {1024, 0}, {96, 128}, {24, 0}};
  KvCache cache(shapes, 5000, 0);
  const int64_t per_token = 2 * 4 * (1024 + 24), per_window_token = 2 * 4 * (512 + 96);
  for (int i = 0; i < 49; ++i) {
    cache.Reserve(100).Publish(100);
    const int64_t formula = per_token * cache.kv_len() + per_window_token * std::min<int64_t>(cache.kv_len(), 127);
    CHECK(cache.current_bytes() >= formula);
    CHECK(cache.current_bytes() < formula + (2 * 2 * 1 + 2 * 2 * 2) * 4096);
  }
}

TEST(TheReleasedContextIsAddressableAndCostsNoMemory) {
  std::vector<KvLayerShape> shapes;
  for (int layer = 0; layer < 30; ++layer) {
    shapes.push_back(layer % 6 == 5 ? KvLayerShape{1024, 0} : KvLayerShape{2048, 1024});
  }
  const auto resident_pages = [] {
    int64_t all = 0, resident = 0;
    std::ifstream("/proc/self/statm") >> all >> resident;
    return resident;
  };
  const int64_t before = resident_pages();
  KvCache cache(shapes, 262'144 + 256, 0);
  CHECK_EQ(cache.current_bytes(), 0);
  CHECK(resident_pages() - before < 256);
  CHECK_EQ(KvBytes(shapes, 262'144, 0), int64_t{262'144} * 2 * 4 * 1024 * 5 + int64_t{1023} * 2 * 4 * 2048 * 25);
}

TEST(TwoCachesShareABudgetAndEachRefusalChangesNothing) {
  const std::vector<KvLayerShape> shapes = {{1024, 16}, {1024, 0}};
  const int64_t page = 4096;
  MemoryBudget budget(100 * page);
  KvCache one(shapes, 1000, 0, &budget), two(shapes, 1000, 0, &budget);
  one.Reserve(10).Publish(10);
  CHECK_EQ(budget.usage().sequence_bytes, 4 * 10 * page);
  CHECK_THROWS(OutOfMemory, "a sequence of 16 tokens needs 262144 bytes more; of the limit of 409600",
               (void)two.Reserve(16));
  CHECK_EQ(budget.usage().sequence_bytes, 4 * 10 * page);
  CHECK_EQ(two.current_bytes(), 0);
  { const Reservation given_up = two.Reserve(15); }
  CHECK_EQ(budget.usage().sequence_bytes, 4 * 10 * page);
  two.Reserve(15).Publish(3);
  CHECK_EQ(budget.usage().sequence_bytes, 4 * 13 * page);
  for (KvCache* cache : {&one, &two}) CheckInvariants(*cache);
  budget.RefuseChargeForTest(1);
  CHECK_THROWS(OutOfMemory, "for all sessions", (void)one.Reserve(1));
  CheckInvariants(one);
  one.Clear();
  CHECK_EQ(budget.usage().sequence_bytes, 4 * 3 * page);
  CHECK_EQ(budget.usage().peak_bytes, 100 * page);
}

TEST(ALongContextCostsAddressesOnly) {
  KvCache cache({{2048, 0}, {2048, 1024}}, 262144 + 256, 0);
  CHECK_EQ(cache.current_bytes(), 0);
  cache.Reserve(512).Publish(512);
  CHECK_EQ(cache.current_bytes(), 4 * 512 * 2048 * 4);
}

}  // namespace dgrt
