// Shapes: how wide a layer's KV rows are, how far back it sees, and where its rows lie in the blocks of a shared chunk.
// Pure functions, used by kv_cache and prefix_cache. (How many tokens a chunk has is the runtime's business.)
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

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

// A chunk's rows in two blocks, because they live differently long: those of all full layers in one, those of all
// sliding layers in the other. In a block, layer after layer, K before V.
struct KvChunkLayout {
  struct Place {
    int64_t offset = 0;  // of the layer's K in its block; V follows
    int64_t bytes = 0;   // of K, and of V
  };

  KvChunkLayout(std::span<const KvLayerShape> shapes, int64_t tokens) : chunk_tokens(tokens) {
    for (const KvLayerShape& shape : shapes) {
      int64_t& block_bytes = shape.sliding_window > 0 ? window_bytes : full_bytes;
      const Place place{block_bytes, tokens * shape.row_bytes()};
      places.push_back(place);
      block_bytes += 2 * place.bytes;
      window_tokens = std::max(window_tokens, shape.sliding_window - 1);
    }
  }

  // The first chunk whose rows a sliding layer still sees when `num_chunks` chunks are there.
  int64_t FirstWindowChunk(int64_t num_chunks) const {
    return std::max<int64_t>(0, num_chunks * chunk_tokens - window_tokens) / chunk_tokens;
  }

  int64_t chunk_tokens = 0;
  int64_t full_bytes = 0, window_bytes = 0;  // of a block
  int64_t window_tokens = 0;                 // W - 1 of the widest window; 0: no sliding layers
  std::vector<Place> places;                 // one per layer
};

}  // namespace dgrt
