// Time of each layer kernel beside what the machine can do: product rate of the inner loop out of the first-level cache, and
// read bandwidth, measured here.
//
//   cmake --build --preset cpu-release --target dgrt_micro && build/cpu-release/benchmarks/micro/dgrt_micro [threads]
//
// Prints one JSON object per line; medians of at least nine runs. Shapes: the mid scenario and the released model.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "common/aligned_buffer.h"
#include "common/thread_pool.h"
#include "kernels/cpu/row_products.h"
#include "kernels/kernels.h"

namespace dgrt {
namespace {

double Now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double MedianSeconds(const std::function<void()>& run) {
  std::vector<double> times;
  const double start = Now();
  run();
  while (times.size() < 9 || (Now() - start < 0.5 && times.size() < 1000)) {
    const double begin = Now();
    run();
    times.push_back(Now() - begin);
  }
  std::nth_element(times.begin(), times.begin() + static_cast<long>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

struct Machine {
  double flops = 0, bytes_per_second = 0;
};

const char* Name(WeightFormat format) {
  constexpr const char* kNames[] = {"fp32", "bf16", "int8", "int4"};
  return kNames[static_cast<int>(format)];
}

// Numbers small enough that nothing overflows; what they are does not matter to the time.
AlignedBuffer<unsigned char> Filled(int64_t elements, DType dtype) {
  AlignedBuffer<unsigned char> buffer(static_cast<size_t>(elements * BytesOf(dtype)));
  std::minstd_rand random(3);
  for (int64_t i = 0; i < elements; ++i) {
    const float x = 0.001f * static_cast<float>(static_cast<int>(random() % 200) - 100);
    uint32_t word;
    std::memcpy(&word, &x, 4);
    const uint16_t half = static_cast<uint16_t>(word >> 16);
    if (dtype == DType::kFloat32) std::memcpy(buffer.data() + 4 * i, &word, 4);
    else std::memcpy(buffer.data() + 2 * i, &half, 2);
  }
  return buffer;
}

// A weight matrix [rows, width].
struct Weights {
  Weights(int64_t rows, int64_t width, WeightFormat stored)
      : format(stored),
        values(IsQuantised(format) ? Filled(rows * WeightRowBytes(format, width) / 2 + 1, DType::kBFloat16)
                                   : Filled(rows * width, format == WeightFormat::kFloat32 ? DType::kFloat32 : DType::kBFloat16)),
        scales(Filled(rows * ScalesPerRow(format, width) + 1, DType::kBFloat16)) {}
  WeightMatrix matrix() const { return {values.data(), scales.data()}; }
  double bytes() const { return static_cast<double>(values.bytes() + (IsQuantised(format) ? scales.bytes() : 0)); }

  WeightFormat format;
  AlignedBuffer<unsigned char> values, scales;
};

double PeakFlops(DType dtype, ThreadPool& pool) {
  constexpr int64_t kRowCount = 24, kDepth = 128, kTimes = 2000;
  const RowProducts& products = RowProductsOf(SelectedCpuIsa());
  const double seconds = MedianSeconds([&] {
    pool.ParallelFor(pool.num_threads(), [&](int64_t) {
      alignas(64) static thread_local float panels[kMaxPanels * kDepth * kTokenLanes], out[kMaxPanels * kRowCount * kTokenLanes];
      static thread_local float weights[kRowCount * kDepth];
      for (int64_t i = 0; i < kTimes; ++i) {
        products.multiply({weights, dtype, kRowCount, kDepth, 1}, kDepth, panels, PanelBytes(kDepth, dtype), kMaxPanels, out);
      }
    });
  });
  return 2.0 * kRowCount * kDepth * kMaxPanels * kTokenLanes * kTimes * pool.num_threads() / seconds;
}

double ReadBandwidth(ThreadPool& pool) {
  constexpr int64_t kWords = int64_t{1} << 27;  // 1 GiB
  static const AlignedBuffer<uint64_t> memory(static_cast<size_t>(kWords));
  const int64_t part = kWords / pool.num_threads();
  std::atomic<uint64_t> sink{0};
  const double seconds = MedianSeconds([&] {
    pool.ParallelFor(pool.num_threads(), [&](int64_t thread) {
      uint64_t sums[8] = {};
      const uint64_t* p = memory.data() + thread * part;
      for (int64_t i = 0; i + 8 <= part; i += 8) {
        for (int64_t j = 0; j < 8; ++j) sums[j] += p[i + j];
      }
      for (const uint64_t sum : sums) sink += sum;
    });
  });
  return static_cast<double>(part * pool.num_threads() * 8) / seconds;
}

void Report(const char* kernel, const char* shape, WeightFormat format, double flops, double bytes, double seconds,
            const Machine& machine) {
  std::printf("{\"kernel\": \"%s\", \"shape\": \"%s\", \"dtype\": \"%s\", \"ms\": %.3f, \"gflops\": %.1f, "
              "\"share_of_peak\": %.2f, \"weight_gb_s\": %.1f, \"share_of_bandwidth\": %.2f}\n",
              kernel, shape, Name(format), 1e3 * seconds, 1e-9 * flops / seconds, flops / seconds / machine.flops,
              1e-9 * bytes / seconds, bytes / seconds / machine.bytes_per_second);
  std::fflush(stdout);
}

void BenchLinear(const char* shape, int64_t tokens, int64_t in, int64_t out, WeightFormat format, const Machine& machine,
                 ThreadPool& pool) {
  const auto x = Filled(tokens * in, DType::kFloat32);
  const Weights weight(out, in, format);
  AlignedBuffer<float> y(static_cast<size_t>(tokens * out));
  LinearParams p{reinterpret_cast<const float*>(x.data()), weight.matrix(), format, tokens, in, out, y.data(), nullptr};
  AlignedBuffer<unsigned char> workspace(LinearWorkspaceBytes(p, pool.num_threads()));
  p.workspace = workspace.data();
  const double seconds = MedianSeconds([&] { LaunchLinear(p, pool); });
  Report("linear", shape, format, 2.0 * static_cast<double>(tokens * in * out), weight.bytes(), seconds, machine);
}

void BenchExperts(const char* shape, int64_t tokens, int64_t experts, int64_t top_k, int64_t hidden, int64_t inner,
                  WeightFormat format, const Machine& machine, ThreadPool& pool) {
  const auto x = Filled(tokens * hidden, DType::kFloat32), shares = Filled(tokens * top_k, DType::kFloat32);
  const Weights gate_up(experts * 2 * inner, hidden, format), down(experts * hidden, inner, format);
  std::vector<int64_t> index;
  std::minstd_rand random(5);
  for (int64_t s = 0; s < tokens; ++s) {
    std::vector<int64_t> all(static_cast<size_t>(experts));
    for (size_t e = 0; e < all.size(); ++e) all[e] = static_cast<int64_t>(e);
    std::shuffle(all.begin(), all.end(), random);
    index.insert(index.end(), all.begin(), all.begin() + top_k);
  }
  AlignedBuffer<float> y(static_cast<size_t>(tokens * hidden));
  ExpertsParams p{reinterpret_cast<const float*>(x.data()), index.data(), reinterpret_cast<const float*>(shares.data()),
                  gate_up.matrix(), down.matrix(), format, tokens, experts, top_k, hidden, inner, y.data(), nullptr};
  AlignedBuffer<unsigned char> workspace(ExpertsWorkspaceBytes(p, pool.num_threads()));
  p.workspace = workspace.data();
  const double seconds = MedianSeconds([&] { LaunchExperts(p, pool); });
  Report("experts", shape, format, 6.0 * static_cast<double>(tokens * top_k * hidden * inner),
         (gate_up.bytes() + down.bytes()) * std::min(1.0, static_cast<double>(tokens * top_k) / static_cast<double>(experts)),
         seconds, machine);
}

void BenchGatedMlp(const char* shape, int64_t tokens, int64_t hidden, int64_t inner, WeightFormat format, const Machine& machine,
                   ThreadPool& pool) {
  const auto x = Filled(tokens * hidden, DType::kFloat32);
  const Weights gate(inner, hidden, format), up(inner, hidden, format), down(hidden, inner, format);
  AlignedBuffer<float> y(static_cast<size_t>(tokens * hidden));
  GatedMlpParams p{reinterpret_cast<const float*>(x.data()), gate.matrix(), up.matrix(), down.matrix(), format, tokens, hidden,
                   inner, y.data(), nullptr};
  AlignedBuffer<unsigned char> workspace(GatedMlpWorkspaceBytes(p, pool.num_threads()));
  p.workspace = workspace.data();
  const double seconds = MedianSeconds([&] { LaunchGatedMlp(p, pool); });
  Report("gated_mlp", shape, format, 6.0 * static_cast<double>(tokens * hidden * inner), 3 * down.bytes(), seconds, machine);
}

void BenchAttention(const char* shape, int64_t tokens, int64_t past, int64_t heads, int64_t kv_heads, int64_t head_dim,
                    const Machine& machine, ThreadPool& pool) {
  const auto q = Filled(tokens * heads * head_dim, DType::kFloat32);
  const auto k = Filled((past + tokens) * kv_heads * head_dim, DType::kFloat32), v = Filled((past + tokens) * kv_heads * head_dim, DType::kFloat32);
  AlignedBuffer<float> y(static_cast<size_t>(tokens * heads * head_dim));
  AttentionParams p;
  p.q = reinterpret_cast<const float*>(q.data());
  p.past_k = reinterpret_cast<const float*>(k.data());
  p.past_v = reinterpret_cast<const float*>(v.data());
  p.k = p.past_k + past * kv_heads * head_dim;
  p.v = p.past_v + past * kv_heads * head_dim;
  p.num_tokens = tokens;
  p.past_len = past;
  p.num_heads = heads;
  p.num_kv_heads = kv_heads;
  p.head_dim = head_dim;
  p.y = y.data();
  AlignedBuffer<unsigned char> workspace(AttentionWorkspaceBytes(p, pool.num_threads()));
  p.workspace = workspace.data();
  const double seconds = MedianSeconds([&] { LaunchAttention(p, pool); });
  Report("canvas_attention", shape, WeightFormat::kFloat32, 4.0 * static_cast<double>(tokens * (past + tokens) * heads * head_dim),
         static_cast<double>(k.bytes() + v.bytes()), seconds, machine);
}

void Main(int threads) {
  ThreadPool pool(threads);
  const RowProducts& products = RowProductsOf(SelectedCpuIsa());
  const double bandwidth = ReadBandwidth(pool);
  Machine machine[2] = {{PeakFlops(DType::kFloat32, pool), bandwidth}, {PeakFlops(DType::kBFloat16, pool), bandwidth}};
  std::printf("{\"isa\": \"%s\", \"threads\": %d, \"fp32_gflops\": %.0f, \"bf16_gflops\": %.0f, \"read_gb_s\": %.1f}\n",
              CpuIsaName(SelectedCpuIsa()), threads, 1e-9 * machine[0].flops, 1e-9 * machine[1].flops, 1e-9 * bandwidth);
  const auto for_each_format = [&](auto bench) {  // one shape after the other: ratios of formats are of the same minute
    for (const WeightFormat f : {WeightFormat::kBFloat16, WeightFormat::kInt8, WeightFormat::kInt4, WeightFormat::kFloat32}) {
      bench(f, machine[static_cast<int>(f == WeightFormat::kFloat32 ? DType::kFloat32 : products.operands)]);
    }
  };
  const auto linear = [&](const char* shape, int64_t tokens, int64_t in, int64_t out) {
    for_each_format([&](WeightFormat f, const Machine& m) { BenchLinear(shape, tokens, in, out, f, m, pool); });
  };
  const auto gated_mlp = [&](const char* shape, int64_t tokens, int64_t hidden, int64_t inner) {
    for_each_format([&](WeightFormat f, const Machine& m) { BenchGatedMlp(shape, tokens, hidden, inner, f, m, pool); });
  };
  const auto experts = [&](const char* shape, int64_t tokens, int64_t all, int64_t top_k, int64_t hidden, int64_t inner) {
    for_each_format(
        [&](WeightFormat f, const Machine& m) { BenchExperts(shape, tokens, all, top_k, hidden, inner, f, m, pool); });
  };
  linear("mid 256 x 512 -> 512", 256, 512, 512);
  linear("released 256 x 2816 -> 4096", 256, 2816, 4096);
  linear("released 1 x 2816 -> 4096", 1, 2816, 4096);
  gated_mlp("mid 256 x 512, 2048", 256, 512, 2048);
  gated_mlp("released 256 x 2816, 2112", 256, 2816, 2112);
  experts("mid 256 x 512, 32 top 4, 256", 256, 32, 4, 512, 256);
  experts("released 256 x 2816, 128 top 8, 704", 256, 128, 8, 2816, 704);
  experts("released 1 x 2816, 128 top 8, 704", 1, 128, 8, 2816, 704);
  BenchAttention("mid sliding 256 + 511, 8/4 x 64", 256, 511, 8, 4, 64, machine[0], pool);
  BenchAttention("mid full 256 + 1024, 8/2 x 128", 256, 1024, 8, 2, 128, machine[0], pool);
  BenchAttention("released full 256 + 4096, 16/2 x 512", 256, 4096, 16, 2, 512, machine[0], pool);
}

}  // namespace
}  // namespace dgrt

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  if (threads < 1) {
    std::fprintf(stderr, "usage: dgrt_micro [threads]\n");
    return 2;
  }
  dgrt::Main(threads);
}
