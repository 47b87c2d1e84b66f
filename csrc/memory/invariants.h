// What must hold of a KV cache after every operation, as pure functions over a snapshot. Tests call them after each
// operation, debug builds after each canvas, release builds never.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/check.h"

namespace dgrt {

struct KvLayerSnapshot {
  int64_t row_bytes = 0;
  int64_t first = 0;            // first visible token
  int64_t committed_begin = 0;  // bytes, both of K and of V
  int64_t committed_end = 0;
  int64_t shared_bytes = 0;     // of K and of V together, mapped from blocks
};

struct KvSnapshot {
  int64_t kv_len = 0;
  int64_t num_reserved = 0;
  int64_t max_rows = 0;
  int64_t page_bytes = 0;
  int64_t limit_bytes = 0;  // 0: none
  int64_t current_bytes = 0;
  int64_t peak_bytes = 0;
  int64_t shared_bytes = 0;
  int64_t charged_bytes = 0;  // to the budget of all sessions
  std::vector<KvLayerSnapshot> layers;
};

// The first rule that is broken, in words; empty when all hold.
inline std::string BrokenKvInvariant(const KvSnapshot& kv) {
  if (kv.kv_len < 0 || kv.num_reserved < 0) return "negative length";
  if (kv.kv_len + kv.num_reserved > kv.max_rows) return Message("more than ", kv.max_rows, " rows");
  if (kv.current_bytes > kv.peak_bytes) return Message("peak ", kv.peak_bytes, " below ", kv.current_bytes);
  if (kv.limit_bytes > 0 && kv.peak_bytes > kv.limit_bytes) return Message("peak ", kv.peak_bytes, " above the limit");
  int64_t committed = 0, shared = 0;
  for (size_t i = 0; i < kv.layers.size(); ++i) {
    const KvLayerSnapshot& layer = kv.layers[i];
    const int64_t rows = kv.kv_len + kv.num_reserved;
    if (layer.committed_begin > layer.first * layer.row_bytes) return Message("layer ", i, ": visible row released");
    if (layer.committed_end < rows * layer.row_bytes) return Message("layer ", i, ": row without memory");
    if (layer.committed_end - rows * layer.row_bytes >= kv.page_bytes) return Message("layer ", i, ": page too many");
    if (layer.committed_begin + kv.page_bytes <= layer.first * layer.row_bytes && kv.num_reserved == 0) {
      return Message("layer ", i, ": page below the window kept");
    }
    const int64_t layer_bytes = 2 * (layer.committed_end - layer.committed_begin);
    if (layer.shared_bytes > layer_bytes) return Message("layer ", i, ": shares more than it holds");
    committed += layer_bytes;
    shared += layer.shared_bytes;
  }
  if (committed != kv.current_bytes) return Message("counted ", kv.current_bytes, " bytes, found ", committed);
  if (shared != kv.shared_bytes) return Message("counted ", kv.shared_bytes, " shared bytes, found ", shared);
  if (kv.charged_bytes != committed - shared) {
    return Message("charged ", kv.charged_bytes, " bytes for ", committed - shared);
  }
  return "";
}

}  // namespace dgrt
