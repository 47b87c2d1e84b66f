// Implementation of ort_executor.h. The past of a layer is bound as a view [1, kv_len - first, width] of its KV rows, the
// new rows of a prefill are bound right behind it: ONNX Runtime writes them in place, input and output overlap nowhere.
#include "engine/ort_executor.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "engine/contract.h"
#include "engine/ort_error.h"

namespace dgrt {
namespace {

// A tensor over memory of ours. ONNX Runtime takes mutable pointers also for inputs, which it only reads.
template <typename T, size_t kRank>
Ort::Value TensorView(const Ort::MemoryInfo& memory, const T* start, const std::array<int64_t, kRank>& shape) {
  static T nothing{};  // ONNX Runtime refuses a null pointer even for a tensor without elements
  const int64_t count = std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
  T* address = count > 0 ? const_cast<T*>(start) : &nothing;
  return Ort::Value::CreateTensor<T>(memory, address, static_cast<size_t>(count), shape.data(), shape.size());
}

bool SameRows(const KvLayerView& a, const KvLayerView& b) {
  return a.k == b.k && a.v == b.v && a.first == b.first && a.width == b.width;
}

// A pass in a child of fork() would wait for ever for threads that do not exist there.
void RequireHome(const HomeProcess& home) {
  if (!home.IsHere()) {
    throw InvalidArgument("the engine was opened before fork(): open it in the child process instead");
  }
}

}  // namespace

LayerNames::LayerNames(const char* k_prefix, const char* v_prefix, size_t num_layers) {
  for (size_t i = 0; i < num_layers; ++i) {
    k.push_back(k_prefix + std::to_string(i));
    v.push_back(v_prefix + std::to_string(i));
  }
}

OrtExecutor::OrtExecutor(const OrtGraphs& graphs)
    : graphs_(graphs),
      memory_(Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault)),
      prefill_binding_(*graphs.prefill),
      denoise_binding_(*graphs.denoise),
      canvas_ids_(static_cast<size_t>(graphs.model->canvas_len)),
      canvas_positions_(static_cast<size_t>(graphs.model->canvas_len)),
      past_(contract::kPastK, contract::kPastV, graphs.model->layers.size()),
      next_past_(contract::kNextPastK, contract::kNextPastV, graphs.model->layers.size()),
      new_(contract::kNewK, contract::kNewV, graphs.model->layers.size()) {
  const std::array<int64_t, 2> row_shape = {1, graphs.model->canvas_len};
  denoise_binding_.BindInput(contract::kCanvas, TensorView<int64_t>(memory_, canvas_ids_.data(), row_shape));
  denoise_binding_.BindInput(contract::kPositions, TensorView<int64_t>(memory_, canvas_positions_.data(), row_shape));
}

void OrtExecutor::CheckViews(int64_t kv_len, std::span<const KvLayerView> kv) const {
  DGRT_CHECK(kv.size() == graphs_.model->layers.size());
  for (size_t i = 0; i < kv.size(); ++i) {
    DGRT_CHECK(kv[i].width == graphs_.model->layers[i].kv_width());
    DGRT_CHECK(kv[i].first >= 0 && kv[i].first <= kv_len);
  }
}

void OrtExecutor::BindPast(Ort::IoBinding& binding, const LayerNames& names, int64_t kv_len,
                           std::span<const KvLayerView> kv) {
  for (size_t i = 0; i < kv.size(); ++i) {
    const int64_t first = std::min(kv[i].first, kv_len);
    const std::array<int64_t, 3> shape = {1, kv_len - first, kv[i].width};
    const int64_t start = first * kv[i].width;
    binding.BindInput(names.k[i].c_str(), TensorView<float>(memory_, kv[i].k + start, shape));
    binding.BindInput(names.v[i].c_str(), TensorView<float>(memory_, kv[i].v + start, shape));
  }
}

void OrtExecutor::BindNew(Ort::IoBinding& binding, int64_t num_tokens, int64_t kv_len,
                          std::span<const KvLayerView> kv) {
  for (size_t i = 0; i < kv.size(); ++i) {
    const std::array<int64_t, 3> shape = {1, num_tokens, kv[i].width};
    const int64_t start = kv_len * kv[i].width;
    binding.BindOutput(new_.k[i].c_str(), TensorView<float>(memory_, kv[i].k + start, shape));
    binding.BindOutput(new_.v[i].c_str(), TensorView<float>(memory_, kv[i].v + start, shape));
  }
}

// Everything that the two causal graphs have in common: tokens, positions, past and new rows.
void OrtExecutor::BindCausal(Ort::IoBinding& binding, std::span<const int32_t> tokens, int64_t kv_len,
                             std::span<const KvLayerView> kv) {
  causal_ids_.assign(tokens.begin(), tokens.end());
  causal_positions_.resize(tokens.size());
  std::iota(causal_positions_.begin(), causal_positions_.end(), kv_len);
  const auto num_tokens = static_cast<int64_t>(tokens.size());
  const std::array<int64_t, 2> row_shape = {1, num_tokens};
  binding.BindInput(contract::kTokens, TensorView<int64_t>(memory_, causal_ids_.data(), row_shape));
  binding.BindInput(contract::kPositions, TensorView<int64_t>(memory_, causal_positions_.data(), row_shape));
  BindPast(binding, past_, kv_len, kv);
  BindNew(binding, num_tokens, kv_len, kv);
}

void OrtExecutor::Prefill(std::span<const int32_t> tokens, int64_t kv_len, std::span<const KvLayerView> kv) {
  RequireHome(graphs_.home);
  CheckViews(kv_len, kv);
  DGRT_CHECK(!tokens.empty());
  TranslateOrtErrors<DeviceError>("prefill pass", [&] {
    BindCausal(prefill_binding_, tokens, kv_len, kv);
    graphs_.prefill->Run(run_options_, prefill_binding_);
  });
}

void OrtExecutor::Score(std::span<const int32_t> tokens, int64_t kv_len, std::span<const KvLayerView> kv,
                        float* hidden) {
  RequireHome(graphs_.home);
  CheckViews(kv_len, kv);
  DGRT_CHECK(!tokens.empty());
  Ort::Session& score = graphs_.score();
  TranslateOrtErrors<DeviceError>("causal pass", [&] {
    if (!score_binding_) score_binding_.emplace(score);
    BindCausal(*score_binding_, tokens, kv_len, kv);
    const std::array<int64_t, 3> shape = {1, static_cast<int64_t>(tokens.size()), graphs_.model->hidden_size};
    score_binding_->BindOutput(contract::kHidden, TensorView<float>(memory_, hidden, shape));
    score.Run(run_options_, *score_binding_);
  });
}

void OrtExecutor::BindDenoise(int64_t kv_len, std::span<const KvLayerView> kv, const float* soft, float* hidden) {
  const std::array<int64_t, 3> hidden_shape = {1, graphs_.model->canvas_len, graphs_.model->hidden_size};
  if (bound_.soft != soft) {
    denoise_binding_.BindInput(contract::kSoft, TensorView<float>(memory_, soft, hidden_shape));
    bound_.soft = soft;
  }
  if (bound_.hidden != hidden) {
    denoise_binding_.BindOutput(contract::kHidden, TensorView<float>(memory_, hidden, hidden_shape));
    bound_.hidden = hidden;
  }
  if (bound_.kv_len != kv_len || !std::equal(kv.begin(), kv.end(), bound_.kv.begin(), bound_.kv.end(), SameRows)) {
    bound_.kv_len = -1;  // until all of it is bound
    std::iota(canvas_positions_.begin(), canvas_positions_.end(), kv_len);
    BindPast(denoise_binding_, past_, kv_len, kv);
    bound_.kv.assign(kv.begin(), kv.end());
    bound_.kv_len = kv_len;
  }
}

void OrtExecutor::Denoise(std::span<const int32_t> canvas, int64_t kv_len, std::span<const KvLayerView> kv,
                          const float* soft, float* hidden) {
  RequireHome(graphs_.home);
  CheckViews(kv_len, kv);
  DGRT_CHECK(canvas.size() == canvas_ids_.size());
  std::copy(canvas.begin(), canvas.end(), canvas_ids_.begin());
  TranslateOrtErrors<DeviceError>("denoise pass", [&] {
    BindDenoise(kv_len, kv, soft, hidden);
    graphs_.denoise->Run(run_options_, denoise_binding_);
  });
}

void OrtExecutor::Packed(const PackedRows& rows, int64_t kv_len, std::span<const KvLayerView> kv,
                         std::span<const KvLayerView> next_kv) {
  RequireHome(graphs_.home);
  const int64_t len = graphs_.model->canvas_len;
  CheckViews(kv_len, kv);
  CheckViews(kv_len + len, next_kv);
  packed_ids_.clear();
  packed_positions_.resize(static_cast<size_t>(3 * len));
  auto position = packed_positions_.begin();
  for (const auto& [group, start] : {std::pair(rows.canvas, kv_len), {rows.next, kv_len + len}, {rows.candidate, kv_len}}) {
    DGRT_CHECK(static_cast<int64_t>(group.size()) == len);
    packed_ids_.insert(packed_ids_.end(), group.begin(), group.end());
    std::iota(position, position + len, start);
    position += len;
  }
  Ort::Session& packed = graphs_.packed();
  TranslateOrtErrors<DeviceError>("packed pass", [&] {
    if (!packed_binding_) packed_binding_.emplace(packed);
    Ort::IoBinding& binding = *packed_binding_;
    const std::array<int64_t, 2> row_shape = {1, 3 * len};
    const std::array<int64_t, 3> float_shape = {1, len, graphs_.model->hidden_size};
    binding.BindInput(contract::kTokens, TensorView<int64_t>(memory_, packed_ids_.data(), row_shape));
    binding.BindInput(contract::kPositions, TensorView<int64_t>(memory_, packed_positions_.data(), row_shape));
    binding.BindInput(contract::kSoft, TensorView<float>(memory_, rows.soft, float_shape));
    binding.BindInput(contract::kNextSoft, TensorView<float>(memory_, rows.next_soft, float_shape));
    BindPast(binding, past_, kv_len, kv);
    BindPast(binding, next_past_, kv_len, next_kv);
    binding.BindOutput(contract::kHidden, TensorView<float>(memory_, rows.hidden, float_shape));
    binding.BindOutput(contract::kNextHidden, TensorView<float>(memory_, rows.next_hidden, float_shape));
    BindNew(binding, len, kv_len, kv);
    packed.Run(run_options_, binding);
  });
}

}  // namespace dgrt
