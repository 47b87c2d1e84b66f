// One sequence's use of the graphs: bindings straight into the KV memory, so that nothing is copied between passes.
// Created by ort_engine.cc. One thread at a time; several executors may run at once on the same sessions.
#pragma once

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

// What an executor borrows from its engine.
struct OrtGraphs {
  Ort::Session* prefill = nullptr;
  Ort::Session* denoise = nullptr;
  std::function<Ort::Session&()> score, packed;  // opened by the first call
  const ModelFacts* model = nullptr;
  HomeProcess home;  // of the sessions and their threads
};

// The names that the K and V of each layer have in the graphs.
struct LayerNames {
  LayerNames(const char* k_prefix, const char* v_prefix, size_t num_layers);
  std::vector<std::string> k, v;
};

class OrtExecutor : public Executor {
 public:
  explicit OrtExecutor(const OrtGraphs& graphs);

  void Prefill(std::span<const int32_t> tokens, int64_t kv_len, std::span<const KvLayerView> kv) override;
  void Score(std::span<const int32_t> tokens, int64_t kv_len, std::span<const KvLayerView> kv, float* hidden) override;
  void Denoise(std::span<const int32_t> canvas, int64_t kv_len, std::span<const KvLayerView> kv, const float* soft,
               float* hidden) override;
  void Packed(const PackedRows& rows, int64_t kv_len, std::span<const KvLayerView> kv,
              std::span<const KvLayerView> next_kv) override;

 private:
  // What the denoise binding points at. Only what changes is bound again: the past once per canvas, the soft embedding
  // when the caller swaps buffers between steps.
  struct Bound {
    int64_t kv_len = -1;
    const float* soft = nullptr;
    const float* hidden = nullptr;
    std::vector<KvLayerView> kv;
  };

  void CheckViews(int64_t kv_len, std::span<const KvLayerView> kv) const;
  void BindCausal(Ort::IoBinding& binding, std::span<const int32_t> tokens, int64_t kv_len,
                  std::span<const KvLayerView> kv);
  void BindPast(Ort::IoBinding& binding, const LayerNames& names, int64_t kv_len, std::span<const KvLayerView> kv);
  void BindNew(Ort::IoBinding& binding, int64_t num_tokens, int64_t kv_len, std::span<const KvLayerView> kv);
  void BindDenoise(int64_t kv_len, std::span<const KvLayerView> kv, const float* soft, float* hidden);

  OrtGraphs graphs_;
  Ort::MemoryInfo memory_;
  Ort::RunOptions run_options_;
  Ort::IoBinding prefill_binding_;
  Ort::IoBinding denoise_binding_;
  std::optional<Ort::IoBinding> score_binding_, packed_binding_;
  std::vector<int64_t> causal_ids_, causal_positions_;  // [S], as large as the largest causal pass so far
  std::vector<int64_t> packed_ids_, packed_positions_;  // [3L]
  std::vector<int64_t> canvas_ids_, canvas_positions_;    // [L], bound to the denoise graph
  Bound bound_;
  const LayerNames past_, next_past_, new_;
};

}  // namespace dgrt
