// kernels/cpu/{linear,gated_mlp}.cc against the formulas of params.h in double, for every instruction set that
// this machine has, over sizes that are multiples of nothing.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "common/aligned_buffer.h"
#include "common/check.h"
#include "common/thread_pool.h"
#include "kernels/cpu/isa.h"
#include "kernels/kernels.h"
#include "layer_fixture.h"
#include "test.h"

namespace dgrt {
namespace {

// Relative to the sum of the absolute products, which bounds what rounding can do: fp32 adds up hundreds of them; with bf16
// weights the reference rounds its inputs too, but what lies between two products may round the other way. With int8 tokens
// that is a whole step (Product::slack), while products of the same tokens are the same numbers bit for bit.
constexpr double kSumTolerance = 2e-6;
constexpr double kBf16MlpTolerance = 4e-3;
constexpr double kMlpTolerance = 4e-6;

// A row of tokens as int8: by the formula of params.h, an operation at a time.
struct Int8Row {
  float scale = 0;
  std::vector<int64_t> q;
};
Int8Row Quantised(const float* x, int64_t count) {
  Int8Row row{0, std::vector<int64_t>(Size(count))};
  for (int64_t i = 0; i < count; ++i) row.scale = std::max(row.scale, std::fabs(x[i]));
  row.scale /= 127;
  for (int64_t i = 0; i < count && row.scale > 0; ++i) {
    row.q[Size(i)] = static_cast<int64_t>(std::clamp(std::nearbyint(x[i] / row.scale), -127.0f, 127.0f));
  }
  return row;
}

// What meets weights of a format in the place of a row of tokens.
std::vector<double> Rounded(const float* x, int64_t count, WeightFormat format) {
  std::vector<double> out(x, x + count);
  if (IsQuantised(format)) {
    const Int8Row row = Quantised(x, count);
    for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<double>(row.q[i]) * static_cast<double>(row.scale);
  } else if (format != WeightFormat::kFloat32) {
    for (double& value : out) value = static_cast<double>(ToBf16(static_cast<float>(value)));
  }
  return out;
}

constexpr WeightFormat kFormats[] = {WeightFormat::kFloat32, WeightFormat::kBFloat16, WeightFormat::kInt8, WeightFormat::kInt4};
constexpr WeightFormat kQuantised[] = {WeightFormat::kInt8, WeightFormat::kInt4};

// A weight [rows, width] as a package holds it, at odd addresses. Where it is quantised its values are what comes near.
class Weight {
 public:
  Weight(Floats values, int64_t width, WeightFormat format)
      : values_(std::move(values)),
        format_(format),
        bytes_(Size(kOff + NumRows(width) * WeightRowBytes(format, width)), 0xa5),
        scale_bytes_(Size(kOff + NumRows(width) * 2)) {
    for (int64_t row = 0; row < NumRows(width); ++row) {
      unsigned char* const to = bytes_.data() + kOff + row * WeightRowBytes(format, width);
      float* const x = values_.data() + row * width;
      if (IsQuantised(format)) {
        Quantise(x, width, to, scale_bytes_.data() + kOff + 2 * row);
      } else {
        for (int64_t i = 0; i < width; ++i) {
          if (format == WeightFormat::kFloat32) std::memcpy(to + 4 * i, x + i, 4);
          else PutBf16(x[i] = ToBf16(x[i]), to + 2 * i);
        }
      }
    }
  }
  WeightMatrix matrix() const { return {bytes_.data() + kOff, scale_bytes_.data() + kOff}; }
  double operator[](int64_t i) const { return static_cast<double>(values_[Size(i)]); }
  int64_t Integer(int64_t i) const { return integers_[Size(i)]; }
  float Scale(int64_t i) const {
    uint16_t half;
    std::memcpy(&half, scale_bytes_.data() + kOff + 2 * i, 2);
    return std::bit_cast<float>(static_cast<uint32_t>(half) << 16);
  }
  WeightFormat format() const { return format_; }

 private:
  int64_t NumRows(int64_t width) const { return static_cast<int64_t>(values_.size()) / width; }

  static void PutBf16(float x, unsigned char* to) {
    const uint16_t half = static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16);
    std::memcpy(to, &half, 2);
  }

  // A row: to `to`, its scale to `scale`, and x becomes the weights that they mean.
  void Quantise(float* x, int64_t width, unsigned char* to, unsigned char* scale_to) {
    const float scale = ToBf16(LargestOf(x, width, [](float a) { return std::fabs(a); }) / 127);
    PutBf16(scale, scale_to);
    const int64_t group_len = format_ == WeightFormat::kInt4 ? kCodeGroup : width;
    for (int64_t first = 0; first < width; first += group_len) {
      const int64_t count = std::min(width - first, group_len);
      float* const group = x + first;
      if (format_ == WeightFormat::kInt4) QuantiseGroup(group, count, scale, to + first / 2, to + NumCodeGroups(width) * 16 + first / 32);
      for (int64_t i = 0; i < count; ++i) {
        const auto q = static_cast<int>(std::clamp(std::nearbyint(group[i] / scale), -127.0f, 127.0f));
        integers_.push_back(q);
        group[i] = static_cast<float>(q) * scale;
        if (format_ == WeightFormat::kInt8) to[first + i] = static_cast<unsigned char>(q);
      }
    }
  }

  // The largest of a group becomes an end of the sixteen values. Codes behind the last weight are rubbish.
  static void QuantiseGroup(float* x, int64_t count, float scale, unsigned char* codes, unsigned char* level_to) {
    const bool is_down = LargestOf(x, count, [](float a) { return -a; }) >= LargestOf(x, count, [](float a) { return a; });
    const float largest = LargestOf(x, count, [](float a) { return std::fabs(a); }) / scale;
    const int level = static_cast<int>(std::clamp(std::nearbyint(is_down ? largest : -largest), -127.0f, 127.0f));
    *level_to = static_cast<unsigned char>(level);
    for (int64_t i = 0; i < count; ++i) {
      const auto distance = [&](int code) { return std::fabs(static_cast<float>(Int4Weight(code, level)) - x[i] / scale); };
      int best = 0;
      for (int code = 1; code < 16; ++code) best = distance(code) < distance(best) ? code : best;
      unsigned char& both = codes[i % 16];
      both = static_cast<unsigned char>(i < 16 ? (both & 0xf0) | best : (both & 0x0f) | best << 4);
      x[i] = static_cast<float>(Int4Weight(best, level)) * scale;
    }
  }

  template <typename Of>
  static float LargestOf(const float* x, int64_t count, Of of) {
    float largest = of(x[0]);
    for (int64_t i = 1; i < count; ++i) largest = std::max(largest, of(x[i]));
    return largest;
  }

  static constexpr int64_t kOff = 2;
  Floats values_;
  WeightFormat format_;
  std::vector<unsigned char> bytes_, scale_bytes_;
  std::vector<int64_t> integers_;  // of a quantised weight
};

// ---- linear ----

struct Product {
  double value = 0, magnitude = 0;
  double slack = 0;  // that tokens which round the other way may make
};
Product Dot(const std::vector<double>& rounded, const Weight& w, int64_t w_at) {
  Product sum;
  for (size_t i = 0; i < rounded.size(); ++i) {
    const double term = rounded[i] * w[w_at + static_cast<int64_t>(i)];
    sum.value += term;
    sum.magnitude += std::fabs(term);
  }
  return sum;
}

void CheckLinear(int64_t tokens, int64_t inputs, int64_t outputs, WeightFormat format) {
  Random random;
  const Floats x = random.Vector(tokens * inputs);
  const Weight weight(random.Vector(outputs * inputs), inputs, format);
  ForEachIsa([&] {
    LinearParams p;
    p.weight = weight.matrix();
    p.format = format;
    p.num_inputs = inputs;
    p.num_outputs = outputs;
    const auto run = [&](const float* from, int64_t count, int threads) {
      p.x = from;
      p.num_tokens = count;
      return RunOn(threads, LinearWorkspaceBytes(p, threads), count * outputs, [&](void* workspace, ThreadPool& pool, float* y) {
        p.workspace = workspace;
        p.y = y;
        LaunchLinear(p, pool);
      });
    };
    const Floats y = run(x.data(), tokens, 1);
    for (int64_t s = 0; s < tokens; ++s) {
      const auto row = Rounded(x.data() + s * inputs, inputs, format);
      for (int64_t n = 0; n < outputs; ++n) {
        const Product expected = Dot(row, weight, n * inputs);
        CHECK_NEAR(y[Size(s * outputs + n)], expected.value, kSumTolerance * expected.magnitude + 1e-30);
      }
    }
    CHECK(SameBits(y, run(x.data(), tokens, 3)));
    const int64_t last = tokens - 1;  // a token alone has the bits that it has among others
    CHECK(SameBits(run(x.data() + last * inputs, 1, 1), Floats(y.begin() + last * outputs, y.end())));
  });
}

TEST(LinearLayersAgreeWithDoubleSums) {
  for (const WeightFormat format : kFormats) {
    CheckLinear(1, 1, 1, format);
    CheckLinear(17, 33, 7, format);
    CheckLinear(64, 64, 64, format);
    CheckLinear(83, 129, 131, format);
    CheckLinear(5, 1000, 70, format);
    CheckLinear(2, 13'000, 13, format);  // fewer rows are unpacked at once than the registers hold
  }
}

Floats RunLinear(const Floats& x, const WeightMatrix& weight, WeightFormat format, int64_t inputs, int64_t outputs) {
  const int64_t tokens = static_cast<int64_t>(x.size()) / inputs;
  LinearParams p{x.data(), weight, format, tokens, inputs, outputs, nullptr, nullptr};
  return RunOn(1, LinearWorkspaceBytes(p, 1), tokens * outputs, [&](void* workspace, ThreadPool& pool, float* y) {
    p.workspace = workspace;
    p.y = y;
    LaunchLinear(p, pool);
  });
}

// Not near what the formula says: its bits, on every instruction set.
void CheckInt8Products(const Floats& x, const Weight& weight, int64_t inputs, int64_t outputs) {
  ForEachIsa([&] {
    const Floats y = RunLinear(x, weight.matrix(), weight.format(), inputs, outputs);
    for (size_t s = 0; s < x.size() / Size(inputs); ++s) {
      const Int8Row row = Quantised(x.data() + s * Size(inputs), inputs);
      for (int64_t n = 0; n < outputs; ++n) {
        int64_t sum = 0;
        for (int64_t i = 0; i < inputs; ++i) sum += row.q[Size(i)] * weight.Integer(n * inputs + i);
        CHECK_EQ(y[s * Size(outputs) + Size(n)], static_cast<float>(sum) * row.scale * weight.Scale(n));
      }
    }
  });
}

TEST(Int8ProductsAreTheSameBitsOnEveryInstructionSet) {
  constexpr float kDenormal = 1e-45f, kLargest = std::numeric_limits<float>::max();
  for (const auto& [inputs, outputs] : {std::pair<int64_t, int64_t>{1, 1}, {2, 3}, {15, 7}, {33, 70}, {1000, 5}, {13'001, 8}}) {
    Random random;
    Floats x;
    // The last three: zeros; halves of a step; values that a scale of few bits makes more than 127.
    for (const float scale : {1.0f, 1e-20f, 1e-38f, 1e-43f, kLargest / 8, 0.0f, 0.0f, 0.0f}) {
      const Floats row = random.Vector(inputs, scale);
      x.insert(x.end(), row.begin(), row.end());
    }
    for (int64_t i = 0; i < inputs; ++i) {
      x[Size(6 * inputs + i)] = i % 5 == 0 ? -127.0f : 0.5f + static_cast<float>(i % 126);
      x[Size(7 * inputs + i)] = static_cast<float>(190 - i % 190) * kDenormal;
    }
    for (const WeightFormat format : kQuantised) {
      CheckInt8Products(x, {random.Vector(outputs * inputs), inputs, format}, inputs, outputs);
    }
  }
}

// Every code at every level, in a whole group and in a shorter one.
TEST(EveryCodeOfInt4IsItsIntegerOnEveryInstructionSet) {
  constexpr int64_t kWidth = 51, kRows = 256;
  std::vector<unsigned char> rows(Size(kRows * WeightRowBytes(WeightFormat::kInt4, kWidth)));
  const auto code_at = [](int64_t row, int64_t i) { return static_cast<int>((i + row / 5) % 16); };
  for (int64_t row = 0; row < kRows; ++row) {
    unsigned char* const to = rows.data() + row * WeightRowBytes(WeightFormat::kInt4, kWidth);
    for (int64_t byte = 0; byte < 32; ++byte) {
      const int64_t first = byte / 16 * 32 + byte % 16;
      to[byte] = static_cast<unsigned char>(code_at(row, first) | code_at(row, first + 16) << 4);
    }
    to[32] = static_cast<unsigned char>(row - 128);
    to[33] = static_cast<unsigned char>(127 - row);
  }
  const std::vector<uint16_t> ones(kRows, 0x3f80);
  Floats x(kWidth * kWidth);
  for (int64_t i = 0; i < kWidth; ++i) x[Size(i * kWidth + i)] = 127;  // of a scale of 1
  ForEachIsa([&] {
    const Floats y = RunLinear(x, {rows.data(), ones.data()}, WeightFormat::kInt4, kWidth, kRows);
    for (int64_t i = 0; i < kWidth; ++i) {
      for (int64_t row = 0; row < kRows; ++row) {
        const auto level = static_cast<int>(i < 32 ? row - 128 : 127 - row);
        const auto expected = static_cast<int8_t>((kInt4Values[code_at(row, i)] * level + 64) >> 7);
        CHECK_EQ(y[Size(i * kRows + row)], static_cast<float>(127 * expected));
      }
    }
  });
}

TEST(TheLongestInt8RowDoesNotOverflow) {
  constexpr int64_t kWidth = kMaxInt8Width;
  const std::vector<unsigned char> bytes(kWidth, 0x80);  // -128, which no exporter writes
  const uint16_t one = 0x3f80;
  Floats x(2 * kWidth, 127);
  std::fill(x.begin() + kWidth, x.end(), -127.0f);
  ForEachIsa([&] {
    const Floats y = RunLinear(x, {bytes.data(), &one}, WeightFormat::kInt8, kWidth, 1);
    CHECK_EQ(y[0], static_cast<float>(-128 * 127 * kWidth));
    CHECK_EQ(y[1], static_cast<float>(128 * 127 * kWidth));
  });
}

TEST(WhatIsNoNumberInATokenStaysInItsRow) {
  for (const WeightFormat format : {WeightFormat::kBFloat16, WeightFormat::kInt8, WeightFormat::kInt4}) {
    Random random;
    Floats x = random.Vector(20 * 40);
    x[3 * 40 + 5] = std::bit_cast<float>(0x7fffffffu);  // rounding to bf16 must not carry it into something else
    x[17 * 40] = -std::numeric_limits<float>::infinity();
    const Weight weight(random.Vector(30 * 40), 40, format);
    ForEachIsa([&] {
      const Floats y = RunLinear(x, weight.matrix(), format, 40, 30);
      for (size_t i = 0; i < y.size(); ++i) {
        CHECK_EQ(std::isfinite(y[i]), i / 30 != 3 && i / 30 != 17);
        CHECK_EQ(std::isnan(y[i]), i / 30 == 3 || (i / 30 == 17 && IsQuantised(format)));
      }
    });
  }
}

// ---- gated MLPs ----

double Gelu(double x) { return x / 2 * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x))); }

struct Mlp {
  const Weight &gate, &up, &down;  // gate and up may be one matrix
  int64_t gate_at, up_at, down_at;  // elements
};

// One token through one MLP; magnitude as in Dot.
std::vector<Product> MlpOf(const Floats& x, int64_t x_at, const Mlp& mlp, int64_t hidden, int64_t inner) {
  const WeightFormat format = mlp.gate.format();
  const auto row = Rounded(x.data() + x_at, hidden, format);
  Floats h(Size(inner));
  for (int64_t i = 0; i < inner; ++i) {
    const double gate = Dot(row, mlp.gate, mlp.gate_at + i * hidden).value;
    const double up = Dot(row, mlp.up, mlp.up_at + i * hidden).value;
    h[Size(i)] = static_cast<float>(Gelu(gate) * up);
  }
  const auto rounded = Rounded(h.data(), inner, format);
  std::vector<Product> y(Size(hidden));
  for (int64_t d = 0; d < hidden; ++d) {
    Product& sum = y[Size(d)] = Dot(rounded, mlp.down, mlp.down_at + d * inner);
    if (!IsQuantised(format)) continue;
    double largest = 0;
    for (int64_t i = 0; i < inner; ++i) largest = std::max(largest, std::fabs(mlp.down[mlp.down_at + d * inner + i]));
    sum.slack = 2 * static_cast<double>(Quantised(h.data(), inner).scale) * largest;  // more than two at once are rare
  }
  return y;
}

double MlpTolerance(WeightFormat format) {
  return format == WeightFormat::kFloat32 || IsQuantised(format) ? kMlpTolerance : kBf16MlpTolerance;
}

// For the results of one instruction set after the other.
struct SameOnAll {
  void Check(const Floats& y) {
    if (first) CHECK(SameBits(*first, y));
    first = y;
  }
  std::optional<Floats> first;
};

void CheckGatedMlp(int64_t tokens, int64_t hidden, int64_t inner, WeightFormat format) {
  Random random;
  const Floats x = random.Vector(tokens * hidden);
  const float scale = 1 / std::sqrt(static_cast<float>(hidden));
  const Weight gate(random.Vector(inner * hidden, scale), hidden, format), up(random.Vector(inner * hidden, scale), hidden, format);
  const Weight down(random.Vector(hidden * inner, scale), inner, format);
  SameOnAll quantised;
  ForEachIsa([&] {
    GatedMlpParams p{x.data(), gate.matrix(), up.matrix(), down.matrix(), format, tokens, hidden, inner, nullptr, nullptr};
    const auto run = [&](int threads) {
      return RunOn(threads, GatedMlpWorkspaceBytes(p, threads), tokens * hidden, [&](void* workspace, ThreadPool& pool, float* y) {
        p.workspace = workspace;
        p.y = y;
        LaunchGatedMlp(p, pool);
      });
    };
    const Floats y = run(1);
    for (int64_t s = 0; s < tokens; ++s) {
      const auto expected = MlpOf(x, s * hidden, {gate, up, down, 0, 0, 0}, hidden, inner);
      for (int64_t d = 0; d < hidden; ++d) {
        const Product& e = expected[Size(d)];
        CHECK_NEAR(y[Size(s * hidden + d)], e.value, MlpTolerance(format) * e.magnitude + e.slack + 1e-6);
      }
    }
    CHECK(SameBits(y, run(3)));
    if (IsQuantised(format)) quantised.Check(y);
  });
}

TEST(GatedMlpsAgreeWithDoubleSums) {
  for (const WeightFormat format : kFormats) {
    CheckGatedMlp(1, 1, 1, format);
    CheckGatedMlp(19, 37, 45, format);
    CheckGatedMlp(70, 64, 33, format);
    CheckGatedMlp(33, 130, 7, format);
  }
}

enum class Routing { kRandom, kAllTheSame, kOneExpertOnly };

void CheckExperts(int64_t tokens, int64_t experts, int64_t top_k, int64_t hidden, int64_t inner, WeightFormat format,
                  Routing routing) {
  Random random;
  const Floats x = random.Vector(tokens * hidden), weight = random.Vector(tokens * top_k);
  const float scale = 1 / std::sqrt(static_cast<float>(hidden));
  const Weight gate_up(random.Vector(experts * 2 * inner * hidden, scale), hidden, format);
  const Weight down(random.Vector(experts * hidden * inner, scale), inner, format);
  std::vector<int64_t> index(Size(tokens * top_k));
  for (int64_t s = 0; s < tokens; ++s) {
    std::vector<int64_t> all(Size(experts));
    for (int64_t e = 0; e < experts; ++e) all[Size(e)] = e;
    if (routing == Routing::kRandom) std::shuffle(all.begin(), all.end(), random.engine);
    for (int64_t j = 0; j < top_k; ++j) {
      index[Size(s * top_k + j)] = routing == Routing::kOneExpertOnly ? experts - 1 : all[Size(j)];
    }
  }
  SameOnAll quantised;
  ForEachIsa([&] {
    ExpertsParams p{x.data(), index.data(), weight.data(), gate_up.matrix(), down.matrix(), format,
                    tokens,   experts,      top_k,         hidden,         inner,       nullptr, nullptr};
    const auto run = [&](int64_t first, int64_t count, int threads) {
      p.x = x.data() + first * hidden;
      p.index = index.data() + first * top_k;
      p.weight = weight.data() + first * top_k;
      p.num_tokens = count;
      return RunOn(threads, ExpertsWorkspaceBytes(p, threads), count * hidden, [&](void* workspace, ThreadPool& pool, float* y) {
        p.workspace = workspace;
        p.y = y;
        LaunchExperts(p, pool);
      });
    };
    const Floats y = run(0, tokens, 1);
    for (int64_t s = 0; s < tokens; ++s) {
      std::vector<Product> expected(Size(hidden));
      for (int64_t j = 0; j < top_k; ++j) {
        const int64_t e = index[Size(s * top_k + j)], half = inner * hidden;
        const auto part = MlpOf(x, s * hidden, {gate_up, gate_up, down, 2 * e * half, (2 * e + 1) * half, e * half}, hidden,
                                inner);
        const double share = static_cast<double>(weight[Size(s * top_k + j)]);
        for (size_t d = 0; d < part.size(); ++d) {
          expected[d].value += share * part[d].value;
          expected[d].magnitude += std::fabs(share) * part[d].magnitude;
          expected[d].slack += std::fabs(share) * part[d].slack;
        }
      }
      for (int64_t d = 0; d < hidden; ++d) {
        const Product& e = expected[Size(d)];
        CHECK_NEAR(y[Size(s * hidden + d)], e.value, MlpTolerance(format) * e.magnitude + e.slack + 1e-6);
      }
    }
    CHECK(SameBits(y, run(0, tokens, 3)));
    CHECK(SameBits(run(tokens - 1, 1, 1), Floats(y.end() - hidden, y.end())));
    if (IsQuantised(format)) quantised.Check(y);
  });
}

TEST(ExpertsAgreeWithDoubleSumsHoweverTokensAreRouted) {
  for (const WeightFormat format : kFormats) {
    for (const Routing routing : {Routing::kRandom, Routing::kAllTheSame, Routing::kOneExpertOnly}) {
      CheckExperts(1, 3, 2, 9, 5, format, routing);
      CheckExperts(37, 8, 2, 20, 11, format, routing);
      CheckExperts(70, 5, 1, 33, 34, format, routing);
    }
    CheckExperts(40, 128, 8, 16, 6, format, Routing::kRandom);
  }
  for (const Routing routing : {Routing::kRandom, Routing::kAllTheSame, Routing::kOneExpertOnly}) {  // wide rows, few tokens
    CheckExperts(1, 3, 2, 1024, 5, WeightFormat::kInt4, routing);
    CheckExperts(37, 8, 2, 1050, 131, WeightFormat::kInt4, routing);
  }
}

TEST(AnExpertThatDoesNotExistIsAnError) {
  const Floats x(8), weight(2), gate_up(3 * 4 * 4), down(3 * 4 * 2);
  const int64_t index[] = {0, 3};
  Floats y(8);
  ExpertsParams p{x.data(), index, weight.data(), {gate_up.data()}, {down.data()}, WeightFormat::kFloat32, 2, 3, 1, 4, 2,
                  y.data(), nullptr};
  AlignedBuffer<unsigned char> workspace(ExpertsWorkspaceBytes(p, 1));
  p.workspace = workspace.data();
  ThreadPool pool(1);
  CHECK_THROWS(InternalError, "check failed", LaunchExperts(p, pool));
}

TEST(AnInstructionSetThatIsNotThereIsNamed) {
  CHECK_THROWS(InvalidArgument, "found 'sse9'", UseCpuIsa("sse9"));
  UseCpuIsa("plain");
  CHECK(SelectedCpuIsa() == CpuIsa::kPlain);
  UseCpuIsa(CpuIsaName(UsableCpuIsas().front()));
}

}  // namespace
}  // namespace dgrt
