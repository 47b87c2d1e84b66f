// What an engine sees of one layer's KV memory. Filled by memory/kv_cache, read by engine/: neither includes the other.
#pragma once

#include <cstdint>

namespace dgrt {

// Token-major fp32 rows: token t of this layer lives at k + t * width (and v + t * width), t in [first, capacity).
struct KvLayerView {
  float* k = nullptr;      // address of token 0 (tokens below `first` may be released: never touch them)
  float* v = nullptr;
  int64_t first = 0;       // first token a query may see: 0 in full layers, max(0, kv_len - (W - 1)) in sliding ones
  int64_t width = 0;       // num_kv_heads * head_dim
};

}  // namespace dgrt
