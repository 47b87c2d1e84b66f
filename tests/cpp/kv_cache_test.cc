// memory/kv_cache.h: a model of ten lines against random operations, with the invariants checked after each; limits;
// rollback. Every visible row must keep what was written to it.
#include "memory/kv_cache.h"

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

TEST(ALongContextCostsAddressesOnly) {
  KvCache cache({{2048, 0}, {2048, 1024}}, 262144 + 256, 0);
  CHECK_EQ(cache.current_bytes(), 0);
  cache.Reserve(512).Publish(512);
  CHECK_EQ(cache.current_bytes(), 4 * 512 * 2048 * 4);
}

}  // namespace dgrt
