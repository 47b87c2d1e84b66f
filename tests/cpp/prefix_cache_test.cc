// memory/prefix_cache.h: what is found, what is shared, what goes first, and that every row a sequence sees is the one
// its own prefill would have written. Random operations against a model, and a refusal at every charge.
#include "memory/prefix_cache.h"

#include <memory>
#include <random>
#include <set>
#include <thread>

#include "common/check.h"
#include "prefix_fixture.h"

namespace dgrt {

TEST(ASecondPromptTakesTheWholeChunksThatItShares) {
  PrefixFixture f;
  const auto prompt = TextOf(1, 300);
  auto first = std::make_unique<PrefixSequence>(&f.cache, &f.budget);
  CHECK_EQ(first->Prefill(prompt), 0);
  for (const int64_t length : {64, 127, 128, 129, 300}) {
    PrefixSequence again(&f.cache, &f.budget);
    CHECK_EQ(again.Prefill({prompt.begin(), prompt.begin() + length}), length / 64 * 64);
    f.Check({first.get(), &again});
  }
  auto other = prompt;
  other[130] += 1;  // in the third chunk
  PrefixSequence second(&f.cache, &f.budget);
  CHECK_EQ(second.Prefill(other), 128);
  f.Check({first.get(), &second});
  const PrefixStats stats = f.cache.stats();
  CHECK_EQ(stats.lookups, 7);
  CHECK_EQ(stats.hits, 6);
  CHECK_EQ(stats.hit_tokens, 64 + 64 + 128 + 128 + 256 + 128);
  CHECK_EQ(stats.num_chunks, 4 + 2);
  CHECK_EQ(stats.bytes, 6 * kChunkBytes);
}

TEST(SharedRowsAreCountedOnceAndOwnMemoryIsGivenUpForThem) {
  PrefixFixture f;
  const auto prompt = TextOf(1, 320);
  PrefixSequence first(&f.cache, &f.budget), second(&f.cache, &f.budget);
  first.Prefill(prompt);
  const MemoryUsage after_one = f.budget.usage();
  CHECK_EQ(after_one.sequence_bytes, 0);  // every chunk was a whole one
  CHECK_EQ(after_one.prefix_bytes, 5 * kChunkBytes);
  CHECK(after_one.peak_bytes <= 6 * kChunkBytes);  // a chunk is copied before its own pages go
  second.Prefill(prompt);
  CHECK_EQ(f.budget.usage().total_bytes(), after_one.total_bytes());
  CHECK_EQ(second.kv.shared_bytes(), second.kv.current_bytes());
  CHECK_EQ(second.kv.current_bytes(), first.kv.current_bytes());
}

TEST(WhatFollowsASharedPrefixIsPrivate) {
  PrefixFixture f;
  const auto prompt = TextOf(1, 128);
  PrefixSequence first(&f.cache, &f.budget), second(&f.cache, &f.budget);
  first.Prefill(prompt);
  second.Prefill(prompt);
  for (int32_t i = 0; i < 20; ++i) {
    first.Append(TextOf(10 + i, 17), false);
    second.Append(TextOf(50 + i, 23), false);
    f.Check({&first, &second});
  }
  PrefixSequence third(&f.cache, &f.budget);
  CHECK_EQ(third.Prefill(prompt), 128);
  f.Check({&first, &second, &third});
}

TEST(EvictedRowsStayWithTheSequencesThatReadThem) {
  PrefixFixture f;
  const auto prompt = TextOf(1, 256);
  PrefixSequence reader(&f.cache, &f.budget);
  {
    PrefixSequence writer(&f.cache, &f.budget);
    writer.Prefill(prompt);
  }
  CHECK_EQ(reader.Prefill(prompt), 256);
  CHECK_EQ(f.cache.EvictUnused(int64_t{1} << 40), kWindowChunkBytes);  // of the first chunk: the windows see the others
  f.cache.Clear();
  CHECK_EQ(f.cache.stats().bytes, 0);
  CHECK_EQ(f.budget.usage().prefix_bytes, 4 * kFullChunkBytes + 3 * kWindowChunkBytes);
  reader.Check();
  PrefixSequence cold(&f.cache, &f.budget);
  CHECK_EQ(cold.Prefill(prompt), 0);
  f.Check({&reader, &cold});
  reader.kv.Clear();
  CHECK_EQ(f.budget.usage().prefix_bytes, 4 * kChunkBytes);
}

TEST(AWindowThatMovesOnLetsGoOfSharedRows) {
  PrefixFixture f;
  PrefixSequence sequence(&f.cache, &f.budget);
  sequence.Prefill(TextOf(1, 256));
  f.cache.Clear();
  for (int32_t i = 0; i < 4; ++i) sequence.Append(TextOf(3 + i, 60), false);
  CHECK_EQ(f.budget.usage().prefix_bytes, 4 * kFullChunkBytes);  // no window reaches back to the prompt
  f.Check({&sequence});
}

// Window parts inside a long prompt are what goes first; its end stays a resume point.
TEST(TheLeastRecentlyUsedPartGoesFirst) {
  PrefixFixture f(6);
  const auto one = TextOf(1, 256), two = TextOf(2, 256);
  PrefixSequence(&f.cache, &f.budget).Prefill(one);
  PrefixSequence(&f.cache, &f.budget).Prefill(two);  // 8 chunks do not fit
  f.Check();
  CHECK_EQ(PrefixSequence(&f.cache, &f.budget).Prefill(two), 256);
  CHECK_EQ(f.cache.stats().evicted_windows, 1);  // of the first prompt's first chunk
  CHECK_EQ(f.cache.stats().evicted_chunks, 2);   // the end of the first prompt
  CHECK_EQ(PrefixSequence(&f.cache, &f.budget).Prefill(one), 0);
}

TEST(APromptLongerThanTheCacheKeepsAResumePoint) {
  PrefixFixture f(6);
  const auto prompt = TextOf(1, 64 * 14);
  PrefixSequence(&f.cache, &f.budget).Prefill(prompt);
  f.Check();
  const int64_t reused = PrefixSequence(&f.cache, &f.budget).Prefill(prompt);
  CHECK(reused >= 64 * 4);
  CHECK_EQ(PrefixSequence(&f.cache, &f.budget).Prefill(prompt), reused);
  f.Check();
}

TEST(AMissingWindowPartIsFilledInAgain) {
  PrefixFixture f;
  const auto prompt = TextOf(1, 256);
  auto first = std::make_unique<PrefixSequence>(&f.cache, &f.budget);
  first->Prefill(prompt);
  f.cache.EvictUnused(1);  // the first chunk's, which no window sees
  CHECK_EQ(f.cache.stats().evicted_windows, 1);
  PrefixSequence second(&f.cache, &f.budget);
  CHECK_EQ(second.Prefill({prompt.begin(), prompt.begin() + 70}), 0);  // its border needs that part
  CHECK_EQ(f.cache.stats().bytes, 4 * kChunkBytes);
  CHECK_EQ(second.kv.shared_bytes(), kChunkBytes);
  PrefixSequence third(&f.cache, &f.budget);
  CHECK_EQ(third.Prefill({prompt.begin(), prompt.begin() + 70}), 64);
  f.Check({first.get(), &second, &third});
}

TEST(SequencesTakePrecedenceOverCachedPrefixesThatNobodyUses) {
  const int64_t limit = 10 * kChunkBytes;
  PrefixFixture f(1000, limit);
  const auto used = TextOf(1, 128);
  PrefixSequence reader(&f.cache, &f.budget);
  reader.Prefill(used);
  PrefixSequence(&f.cache, &f.budget).Prefill(TextOf(2, 64 * 6));
  PrefixSequence large(&f.cache, &f.budget);
  while (large.kv.kv_len() < 64 * 8) large.Append(TextOf(3, 50), false);
  f.Check({&reader, &large});
  CHECK(f.budget.usage().peak_bytes <= limit);
  CHECK_EQ(f.cache.Find(used, 128).num_tokens, 128);
  CHECK_THROWS(OutOfMemory, "for all sessions, sequences use", while (true) large.Append(TextOf(3, 50), false));
  f.Check({&reader, &large});
}

TEST(TheSameChunkBehindAnotherOneIsAnotherChunk) {
  PrefixFixture f;
  auto one = TextOf(1, 128), two = TextOf(2, 128);
  std::copy(one.begin() + 64, one.end(), two.begin() + 64);
  PrefixSequence(&f.cache, &f.budget).Prefill(one);
  CHECK_EQ(PrefixSequence(&f.cache, &f.budget).Prefill(two), 0);
  CHECK_EQ(f.cache.stats().num_chunks, 4);
}

TEST(RowsThatDoNotFillPagesAndLimitsBelowAChunkAreRefused) {
  MemoryBudget budget(0);
  const std::vector<KvLayerShape> narrow = {{16, 0}, {17, 0}};
  CHECK_THROWS(Unsupported, "64 rows of layer 1 are 4352 bytes: expected a multiple of the page size",
               PrefixCache(narrow, kChunk, 1 << 20, "", &budget));
  CHECK_THROWS(InvalidArgument, "prefix_cache_bytes: expected 0, or at least the 57344 bytes of 64 tokens, found 57343",
               PrefixCache(kPrefixShapes, kChunk, kChunkBytes - 1, "", &budget));
}

TEST(RandomOperationsKeepRowsAndInvariantsOfThePrefixCache) {
  for (uint32_t seed = 0; seed < 6; ++seed) {
    std::mt19937 random(seed);
    const bool is_tight = seed % 2 == 1;
    const int64_t budget_limit = seed >= 4 ? 40 * kChunkBytes : 0;
    PrefixFixture f(is_tight ? 7 : 10'000, budget_limit);
    std::vector<std::unique_ptr<PrefixSequence>> sequences;
    std::set<std::vector<int32_t>> kept;  // starts of prompts whose rows the cache was given
    for (int operation = 0; operation < 150; ++operation) {
      const uint32_t kind = random() % 16;
      if (kind < 7 || sequences.empty()) {
        // A few first chunks, a few second ones behind each, ...: many prompts share a start.
        std::vector<int32_t> prompt;
        const auto length = static_cast<size_t>(1 + random() % 400);
        while (prompt.size() < length) {
          const auto chunk = TextOf(static_cast<int32_t>(random() % 2 + prompt.size()), 64);
          prompt.insert(prompt.end(), chunk.begin(), chunk.end());
        }
        prompt.resize(length);
        int64_t expected = 0;
        for (size_t end = 64; end <= length; end += 64) {
          if (!kept.insert({prompt.begin(), prompt.begin() + static_cast<int64_t>(end)}).second) {
            expected = static_cast<int64_t>(end);
          }
        }
        auto sequence = std::make_unique<PrefixSequence>(&f.cache, &f.budget);
        try {
          const int64_t reused = sequence->Prefill(prompt);
          if (is_tight || budget_limit > 0) CHECK(reused <= expected);
          else CHECK_EQ(reused, expected);
          sequences.push_back(std::move(sequence));
        } catch (const OutOfMemory&) {
          CHECK(budget_limit > 0);
          sequences.clear();
        }
      } else {
        const size_t which = random() % sequences.size();
        PrefixSequence& sequence = *sequences[which];
        try {
          if (kind < 11 && sequence.kv.kv_len() < 900) {
            sequence.Append(TextOf(static_cast<int32_t>(random() % 5), 1 + random() % 60), false);
          }
          if (kind == 11) {
            const auto rows = static_cast<int64_t>(random() % (sequence.text.size() + 1));
            sequence.kv.Truncate(rows);
            sequence.text.resize(static_cast<size_t>(rows));
          }
        } catch (const OutOfMemory&) {
          CHECK(budget_limit > 0);
        } catch (const Unsupported&) {  // the window has moved on
        }
        if (kind == 12 || sequences.size() > 6) sequences.erase(sequences.begin() + static_cast<int64_t>(which));
        if (kind == 13 && (is_tight || budget_limit > 0)) {
          f.cache.EvictUnused(static_cast<int64_t>(random() % 4) * kChunkBytes);
        }
        if (kind == 14 && random() % 4 == 0) {
          f.cache.Clear();
          kept.clear();
        }
      }
      std::vector<PrefixSequence*> all;
      for (const auto& sequence : sequences) all.push_back(sequence.get());
      f.Check(all);
    }
    sequences.clear();
    f.Check();
  }
}

TEST(ARefusalAtAnyChargeLeavesRowsAndCountsAsTheyWere) {
  const auto prompt = TextOf(1, 200);
  for (int64_t n = 1;; ++n) {
    PrefixFixture f;
    PrefixSequence first(&f.cache, &f.budget), second(&f.cache, &f.budget);
    first.Prefill({prompt.begin(), prompt.begin() + 64});
    const int64_t charges_before = f.cache.stats().stored_chunks;
    f.budget.RefuseChargeForTest(n);
    try {
      second.Prefill(prompt);
    } catch (const OutOfMemory&) {
    }
    f.Check({&first, &second});
    f.budget.RefuseChargeForTest(0);
    const bool refused = f.cache.stats().stored_chunks < charges_before + 2 || second.kv.kv_len() < 200;
    second.kv.Clear();
    second.text.clear();
    second.Prefill(prompt);
    f.Check({&first, &second});
    if (!refused && n > 3) break;
    CHECK(n < 20);
  }
}

TEST(ManyThreadsUseOnePrefixCache) {
  for (const int64_t budget_limit : {int64_t{0}, 60 * kChunkBytes}) {
    PrefixFixture f(9, budget_limit);
    std::vector<std::thread> threads;
    std::vector<std::string> failures(4);
    for (size_t i = 0; i < failures.size(); ++i) {
      threads.emplace_back([&, i] {
        try {
          for (int32_t n = 0; n < 25; ++n) {
            PrefixSequence sequence(&f.cache, &f.budget);
            auto prompt = TextOf(n % 3, 128);
            const auto rest = TextOf(n % 2 + static_cast<int32_t>(i), 150);
            prompt.insert(prompt.end(), rest.begin(), rest.end());
            sequence.Prefill(prompt);
            sequence.Append(TextOf(n, 30), false);
            if (n % 10 == 9) f.cache.EvictUnused(kChunkBytes);
            if (n == 20 && i == 0) f.cache.Clear();
          }
        } catch (const std::exception& error) {
          failures[i] = error.what();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const std::string& failure : failures) CHECK_EQ(failure, std::string());
    CHECK(f.cache.stats().hits > 0);
    f.Check();
  }
}

}  // namespace dgrt
