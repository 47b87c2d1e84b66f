// The operators with weights: each reads shapes from its inputs, checks that they fit together, and launches.
#pragma once

#include "engine/ort_operator.h"
#include "kernels/kernels.h"

namespace dgrt {

constexpr auto kScale = ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;

constexpr ONNXTensorElementDataType TypeOf(WeightFormat format) {
  switch (format) {
    case WeightFormat::kFloat32: return kFloat;
    case WeightFormat::kBFloat16: return ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;
    case WeightFormat::kInt8: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;
    case WeightFormat::kInt4: return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  }
  return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

// Elements of a stored row of `width` values.
constexpr int64_t Stored(WeightFormat format, int64_t width) {
  return format == WeightFormat::kInt4 ? WeightRowBytes(format, width) : width;
}

// Rows x, which are input 0, and a weight of so many outputs (-1: any), behind which its scale is.
template <WeightFormat kFormat>
LinearParams LinearOf(const Call& call, const Shape& x, size_t weight, int64_t num_outputs) {
  LinearParams p;
  p.num_outputs = call.Require(weight, {num_outputs, Stored(kFormat, x[1])})[0];
  p.x = call.Data<float>(0);
  p.weight = call.Weight(weight, weight + 1, kFormat, x[1]);
  p.format = kFormat;
  p.num_tokens = x[0];
  p.num_inputs = x[1];
  return p;
}

template <WeightFormat kFormat>
struct Linear : WithoutAttributes {
  static constexpr const char* kName = "Linear";
  static constexpr std::array kInputs = {kFloat, TypeOf(kFormat), kScale};
  static constexpr size_t kNumOptional = 1;
  using WithoutAttributes::WithoutAttributes;

  void Run(const Call& call, ThreadPool& pool) const {
    const Shape x = call.Require(0, {-1, -1});
    LinearParams p = LinearOf<kFormat>(call, x, 1, -1);
    p.y = call.Output({x[0], p.num_outputs});
    call.Launch(p, LinearWorkspaceBytes(p, pool.num_threads()), LaunchLinear, pool);
  }
};

template <WeightFormat kFormat>
struct LinearNormAdd : WithEps {
  static constexpr const char* kName = "LinearNormAdd";
  static constexpr std::array kInputs = {kFloat, kFloat, kFloat, TypeOf(kFormat), kScale};
  static constexpr size_t kNumOptional = 1, kNumOutputs = 1;
  using WithEps::WithEps;

  void Run(const Call& call, ThreadPool& pool) const {
    const Shape x = call.Require(0, {-1, -1}), residual = call.Require(1, {x[0], -1});
    call.Require(2, {residual[1]});
    LinearParams p = LinearOf<kFormat>(call, x, 3, residual[1]);
    p.norm = call.Data<float>(2);
    p.residual = call.Data<float>(1);
    p.eps = eps;
    p.y = call.Output(residual);
    call.Launch(p, LinearWorkspaceBytes(p, pool.num_threads()), LaunchLinear, pool);
  }
};

// Without a v_proj where `kHasV` is not set: the scales of weights are the last inputs, so it cannot be an optional one.
template <WeightFormat kFormat, bool kHasV>
struct Qkv : WithEps {
  static constexpr const char* kName = kHasV ? "Qkv" : "Qk";
  static constexpr auto kInputs = [] {
    constexpr size_t kWeights = kHasV ? 3 : 2;
    std::array<ONNXTensorElementDataType, 6 + 2 * kWeights> types;
    types.fill(kFloat);
    for (size_t i = 0; i < kWeights; ++i) types[6 + i] = TypeOf(kFormat), types[6 + kWeights + i] = kScale;
    return types;
  }();
  static constexpr size_t kNumOptional = kHasV ? 3 : 2, kNumOutputs = 3;

  explicit Qkv(const OrtKernelInfo* info) : WithEps(info) {
    if (info == nullptr) return;
    const Ort::ConstKernelInfo attributes(info);
    num_heads = attributes.GetAttribute<int64_t>("num_heads");
    num_kv_heads = attributes.GetAttribute<int64_t>("num_kv_heads");
    if (num_heads < 1 || num_kv_heads < 1) {
      throw InvalidArgument(Message(kName, ": expected 1 or more heads of each kind, found ", num_heads, " and ", num_kv_heads));
    }
  }

  void Run(const Call& call, ThreadPool& pool) const {
    const Shape x = call.Require(0, {-1, -1}), norm = call.Require(2, {-1});
    const int64_t head_dim = norm[0];
    call.Require(1, {x[1]});
    call.Require(3, norm);
    if (head_dim % 2 != 0) throw InvalidArgument(Message(kName, ": expected heads of even width, found ", head_dim));
    const Shape angles = {1, x[0], head_dim / 2}, kv = {num_kv_heads * head_dim, Stored(kFormat, x[1])};
    call.Require(4, angles);
    call.Require(5, angles);
    call.Require(6, {num_heads * head_dim, kv[1]});
    call.Require(7, kv);
    if constexpr (kHasV) call.Require(8, kv);
    constexpr size_t kScales = kHasV ? 9 : 8;
    QkvParams p;
    call.Floats(0, {&p.x, &p.input_norm, &p.q_norm, &p.k_norm, &p.cos, &p.sin});
    p.q_proj = call.Weight(6, kScales, kFormat, x[1]);
    p.k_proj = call.Weight(7, kScales + 1, kFormat, x[1]);
    if constexpr (kHasV) p.v_proj = call.Weight(8, kScales + 2, kFormat, x[1]);
    p.format = kFormat;
    p.eps = eps;
    p.num_tokens = x[0];
    p.hidden_size = x[1];
    p.num_heads = num_heads;
    p.num_kv_heads = num_kv_heads;
    p.head_dim = head_dim;
    p.q = call.Output({1, x[0], num_heads * head_dim}, 0);
    p.k = call.Output({1, x[0], kv[0]}, 1);
    p.v = call.Output({1, x[0], kv[0]}, 2);
    call.Launch(p, QkvWorkspaceBytes(p, pool.num_threads()), LaunchQkv, pool);
  }

  int64_t num_heads = 0, num_kv_heads = 0;
};
template <WeightFormat kFormat>
using QkvWithV = Qkv<kFormat, true>;
template <WeightFormat kFormat>
using QkvWithoutV = Qkv<kFormat, false>;

template <WeightFormat kFormat>
struct GatedMlp : WithoutAttributes {
  static constexpr const char* kName = "GatedMlp";
  static constexpr auto kWeight = TypeOf(kFormat);
  static constexpr std::array kInputs = {kFloat, kWeight, kWeight, kWeight, kScale, kScale, kScale};
  static constexpr size_t kNumOptional = 3;
  using WithoutAttributes::WithoutAttributes;

  void Run(const Call& call, ThreadPool& pool) const {
    const Shape x = call.Require(0, {-1, -1}), gate = call.Require(1, {-1, Stored(kFormat, x[1])});
    call.Require(2, gate);
    call.Require(3, {x[1], Stored(kFormat, gate[0])});
    GatedMlpParams p;
    p.x = call.Data<float>(0);
    p.gate = call.Weight(1, 4, kFormat, x[1]);
    p.up = call.Weight(2, 5, kFormat, x[1]);
    p.down = call.Weight(3, 6, kFormat, gate[0]);
    p.format = kFormat;
    p.num_tokens = x[0];
    p.hidden_size = x[1];
    p.inner_size = gate[0];
    p.y = call.Output(x);
    call.Launch(p, GatedMlpWorkspaceBytes(p, pool.num_threads()), LaunchGatedMlp, pool);
  }
};

template <WeightFormat kFormat, WeightFormat kExpertFormat = kFormat>
struct FeedForward : WithEps {
  static constexpr const char* kName = "FeedForward";
  static constexpr auto kWeight = TypeOf(kFormat), kExpert = TypeOf(kExpertFormat);
  static constexpr std::array kInputs = {kFloat,  kFloat,  kFloat,  kFloat,  kFloat, kFloat, kFloat, kFloat, kFloat, kWeight,
                                         kWeight, kWeight, kExpert, kExpert, kScale, kScale, kScale, kScale, kScale, kInt64};
  static constexpr size_t kNumOptional = 6, kNumOutputs = 1;

  explicit FeedForward(const OrtKernelInfo* info) : WithEps(info) {
    if (info != nullptr) top_k = Ort::ConstKernelInfo(info).GetAttribute<int64_t>("top_k");
  }

  void Run(const Call& call, ThreadPool& pool) const {
    const Shape x = call.Require(0, {-1, -1}), gate = call.Require(9, {-1, Stored(kFormat, x[1])});
    for (size_t norm = 1; norm <= 6; ++norm) call.Require(norm, {x[1]});
    const int64_t num_experts = call.Require(7, {-1, x[1]})[0];
    call.Require(8, {num_experts});
    call.Require(10, gate);
    call.Require(11, {x[1], Stored(kFormat, gate[0])});
    const int64_t stored = Stored(kExpertFormat, x[1]), inner = call.Require(12, {num_experts, -1, stored})[1] / 2;
    call.Require(12, {num_experts, 2 * inner, stored});
    call.Require(13, {num_experts, x[1], Stored(kExpertFormat, inner)});
    if (top_k < 1 || top_k > num_experts) {
      throw InvalidArgument(Message(kName, ": expected top_k from 1 to ", num_experts, ", found ", top_k));
    }
    FeedForwardParams p;
    if (call.Has(19)) {
      call.Require(19, {x[0], top_k});
      p.index = call.Data<int64_t>(19);
      for (int64_t i = 0; i < x[0] * top_k; ++i) {
        if (p.index[i] >= 0 && p.index[i] < num_experts) continue;
        throw InvalidArgument(Message(kName, ": expected experts from 0 to ", num_experts - 1, ", found ", p.index[i]));
      }
    }
    call.Floats(0, {&p.x, &p.dense_norm_in, &p.dense_norm_out, &p.experts_norm_in, &p.experts_norm_out, &p.norm_out, &p.router_scale,
                    &p.router, &p.per_expert_scale});
    p.gate = call.Weight(9, 14, kFormat, x[1]);
    p.up = call.Weight(10, 15, kFormat, x[1]);
    p.down = call.Weight(11, 16, kFormat, gate[0]);
    p.expert_gate_up = call.Weight(12, 17, kExpertFormat, x[1]);
    p.expert_down = call.Weight(13, 18, kExpertFormat, inner);
    p.format = kFormat;
    p.expert_format = kExpertFormat;
    p.eps = eps;
    p.num_tokens = x[0];
    p.hidden_size = x[1];
    p.inner_size = gate[0];
    p.num_experts = num_experts;
    p.top_k = top_k;
    p.expert_inner_size = inner;
    p.y = call.Output(x);
    call.Launch(p, FeedForwardWorkspaceBytes(p, pool.num_threads()), LaunchFeedForward, pool);
  }

  int64_t top_k = 0;
};

}  // namespace dgrt
