// Sequences over a prefix cache without an engine: a row's numbers are a function of layer and of all tokens up to it,
// as those of a causal model are, so whoever wrote or shared it, every visible row can be checked. Used by the prefix
// tests.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "memory/kv_cache.h"
#include "memory/prefix_cache.h"
#include "memory/prefix_hash.h"
#include "test.h"

namespace dgrt {

inline constexpr int64_t kChunk = 64;
// 64 rows fill pages in each; one window inside a chunk, one that spans three.
inline const std::vector<KvLayerShape> kPrefixShapes = {{16, 40}, {32, 0}, {16, 150}, {48, 0}};
inline constexpr int64_t kFullChunkBytes = 2 * kChunk * 80 * 4, kWindowChunkBytes = 2 * kChunk * 32 * 4;
inline constexpr int64_t kChunkBytes = kFullChunkBytes + kWindowChunkBytes;

inline float RowNumber(size_t layer, uint64_t text_hash) {
  return static_cast<float>((text_hash >> 16) % 65536) + static_cast<float>(layer) / 8;
}

class PrefixSequence {
 public:
  PrefixSequence(PrefixCache* cache, MemoryBudget* budget, int64_t max_rows = 1024)
      : cache_(cache), kv(kPrefixShapes, max_rows, 0, budget) {}

  // As runtime/prefill.cc does it. Returns the tokens that came from the cache.
  int64_t Prefill(const std::vector<int32_t>& prompt) {
    Check();
    const auto num_rows = static_cast<int64_t>(prompt.size());
    const PrefixMatch match = cache_->Find(prompt, num_rows);
    int64_t begin = match.num_tokens > 0 && kv.Adopt(cache_->layout(), match.chunks) ? match.num_tokens : 0;
    text = std::vector<int32_t>(prompt.begin(), prompt.begin() + begin);
    Check();
    const int64_t reused = begin;
    for (; begin < num_rows; begin += kChunk) Append(std::span(prompt).subspan(static_cast<size_t>(begin)), true);
    return reused;
  }

  // Up to one chunk of new rows; whole ones may be kept.
  void Append(std::span<const int32_t> tokens, bool keep) {
    const auto num_rows = std::min(kChunk, static_cast<int64_t>(tokens.size()));
    const int64_t kv_len = kv.kv_len();
    Reservation rows = kv.Reserve(num_rows);
    Check();
    std::vector<int32_t> longer = text;
    longer.insert(longer.end(), tokens.begin(), tokens.begin() + num_rows);
    Write(longer, kv_len);
    if (keep && num_rows == kChunk) {
      if (const auto chunk = cache_->Insert(longer, kv.Views())) kv.Share(cache_->layout(), *chunk);
      CHECK_EQ(BrokenKvInvariant(kv.Snapshot()), std::string());
    }
    rows.Publish(num_rows);
    text = longer;
    Check();
  }

  void Check() {
    CHECK_EQ(BrokenKvInvariant(kv.Snapshot()), std::string());
    CHECK_EQ(kv.kv_len(), static_cast<int64_t>(text.size()));
    const auto views = kv.Views();
    uint64_t hash = 0;
    for (int64_t t = 0; t < kv.kv_len(); ++t) {
      hash = PrefixHash(hash, std::span(text).subspan(static_cast<size_t>(t), 1));
      for (size_t layer = 0; layer < views.size(); ++layer) {
        if (t < views[layer].first) continue;
        CHECK_EQ(views[layer].k[t * views[layer].width], RowNumber(layer, hash));
        CHECK_EQ(views[layer].v[(t + 1) * views[layer].width - 1], -RowNumber(layer, hash));
      }
    }
  }

 private:
  void Write(const std::vector<int32_t>& tokens, int64_t from) {
    const auto views = kv.Views();
    uint64_t hash = 0;
    for (int64_t t = 0; t < static_cast<int64_t>(tokens.size()); ++t) {
      hash = PrefixHash(hash, std::span(tokens).subspan(static_cast<size_t>(t), 1));
      for (size_t layer = 0; t >= from && layer < views.size(); ++layer) {
        for (int64_t i = t * views[layer].width; i < (t + 1) * views[layer].width; ++i) {
          views[layer].k[i] = RowNumber(layer, hash);
          views[layer].v[i] = -RowNumber(layer, hash);
        }
      }
    }
  }

  PrefixCache* const cache_;

 public:
  KvCache kv;
  std::vector<int32_t> text;  // whose rows are there
};

struct PrefixFixture {
  explicit PrefixFixture(int64_t chunks = 1000, int64_t budget_limit = 0)
      : budget(budget_limit), cache(kPrefixShapes, kChunk, chunks * kChunkBytes, "engine one", &budget) {}

  void Check(const std::vector<PrefixSequence*>& sequences = {}) {
    CHECK_EQ(cache.BrokenInvariant(), std::string());
    int64_t own = 0;
    for (PrefixSequence* sequence : sequences) {
      sequence->Check();
      own += sequence->kv.current_bytes() - sequence->kv.shared_bytes();
    }
    const MemoryUsage usage = budget.usage();
    CHECK_EQ(usage.sequence_bytes, own);
    CHECK(usage.prefix_bytes >= cache.stats().bytes);
    if (sequences.empty()) CHECK_EQ(usage.prefix_bytes, cache.stats().bytes);
  }

  MemoryBudget budget;
  PrefixCache cache;
};

// count tokens that are the same for the same seed.
inline std::vector<int32_t> TextOf(int32_t seed, int64_t count) {
  std::vector<int32_t> out;
  for (int64_t i = 0; i < count; ++i) out.push_back(static_cast<int32_t>((seed * 7919 + i * 31 + i * i) % 1000));
  return out;
}

}  // namespace dgrt
