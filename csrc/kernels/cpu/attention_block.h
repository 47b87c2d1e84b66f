// What both forms of attention share (attention.cc in fp32, attention_pairs.cc in bf16): which queries are worked on together,
// what they see, and the mask.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/cpu/row_products.h"
#include "kernels/cpu/scratch.h"
#include "kernels/params.h"

namespace dgrt {

class ThreadPool;  // common/thread_pool.h

// Keys of a step of the online softmax. Steps begin and end at multiples of it, whatever a block of queries sees of them and
// wherever the past ends: so a query's sums are the same whether a key is past or comes with this pass, and whatever queries
// are beside it.
inline constexpr int64_t kTileKeys = 64;

inline constexpr float kNoMax = -1e30f;  // below any score, yet a difference to it is a number

// Queries first .. first + count - 1 of one KV head. A query is (token, head of the group), the head fastest.
struct QueryBlock {
  int64_t kv_head = 0, first = 0, count = 0;
  int64_t num_panels() const { return CeilDiv(count, kTokenLanes); }
};

class AttentionView {
 public:
  explicit AttentionView(const AttentionParams& params)
      : p_(params), group_(params.num_heads / params.num_kv_heads), kv_width_(params.num_kv_heads * params.head_dim) {}

  int64_t num_queries() const { return p_.num_tokens * group_; }  // of a KV head

  // Query `index` of a block in a matrix [S, H * W].
  template <typename T>
  T* RowOf(const QueryBlock& block, int64_t index, T* matrix) const {
    const int64_t head = block.kv_head * group_ + (block.first + index) % group_;
    return matrix + (TokenOf(block, index) * p_.num_heads + head) * p_.head_dim;
  }

  // The row of a key of the block's KV head, in the past or among those of this pass.
  const float* KeyRow(const float* past, const float* now, const QueryBlock& block, int64_t key) const {
    const float* const row = key < p_.past_len ? past + key * kv_width_ : now + (key - p_.past_len) * kv_width_;
    return row + block.kv_head * p_.head_dim;
  }

  // Keys that any query of the block sees, from a border of tiles on.
  int64_t FirstKey(const QueryBlock& block) const {
    if (!p_.is_causal || p_.window == 0) return 0;
    return std::max<int64_t>(0, p_.past_len + TokenOf(block, 0) - p_.window + 1) / kTileKeys * kTileKeys;
  }
  int64_t EndKey(const QueryBlock& block) const {
    return p_.past_len + (p_.is_causal ? TokenOf(block, block.count - 1) + 1 : p_.num_tokens);
  }

  // Scores [panels][end - begin][16] of keys that a query does not see become -infinity.
  void Mask(const QueryBlock& block, int64_t begin, int64_t end, float* scores) const {
    if (!p_.is_causal) return;
    for (int64_t query = 0; query < block.num_panels() * kTokenLanes; ++query) {
      const int64_t last = p_.past_len + TokenOf(block, std::min(query, block.count - 1));
      const int64_t first = p_.window > 0 ? last - p_.window + 1 : 0;
      if (first <= begin && end - 1 <= last) continue;
      float* const column = scores + query / kTokenLanes * (end - begin) * kTokenLanes + query % kTokenLanes;
      for (int64_t key = begin; key < end; ++key) {
        if (key < first || key > last) column[(key - begin) * kTokenLanes] = -__builtin_inff();
      }
    }
  }

 private:
  int64_t TokenOf(const QueryBlock& block, int64_t index) const { return (block.first + index) / group_; }

  const AttentionParams& p_;
  const int64_t group_, kv_width_;
};

// attention_pairs.cc: with products of bf16, whose inner loops multiply pairs of it.
size_t PairAttentionBytes(int64_t head_dim);  // scratch of one thread
void LaunchPairAttention(const AttentionParams& params, ThreadPool& pool);

}  // namespace dgrt
