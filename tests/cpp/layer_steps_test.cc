// The larger steps of a layer, kernels/cpu/{linear,qkv,feed_forward}.cc, against the formulas of params.h: norms, rotation and
// router in double, products by the kernels that layers_test.cc checks. For every instruction set that this machine has, over
// sizes that are multiples of nothing.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "common/thread_pool.h"
#include "kernels/cpu/isa.h"
#include "kernels/kernels.h"
#include "layer_fixture.h"
#include "test.h"

namespace dgrt {
namespace {

constexpr float kEps = 1e-5f;
constexpr double kTolerance = 3e-6;      // of rows whose rms is about one
constexpr double kBf16Tolerance = 3e-2;  // a normed row may round the other way, and what is made of it

// Weights in fp32 or, as their upper halves, in bf16.
class Weight {
 public:
  Weight(Floats values, WeightFormat format) : values_(std::move(values)), halves_(values_.size()), format_(format) {
    for (size_t i = 0; i < values_.size(); ++i) {
      halves_[i] = static_cast<uint16_t>(std::bit_cast<uint32_t>(ToBf16(values_[i])) >> 16);
    }
  }
  WeightMatrix matrix() const {
    return {format_ == WeightFormat::kFloat32 ? static_cast<const void*>(values_.data()) : halves_.data()};
  }

 private:
  Floats values_;
  std::vector<uint16_t> halves_;
  WeightFormat format_;
};

// out = base + norm(row, weight).
Floats Normed(const Floats& rows, int64_t width, const float* weight, const Floats* base = nullptr) {
  Floats out(rows.size());
  for (size_t at = 0; at < rows.size(); at += Size(width)) {
    double squares = 0;
    for (size_t i = 0; i < Size(width); ++i) squares += std::pow(static_cast<double>(rows[at + i]), 2);
    const double factor = 1 / std::sqrt(squares / static_cast<double>(width) + static_cast<double>(kEps));
    for (size_t i = 0; i < Size(width); ++i) {
      const double x = static_cast<double>(rows[at + i]) * factor * (weight == nullptr ? 1.0 : static_cast<double>(weight[i]));
      out[at + i] = static_cast<float>(x + (base == nullptr ? 0.0 : static_cast<double>((*base)[at + i])));
    }
  }
  return out;
}

Floats Product(const Floats& x, const Weight& weight, WeightFormat format, int64_t inputs, int64_t outputs) {
  const int64_t tokens = static_cast<int64_t>(x.size()) / inputs;
  LinearParams p;
  p.x = x.data();
  p.weight = weight.matrix();
  p.format = format;
  p.num_tokens = tokens;
  p.num_inputs = inputs;
  p.num_outputs = outputs;
  return RunOn(1, LinearWorkspaceBytes(p, 1), tokens * outputs, [&](void* workspace, ThreadPool& pool, float* y) {
    p.workspace = workspace;
    p.y = y;
    LaunchLinear(p, pool);
  });
}

double ToleranceOf(WeightFormat format) { return format == WeightFormat::kFloat32 ? kTolerance : kBf16Tolerance; }

void CheckClose(const Floats& found, const Floats& expected, double tolerance) {
  CHECK_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    const double e = static_cast<double>(expected[i]);
    CHECK_NEAR(found[i], e, tolerance * (1 + std::fabs(e)));
  }
}

constexpr WeightFormat kFormats[] = {WeightFormat::kFloat32, WeightFormat::kBFloat16};

TEST(ALinearLayerWithANormAddsItToTheResidual) {
  for (const WeightFormat format : kFormats) {
    for (const auto& [tokens, inputs, outputs] : {std::array<int64_t, 3>{1, 1, 1}, {17, 33, 70}, {40, 64, 131}}) {
      Random random;
      const Floats x = random.Vector(tokens * inputs), residual = random.Vector(tokens * outputs), norm = random.Vector(outputs);
      const Weight weight(random.Vector(outputs * inputs), format);
      ForEachIsa([&, tokens = tokens, inputs = inputs, outputs = outputs] {
        LinearParams p;
        p.weight = weight.matrix();
        p.format = format;
        p.num_inputs = inputs;
        p.num_outputs = outputs;
        p.norm = norm.data();
        p.eps = kEps;
        const auto run = [&](int64_t first, int64_t count, int threads) {
          p.x = x.data() + first * inputs;
          p.residual = residual.data() + first * outputs;
          p.num_tokens = count;
          return RunOn(threads, LinearWorkspaceBytes(p, threads), count * outputs,
                       [&](void* workspace, ThreadPool& pool, float* y) {
                         p.workspace = workspace;
                         p.y = y;
                         LaunchLinear(p, pool);
                       });
        };
        const Floats y = run(0, tokens, 1);
        CheckClose(y, Normed(Product(x, weight, format, inputs, outputs), outputs, norm.data(), &residual), kTolerance);
        CHECK(SameBits(y, run(0, tokens, 3)));
        CHECK(SameBits(run(tokens - 1, 1, 1), Floats(y.end() - outputs, y.end())));
      });
    }
  }
}

// ---- q, k and v ----

struct Heads {
  int64_t tokens, hidden, num_heads, num_kv_heads, head_dim;
};

Floats Rotated(Floats heads, const Heads& sizes, int64_t count, const Floats& cos, const Floats& sin) {
  const size_t half = Size(sizes.head_dim / 2);
  for (size_t head = 0; head < Size(sizes.tokens * count); ++head) {
    float* const at = heads.data() + head * 2 * half;
    for (size_t i = 0; i < half; ++i) {
      const size_t angle = head / Size(count) * half + i;
      const double a = static_cast<double>(at[i]), b = static_cast<double>(at[half + i]);
      const double c = static_cast<double>(cos[angle]), s = static_cast<double>(sin[angle]);
      at[i] = static_cast<float>(a * c - b * s);
      at[half + i] = static_cast<float>(b * c + a * s);
    }
  }
  return heads;
}

void CheckQkv(const Heads& sizes, bool has_v, WeightFormat format) {
  Random random;
  const int64_t q_width = sizes.num_heads * sizes.head_dim, kv_width = sizes.num_kv_heads * sizes.head_dim;
  const Floats x = random.Vector(sizes.tokens * sizes.hidden), input_norm = random.Vector(sizes.hidden);
  const Floats q_norm = random.Vector(sizes.head_dim), k_norm = random.Vector(sizes.head_dim);
  const Weight q_proj(random.Vector(q_width * sizes.hidden), format), k_proj(random.Vector(kv_width * sizes.hidden), format);
  const Weight v_proj(random.Vector(kv_width * sizes.hidden), format);
  Floats cos = random.Vector(sizes.tokens * sizes.head_dim / 2), sin = cos;
  for (size_t i = 0; i < cos.size(); ++i) sin[i] = std::sin(cos[i]), cos[i] = std::cos(cos[i]);

  ForEachIsa([&] {
    QkvParams p;
    p.input_norm = input_norm.data();
    p.q_proj = q_proj.matrix();
    p.k_proj = k_proj.matrix();
    if (has_v) p.v_proj = v_proj.matrix();
    p.format = format;
    p.q_norm = q_norm.data();
    p.k_norm = k_norm.data();
    p.eps = kEps;
    p.hidden_size = sizes.hidden;
    p.num_heads = sizes.num_heads;
    p.num_kv_heads = sizes.num_kv_heads;
    p.head_dim = sizes.head_dim;
    // q, then k, then v, of all tokens each.
    const auto run = [&](int64_t first, int64_t count, int threads) {
      p.x = x.data() + first * sizes.hidden;
      p.cos = cos.data() + first * sizes.head_dim / 2;
      p.sin = sin.data() + first * sizes.head_dim / 2;
      p.num_tokens = count;
      return RunOn(threads, QkvWorkspaceBytes(p, threads), count * (q_width + 2 * kv_width),
                   [&](void* workspace, ThreadPool& pool, float* y) {
                     p.workspace = workspace;
                     p.q = y;
                     p.k = p.q + count * q_width;
                     p.v = p.k + count * kv_width;
                     LaunchQkv(p, pool);
                   });
    };
    const Floats normed = Normed(x, sizes.hidden, input_norm.data());
    const Floats raw_k = Product(normed, k_proj, format, sizes.hidden, kv_width);
    const Floats raw_v = has_v ? Product(normed, v_proj, format, sizes.hidden, kv_width) : raw_k;
    Floats expected = Rotated(Normed(Product(normed, q_proj, format, sizes.hidden, q_width), sizes.head_dim, q_norm.data()), sizes,
                              sizes.num_heads, cos, sin);
    const Floats k = Rotated(Normed(raw_k, sizes.head_dim, k_norm.data()), sizes, sizes.num_kv_heads, cos, sin);
    const Floats v = Normed(raw_v, sizes.head_dim, nullptr);
    expected.insert(expected.end(), k.begin(), k.end());
    expected.insert(expected.end(), v.begin(), v.end());

    const Floats y = run(0, sizes.tokens, 1);
    CheckClose(y, expected, ToleranceOf(format));
    CHECK(SameBits(y, run(0, sizes.tokens, 3)));
    const Floats alone = run(sizes.tokens - 1, 1, 1);
    CHECK(SameBits(Floats(alone.end() - kv_width, alone.end()), Floats(y.end() - kv_width, y.end())));
  });
}

TEST(QueriesKeysAndValuesAreNormedAndTurned) {
  for (const WeightFormat format : kFormats) {
    for (const bool has_v : {true, false}) {
      CheckQkv({1, 3, 1, 1, 2}, has_v, format);
      CheckQkv({19, 40, 4, 2, 6}, has_v, format);
      CheckQkv({33, 65, 3, 1, 70}, has_v, format);
    }
  }
}

// ---- feed-forward ----

struct FeedForwardSizes {
  int64_t tokens, hidden, inner, num_experts, top_k, expert_inner;
};

class FeedForwardCase {
 public:
  FeedForwardCase(const FeedForwardSizes& sizes, WeightFormat format, WeightFormat expert_format, float router_scale)
      : n_(sizes),
        format_(format),
        expert_format_(expert_format),
        x_(random_.Vector(n_.tokens * n_.hidden)),
        router_scale_(random_.Vector(n_.hidden, router_scale)),
        router_(random_.Vector(n_.num_experts * n_.hidden)),
        per_expert_scale_(random_.Vector(n_.num_experts)),
        gate_(Matrix(n_.inner, n_.hidden, format)),
        up_(Matrix(n_.inner, n_.hidden, format)),
        down_(Matrix(n_.hidden, n_.inner, format)),
        expert_gate_up_(Matrix(n_.num_experts * 2 * n_.expert_inner, n_.hidden, expert_format)),
        expert_down_(Matrix(n_.num_experts * n_.hidden, n_.expert_inner, expert_format)) {
    for (Floats& norm : norms_) norm = random_.Vector(n_.hidden);
  }

  Floats Run(int64_t first, int64_t count, int threads) const {
    FeedForwardParams p;
    p.x = x_.data() + first * n_.hidden;
    p.dense_norm_in = norms_[0].data();
    p.dense_norm_out = norms_[1].data();
    p.experts_norm_in = norms_[2].data();
    p.experts_norm_out = norms_[3].data();
    p.norm_out = norms_[4].data();
    p.router_scale = router_scale_.data();
    p.router = router_.data();
    p.per_expert_scale = per_expert_scale_.data();
    p.gate = gate_.matrix();
    p.up = up_.matrix();
    p.down = down_.matrix();
    p.expert_gate_up = expert_gate_up_.matrix();
    p.expert_down = expert_down_.matrix();
    p.format = format_;
    p.expert_format = expert_format_;
    p.eps = kEps;
    p.num_tokens = count;
    p.hidden_size = n_.hidden;
    p.inner_size = n_.inner;
    p.num_experts = n_.num_experts;
    p.top_k = n_.top_k;
    p.expert_inner_size = n_.expert_inner;
    return RunOn(threads, FeedForwardWorkspaceBytes(p, threads), count * n_.hidden,
                 [&](void* workspace, ThreadPool& pool, float* y) {
                   p.workspace = workspace;
                   p.y = y;
                   LaunchFeedForward(p, pool);
                 });
  }

  Floats Expected() const {
    Route();
    const Floats dense_in = Normed(x_, n_.hidden, norms_[0].data()), experts_in = Normed(x_, n_.hidden, norms_[2].data());
    GatedMlpParams d{dense_in.data(), gate_.matrix(), up_.matrix(), down_.matrix(), format_, n_.tokens, n_.hidden, n_.inner,
                     nullptr, nullptr};
    const int64_t size = n_.tokens * n_.hidden;
    const Floats dense = RunOn(1, GatedMlpWorkspaceBytes(d, 1), size, [&](void* workspace, ThreadPool& pool, float* y) {
      d.workspace = workspace;
      d.y = y;
      LaunchGatedMlp(d, pool);
    });
    ExpertsParams e;
    e.x = experts_in.data();
    e.index = index_.data();
    e.weight = weight_.data();
    e.gate_up = expert_gate_up_.matrix();
    e.down = expert_down_.matrix();
    e.format = expert_format_;
    e.num_tokens = n_.tokens;
    e.num_experts = n_.num_experts;
    e.top_k = n_.top_k;
    e.hidden_size = n_.hidden;
    e.inner_size = n_.expert_inner;
    const Floats experts = RunOn(1, ExpertsWorkspaceBytes(e, 1), size, [&](void* workspace, ThreadPool& pool, float* y) {
      e.workspace = workspace;
      e.y = y;
      LaunchExperts(e, pool);
    });
    const Floats dense_out = Normed(dense, n_.hidden, norms_[1].data());
    return Normed(Normed(experts, n_.hidden, norms_[3].data(), &dense_out), n_.hidden, norms_[4].data(), &x_);
  }

  double tolerance() const {  // weights of random size, one on top of the other
    return 10 * std::max(ToleranceOf(format_), ToleranceOf(expert_format_));
  }
  int64_t tokens() const { return n_.tokens; }
  int64_t hidden() const { return n_.hidden; }
  Floats& x() { return x_; }

 private:
  Weight Matrix(int64_t rows, int64_t width, WeightFormat format) {
    return {random_.Vector(rows * width, 1 / std::sqrt(static_cast<float>(width))), format};
  }

  void Route() const {
    const Floats normed = Normed(x_, n_.hidden, router_scale_.data());
    index_.clear();
    weight_.clear();
    for (int64_t s = 0; s < n_.tokens; ++s) {
      std::vector<double> scores(Size(n_.num_experts));
      for (size_t e = 0; e < scores.size(); ++e) {
        for (size_t i = 0; i < Size(n_.hidden); ++i) {
          scores[e] += static_cast<double>(normed[Size(s * n_.hidden) + i]) * static_cast<double>(router_[e * Size(n_.hidden) + i]);
        }
        scores[e] /= std::sqrt(static_cast<double>(n_.hidden));
      }
      std::vector<int64_t> order(scores.size());
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return scores[Size(a)] > scores[Size(b)]; });
      double sum = 0;
      for (int64_t j = 0; j < n_.top_k; ++j) sum += std::exp(scores[Size(order[Size(j)])] - scores[Size(order[0])]);
      for (int64_t j = 0; j < n_.top_k; ++j) {
        const int64_t e = order[Size(j)];
        index_.push_back(e);
        weight_.push_back(static_cast<float>(std::exp(scores[Size(e)] - scores[Size(order[0])]) / sum *
                                             static_cast<double>(per_expert_scale_[Size(e)])));
      }
    }
  }

  FeedForwardSizes n_;
  WeightFormat format_, expert_format_;
  Random random_;
  Floats x_, router_scale_, router_, per_expert_scale_;
  Weight gate_, up_, down_, expert_gate_up_, expert_down_;
  Floats norms_[5];
  mutable std::vector<int64_t> index_;
  mutable Floats weight_;
};

void CheckFeedForward(const FeedForwardSizes& sizes, WeightFormat format, WeightFormat expert_format, float router_scale) {
  const FeedForwardCase test(sizes, format, expert_format, router_scale);
  ForEachIsa([&] {
    const Floats y = test.Run(0, test.tokens(), 1);
    CheckClose(y, test.Expected(), test.tolerance());
    CHECK(SameBits(y, test.Run(0, test.tokens(), 3)));
    CHECK(SameBits(test.Run(test.tokens() - 1, 1, 1), Floats(y.end() - test.hidden(), y.end())));
  });
}

TEST(TheFeedForwardHalfAgreesWithItsFormula) {
  for (const WeightFormat format : kFormats) {
    CheckFeedForward({1, 2, 3, 1, 1, 2}, format, format, 1);
    CheckFeedForward({19, 40, 33, 8, 2, 12}, format, format, 1);
    CheckFeedForward({50, 130, 64, 5, 5, 34}, format, format, 1);
    CheckFeedForward({33, 70, 20, 128, 8, 6}, format, format, 1);
  }
  CheckFeedForward({19, 40, 33, 8, 2, 12}, WeightFormat::kFloat32, WeightFormat::kBFloat16, 1);
}

// With a router that says nothing all scores are equal: the first k experts, a k-th of the weight each.
TEST(TiesOfTheRouterGoToTheFirstExperts) { 
  CheckFeedForward({18, 36, 20, 9, 3, 7}, WeightFormat::kFloat32, WeightFormat::kFloat32, 0);
}

TEST(ANumberThatIsNoneStaysInItsRowOfTheFeedForwardHalf) {
  FeedForwardCase test({20, 36, 20, 9, 3, 7}, WeightFormat::kBFloat16, WeightFormat::kBFloat16, 1);
  test.x()[Size(5 * test.hidden() + 1)] = std::numeric_limits<float>::quiet_NaN();
  ForEachIsa([&] {
    const Floats y = test.Run(0, test.tokens(), 2);
    for (size_t i = 0; i < y.size(); ++i) CHECK_EQ(std::isnan(y[i]), i / Size(test.hidden()) == 5);
  });
}

}  // namespace
}  // namespace dgrt
