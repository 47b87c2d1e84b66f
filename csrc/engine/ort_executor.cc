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

}  // namespace

LayerNames::LayerNames(const char* k_prefix, const char* v_prefix, size_t num_layers) {
  for (size_t i = 0; i < num_layers; ++i) {
    k.push_back(k_prefix + std::to_string(i));
    v.push_back(v_prefix + std::to_string(i));
  }
}

OrtExecutor::OrtExecutor(const OrtEngineView& engine)
    : engine_(engine),
      memory_(Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault)),
      canvas_ids_(static_cast<size_t>(engine.model->canvas_len)),
      canvas_positions_(static_cast<size_t>(engine.model->canvas_len)),
      draft_positions_(engine.model->drafter ? static_cast<size_t>(engine.model->drafter->block_len) : 0),
      past_(contract::kPastK, contract::kPastV, engine.model->layers.size()),
      next_past_(contract::kNextPastK, contract::kNextPastV, engine.model->layers.size()),
      new_(contract::kNewK, contract::kNewV, engine.model->layers.size()) {
  lane().prefill.emplace(graphs().prefill());
  OpenDenoise(lane());
}

// Token ids and positions keep their place from step to step.
void OrtExecutor::OpenDenoise(Lane& lane) {
  lane.denoise.emplace(graphs().denoise());
  const std::array<int64_t, 2> row_shape = {1, engine_.model->canvas_len};
  Ort::IoBinding& binding = lane.denoise->binding;
  binding.BindInput(contract::kCanvas, TensorView<int64_t>(memory_, canvas_ids_.data(), row_shape));
  binding.BindInput(contract::kPositions, TensorView<int64_t>(memory_, canvas_positions_.data(), row_shape));
}

void OrtExecutor::UseThreads(PassThreads threads) { threads_ = threads; }

void OrtExecutor::CheckViews(int64_t kv_len, std::span<const KvLayerView> kv) const {
  DGRT_CHECK(kv.size() == engine_.model->layers.size());
  for (size_t i = 0; i < kv.size(); ++i) {
    DGRT_CHECK(kv[i].width == engine_.model->layers[i].kv_width());
    DGRT_CHECK(kv[i].first >= 0 && kv[i].first <= kv_len);
  }
}

void OrtExecutor::BindPastOf(Ort::IoBinding& binding, const LayerNames& names, size_t layer, int64_t kv_len,
                             const KvLayerView& rows) {
  const int64_t first = std::min(rows.first, kv_len);
  const std::array<int64_t, 3> shape = {1, kv_len - first, rows.width};
  const int64_t start = first * rows.width;
  binding.BindInput(names.k[layer].c_str(), TensorView<float>(memory_, rows.k + start, shape));
  binding.BindInput(names.v[layer].c_str(), TensorView<float>(memory_, rows.v + start, shape));
}

void OrtExecutor::BindPast(Ort::IoBinding& binding, const LayerNames& names, int64_t kv_len,
                           std::span<const KvLayerView> kv) {
  for (size_t i = 0; i < kv.size(); ++i) BindPastOf(binding, names, i, kv_len, kv[i]);
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
  engine_.home.Require("engine");
  CheckViews(kv_len, kv);
  DGRT_CHECK(!tokens.empty());
  TranslateOrtErrors<DeviceError>("prefill pass", [&] {
    if (!lane().prefill) lane().prefill.emplace(graphs().prefill());
    BoundGraph& prefill = *lane().prefill;
    BindCausal(prefill.binding, tokens, kv_len, kv);
    prefill.session->Run(run_options_, prefill.binding);
  });
}

void OrtExecutor::Score(std::span<const int32_t> tokens, int64_t kv_len, std::span<const KvLayerView> kv,
                        float* hidden) {
  engine_.home.Require("engine");
  CheckViews(kv_len, kv);
  DGRT_CHECK(!tokens.empty());
  TranslateOrtErrors<DeviceError>("causal pass", [&] {
    if (!lane().score) lane().score.emplace(graphs().score());
    BoundGraph& score = *lane().score;
    BindCausal(score.binding, tokens, kv_len, kv);
    const std::array<int64_t, 3> shape = {1, static_cast<int64_t>(tokens.size()), engine_.model->hidden_size};
    score.binding.BindOutput(contract::kHidden, TensorView<float>(memory_, hidden, shape));
    score.session->Run(run_options_, score.binding);
  });
}

void OrtExecutor::BindDenoise(Lane& lane, int64_t kv_len, std::span<const KvLayerView> kv, const float* soft,
                              float* hidden) {
  Ort::IoBinding& binding = lane.denoise->binding;
  Bound& bound = lane.bound;
  const std::array<int64_t, 3> hidden_shape = {1, engine_.model->canvas_len, engine_.model->hidden_size};
  if (bound.soft != soft) {
    binding.BindInput(contract::kSoft, TensorView<float>(memory_, soft, hidden_shape));
    bound.soft = soft;
  }
  if (bound.hidden != hidden) {
    binding.BindOutput(contract::kHidden, TensorView<float>(memory_, hidden, hidden_shape));
    bound.hidden = hidden;
  }
  if (bound.kv_len != kv_len || !std::equal(kv.begin(), kv.end(), bound.kv.begin(), bound.kv.end(), SameRows)) {
    bound.kv_len = -1;  // until all of it is bound
    BindPast(binding, past_, kv_len, kv);
    bound.kv.assign(kv.begin(), kv.end());
    bound.kv_len = kv_len;
  }
}

void OrtExecutor::Denoise(std::span<const int32_t> canvas, int64_t kv_len, std::span<const KvLayerView> kv,
                          const float* soft, float* hidden) {
  engine_.home.Require("engine");
  CheckViews(kv_len, kv);
  DGRT_CHECK(canvas.size() == canvas_ids_.size());
  std::copy(canvas.begin(), canvas.end(), canvas_ids_.begin());
  std::iota(canvas_positions_.begin(), canvas_positions_.end(), kv_len);
  TranslateOrtErrors<DeviceError>("denoise pass", [&] {
    if (!lane().denoise) OpenDenoise(lane());
    BindDenoise(lane(), kv_len, kv, soft, hidden);
    lane().denoise->session->Run(run_options_, lane().denoise->binding);
  });
}

void OrtExecutor::Packed(const PackedRows& rows, int64_t kv_len, std::span<const KvLayerView> kv,
                         std::span<const KvLayerView> next_kv) {
  engine_.home.Require("engine");
  const int64_t len = engine_.model->canvas_len;
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
  TranslateOrtErrors<DeviceError>("packed pass", [&] {
    if (!lane().packed) lane().packed.emplace(graphs().packed());
    Ort::IoBinding& binding = lane().packed->binding;
    const std::array<int64_t, 2> row_shape = {1, 3 * len};
    const std::array<int64_t, 3> float_shape = {1, len, engine_.model->hidden_size};
    binding.BindInput(contract::kTokens, TensorView<int64_t>(memory_, packed_ids_.data(), row_shape));
    binding.BindInput(contract::kPositions, TensorView<int64_t>(memory_, packed_positions_.data(), row_shape));
    binding.BindInput(contract::kSoft, TensorView<float>(memory_, rows.soft, float_shape));
    binding.BindInput(contract::kNextSoft, TensorView<float>(memory_, rows.next_soft, float_shape));
    BindPast(binding, past_, kv_len, kv);
    BindPast(binding, next_past_, kv_len, next_kv);
    binding.BindOutput(contract::kHidden, TensorView<float>(memory_, rows.hidden, float_shape));
    binding.BindOutput(contract::kNextHidden, TensorView<float>(memory_, rows.next_hidden, float_shape));
    BindNew(binding, len, kv_len, kv);
    lane().packed->session->Run(run_options_, binding);
  });
}

void OrtExecutor::Check(const CheckRows& rows, int64_t kv_len, std::span<const KvLayerView> kv) {
  engine_.home.Require("engine");
  CheckViews(kv_len, kv);
  const int64_t len = engine_.model->canvas_len, width = engine_.model->hidden_size;
  const auto num_canvas_rows = static_cast<int64_t>(rows.canvases.size());
  const auto num_drafted = static_cast<int64_t>(rows.draft.size());
  DGRT_CHECK(num_canvas_rows > 0 && num_canvas_rows % len == 0 && num_drafted > 0);
  check_ids_.assign(rows.canvases.begin(), rows.canvases.end());
  causal_ids_.assign(rows.draft.begin(), rows.draft.end());
  check_positions_.resize(rows.canvases.size() + rows.draft.size());
  for (int64_t row = 0; row < num_canvas_rows + num_drafted; ++row) {
    const int64_t place = row < num_canvas_rows ? row % len : row - num_canvas_rows;
    check_positions_[static_cast<size_t>(row)] = kv_len + place;
  }
  TranslateOrtErrors<DeviceError>("checking pass", [&] {
    if (!lane().check) lane().check.emplace(graphs().check());
    Ort::IoBinding& binding = lane().check->binding;
    const int64_t num_canvases = num_canvas_rows / len;
    const auto bind_ids = [&](const char* name, const std::vector<int64_t>& ids, int64_t first_axis) {
      const std::array<int64_t, 2> shape = {first_axis, static_cast<int64_t>(ids.size()) / first_axis};
      binding.BindInput(name, TensorView<int64_t>(memory_, ids.data(), shape));
    };
    const auto bind_hidden = [&](const char* name, float* hidden, const std::array<int64_t, 3>& shape) {
      binding.BindOutput(name, TensorView<float>(memory_, hidden, shape));
    };
    bind_ids(contract::kCanvases, check_ids_, num_canvases);
    bind_ids(contract::kTokens, causal_ids_, 1);
    bind_ids(contract::kPositions, check_positions_, 1);
    const std::array<int64_t, 3> soft_shape = {1, len, width};
    binding.BindInput(contract::kSoft, TensorView<float>(memory_, rows.soft, soft_shape));
    BindPast(binding, past_, kv_len, kv);
    bind_hidden(contract::kCanvasHidden, rows.canvas_hidden, {num_canvases, len, width});
    bind_hidden(contract::kHidden, rows.draft_hidden, {1, num_drafted, width});
    BindNew(binding, num_drafted, kv_len, kv);
    lane().check->session->Run(run_options_, binding);
  });
}

void OrtExecutor::Draft(int32_t anchor, int64_t position, std::span<const KvLayerView> kv, const float* evidence,
                        int64_t num_rows, float* hidden) {
  engine_.home.Require("engine");
  DGRT_CHECK(engine_.model->drafter && num_rows >= 1 && num_rows <= engine_.model->drafter->block_len && position >= 0);
  anchor_id_ = anchor;
  std::iota(draft_positions_.begin(), draft_positions_.end(), position + 1);
  TranslateOrtErrors<DeviceError>("drafter pass", [&] {
    if (!lane().drafter) lane().drafter.emplace(graphs().drafter());
    Ort::IoBinding& binding = lane().drafter->binding;
    const std::array<int64_t, 2> one = {1, 1}, row_shape = {1, num_rows};
    const std::array<int64_t, 3> float_shape = {1, num_rows, engine_.model->hidden_size};
    const float* const seen = evidence != nullptr ? evidence : engine_.no_evidence.data();
    binding.BindInput(contract::kTokens, TensorView<int64_t>(memory_, &anchor_id_, one));
    binding.BindInput(contract::kPositions, TensorView<int64_t>(memory_, draft_positions_.data(), row_shape));
    binding.BindInput(contract::kEvidence, TensorView<float>(memory_, seen, float_shape));
    for (const int32_t index : engine_.model->drafter->kv_layers) {
      const auto layer = static_cast<size_t>(index);
      DGRT_CHECK(kv[layer].first == 0 && kv[layer].width == engine_.model->layers[layer].kv_width());
      BindPastOf(binding, past_, layer, position, kv[layer]);
    }
    binding.BindOutput(contract::kHidden, TensorView<float>(memory_, hidden, float_shape));
    lane().drafter->session->Run(run_options_, binding);
  });
}

}  // namespace dgrt
