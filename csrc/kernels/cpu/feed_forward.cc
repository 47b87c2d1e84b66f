// The half of a layer behind attention on the CPU (formula: FeedForwardParams in params.h): norms and the router over panels
// of tokens, then the dense MLP and the experts of gated_mlp.cc, then what is added to the residual.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels/cpu/norm_rows.h"
#include "kernels/cpu/token_panels.h"
#include "kernels/kernels.h"

namespace dgrt {
namespace {

GatedMlpParams DenseOf(const FeedForwardParams& p, float* rows, void* workspace) {
  return {rows, p.gate, p.up, p.down, p.format, p.num_tokens, p.hidden_size, p.inner_size, rows, workspace};
}

ExpertsParams ExpertsOf(const FeedForwardParams& p, float* rows, const int64_t* index, const float* weight, void* workspace) {
  return {rows,          index,   weight,        p.expert_gate_up,    p.expert_down, p.expert_format, p.num_tokens,
          p.num_experts, p.top_k, p.hidden_size, p.expert_inner_size, rows,          workspace};
}

// The router's scratch of one thread: a panel's rows, packed, and its scores.
struct RouterScratch {
  float *rows, *panel, *scores;  // [16, D]; [D][16]; [E][16]
  RouterScratch(const FeedForwardParams& p, Scratch& scratch)
      : rows(scratch.Take<float>(kTokenLanes * p.hidden_size)),
        panel(scratch.Take<float>(kTokenLanes * p.hidden_size)),
        scores(scratch.Take<float>(kTokenLanes * p.num_experts)) {}
};

struct Arrays {
  float *dense, *experts;  // [S, D]: input and in its place output of both
  int64_t* index;          // [S, k]
  float* weight;           // [S, k]
  int64_t router_bytes;    // of one thread
  unsigned char *router, *mlp;  // [threads]; what the two MLPs take, one after the other

  Arrays(const FeedForwardParams& p, int num_threads, Scratch& scratch)
      : dense(scratch.Take<float>(p.num_tokens * p.hidden_size)),
        experts(scratch.Take<float>(p.num_tokens * p.hidden_size)),
        index(scratch.Take<int64_t>(p.num_tokens * p.top_k)),
        weight(scratch.Take<float>(p.num_tokens * p.top_k)) {
    Scratch one_thread(nullptr);
    RouterScratch(p, one_thread);
    router_bytes = static_cast<int64_t>(one_thread.used());
    router = scratch.Take<unsigned char>(num_threads * router_bytes);
    const size_t most = std::max(GatedMlpWorkspaceBytes(DenseOf(p, nullptr, nullptr), num_threads),
                                 ExpertsWorkspaceBytes(ExpertsOf(p, nullptr, nullptr, nullptr, nullptr), num_threads));
    mlp = scratch.Take<unsigned char>(static_cast<int64_t>(most));
  }
};

// The k best of scores [E][16] of one lane, best first. Scores that were chosen are lost. Of scores that are no numbers an
// expert may be chosen twice.
void Choose(const FeedForwardParams& p, float* scores, int64_t* index, float* chosen) {
  for (int64_t j = 0; j < p.top_k; ++j) {
    int64_t best = 0;
    for (int64_t e = 1; e < p.num_experts; ++e) {
      if (scores[e * kTokenLanes] > scores[best * kTokenLanes]) best = e;
    }
    index[j] = best;
    chosen[j] = std::exchange(scores[best * kTokenLanes], -std::numeric_limits<float>::infinity());
  }
}

// The scores of the experts that a token goes to become their weights.
void Weigh(const FeedForwardParams& p, const int64_t* index, float* weight) {
  const float largest = *std::max_element(weight, weight + p.top_k);
  float sum = 0;
  for (int64_t j = 0; j < p.top_k; ++j) sum += weight[j] = std::exp(weight[j] - largest);
  for (int64_t j = 0; j < p.top_k; ++j) weight[j] = weight[j] / sum * p.per_expert_scale[index[j]];
}

}  // namespace

size_t FeedForwardWorkspaceBytes(const FeedForwardParams& params, int num_threads) {
  Scratch scratch(nullptr);
  Arrays(params, num_threads, scratch);
  return scratch.used();
}

void LaunchFeedForward(const FeedForwardParams& p, ThreadPool& pool) {
  Scratch scratch(p.workspace);
  const Arrays arrays(p, pool.num_threads(), scratch);
  const NormRows& rows = NormRowsOf(SelectedCpuIsa());
  const RowProducts& products = RowProductsOf(SelectedCpuIsa());
  const WeightRows router{.data = p.router, .num_rows = p.num_experts, .row_step = p.hidden_size};
  const float router_factor = 1 / std::sqrt(static_cast<float>(p.hidden_size));
  ForEachPiece(pool, NumTokenPanels(p.num_tokens), arrays.router, arrays.router_bytes, [&](int64_t panel, unsigned char* own) {
    Scratch cut(own);
    const RouterScratch routed(p, cut);
    const int64_t first = panel * kTokenLanes, count = std::min(kTokenLanes, p.num_tokens - first);
    for (int64_t lane = 0; lane < count; ++lane) {
      const int64_t at = (first + lane) * p.hidden_size;
      const float factor = rows.inverse_rms(p.x + at, p.hidden_size, p.eps);
      rows.scale_add(nullptr, p.x + at, factor, p.dense_norm_in, p.hidden_size, arrays.dense + at);
      rows.scale_add(nullptr, p.x + at, factor, p.experts_norm_in, p.hidden_size, arrays.experts + at);
      rows.scale_add(nullptr, p.x + at, factor * router_factor, p.router_scale, p.hidden_size,
                     routed.rows + lane * p.hidden_size);
    }
    const float* lanes[kTokenLanes];
    PanelRows<const float>(routed.rows, p.hidden_size, count, 0, lanes);
    products.pack(lanes, p.hidden_size, DType::kFloat32, routed.panel);
    products.multiply(router, p.hidden_size, routed.panel, 0, 1, routed.scores);
    for (int64_t lane = 0; lane < count; ++lane) {
      const int64_t at = (first + lane) * p.top_k;
      float* const scores = routed.scores + lane;
      if (p.index == nullptr) {
        Choose(p, scores, arrays.index + at, arrays.weight + at);
      } else {
        for (int64_t j = at; j < at + p.top_k; ++j) {
          arrays.index[j] = p.index[j];
          arrays.weight[j] = scores[p.index[j] * kTokenLanes];
        }
      }
      Weigh(p, arrays.index + at, arrays.weight + at);
    }
  });
  LaunchGatedMlp(DenseOf(p, arrays.dense, arrays.mlp), pool);
  LaunchExperts(ExpertsOf(p, arrays.experts, arrays.index, arrays.weight, arrays.mlp), pool);
  ForEachToken(pool, p.num_tokens, [&](int64_t token) {
    const int64_t at = token * p.hidden_size;
    float* const both = arrays.dense + at;
    rows.Norm(nullptr, both, p.eps, p.dense_norm_out, p.hidden_size, both);
    rows.Norm(both, arrays.experts + at, p.eps, p.experts_norm_out, p.hidden_size, both);
    rows.Norm(p.x + at, both, p.eps, p.norm_out, p.hidden_size, p.y + at);
  });
}

}  // namespace dgrt
