// The interface between the runtime and whatever executes the exported graphs. Implementations: ort_engine.cc
// (ONNX Runtime), fake_engine.cc (predictable tokens for tests). An engine knows nothing of canvases, sampling or
// sessions; it maps token ids and KV rows to new KV rows or hidden states.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/embedding_table.h"
#include "common/kv_view.h"

namespace dgrt {

enum class LayerType : int32_t { kSliding = 0, kFull = 1 };

struct LayerFacts {
  LayerType type = LayerType::kFull;
  int64_t head_dim = 0;
  int64_t num_kv_heads = 0;
  int64_t kv_width() const { return head_dim * num_kv_heads; }
};

// A block drafter that the package has: a small network that guesses the tokens behind a text in one pass. It has no
// memory of its own: its layers look into the KV rows of full layers of the model.
struct DrafterFacts {
  std::vector<int32_t> kv_layers;  // the layers it looks into, ascending
  int64_t block_len = 0;           // B: most tokens of a draft, at most L
  float mean_run = 4;              // tokens of a first draft before the first wrong one, on held-out texts
};

// Structural facts of the model, all from the manifest (which took them from config.json).
struct ModelFacts {
  int64_t vocab_size = 0;       // V
  int64_t hidden_size = 0;      // D
  int64_t canvas_len = 0;       // L
  int64_t context_len = 0;      // most positions (prompt + output), config's max_position_embeddings
  int64_t sliding_window = 0;   // W: a query sees the W - 1 previous tokens and itself
  int64_t num_heads = 0;
  int64_t num_experts = 0;
  int64_t top_k_experts = 0;
  float final_logit_softcap = 0;  // 0: none
  int32_t pad_token_id = 0;
  int32_t bos_token_id = -1;      // -1: none
  std::vector<LayerFacts> layers;
  std::optional<DrafterFacts> drafter;
};

// The rows of a packed pass: three groups of L, each as in the pass of its own that it stands for.
struct PackedRows {
  std::span<const int32_t> canvas;     // [L] Denoise at kv_len ...
  const float* soft = nullptr;         // [L, D]
  float* hidden = nullptr;             // [L, D]
  std::span<const int32_t> candidate;  // [L] Prefill at kv_len: writes KV rows [kv_len, kv_len + L)
  std::span<const int32_t> next;       // [L] Denoise at kv_len + L, behind the candidate's rows ...
  const float* next_soft = nullptr;    // [L, D]
  float* next_hidden = nullptr;        // [L, D]
};

// The rows of a checking pass: canvases that all stand at kv_len and do not see each other, then a draft there.
struct CheckRows {
  std::span<const int32_t> canvases;   // [G * L] each as in a Denoise ...
  const float* soft = nullptr;         // [L, D] ... with this for the first and zeros for the others ...
  float* canvas_hidden = nullptr;      // [G, L, D]
  std::span<const int32_t> draft;      // [S] Score at kv_len: writes KV rows [kv_len, kv_len + S) ...
  float* draft_hidden = nullptr;       // [S, D]
};

// How many threads a pass has: all of the engine's, or only the caller's own, so that others can run passes beside it.
enum class PassThreads : int32_t { kAll = 0, kOne = 1 };

// One sequence's use of an engine: holds the bindings that survive from step to step. One thread at a time; the
// executors of several sequences may run at once.
class Executor {
 public:
  virtual ~Executor() = default;

  // For the passes that follow; kAll at first. Changes no bit of them. May open graphs, once per engine.
  virtual void UseThreads(PassThreads threads) = 0;

  // Causal pass over tokens at positions kv_len .. kv_len + S - 1. Reads KV rows [first, kv_len) of each layer and
  // writes rows [kv_len, kv_len + S). Used for the prompt and for each committed canvas.
  virtual void Prefill(std::span<const int32_t> tokens, int64_t kv_len, std::span<const KvLayerView> kv) = 0;

  // As Prefill, and the hidden states of the new rows, [S, D] after the final norm: row i holds the model's causal
  // prediction of the token behind tokens[i].
  virtual void Score(std::span<const int32_t> tokens, int64_t kv_len, std::span<const KvLayerView> kv,
                     float* hidden) = 0;

  // One decoder forward: canvas [L] at positions kv_len .. kv_len + L - 1, soft [L, D] (self-conditioning embedding,
  // already scaled by sqrt(D); zeros on the first step of a canvas) -> hidden [L, D], after the final norm.
  // Reads KV rows [first, kv_len), writes none.
  virtual void Denoise(std::span<const int32_t> canvas, int64_t kv_len, std::span<const KvLayerView> kv,
                       const float* soft, float* hidden) = 0;

  // Three passes in one, with bit-identical results. Only where Engine::can_pack(). `next_kv`: the same memory as a query at kv_len + L sees it.
  virtual void Packed(const PackedRows& rows, int64_t kv_len, std::span<const KvLayerView> kv,
                      std::span<const KvLayerView> next_kv) = 0;

  // G + 1 passes in one, with bit-identical results. Only where Engine::can_pack().
  virtual void Check(const CheckRows& rows, int64_t kv_len, std::span<const KvLayerView> kv) = 0;

  // One pass of the drafter: the text's last token `anchor`, at `position`, and num_rows unknown tokens behind it -> hidden
  // [num_rows, D] after the drafter's final norm, a row for each unknown token. Reads KV rows [0, position) of the
  // drafter's layers, never the anchor's. evidence [num_rows, D]: hidden states of a denoise pass over these positions;
  // null: there was none. Only with ModelFacts::drafter.
  virtual void Draft(int32_t anchor, int64_t position, std::span<const KvLayerView> kv, const float* evidence,
                     int64_t num_rows, float* hidden) = 0;
};

// A loaded model. Any thread may call its methods.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual const ModelFacts& model() const = 0;
  virtual EmbeddingTable embedding() const = 0;      // valid as long as the engine
  virtual std::unique_ptr<Executor> CreateExecutor() = 0;  // must not outlive the engine
  // Whether a packed or checking pass has the bits of the passes that it stands for.
  virtual bool can_pack() const = 0;
  // Whether the cost of a pass is its rows (a CPU) rather than the weights it reads (a large GPU with few rows).
  virtual bool is_row_bound() const = 0;
  virtual std::string description() const = 0;       // e.g. "ONNX Runtime 1.32.0, CPU, portable fp32"
};

}  // namespace dgrt
