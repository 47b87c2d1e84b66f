// KV memory of one sequence: per layer one buffer for K and one for V, token-major fp32, address = base + token * width.
// Address space is reserved for the whole context at the start; pages are committed when rows are reserved and, in
// sliding layers, given back when the window has moved past them. Rows of whole chunks may be shared with the prefix
// cache and other sequences; they are mapped read-only. Called by the stages of runtime/ that run a pass. Must not know
// of canvases, sampling or engines.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/kv_view.h"
#include "memory/invariants.h"
#include "memory/kv_block.h"
#include "memory/kv_layout.h"
#include "memory/memory_budget.h"

namespace dgrt {

// Committed bytes of all layers while `num_rows` are reserved after kv_len published ones.
int64_t KvBytes(std::span<const KvLayerShape> layers, int64_t kv_len, int64_t num_rows);

class KvCache;

// Rows [kv_len, kv_len + num_rows) of every layer, writable. Publish them or let this go out of scope, which gives the
// memory back. At most one at a time; must not outlive the cache.
class Reservation {
 public:
  Reservation() = default;
  Reservation(Reservation&& other) noexcept;
  Reservation& operator=(Reservation&& other) noexcept;
  ~Reservation();

  // Makes the first num_rows reserved rows part of the sequence. Never fails.
  void Publish(int64_t num_rows) noexcept;

 private:
  friend class KvCache;
  explicit Reservation(KvCache* cache) : cache_(cache) {}
  KvCache* cache_ = nullptr;
};

class KvCache {
 public:
  // `memory_limit_bytes` 0: none; shared rows count, so that what is in the prefix cache never decides what fits.
  // `budget`: also charged, for what is not shared; null: none; outlives the cache. Reserves addresses only; throws
  // OutOfMemory if even those are refused.
  KvCache(std::vector<KvLayerShape> layers, int64_t max_rows, int64_t memory_limit_bytes,
          MemoryBudget* budget = nullptr);
  ~KvCache();
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  int64_t kv_len() const { return kv_len_; }
  int64_t current_bytes() const { return current_bytes_; }  // committed pages, shared ones included
  int64_t shared_bytes() const { return shared_bytes_; }
  int64_t peak_bytes() const { return peak_bytes_; }

  // All layers or none: throws OutOfMemory with the numbers when the limit or the system does not allow it.
  [[nodiscard]] Reservation Reserve(int64_t num_rows);

  // Throws OutOfMemory if the limit could never hold that many rows at once. For refusing early.
  void RequireFits(int64_t kv_len, int64_t num_rows) const;

  // What an engine may read (rows [first, kv_len)) and, while a reservation is held, write (the rows after). Valid
  // until the next call.
  std::span<const KvLayerView> Views();

  // The same as they will be when num_rows of the reserved rows have been published.
  std::span<const KvLayerView> ViewsAfter(int64_t num_rows);

  // Rewinds: forgets the rows from num_rows on. No reservation may be held. Throws Unsupported where a sliding layer no
  // longer has the rows that its window would need there, OutOfMemory where a shared page at the border cannot be
  // copied; nothing has changed then.
  void Truncate(int64_t num_rows);

  // Forgets all rows and gives their memory back. No reservation may be held.
  void Clear();

  // An empty cache gets the rows of these chunks, the first tokens of its sequence; of the windows only those from
  // layout.FirstWindowChunk on are looked at. False, and still empty, where the system refuses the mappings.
  [[nodiscard]] bool Adopt(const KvChunkLayout& layout, std::span<const KvChunk> chunks);

  // While the rows of one chunk are reserved and written: uses `chunk`, which holds the same bits, in place of own
  // memory. Where the system refuses, rows merely stay private. A missing window part stays private too.
  void Share(const KvChunkLayout& layout, const KvChunk& chunk);

  KvSnapshot Snapshot() const;

 private:
  friend class Reservation;
  // Bytes [begin, end) of a buffer that are mapped from a block.
  struct SharedRange {
    int64_t begin = 0, end = 0;
    std::shared_ptr<const KvBlock> block;
  };
  // One of the 2 * layers buffers. Bytes [begin, end) are committed; both are multiples of the page size.
  struct Buffer {
    unsigned char* base = nullptr;
    int64_t begin = 0, end = 0;
    std::vector<SharedRange> shared;  // inside [begin, end), ascending
    int64_t shared_end = 0;           // below, a block was mapped once and, if the system refused to unmap it, still is
  };
  struct Layer {
    const KvLayerShape* shape = nullptr;
    int64_t reserved_bytes = 0;  // address space per buffer
    Buffer buffers[2];           // K, V
    int64_t row_bytes() const { return shape->row_bytes(); }
    int64_t first(int64_t kv_len) const { return shape->first(kv_len); }
  };

  std::span<const KvLayerView> FillViews(std::vector<KvLayerView>& views, int64_t kv_len);
  void RequireBudget(int64_t num_rows);
  bool Commit(Buffer* buffer, int64_t end);
  bool MapShared(Buffer* buffer, const SharedRange& range, int64_t from_in_block);
  void CopySharedPage(Buffer* buffer, int64_t at);
  void ForgetShared(Buffer* buffer, int64_t begin, int64_t end) noexcept;
  void Shrink(Buffer* buffer, int64_t begin, int64_t end) noexcept;
  void TrimTo(int64_t num_rows) noexcept;
  void SettleBudget() noexcept;
  void Publish(int64_t num_rows) noexcept;
  void Release() noexcept;
  void Unmap() noexcept;

  const std::vector<KvLayerShape> shapes_;
  std::vector<Layer> layers_;  // one per shape
  std::vector<KvLayerView> views_, views_after_;
  int64_t max_rows_ = 0;
  int64_t limit_bytes_ = 0;
  int64_t kv_len_ = 0;
  int64_t num_reserved_ = 0;  // rows of the reservation held, 0: none
  int64_t current_bytes_ = 0, peak_bytes_ = 0, shared_bytes_ = 0;
  MemoryBudget* const budget_;  // null: none
  int64_t charged_bytes_ = 0;   // to the budget: current - shared, between two calls
};

}  // namespace dgrt
