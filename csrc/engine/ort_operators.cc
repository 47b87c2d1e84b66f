// Implementation of ort_operators.h. Each kernel reads shapes from its inputs, checks that they fit together, and launches;
// scratch comes from ONNX Runtime's arena, so that a steady state allocates nothing.
#include "engine/ort_operators.h"

#include <array>
#include <string>
#include <tuple>
#include <vector>

#include "common/check.h"
#include "common/thread_pool.h"
#include "engine/contract.h"
#include "engine/ort_library.h"
#include "kernels/kernels.h"

namespace dgrt {
namespace {

using Shape = std::vector<int64_t>;

// What a kernel is called with.
class Call {
 public:
  Call(OrtKernelContext* context, const char* op) : context_(context), op_(op) {}

  Shape ShapeOf(size_t input) const { return context_.GetInput(input).GetTensorTypeAndShapeInfo().GetShape(); }
  template <typename T>
  const T* Data(size_t input) const {
    return static_cast<const T*>(context_.GetInput(input).GetTensorRawData());
  }
  float* Output(const Shape& shape, size_t output = 0) const {
    return context_.GetOutput(output, shape).GetTensorMutableData<float>();
  }

  // Whether an optional input is there.
  bool Has(size_t input) const { return input < context_.GetInputCount() && context_.GetInput(input) != nullptr; }

  // The weight [..., N, width] of input `values`, whose scales, in a quantised format, are input `scales`.
  WeightMatrix Weight(size_t values, size_t scales, WeightFormat format, int64_t width) const {
    Shape shape = ShapeOf(values);
    if (!IsQuantised(format)) {
      if (Has(scales)) throw InvalidArgument(Message(op_, ", input ", scales, ": expected none, found scales"));
      return {Data<void>(values), nullptr};
    }
    if (!Has(scales)) throw InvalidArgument(Message(op_, ", input ", scales, ": expected scales, found none"));
    if (format == WeightFormat::kInt8Both && width > kMaxInt8Width) {
      throw InvalidArgument(Message(op_, ", input ", values, ": expected rows of at most ", kMaxInt8Width, ", found ", width));
    }
    shape.back() = ScalesPerRow(format, width);
    Require(scales, shape);
    return {Data<void>(values), Data<void>(scales)};
  }

  // Throws InvalidArgument unless the input has this shape; -1 fits any size. Returns the shape.
  Shape Require(size_t input, const Shape& expected) const {
    const Shape found = ShapeOf(input);
    bool fits = found.size() == expected.size();
    for (size_t i = 0; fits && i < found.size(); ++i) fits = expected[i] == -1 || expected[i] == found[i];
    if (!fits) throw InvalidArgument(Message(op_, ", input ", input, ": expected ", Text(expected), ", found ", Text(found)));
    return found;
  }

  // Runs a kernel whose parameters are complete but for the workspace.
  template <typename Params>
  void Launch(Params params, size_t workspace_bytes, void (*launch)(const Params&, ThreadPool&), ThreadPool& pool) const {
    constexpr size_t kAlignment = 64;
    // Never released: that would race with static destructors.
    static const OrtMemoryInfo* const arena = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault).release();
    Ort::Allocator allocator = context_.GetAllocator(*arena);
    Ort::MemoryAllocation block = allocator.GetAllocation(workspace_bytes + kAlignment);
    const auto address = reinterpret_cast<uintptr_t>(block.get());
    params.workspace = reinterpret_cast<void*>((address + kAlignment - 1) / kAlignment * kAlignment);
    launch(params, pool);
  }

 private:
  static std::string Text(const Shape& shape) {
    std::string text = "[";
    for (size_t i = 0; i < shape.size(); ++i) {
      text += (i > 0 ? ", " : "") + (shape[i] == -1 ? "?" : std::to_string(shape[i]));
    }
    return text + "]";
  }

  Ort::KernelContext context_;
  const char* op_;
};

// Everything that ONNX Runtime wants to know of an operator, from its name, its input types (of which the last are optional)
// its number of outputs, and a kernel that has `Kernel(const OrtKernelInfo*)` and `Run(const Call&, ThreadPool&)`.
template <typename Kernel>
class Operator : public Ort::CustomOpBase<Operator<Kernel>, Operator<Kernel>, true> {
 public:
  explicit Operator(ThreadPool& pool) : pool_(&pool) {}
  Operator(ThreadPool* pool, const OrtKernelInfo* info) : pool_(pool), kernel_(info) {}

  const char* GetName() const { return Kernel::kName; }
  size_t GetInputTypeCount() const { return Kernel::kInputs.size(); }
  ONNXTensorElementDataType GetInputType(size_t i) const { return Kernel::kInputs[i]; }
  OrtCustomOpInputOutputCharacteristic GetInputCharacteristic(size_t i) const {
    return i + Kernel::kNumOptional < Kernel::kInputs.size() ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
  }
  size_t GetOutputTypeCount() const { return Kernel::kNumOutputs; }
  ONNXTensorElementDataType GetOutputType(size_t) const { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; }

  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const {
    return Guarded([&] { *kernel = new Operator(pool_, info); });
  }
  OrtStatusPtr ComputeV2(OrtKernelContext* context) {
    return Guarded([&] { kernel_.Run(Call(context, Kernel::kName), *pool_); });
  }

 private:
  // No exception may pass through ONNX Runtime's C interface.
  template <typename Body>
  static OrtStatusPtr Guarded(Body body) {
    try {
      body();
      return nullptr;
    } catch (const std::exception& error) {
      return Ort::GetApi().CreateStatus(ORT_FAIL, error.what());
    }
  }

  ThreadPool* pool_;
  Kernel kernel_{nullptr};
};

constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
constexpr auto kInt64 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
constexpr auto kScale = ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;

constexpr ONNXTensorElementDataType TypeOf(WeightFormat format) {
  switch (format) {
    case WeightFormat::kFloat32: return kFloat;
    case WeightFormat::kBFloat16: return ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;
    case WeightFormat::kInt8:
    case WeightFormat::kInt8Both: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;
    case WeightFormat::kInt4: return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  }
  return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

// Elements of a stored row of `width` values.
constexpr int64_t Stored(WeightFormat format, int64_t width) {
  return format == WeightFormat::kInt4 ? WeightRowBytes(format, width) : width;
}

// Of an operator's two names, that of its form whose products are of int8.
constexpr const char* NameOf(WeightFormat format, const char* name, const char* int8_name) {
  return format == WeightFormat::kInt8Both ? int8_name : name;
}

struct WithoutAttributes {
  static constexpr size_t kNumOutputs = 1;
  explicit WithoutAttributes(const OrtKernelInfo*) {}
};

struct WithEps {
  explicit WithEps(const OrtKernelInfo* info) {
    if (info != nullptr) eps = Ort::ConstKernelInfo(info).GetAttribute<float>("eps");
  }
  float eps = 0;
};

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
  static constexpr const char* kName = NameOf(kFormat, "Linear", "Int8Linear");
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
  static constexpr const char* kName = NameOf(kFormat, "LinearNormAdd", "Int8LinearNormAdd");
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
  static constexpr const char* kName = kHasV ? NameOf(kFormat, "Qkv", "Int8Qkv") : NameOf(kFormat, "Qk", "Int8Qk");
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
    p.x = call.Data<float>(0);
    p.input_norm = call.Data<float>(1);
    p.q_norm = call.Data<float>(2);
    p.k_norm = call.Data<float>(3);
    p.cos = call.Data<float>(4);
    p.sin = call.Data<float>(5);
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
  static constexpr const char* kName = NameOf(kFormat, "GatedMlp", "Int8GatedMlp");
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

template <WeightFormat kFormat>
struct Experts : WithoutAttributes {
  static constexpr const char* kName = NameOf(kFormat, "Experts", "Int8Experts");
  static constexpr auto kWeight = TypeOf(kFormat);
  static constexpr std::array kInputs = {kFloat, kInt64, kFloat, kWeight, kWeight, kScale, kScale};
  static constexpr size_t kNumOptional = 2;
  using WithoutAttributes::WithoutAttributes;

  void Run(const Call& call, ThreadPool& pool) const {
    const Shape x = call.Require(0, {-1, -1}), index = call.Require(1, {x[0], -1});
    call.Require(2, index);
    const Shape gate_up = call.Require(3, {-1, -1, Stored(kFormat, x[1])});
    const int64_t inner = gate_up[1] / 2;
    call.Require(3, {gate_up[0], 2 * inner, gate_up[2]});
    call.Require(4, {gate_up[0], x[1], Stored(kFormat, inner)});
    ExpertsParams p;
    p.x = call.Data<float>(0);
    p.index = call.Data<int64_t>(1);
    p.weight = call.Data<float>(2);
    p.gate_up = call.Weight(3, 5, kFormat, x[1]);
    p.down = call.Weight(4, 6, kFormat, inner);
    p.format = kFormat;
    p.num_tokens = x[0];
    p.num_experts = gate_up[0];
    p.top_k = index[1];
    p.hidden_size = x[1];
    p.inner_size = inner;
    p.y = call.Output(x);
    call.Launch(p, ExpertsWorkspaceBytes(p, pool.num_threads()), LaunchExperts, pool);
  }
};

template <WeightFormat kFormat>
struct FeedForward : WithEps {
  static constexpr const char* kName = NameOf(kFormat, "FeedForward", "Int8FeedForward");
  static constexpr auto kWeight = TypeOf(kFormat);
  static constexpr std::array kInputs = {kFloat,  kFloat,  kFloat,  kFloat,  kFloat, kFloat, kFloat, kFloat, kFloat, kWeight,
                                         kWeight, kWeight, kWeight, kWeight, kScale, kScale, kScale, kScale, kScale, kInt64};
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
    const int64_t inner = call.Require(12, {num_experts, -1, gate[1]})[1] / 2;
    call.Require(12, {num_experts, 2 * inner, gate[1]});
    call.Require(13, {num_experts, x[1], Stored(kFormat, inner)});
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
    p.x = call.Data<float>(0);
    p.dense_norm_in = call.Data<float>(1);
    p.dense_norm_out = call.Data<float>(2);
    p.experts_norm_in = call.Data<float>(3);
    p.experts_norm_out = call.Data<float>(4);
    p.norm_out = call.Data<float>(5);
    p.router_scale = call.Data<float>(6);
    p.router = call.Data<float>(7);
    p.per_expert_scale = call.Data<float>(8);
    p.gate = call.Weight(9, 14, kFormat, x[1]);
    p.up = call.Weight(10, 15, kFormat, x[1]);
    p.down = call.Weight(11, 16, kFormat, gate[0]);
    p.expert_gate_up = call.Weight(12, 17, kFormat, x[1]);
    p.expert_down = call.Weight(13, 18, kFormat, inner);
    p.format = kFormat;
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

// Without `kIsCausal` every query sees all keys of its group, and the past; groups follow each other in q, k and v.
template <bool kIsCausal>
struct Attention {
  static constexpr const char* kName = kIsCausal ? "CausalAttention" : "CanvasAttention";
  static constexpr std::array kInputs = {kFloat, kFloat, kFloat, kFloat, kFloat};
  static constexpr size_t kNumOptional = 0, kNumOutputs = 1;

  explicit Attention(const OrtKernelInfo* info) {
    if (info == nullptr) return;
    const Ort::ConstKernelInfo attributes(info);
    num_heads = attributes.GetAttribute<int64_t>("num_heads");
    num_kv_heads = attributes.GetAttribute<int64_t>("num_kv_heads");
    if (kIsCausal) window = attributes.GetAttribute<int64_t>("window");
    int64_t flag = 0;  // an attribute of version 4
    const Ort::Status found(Ort::GetApi().KernelInfoGetAttribute_int64(info, "bf16_products", &flag));
    bf16_products = found.IsOK() && flag != 0;
    if (num_kv_heads < 1 || num_heads < 1 || num_heads % num_kv_heads != 0 || window < 0) {
      throw InvalidArgument(Message(kName, ": expected num_heads a multiple of num_kv_heads and window 0 or more, found ",
                                    num_heads, ", ", num_kv_heads, " and ", window));
    }
  }

  void Run(const Call& call, ThreadPool& pool) const {
    const Shape q = call.Require(0, {kIsCausal ? 1 : -1, -1, -1});
    const int64_t head_dim = q[2] / num_heads;
    call.Require(0, {q[0], q[1], num_heads * head_dim});
    const Shape k = call.Require(1, {q[0], q[1], num_kv_heads * head_dim});
    call.Require(2, k);
    const Shape past = call.Require(3, {1, -1, k[2]});
    call.Require(4, past);
    AttentionParams p;
    p.q = call.Data<float>(0);
    p.k = call.Data<float>(1);
    p.v = call.Data<float>(2);
    p.past_k = call.Data<float>(3);
    p.past_v = call.Data<float>(4);
    p.num_tokens = q[1];
    p.past_len = past[1];
    p.num_heads = num_heads;
    p.num_kv_heads = num_kv_heads;
    p.head_dim = head_dim;
    p.is_causal = kIsCausal;
    p.window = window;
    p.bf16_products = bf16_products;
    p.y = call.Output(q);
    for (int64_t group = 0; group < q[0]; ++group) {
      call.Launch(p, AttentionWorkspaceBytes(p, pool.num_threads()), LaunchAttention, pool);
      p.q += q[1] * q[2];
      p.k += k[1] * k[2];
      p.v += k[1] * k[2];
      p.y += q[1] * q[2];
    }
  }

  int64_t num_heads = 0, num_kv_heads = 0, window = 0;
  bool bf16_products = false;
};

template <typename... Kernels>
struct OperatorsOf {
  explicit OperatorsOf(ThreadPool& pool) : all{Operator<Kernels>(pool)...} {}
  std::tuple<Operator<Kernels>...> all;
};

}  // namespace

struct OrtOperators::Impl {
  explicit Impl(ThreadPool& pool)
      : linear(pool), linear_norm_add(pool), qkv(pool), qk(pool), gated_mlp(pool), experts(pool), feed_forward(pool),
        version_2(pool), attention(pool), domain(contract::kOperatorDomain) {
    const auto add = [this](auto&... operators) {
      (std::apply([this](auto&... op) { (domain.Add(&op), ...); }, operators.all), ...);
    };
    add(linear, linear_norm_add, qkv, qk, gated_mlp, experts, feed_forward, version_2, attention);
  }

  template <template <WeightFormat> typename Kernel>
  using Formats = OperatorsOf<Kernel<WeightFormat::kFloat32>, Kernel<WeightFormat::kBFloat16>, Kernel<WeightFormat::kInt4>,
                              Kernel<WeightFormat::kInt8Both>>;
  Formats<Linear> linear;
  Formats<LinearNormAdd> linear_norm_add;
  Formats<QkvWithV> qkv;
  Formats<QkvWithoutV> qk;
  Formats<GatedMlp> gated_mlp;
  Formats<Experts> experts;
  Formats<FeedForward> feed_forward;
  OperatorsOf<Linear<WeightFormat::kInt8>, GatedMlp<WeightFormat::kInt8>, Experts<WeightFormat::kInt8>> version_2;
  OperatorsOf<Attention<true>, Attention<false>> attention;
  Ort::CustomOpDomain domain;
};

OrtOperators::OrtOperators(ThreadPool& pool) : impl_(std::make_unique<Impl>(pool)) {}
OrtOperators::~OrtOperators() = default;

OrtCustomOpDomain* OrtOperators::domain() const { return impl_->domain; }

}  // namespace dgrt

// How ONNX Runtime registers the operators of a library by itself, for example for Python's
// `SessionOptions.register_custom_ops_library`. Everything runs on the calling thread there.
extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                               const OrtApiBase* base) {
  const OrtApi* const api = base->GetApi(ORT_API_VERSION);
  if (api == nullptr) return nullptr;  // ONNX Runtime older than these headers: it says itself which operator is missing
  try {
    dgrt::UseOrtApi(api);
    static auto* pool = new dgrt::ThreadPool(1);  // never destroyed: sessions of others may outlive static destructors
    static auto* operators = new dgrt::OrtOperators(*pool);
    return api->AddCustomOpDomain(options, operators->domain());
  } catch (const std::exception& error) {
    return api->CreateStatus(ORT_FAIL, error.what());
  }
}
