// The sampler kernels and the noise for tests and benchmarks: numpy in, numpy out.
#include <cstdint>
#include <limits>
#include <new>
#include <optional>
#include <vector>

#include <pybind11/stl.h>

#include "common/aligned_buffer.h"
#include "common/philox.h"
#include "common/thread_pool.h"
#include "kernels/kernels.h"
#include "python/arrays.h"
#include "python/register.h"

namespace py = pybind11;

namespace dgrt::python {
namespace {

using AllowedSets = std::vector<std::optional<std::vector<int32_t>>>;

EmbeddingTable TableView(const py::array& table, int64_t hidden_size) {
  EmbeddingTable view;
  if (py::isinstance<py::array_t<uint16_t>>(table)) {
    view.rows = View<uint16_t>(table, 2, "table", "[V, D]").data();
    view.dtype = DType::kBFloat16;
  } else {
    view.rows = View<float>(table, 2, "table", "[V, D] (or uint16 with bfloat16 bits)").data();
    view.dtype = DType::kFloat32;
  }
  view.vocab_size = table.shape(0);
  view.hidden_size = table.shape(1);
  if (view.hidden_size != hidden_size || view.vocab_size < 1) {
    throw InvalidArgument(Message("table: expected [V, ", hidden_size, "], found ", Describe(table)));
  }
  return view;
}

void CheckToken(int64_t token, int64_t vocab_size, const char* name) {
  if (token < 0 || token >= vocab_size) {
    throw InvalidArgument(Message(name, ": expected token ids below ", vocab_size, ", found ", token));
  }
}

// Borrows from `pinned` and `allowed`.
std::vector<PositionConstraint> Constraints(const std::optional<std::vector<int32_t>>& pinned,
                                            const std::optional<AllowedSets>& allowed, size_t canvas_len,
                                            int64_t vocab_size) {
  if (!pinned && !allowed) return {};
  std::vector<PositionConstraint> constraints(canvas_len);
  if (pinned && pinned->size() != canvas_len) {
    throw InvalidArgument(Message("pinned: expected ", canvas_len, " entries, found ", pinned->size()));
  }
  if (allowed && allowed->size() != canvas_len) {
    throw InvalidArgument(Message("allowed: expected ", canvas_len, " entries, found ", allowed->size()));
  }
  for (size_t l = 0; l < canvas_len; ++l) {
    if (pinned && (*pinned)[l] != -1) {
      CheckToken((*pinned)[l], vocab_size, "pinned");
      constraints[l].pinned = (*pinned)[l];
    }
    if (allowed && (*allowed)[l]) {
      const std::vector<int32_t>& set = *(*allowed)[l];
      for (size_t i = 0; i < set.size(); ++i) {
        CheckToken(set[i], vocab_size, "allowed");
        if (i > 0 && set[i] <= set[i - 1]) throw InvalidArgument("allowed: expected ascending ids without repeats");
      }
      if (set.empty()) throw InvalidArgument("allowed: expected None or at least one id per position");
      constraints[l].allowed = set;
    }
  }
  return constraints;
}

py::tuple VocabularyHead(const py::array& hidden, const py::array& table, float softcap, float temperature,
                         float embed_scale, const py::array& uniform, std::optional<std::vector<int32_t>> pinned,
                         std::optional<AllowedSets> allowed, bool want_soft, bool bf16_products, int threads) {
  VocabularyHeadParams params;
  params.hidden = View<float>(hidden, 2, "hidden", "[L, D]").data();
  params.canvas_len = hidden.shape(0);
  const int64_t hidden_size = hidden.shape(1);
  params.table = TableView(table, hidden_size);
  const auto uniforms = View<double>(uniform, 1, "uniform", "[L]");
  if (static_cast<int64_t>(uniforms.size()) != params.canvas_len) {
    throw InvalidArgument(Message("uniform: expected [", params.canvas_len, "], found ", Describe(uniform)));
  }
  if (params.canvas_len < 1 || hidden_size < 1) {
    throw InvalidArgument(Message("hidden: expected at least one row and column, found ", Describe(hidden)));
  }
  if (!(temperature > 0) || !(softcap >= 0)) {
    throw InvalidArgument(Message("expected temperature > 0 and softcap >= 0, found ", temperature, " and ", softcap));
  }
  if (threads < 1) throw InvalidArgument(Message("threads: expected at least 1, found ", threads));
  for (const double u : uniforms) {
    if (!(u >= 0 && u < 1)) throw InvalidArgument(Message("uniform: expected values in [0, 1), found ", u));
  }
  params.softcap = softcap;
  params.temperature = temperature;
  params.embed_scale = embed_scale;
  if (bf16_products && params.table.dtype != DType::kBFloat16) {
    throw InvalidArgument(Message("bf16_products: expected a table of bf16, found ", Describe(table)));
  }
  params.table.bf16_products = bf16_products;
  params.uniform = uniforms.data();
  const auto constraints =
      Constraints(pinned, allowed, static_cast<size_t>(params.canvas_len), params.table.vocab_size);
  params.constraints = constraints.empty() ? nullptr : constraints.data();

  py::array_t<int32_t> argmax(params.canvas_len), sampled(params.canvas_len);
  py::array_t<float> entropy(params.canvas_len);
  std::optional<py::array_t<float>> soft;
  if (want_soft) soft.emplace(std::vector<py::ssize_t>{params.canvas_len, hidden_size});
  params.argmax = argmax.mutable_data();
  params.entropy = entropy.mutable_data();
  params.sampled = sampled.mutable_data();
  params.soft = soft ? soft->mutable_data() : nullptr;
  {
    const py::gil_scoped_release release;
    ThreadPool pool(threads);
    AlignedBuffer<std::byte> workspace(
        VocabularyHeadWorkspaceBytes(params.canvas_len, hidden_size, params.table.vocab_size));
    params.workspace = workspace.data();
    LaunchVocabularyHead(params, pool);
  }
  return py::make_tuple(argmax, entropy, sampled, soft ? py::object(*soft) : py::none());
}

py::array_t<bool> Accept(const py::array& entropy, float entropy_bound) {
  const auto values = View<float>(entropy, 1, "entropy", "[L]");
  std::vector<uint8_t> accepted(values.size());
  AcceptByEntropy(values, entropy_bound, accepted);
  py::array_t<bool> result(static_cast<py::ssize_t>(accepted.size()));
  for (size_t i = 0; i < accepted.size(); ++i) result.mutable_data()[i] = accepted[i] != 0;
  return result;
}

NoiseKey Key(uint64_t seed, uint32_t request, uint32_t canvas, uint32_t step) {
  if (request >= kMaxRequest) {
    throw InvalidArgument(Message("request: expected a number below ", kMaxRequest, ", found ", request));
  }
  return {seed, request, canvas, step};
}

NoiseStream Stream(uint32_t stream) {
  constexpr auto kLast = static_cast<uint32_t>(NoiseStream::kCausalSampling);
  if (stream > kLast) throw InvalidArgument(Message("stream: expected 0 to ", kLast, ", found ", stream));
  return static_cast<NoiseStream>(stream);
}

py::array_t<double> Uniforms(uint64_t seed, uint32_t request, uint32_t canvas, uint32_t step, uint32_t stream,
                             uint32_t num_positions) {
  const NoiseKey key = Key(seed, request, canvas, step);
  py::array_t<double> result(static_cast<py::ssize_t>(num_positions));
  for (uint32_t i = 0; i < num_positions; ++i) result.mutable_data()[i] = NoiseUniform(key, Stream(stream), i);
  return result;
}

py::array_t<int32_t> Integers(uint64_t seed, uint32_t request, uint32_t canvas, uint32_t step, uint32_t stream,
                              uint32_t num_positions, uint32_t bound) {
  const NoiseKey key = Key(seed, request, canvas, step);
  constexpr auto kMaxBound = static_cast<uint32_t>(std::numeric_limits<int32_t>::max());
  if (bound < 1 || bound > kMaxBound) {
    throw InvalidArgument(Message("bound: expected 1 to ", kMaxBound, ", found ", bound));
  }
  py::array_t<int32_t> result(static_cast<py::ssize_t>(num_positions));
  for (uint32_t i = 0; i < num_positions; ++i) {
    result.mutable_data()[i] = static_cast<int32_t>(NoiseInteger(key, Stream(stream), i, bound));
  }
  return result;
}

}  // namespace

void RegisterKernels(py::module_& module) {
  module.def("vocabulary_head", &VocabularyHead, py::arg("hidden"), py::arg("table"), py::kw_only(),
             py::arg("softcap"), py::arg("temperature"), py::arg("embed_scale"), py::arg("uniform"),
             py::arg("pinned") = py::none(), py::arg("allowed") = py::none(), py::arg("want_soft") = true,
             py::arg("bf16_products") = false,
             py::arg("threads") = 1, "The sampler kernel for tests: (argmax, entropy, sampled, soft or None).");
  module.def("accept_by_entropy", &Accept, py::arg("entropy"), py::arg("entropy_bound"),
             "Positions that the entropy bound accepts.");
  module.def("noise_uniform", &Uniforms, py::arg("seed"), py::arg("request"), py::arg("canvas"), py::arg("step"),
             py::arg("stream"), py::arg("num_positions"), "Uniform draws in [0, 1), one per position.");
  module.def("noise_integers", &Integers, py::arg("seed"), py::arg("request"), py::arg("canvas"), py::arg("step"),
             py::arg("stream"), py::arg("num_positions"), py::arg("bound"),
             "Integer draws in [0, bound), one per position.");
}

}  // namespace dgrt::python
