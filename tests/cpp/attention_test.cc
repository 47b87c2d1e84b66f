// kernels/cpu/attention.cc and attention_pairs.cc against the formula of params.h in double, for every instruction set that
// this machine has, over sizes that are multiples of nothing.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/kernels.h"
#include "layer_fixture.h"
#include "test.h"

namespace dgrt {
namespace {

constexpr double kAttentionTolerance = 1e-5;  // absolute, values of size 1
constexpr double kBf16 = 1.0 / 256;           // relative, what rounding does to a weight of the softmax

struct AttentionCase {
  int64_t tokens, past, heads, kv_heads, head_dim;
  bool is_causal;
  int64_t window;
  bool bf16_products = false;
};

void CheckAttention(const AttentionCase& c) {
  Random random;
  const int64_t width = c.heads * c.head_dim, kv_width = c.kv_heads * c.head_dim;
  Floats q = random.Vector(c.tokens * width, 2 / std::sqrt(static_cast<float>(c.head_dim)));
  Floats keys = random.Vector((c.past + c.tokens) * kv_width), values = random.Vector((c.past + c.tokens) * kv_width);
  if (c.bf16_products) {  // so it makes no difference whether they are rounded
    for (Floats* numbers : {&q, &keys, &values}) {
      for (float& x : *numbers) x = ToBf16(x);
    }
  }
  ForEachIsa([&] {
    // `past` of the keys come as the past, the rest as new; queries are the last `tokens`.
    const auto run = [&](int threads) {
      AttentionParams p;
      p.q = q.data();
      p.k = keys.data() + c.past * kv_width;
      p.v = values.data() + c.past * kv_width;
      p.past_k = keys.data();
      p.past_v = values.data();
      p.num_tokens = c.tokens;
      p.past_len = c.past;
      p.num_heads = c.heads;
      p.num_kv_heads = c.kv_heads;
      p.head_dim = c.head_dim;
      p.is_causal = c.is_causal;
      p.window = c.window;
      p.bf16_products = c.bf16_products;
      return RunOn(threads, AttentionWorkspaceBytes(p, threads), c.tokens * width,
                   [&](void* workspace, ThreadPool& pool, float* y) {
                     p.workspace = workspace;
                     p.y = y;
                     LaunchAttention(p, pool);
                   });
    };
    const Floats y = run(1);
    for (int64_t s = 0; s < c.tokens; ++s) {
      const int64_t last = c.is_causal ? c.past + s : c.past + c.tokens - 1;
      const int64_t first = c.is_causal && c.window > 0 ? std::max<int64_t>(0, last - c.window + 1) : 0;
      for (int64_t h = 0; h < c.heads; ++h) {
        const int64_t kv = h / (c.heads / c.kv_heads) * c.head_dim;
        std::vector<double> weight;
        double total = 0, top = -1e30;
        for (int64_t t = first; t <= last; ++t) {
          double score = 0;
          for (int64_t i = 0; i < c.head_dim; ++i) {
            score += static_cast<double>(q[Size(s * width + h * c.head_dim + i)]) *
                     static_cast<double>(keys[Size(t * kv_width + kv + i)]);
          }
          weight.push_back(score);
          top = std::max(top, score);
        }
        for (double& w : weight) total += w = std::exp(w - top);
        for (int64_t i = 0; i < c.head_dim; ++i) {
          double expected = 0, magnitude = 0;
          for (int64_t t = first; t <= last; ++t) {
            const double part = weight[Size(t - first)] * static_cast<double>(values[Size(t * kv_width + kv + i)]);
            expected += part;
            magnitude += std::abs(part);
          }
          const double rounding = c.bf16_products ? kBf16 * magnitude / total : 0;
          CHECK_NEAR(y[Size(s * width + h * c.head_dim + i)], expected / total, kAttentionTolerance + rounding);
        }
      }
    }
    CHECK(SameBits(y, run(3)));
  });
}

TEST(AttentionAgreesWithDoubleSums) {
  for (const bool bf16_products : {false, true}) {
    for (const bool is_causal : {false, true}) {
      CheckAttention({1, 0, 1, 1, 1, is_causal, 0, bf16_products});
      CheckAttention({1, 200, 4, 2, 16, is_causal, 0, bf16_products});
      CheckAttention({33, 0, 4, 4, 24, is_causal, 0, bf16_products});
      CheckAttention({70, 91, 6, 2, 19, is_causal, 0, bf16_products});
      CheckAttention({40, 129, 8, 1, 32, is_causal, 0, bf16_products});
      CheckAttention({9, 70, 2, 1, 130, is_causal, 0, bf16_products});
    }
    CheckAttention({70, 91, 4, 2, 8, true, 1, bf16_products});
    CheckAttention({70, 91, 4, 2, 8, true, 17, bf16_products});
    CheckAttention({150, 63, 2, 1, 8, true, 64, bf16_products});
    CheckAttention({30, 100, 2, 2, 8, true, 1000, bf16_products});
  }
}

// Scores far from each other: all the weight on one key, and the running maximum rises by more than exp can hold.
TEST(AttentionSurvivesExtremeScores) {
  constexpr int64_t kKeys = 300, kDim = 4;
  Floats q(kDim, 1), keys(kKeys * kDim), values(kKeys * kDim);
  for (size_t t = 0; t < Size(kKeys); ++t) {
    keys[t * kDim] = t % 7 == 0 ? -500.0f : static_cast<float>(t);
    values[t * kDim] = static_cast<float>(t);
  }
  keys[250 * kDim] = 3000;
  const auto check = [&](bool bf16_products) {
    AttentionParams p{q.data(), keys.data() + 299 * kDim, values.data() + 299 * kDim, keys.data(), values.data(), 1, 299, 1, 1,
                      kDim, false, 0, bf16_products, nullptr, nullptr};
    const Floats y = RunOn(1, AttentionWorkspaceBytes(p, 1), kDim, [&](void* workspace, ThreadPool& pool, float* out) {
      p.workspace = workspace;
      p.y = out;
      LaunchAttention(p, pool);
    });
    CHECK_NEAR(y[0], 250.0, 1e-6);
  };
  ForEachIsa([&] { check(false), check(true); });
}

// Where the past ends must not show, nor which queries are in the pass: a packed pass gets as new what its own pass would get
// as past.
TEST(AttentionDoesNotDependOnWhereThePastEnds) {
  constexpr int64_t kKeys = 210, kQueries = 20, kDim = 12;
  Random random;
  const Floats q = random.Vector(kKeys * kDim), keys = random.Vector(kKeys * kDim), values = random.Vector(kKeys * kDim);
  const auto check = [&](bool is_causal, int64_t window, bool bf16_products) {
    const auto run = [&](int64_t past) {  // the last kQueries of the result belong to the same queries each time
      AttentionParams p{q.data() + past * kDim, keys.data() + past * kDim, values.data() + past * kDim, keys.data(),
                        values.data(), kKeys - past, past, 1, 1, kDim, is_causal, window, bf16_products, nullptr, nullptr};
      const Floats y = RunOn(1, AttentionWorkspaceBytes(p, 1), p.num_tokens * kDim,
                             [&](void* workspace, ThreadPool& pool, float* out) {
                               p.workspace = workspace;
                               p.y = out;
                               LaunchAttention(p, pool);
                             });
      return Floats(y.end() - kQueries * kDim, y.end());
    };
    const Floats expected = run(kKeys - kQueries);
    for (const int64_t past : {0, 1, 63, 64, 65, 150}) CHECK(SameBits(run(past), expected));
  };
  ForEachIsa([&] {
    for (const bool bf16_products : {false, true}) {
      check(false, 0, bf16_products);
      check(true, 0, bf16_products);
      check(true, 50, bf16_products);
    }
  });
}

}  // namespace
}  // namespace dgrt
