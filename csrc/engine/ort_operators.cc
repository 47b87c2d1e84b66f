// Implementation of ort_operators.h: attention, and the list of all operators.
#include "engine/ort_operators.h"

#include <tuple>

#include "engine/contract.h"
#include "engine/ort_layers.h"
#include "engine/ort_operator.h"
#include "kernels/kernels.h"

namespace dgrt {
namespace {

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
    int64_t flag = 0;
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
    call.Floats(0, {&p.q, &p.k, &p.v, &p.past_k, &p.past_v});
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

// An operator for each format of its weights.
template <template <WeightFormat> typename Kernel>
using Formats = OperatorsOf<Kernel<WeightFormat::kFloat32>, Kernel<WeightFormat::kBFloat16>, Kernel<WeightFormat::kInt8>>;

}  // namespace

struct OrtOperators::Impl {
  explicit Impl(ThreadPool& pool)
      : linear(pool), linear_norm_add(pool), qkv(pool), qk(pool), gated_mlp(pool), feed_forward(pool), attention(pool),
        domain(contract::kOperatorDomain) {
    const auto add = [this](auto&... operators) {
      (std::apply([this](auto&... op) { (domain.Add(&op), ...); }, operators.all), ...);
    };
    add(linear, linear_norm_add, qkv, qk, gated_mlp, feed_forward, attention);
  }

  Formats<Linear> linear;
  Formats<LinearNormAdd> linear_norm_add;
  Formats<QkvWithV> qkv;
  Formats<QkvWithoutV> qk;
  Formats<GatedMlp> gated_mlp;
  OperatorsOf<FeedForward<WeightFormat::kFloat32>, FeedForward<WeightFormat::kBFloat16>, FeedForward<WeightFormat::kInt8>,
              FeedForward<WeightFormat::kInt8, WeightFormat::kInt4>>
      feed_forward;
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
