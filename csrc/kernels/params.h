// Plain parameter structs of the kernels: every pointer with shape, dtype and direction; the formula first.
// Letters: L canvas, D hidden size, V vocabulary.
#pragma once

#include <cstdint>

#include "common/constraint.h"
#include "common/embedding_table.h"

namespace dgrt {

// The vocabulary head: everything between the final hidden states and the next soft embedding, without ever
// storing [L, V].
//   s[l, v]   = softcap * tanh(hidden[l] . table[v] / softcap) / temperature
//   p[l, v]   = exp(s[l, v]) / sum_v' exp(s[l, v'])             (over the allowed set where there is one)
//   argmax[l] = smallest v of the largest s[l, v]
//   entropy[l]= -sum_v p ln p                                    (nats)
//   sampled[l]= the token that uniform[l] selects: vocabulary tiles of kVocabTile ids; tile t is the first whose
//               running sum of weights exceeds uniform * total; inside it the first token whose running sum exceeds
//               what remains (the heaviest one there if rounding runs past the end). Sums are in
//               double over float weights relative to the row's maximum; where there is an allowed set, tiles are
//               counted along the set. How the additions are grouped (runs of ids inside a tile) moves a border between
//               two tokens by 1e-6 of the total at most
//   log_prob[l] = ln p[l, scored[l]]                             (scored[l] must be allowed)
//   soft[l]   = embed_scale * sum_v p[l, v] table[v]
// A pinned position has argmax = sampled = pinned, entropy 0, log_prob 0, soft = embed_scale * table[pinned].
// Results do not depend on the number of threads.
struct VocabularyHeadParams {
  const float* hidden = nullptr;     // in  [L, D]
  EmbeddingTable table;              // in  [V, D]
  int64_t canvas_len = 0;            // L
  float softcap = 0;                 // 0: none
  float temperature = 1;             // > 0
  float embed_scale = 1;             // sqrt(D)
  const double* uniform = nullptr;   // in  [L], in [0, 1)
  const PositionConstraint* constraints = nullptr;  // in [L], or null: all positions free
  int32_t* argmax = nullptr;         // out [L], or null: not wanted; so are the next two
  float* entropy = nullptr;          // out [L]
  int32_t* sampled = nullptr;        // out [L]
  float* soft = nullptr;             // out [L, D], or null: not wanted (last step of a canvas)
  const int32_t* scored = nullptr;   // in  [L] token ids, or null
  float* log_prob = nullptr;         // out [L] nats, written where `scored` is given
  void* workspace = nullptr;         // scratch, VocabularyHeadWorkspaceBytes(...) bytes, 64-byte aligned
};

inline constexpr int64_t kVocabTile = 512;

}  // namespace dgrt
