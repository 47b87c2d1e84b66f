// KV memory of one sequence: per layer one buffer for K and one for V, token-major fp32, address = base + token * width.
// Address space is reserved for the whole context at the start; pages are committed when rows are reserved and, in
// sliding layers, given back when the window has moved past them. Called by the stages of
// runtime/ that run a pass. Must not know of canvases, sampling or engines.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "common/kv_view.h"
#include "memory/invariants.h"

namespace dgrt {

// The one place that says how far back a query in a sliding layer sees: itself and the W - 1 tokens before it. For a
// canvas, whose rows share one range, these are the last W - 1 committed tokens.
constexpr int64_t FirstVisibleToken(int64_t kv_len, int64_t sliding_window) {
  return std::max<int64_t>(0, kv_len - (sliding_window - 1));
}

struct KvLayerShape {
  int64_t width = 0;           // num_kv_heads * head_dim
  int64_t sliding_window = 0;  // W, or 0: full layer

  int64_t row_bytes() const { return width * static_cast<int64_t>(sizeof(float)); }  // of K, and of V
  int64_t first(int64_t kv_len) const { return sliding_window > 0 ? FirstVisibleToken(kv_len, sliding_window) : 0; }
};

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
  // `memory_limit_bytes` 0: none. Reserves addresses only; throws OutOfMemory if even those are refused.
  KvCache(std::vector<KvLayerShape> layers, int64_t max_rows, int64_t memory_limit_bytes);
  ~KvCache();
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  int64_t kv_len() const { return kv_len_; }
  int64_t current_bytes() const { return current_bytes_; }  // committed pages
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

  // Forgets all rows and gives their memory back. No reservation may be held.
  void Clear();

  KvSnapshot Snapshot() const;

 private:
  friend class Reservation;
  // One of the 2 * layers buffers. Bytes [begin, end) are committed; both are multiples of the page size.
  struct Buffer {
    unsigned char* base = nullptr;
    int64_t begin = 0, end = 0;
  };
  struct Layer {
    const KvLayerShape* shape = nullptr;
    int64_t reserved_bytes = 0;  // address space per buffer
    Buffer buffers[2];           // K, V
    int64_t row_bytes() const { return shape->row_bytes(); }
    int64_t first(int64_t kv_len) const { return shape->first(kv_len); }
  };

  std::span<const KvLayerView> FillViews(std::vector<KvLayerView>& views, int64_t kv_len);
  bool Commit(Buffer* buffer, int64_t end);
  void Shrink(Buffer* buffer, int64_t begin, int64_t end) noexcept;
  void TrimTo(int64_t num_rows) noexcept;
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
  int64_t current_bytes_ = 0, peak_bytes_ = 0;
};

}  // namespace dgrt
