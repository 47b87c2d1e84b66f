// Time of each layer kernel beside what the machine can do: product rate of the inner loop out of the first-level cache, and
// read bandwidth, measured here.
//
//   cmake --build --preset cpu-release --target dgrt_micro && build/cpu-release/benchmarks/micro/dgrt_micro [threads] [part]
//
// Prints one JSON object per line; medians of at least nine runs, the formats of a shape in turns. Shapes: the mid scenario and
// the released model; with `part` those whose kernel and shape contain it. With `curves` as part instead how the kernels of the
// mid scenario grow, in bf16, with canvas, context, experts and canvases per pass (benchmarks/curves.py keeps that). DGRT_CPU_ISA
// chooses the instruction set.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "common/aligned_buffer.h"
#include "common/thread_pool.h"
#include "kernels/cpu/int8_products.h"
#include "kernels/kernels.h"

namespace dgrt {
namespace {

double Now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Of all threads. Those of the pool that wait sleep.
double ProcessorTime() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<long>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

double MedianSeconds(const std::function<void()>& run) {
  std::vector<double> times;
  const double start = Now();
  run();
  while (times.size() < 9 || (Now() - start < 0.5 && times.size() < 1000)) {
    const double begin = Now();
    run();
    times.push_back(Now() - begin);
  }
  return Median(times);
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
        scales(Filled(rows, DType::kBFloat16)) {}
  WeightMatrix matrix() const { return {values.data(), scales.data()}; }
  double bytes() const { return static_cast<double>(values.bytes() + (IsQuantised(format) ? scales.bytes() : 0)); }

  WeightFormat format;
  AlignedBuffer<unsigned char> values, scales;
};

// Of products of elements of so many bytes, out of the first-level cache: whole blocks of rows that are long enough for what is
// done once per row not to count.
double PeakFlops(decltype(RowProducts::multiply) multiply, DType dtype, int64_t element_bytes, ThreadPool& pool) {
  constexpr int64_t kRows = 24, kRowBytes = 512, kTimes = 2000;
  const int64_t depth = kRowBytes / element_bytes;
  const double seconds = MedianSeconds([&] {
    pool.ParallelFor(pool.num_threads(), [&](int64_t) {
      constexpr int64_t kPanelBytes = (kRowBytes / 4 + 2) * kTokenLanes * 4;  // and what quantised tokens have behind them
      alignas(64) static thread_local unsigned char panels[kMaxPanels * kPanelBytes], weights[kRows * kRowBytes];
      alignas(64) static thread_local float out[kMaxPanels * kRows * kTokenLanes];
      const WeightRows rows = {.data = weights, .dtype = dtype, .num_rows = kRows, .row_step = depth, .scales = weights};
      for (int64_t i = 0; i < kTimes; ++i) multiply(rows, depth, panels, kPanelBytes, kMaxPanels, out);
    });
  });
  return 2.0 * static_cast<double>(kRows * depth) * kMaxPanels * kTokenLanes * kTimes * pool.num_threads() / seconds;
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

// One kernel with weights of one format, ready to run.
struct Job {
  WeightFormat format;
  double flops = 0, bytes = 0;  // of weights
  std::function<void()> run;
};

// The formats of one shape in turns, so that whatever else the machine does meets all of them. "of_bf16" is the median of the
// turns' own ratios to the first job, of processor time: other programs take none of that.
void Report(const char* kernel, const char* shape, const std::vector<Job>& jobs, const std::vector<Machine>& machines) {
  std::vector<std::vector<double>> seconds(jobs.size()), times(jobs.size()), ratios(jobs.size());
  for (const Job& job : jobs) job.run();
  const double start = Now();
  while (seconds[0].size() < 9 || (Now() - start < 2 && seconds[0].size() < 1000)) {
    for (size_t i = 0; i < jobs.size(); ++i) {
      const double begin = Now(), begin_time = ProcessorTime();
      jobs[i].run();
      seconds[i].push_back(Now() - begin);
      times[i].push_back(ProcessorTime() - begin_time);
      ratios[i].push_back(times[i].back() / times[0].back());
    }
  }
  for (size_t i = 0; i < jobs.size(); ++i) {
    const double time = Median(seconds[i]);
    const Machine& machine = machines[static_cast<size_t>(jobs[i].format)];
    std::printf("{\"kernel\": \"%s\", \"shape\": \"%s\", \"dtype\": \"%s\", \"ms\": %.3f, \"of_%s\": %.2f, \"gflops\": %.1f, "
                "\"share_of_peak\": %.2f, \"weight_gb_s\": %.1f, \"share_of_bandwidth\": %.2f}\n",
                kernel, shape, Name(jobs[i].format), 1e3 * time, Name(jobs[0].format), Median(ratios[i]),
                1e-9 * jobs[i].flops / time, jobs[i].flops / time / machine.flops, 1e-9 * jobs[i].bytes / time,
                jobs[i].bytes / time / machine.bytes_per_second);
  }
  std::fflush(stdout);
}

// A kernel with everything that its parameters point to.
template <typename Params>
struct Bench {
  Params params;
  std::vector<AlignedBuffer<unsigned char>> memory;
  std::vector<Weights> weights;
  std::vector<int64_t> index;
  AlignedBuffer<unsigned char> workspace;

  const float* Floats(int64_t count) {
    memory.push_back(Filled(count, DType::kFloat32));
    return reinterpret_cast<const float*>(memory.back().data());
  }
  float* Room(int64_t count) {
    memory.emplace_back(static_cast<size_t>(4 * count));
    return reinterpret_cast<float*>(memory.back().data());
  }
  WeightMatrix Matrix(int64_t rows, int64_t width, WeightFormat format) {
    return weights.emplace_back(rows, width, format).matrix();
  }
  double weight_bytes() const {
    double bytes = 0;
    for (const Weights& matrix : weights) bytes += matrix.bytes();
    return bytes;
  }
};

template <typename Params>
std::function<void()> Ready(std::shared_ptr<Bench<Params>> bench, size_t (*workspace_bytes)(const Params&, int),
                            void (*launch)(const Params&, ThreadPool&), ThreadPool& pool) {
  bench->workspace = AlignedBuffer<unsigned char>(workspace_bytes(bench->params, pool.num_threads()));
  bench->params.workspace = bench->workspace.data();
  return [bench, launch, &pool] { launch(bench->params, pool); };
}

Job Linear(int64_t tokens, int64_t in, int64_t out, WeightFormat format, ThreadPool& pool) {
  const auto bench = std::make_shared<Bench<LinearParams>>();
  bench->params = {bench->Floats(tokens * in), bench->Matrix(out, in, format), format, tokens, in, out,
                   bench->Room(tokens * out), nullptr};
  return {format, 2.0 * static_cast<double>(tokens * in * out), bench->weight_bytes(),
          Ready(bench, LinearWorkspaceBytes, LaunchLinear, pool)};
}

Job GatedMlp(int64_t tokens, int64_t hidden, int64_t inner, WeightFormat format, ThreadPool& pool) {
  const auto bench = std::make_shared<Bench<GatedMlpParams>>();
  const float* const x = bench->Floats(tokens * hidden);
  const WeightMatrix gate = bench->Matrix(inner, hidden, format), up = bench->Matrix(inner, hidden, format);
  bench->params = {x, gate, up, bench->Matrix(hidden, inner, format), format, tokens, hidden, inner,
                   bench->Room(tokens * hidden), nullptr};
  return {format, 6.0 * static_cast<double>(tokens * hidden * inner), bench->weight_bytes(),
          Ready(bench, GatedMlpWorkspaceBytes, LaunchGatedMlp, pool)};
}

Job Experts(int64_t tokens, int64_t experts, int64_t top_k, int64_t hidden, int64_t inner, WeightFormat format,
            ThreadPool& pool) {
  const auto bench = std::make_shared<Bench<ExpertsParams>>();
  std::minstd_rand random(5);
  for (int64_t s = 0; s < tokens; ++s) {
    std::vector<int64_t> all(static_cast<size_t>(experts));
    for (size_t e = 0; e < all.size(); ++e) all[e] = static_cast<int64_t>(e);
    std::shuffle(all.begin(), all.end(), random);
    bench->index.insert(bench->index.end(), all.begin(), all.begin() + top_k);
  }
  const float* const x = bench->Floats(tokens * hidden);
  const float* const shares = bench->Floats(tokens * top_k);
  const WeightMatrix gate_up = bench->Matrix(experts * 2 * inner, hidden, format);
  const WeightMatrix down = bench->Matrix(experts * hidden, inner, format);
  bench->params = {x, bench->index.data(), shares, gate_up, down, format, tokens, experts, top_k, hidden, inner,
                   bench->Room(tokens * hidden), nullptr};
  const double touched = std::min(1.0, static_cast<double>(tokens * top_k) / static_cast<double>(experts));
  return {format, 6.0 * static_cast<double>(tokens * top_k * hidden * inner), bench->weight_bytes() * touched,
          Ready(bench, ExpertsWorkspaceBytes, LaunchExperts, pool)};
}

// Median milliseconds of one job as its size grows.
void Curve(const char* kernel, const char* axis, const std::vector<int64_t>& sizes, int threads,
           const std::function<Job(int64_t)>& job) {
  for (const int64_t size : sizes) {
    const Job ready = job(size);
    std::printf("{\"kernel\": \"%s\", \"axis\": \"%s\", \"size\": %lld, \"threads\": %d, \"ms\": %.4f}\n", kernel, axis,
                static_cast<long long>(size), threads, 1e3 * MedianSeconds(ready.run));
    std::fflush(stdout);
  }
}

Job Attention(int64_t tokens, int64_t past, int64_t heads, int64_t kv_heads, int64_t head_dim, WeightFormat format,
              ThreadPool& pool) {
  const auto bench = std::make_shared<Bench<AttentionParams>>();
  const int64_t width = kv_heads * head_dim;
  AttentionParams& p = bench->params;
  p.q = bench->Floats(tokens * heads * head_dim);
  p.past_k = bench->Floats((past + tokens) * width);
  p.past_v = bench->Floats((past + tokens) * width);
  p.k = p.past_k + past * width;
  p.v = p.past_v + past * width;
  p.num_tokens = tokens;
  p.past_len = past;
  p.num_heads = heads;
  p.num_kv_heads = kv_heads;
  p.head_dim = head_dim;
  p.bf16_products = format == WeightFormat::kBFloat16;
  p.y = bench->Room(tokens * heads * head_dim);
  return {format, 4.0 * static_cast<double>(tokens * (past + tokens) * heads * head_dim),
          static_cast<double>(8 * (past + tokens) * width), Ready(bench, AttentionWorkspaceBytes, LaunchAttention, pool)};
}

// Over a table of bf16, whatever the products are.
Job Head(int64_t rows, int64_t width, int64_t vocab, WeightFormat format, ThreadPool& pool) {
  const auto bench = std::make_shared<Bench<VocabularyHeadParams>>();
  const auto uniform = std::make_shared<std::vector<double>>(static_cast<size_t>(rows), 0.5);
  const auto ids = std::make_shared<std::vector<int32_t>>(static_cast<size_t>(2 * rows));
  VocabularyHeadParams& p = bench->params;
  p.hidden = bench->Floats(rows * width);
  p.table = {bench->Matrix(vocab, width, WeightFormat::kBFloat16).values, DType::kBFloat16, vocab, width,
             format == WeightFormat::kBFloat16};
  p.canvas_len = rows;
  p.softcap = 30;
  p.temperature = 0.6f;
  p.uniform = uniform->data();
  p.argmax = ids->data();
  p.sampled = ids->data() + rows;
  p.entropy = bench->Room(rows);
  p.soft = bench->Room(rows * width);
  bench->workspace = AlignedBuffer<unsigned char>(VocabularyHeadWorkspaceBytes(rows, width, vocab));
  p.workspace = bench->workspace.data();
  return {format, 4.0 * static_cast<double>(rows * width * vocab), bench->weight_bytes(),
          [bench, uniform, ids, &pool] { LaunchVocabularyHead(bench->params, pool); }};
}

void Curves(int threads) {
  ThreadPool pool(threads);
  constexpr WeightFormat kFormat = WeightFormat::kBFloat16;
  const std::vector<int64_t> canvases = {16, 32, 64, 128, 256}, contexts = {256, 1024, 4096, 16384, 32768}, batch = {1, 2, 3, 4};
  Curve("attention, full", "context", contexts, threads, [&](int64_t n) { return Attention(256, n, 8, 2, 128, kFormat, pool); });
  Curve("attention, full", "canvas", canvases, threads, [&](int64_t n) { return Attention(n, 1024, 8, 2, 128, kFormat, pool); });
  Curve("attention, sliding", "canvas", canvases, threads, [&](int64_t n) { return Attention(n, 511, 8, 4, 64, kFormat, pool); });
  Curve("experts", "experts", {8, 16, 32, 64, 128}, threads, [&](int64_t n) { return Experts(256, n, 4, 512, 256, kFormat, pool); });
  Curve("experts", "canvas", canvases, threads, [&](int64_t n) { return Experts(n, 32, 4, 512, 256, kFormat, pool); });
  Curve("experts", "canvases", batch, threads, [&](int64_t n) { return Experts(256 * n, 32, 4, 512, 256, kFormat, pool); });
  Curve("gated MLP", "canvas", canvases, threads, [&](int64_t n) { return GatedMlp(n, 512, 2048, kFormat, pool); });
  Curve("gated MLP", "canvases", batch, threads, [&](int64_t n) { return GatedMlp(256 * n, 512, 2048, kFormat, pool); });
  Curve("vocabulary head", "canvas", canvases, threads, [&](int64_t n) { return Head(n, 512, 32768, kFormat, pool); });
  Curve("vocabulary head", "canvases", batch, threads, [&](int64_t n) { return Head(256 * n, 512, 32768, kFormat, pool); });
}

void Main(int threads, const std::string& wanted) {
  ThreadPool pool(threads);
  const double bandwidth = ReadBandwidth(pool);
  const RowProducts& products = RowProductsOf(SelectedCpuIsa());
  const Machine fp32{PeakFlops(products.multiply, DType::kFloat32, 4, pool), bandwidth};
  const Machine bf16{PeakFlops(products.multiply, DType::kBFloat16, 2, pool), bandwidth};
  const Machine int8{PeakFlops(Int8ProductsOf(SelectedCpuIsa()).multiply, DType::kFloat32, 1, pool), bandwidth};
  const Machine& unpacked = products.operands == DType::kFloat32 ? fp32 : bf16;
  const std::vector<Machine> machines = {fp32, unpacked, int8, int8};  // by format
  std::printf("{\"isa\": \"%s\", \"threads\": %d, \"fp32_gflops\": %.0f, \"bf16_gflops\": %.0f, \"int8_gops\": %.0f, "
              "\"read_gb_s\": %.1f}\n",
              CpuIsaName(SelectedCpuIsa()), threads, 1e-9 * fp32.flops, 1e-9 * bf16.flops, 1e-9 * int8.flops, 1e-9 * bandwidth);
  const auto is_wanted = [&](const char* kernel, const char* shape) {
    return (std::string(kernel) + " " + shape).find(wanted) != std::string::npos;
  };
  const auto in_each_format = [&](const char* kernel, const char* shape, auto job) {
    if (!is_wanted(kernel, shape)) return;
    std::vector<Job> jobs;
    for (const WeightFormat format : {WeightFormat::kBFloat16, WeightFormat::kInt8, WeightFormat::kInt4, WeightFormat::kFloat32}) {
      jobs.push_back(job(format));
    }
    Report(kernel, shape, jobs, machines);
  };
  const auto linear = [&](const char* shape, int64_t tokens, int64_t in, int64_t out) {
    in_each_format("linear", shape, [&](WeightFormat format) { return Linear(tokens, in, out, format, pool); });
  };
  const auto gated_mlp = [&](const char* shape, int64_t tokens, int64_t hidden, int64_t inner) {
    in_each_format("gated_mlp", shape, [&](WeightFormat format) { return GatedMlp(tokens, hidden, inner, format, pool); });
  };
  const auto experts = [&](const char* shape, int64_t tokens, int64_t all, int64_t top_k, int64_t hidden, int64_t inner) {
    in_each_format("experts", shape,
                   [&](WeightFormat format) { return Experts(tokens, all, top_k, hidden, inner, format, pool); });
  };
  const auto attention = [&](const char* shape, int64_t past, int64_t heads, int64_t kv_heads, int64_t head_dim) {
    if (!is_wanted("canvas_attention", shape)) return;
    const auto job = [&](WeightFormat format) { return Attention(256, past, heads, kv_heads, head_dim, format, pool); };
    Report("canvas_attention", shape, {job(WeightFormat::kBFloat16), job(WeightFormat::kFloat32)}, machines);
  };
  const auto head = [&](const char* shape, int64_t width, int64_t vocab) {
    if (!is_wanted("vocabulary_head", shape)) return;
    const Job bf16_job = Head(256, width, vocab, WeightFormat::kBFloat16, pool);
    Report("vocabulary_head", shape, {bf16_job, Head(256, width, vocab, WeightFormat::kFloat32, pool)}, machines);
  };
  linear("mid 256 x 512 -> 512", 256, 512, 512);
  linear("released 256 x 2816 -> 4096", 256, 2816, 4096);
  linear("released 1 x 2816 -> 4096", 1, 2816, 4096);
  gated_mlp("mid 256 x 512, 2048", 256, 512, 2048);
  gated_mlp("released 256 x 2816, 2112", 256, 2816, 2112);
  experts("mid 256 x 512, 32 top 4, 256", 256, 32, 4, 512, 256);
  experts("released 256 x 2816, 128 top 8, 704", 256, 128, 8, 2816, 704);
  experts("released 1 x 2816, 128 top 8, 704", 1, 128, 8, 2816, 704);
  attention("mid sliding 256 + 511, 8/4 x 64", 511, 8, 4, 64);
  attention("mid full 256 + 1024, 8/2 x 128", 1024, 8, 2, 128);
  attention("released full 256 + 4096, 16/2 x 512", 4096, 16, 2, 512);
  head("mid 256 x 512, 32768 ids", 512, 32768);
  head("released 256 x 2816, 262144 ids", 2816, 262144);
}

}  // namespace
}  // namespace dgrt

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  if (threads < 1 || argc > 3) {
    std::fprintf(stderr, "usage: dgrt_micro [threads] [curves | a part of kernel and shape, as in \"experts mid\"]\n");
    return 2;
  }
  const std::string part = argc > 2 ? argv[2] : "";
  if (const char* const isa = std::getenv("DGRT_CPU_ISA")) dgrt::UseCpuIsa(isa);
  if (part == "curves") {
    dgrt::Curves(threads);
  } else {
    dgrt::Main(threads, part);
  }
}
