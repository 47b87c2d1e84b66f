// Plain parameter structs of the kernels: every pointer with shape, dtype and direction; the formula first.
// Letters: L canvas, D hidden size, V vocabulary; S tokens of a pass, E experts, k experts per token, I inner width of an
// MLP, P past tokens, H query heads, G KV heads, W head width.
#pragma once

#include <cstdint>

#include "common/constraint.h"
#include "common/embedding_table.h"
#include "kernels/weights.h"

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
//   best_log_prob[l] = ln p[l, argmax[l]]
//   soft[l]   = embed_scale * sum_v p[l, v] table[v]
// A pinned position has argmax = sampled = pinned, entropy 0, log_probs 0, soft = embed_scale * table[pinned].
// Where the table says `bf16_products`, hidden is rounded to bf16 first, and so are the weights p in the sum of soft (relative to
// the largest of the ids so far); sums are fp32.
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
  float* best_log_prob = nullptr;    // out [L] nats, or null: not wanted
  void* workspace = nullptr;         // scratch, VocabularyHeadWorkspaceBytes(...) bytes, 64-byte aligned
};

inline constexpr int64_t kVocabTile = 512;

// Weight matrices of the layers lie as weights.h says. No result depends on the number of threads or on which other tokens
// are in the pass. Before each product the tokens are rounded, unless the weights are fp32:
// - of kBFloat16 to bf16; sums are fp32;
// - of kInt8 and kInt4 a row x [K] to int8, and sums are exact:
//     scale = max_i |x[i]| / 127;  q[i] = x[i] / scale to the nearest integer, ties to even, within -127 to 127
//     product with row n of the weight = (float(sum_i q[i] weight_q[n, i]) * scale) * weight_scale[n]
//   every operation rounded to fp32, K <= kMaxInt8Width. Where scale is 0 so is q; of a row with a NaN or an infinity
//   everything is NaN. Every instruction set has the same bits.

// norm(x, w) = x / sqrt(mean_i x[i]^2 + eps) * w in fp32, without a w the first factor alone: RMSNorm (arXiv 1910.07467).

// y[s, n] = sum_i x[s, i] weight[n, i], with a norm y[s] = residual[s] + norm(that)
struct LinearParams {
  const float* x = nullptr;        // in  [S, inputs]
  WeightMatrix weight;             // in  [outputs, inputs]
  WeightFormat format = WeightFormat::kFloat32;
  int64_t num_tokens = 0;          // S
  int64_t num_inputs = 0, num_outputs = 0;
  float* y = nullptr;              // out [S, outputs]
  void* workspace = nullptr;       // scratch, LinearWorkspaceBytes(...) bytes, 64-byte aligned
  const float* norm = nullptr;      // in  [outputs], or null
  const float* residual = nullptr;  // in  [S, outputs], with a norm
  float eps = 0;                    // of the norm
};

// What attention reads: of n = norm(x[s], input_norm)
//   q[s, h] = rotate(norm(q_proj n, q_norm))   k[s, g] = rotate(norm(k_proj n, k_norm))   v[s, g] = norm(v_proj n)
// norms over the W of a head; rotate turns the pairs (i, i + W / 2) by angles of cosine cos[s, i] and sine sin[s, i]. Without a
// v_proj it is k_proj.
struct QkvParams {
  const float* x = nullptr;           // in  [S, D]
  const float* input_norm = nullptr;  // in  [D]
  WeightMatrix q_proj;                // in  [H * W, D]
  WeightMatrix k_proj;                // in  [G * W, D]
  WeightMatrix v_proj;                // in  [G * W, D], or null values
  WeightFormat format = WeightFormat::kFloat32;  // of all three
  const float* q_norm = nullptr;      // in  [W]
  const float* k_norm = nullptr;      // in  [W]
  const float* cos = nullptr;         // in  [S, W / 2]
  const float* sin = nullptr;         // in  [S, W / 2]
  float eps = 0;
  int64_t num_tokens = 0, hidden_size = 0;                // S, D
  int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0;  // H, G, W (even)
  float* q = nullptr;                 // out [S, H * W]
  float* k = nullptr;                 // out [S, G * W]
  float* v = nullptr;                 // out [S, G * W]
  void* workspace = nullptr;          // scratch, QkvWorkspaceBytes(...) bytes, 64-byte aligned
};

// y[s] = down (gelu_tanh(gate x[s]) * up x[s])
struct GatedMlpParams {
  const float* x = nullptr;        // in  [S, D]
  WeightMatrix gate;               // in  [I, D]
  WeightMatrix up;                 // in  [I, D]
  WeightMatrix down;               // in  [D, I]
  WeightFormat format = WeightFormat::kFloat32;  // of all three
  int64_t num_tokens = 0;          // S
  int64_t hidden_size = 0;         // D
  int64_t inner_size = 0;          // I
  float* y = nullptr;              // out [S, D], may be x
  void* workspace = nullptr;       // scratch, GatedMlpWorkspaceBytes(...) bytes, 64-byte aligned
};

// y[s] = sum_j weight[s, j] mlp(index[s, j], x[s]), added in the order of the experts; mlp(e, x) as in GatedMlpParams with the halves of
// gate_up[e] as gate and up. Exactly the chosen (token, expert) pairs are computed.
struct ExpertsParams {
  const float* x = nullptr;        // in  [S, D]
  const int64_t* index = nullptr;  // in  [S, k], in [0, E)
  const float* weight = nullptr;   // in  [S, k]
  WeightMatrix gate_up;            // in  [E, 2 I, D]: the gate rows of an expert, then its up rows
  WeightMatrix down;               // in  [E, D, I]
  WeightFormat format = WeightFormat::kFloat32;  // of both
  int64_t num_tokens = 0;          // S
  int64_t num_experts = 0;         // E
  int64_t top_k = 0;               // k
  int64_t hidden_size = 0;         // D
  int64_t inner_size = 0;          // I
  float* y = nullptr;              // out [S, D], may be x
  void* workspace = nullptr;       // scratch, ExpertsWorkspaceBytes(...) bytes, 64-byte aligned
};

// The half of a layer behind attention: dense MLP and experts side by side, router to combine.
//   scores = router (norm(x[s]) * router_scale / sqrt(D))          fp32
//   index = the k largest, ties to the smallest expert, unless they are given
//   weight = softmax over the scores of these * per_expert_scale[index]
//   both  = norm(mlp(norm(x[s], dense_norm_in)), dense_norm_out) + norm(experts(norm(x[s], experts_norm_in)), experts_norm_out)
//   y[s]  = x[s] + norm(both, norm_out)
struct FeedForwardParams {
  const float* x = nullptr;                  // in  [S, D]
  const float* dense_norm_in = nullptr;      // in  [D], as are the next four
  const float* dense_norm_out = nullptr;
  const float* experts_norm_in = nullptr;
  const float* experts_norm_out = nullptr;
  const float* norm_out = nullptr;
  const float* router_scale = nullptr;       // in  [D]
  const float* router = nullptr;             // in  [E, D]
  const float* per_expert_scale = nullptr;   // in  [E]
  const int64_t* index = nullptr;            // in  [S, k], in [0, E), or null
  WeightMatrix gate, up, down;               // in  [I, D], [I, D], [D, I] of the dense MLP
  WeightMatrix expert_gate_up, expert_down;  // in  [E, 2 J, D], [E, D, J]
  WeightFormat format = WeightFormat::kFloat32;  // of the dense MLP
  float eps = 0;
  int64_t num_tokens = 0, hidden_size = 0;   // S, D
  int64_t inner_size = 0;                    // I
  int64_t num_experts = 0, top_k = 0, expert_inner_size = 0;  // E, k, J
  float* y = nullptr;                        // out [S, D]
  void* workspace = nullptr;                 // scratch, FeedForwardWorkspaceBytes(...) bytes, 64-byte aligned
  WeightFormat expert_format = WeightFormat::kFloat32;  // of the experts
};

// y[s, h] = softmax over visible t of (q[s, h] . k[t, g]) times v[t, g], g = h / (H / G); no scale. Keys are the past and
// then the S new tokens, read where they lie. A canvas sees all of them; a causal query s sees t <= P + s, with a window
// only t > P + s - window.
struct AttentionParams {
  const float* q = nullptr;        // in  [S, H * W]
  const float* k = nullptr;        // in  [S, G * W]
  const float* v = nullptr;        // in  [S, G * W]
  const float* past_k = nullptr;   // in  [P, G * W]
  const float* past_v = nullptr;   // in  [P, G * W]
  int64_t num_tokens = 0;          // S
  int64_t past_len = 0;            // P
  int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0;  // H, G, W
  bool is_causal = false;
  int64_t window = 0;              // of a causal query, itself included; 0: none
  bool bf16_products = false;      // rounds q, k, v and the softmax's weights (relative to the largest key so far) to bf16
  float* y = nullptr;              // out [S, H * W]
  void* workspace = nullptr;       // scratch, AttentionWorkspaceBytes(...) bytes, 64-byte aligned
};

}  // namespace dgrt
