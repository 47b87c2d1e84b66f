// One sequence's use of the graphs: bindings straight into the KV memory, so that nothing is copied between passes.
// Created by ort_engine.cc. One thread at a time; several executors may run at once on the same sessions.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <onnxruntime_cxx_api.h>

#include "common/home_process.h"
#include "engine/engine.h"

namespace dgrt {

// The graphs of a package for one number of threads; each is opened by the first call.
struct OrtGraphs {
  std::function<Ort::Session&()> prefill, denoise, score, packed, check;
  std::function<Ort::Session&()> drafter;  // empty: the package has none
};

// What an executor borrows from its engine.
struct OrtEngineView {
  OrtGraphs all_threads, one_thread;
  const ModelFacts* model = nullptr;
  std::span<const float> no_evidence;  // [block_len, D] zeros; empty without a drafter
  HomeProcess home;  // of the sessions and their threads
};

// The names that the K and V of each layer have in the graphs.
struct LayerNames {
  LayerNames(const char* k_prefix, const char* v_prefix, size_t num_layers);
  std::vector<std::string> k, v;
};

class OrtExecutor : public Executor {
 public:
  explicit OrtExecutor(const OrtEngineView& engine);

  void UseThreads(PassThreads threads) override;
  void Prefill(std::span<const int32_t> tokens, int64_t kv_len, std::span<const KvLayerView> kv) override;
  void Score(std::span<const int32_t> tokens, int64_t kv_len, std::span<const KvLayerView> kv, float* hidden) override;
  void Denoise(std::span<const int32_t> canvas, int64_t kv_len, std::span<const KvLayerView> kv, const float* soft,
               float* hidden) override;
  void Packed(const PackedRows& rows, int64_t kv_len, std::span<const KvLayerView> kv,
              std::span<const KvLayerView> next_kv) override;
  void Check(const CheckRows& rows, int64_t kv_len, std::span<const KvLayerView> kv) override;
  void Draft(int32_t anchor, int64_t position, std::span<const KvLayerView> kv, const float* evidence, int64_t num_rows,
             float* hidden) override;

 private:
  // What the denoise binding points at. Only what changes is bound again: the past once per canvas, the soft embedding
  // when the caller swaps buffers between steps.
  struct Bound {
    int64_t kv_len = -1;
    const float* soft = nullptr;
    const float* hidden = nullptr;
    std::vector<KvLayerView> kv;
  };

  // A graph with the tensors bound to it.
  struct BoundGraph {
    explicit BoundGraph(Ort::Session& opened) : session(&opened), binding(opened) {}
    Ort::Session* session;
    Ort::IoBinding binding;
  };
  // Those of the graphs that were run with one number of threads.
  struct Lane {
    std::optional<BoundGraph> prefill, denoise, score, packed, check, drafter;
    Bound bound;
  };

  const OrtGraphs& graphs() const { return threads_ == PassThreads::kAll ? engine_.all_threads : engine_.one_thread; }
  Lane& lane() { return lanes_[static_cast<size_t>(threads_)]; }
  void OpenDenoise(Lane& lane);
  void CheckViews(int64_t kv_len, std::span<const KvLayerView> kv) const;
  void BindCausal(Ort::IoBinding& binding, std::span<const int32_t> tokens, int64_t kv_len,
                  std::span<const KvLayerView> kv);
  void BindPast(Ort::IoBinding& binding, const LayerNames& names, int64_t kv_len, std::span<const KvLayerView> kv);
  void BindPastOf(Ort::IoBinding& binding, const LayerNames& names, size_t layer, int64_t kv_len, const KvLayerView& rows);
  void BindNew(Ort::IoBinding& binding, int64_t num_tokens, int64_t kv_len, std::span<const KvLayerView> kv);
  void BindDenoise(Lane& lane, int64_t kv_len, std::span<const KvLayerView> kv, const float* soft, float* hidden);

  OrtEngineView engine_;
  PassThreads threads_ = PassThreads::kAll;
  std::array<Lane, 2> lanes_;  // by PassThreads
  Ort::MemoryInfo memory_;
  Ort::RunOptions run_options_;
  std::vector<int64_t> causal_ids_, causal_positions_;  // [S], as large as the largest causal pass so far
  std::vector<int64_t> packed_ids_, packed_positions_;    // [3L]
  std::vector<int64_t> check_ids_, check_positions_;      // [G L], [G L + S], as large as the largest so far
  std::vector<int64_t> canvas_ids_, canvas_positions_;    // [L], bound to the denoise graph
  int64_t anchor_id_ = 0;
  std::vector<int64_t> draft_positions_;                  // [block_len]
  const LayerNames past_, next_past_, new_;
};

}  // namespace dgrt
