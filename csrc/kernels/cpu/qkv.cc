// What attention reads, on the CPU (formula: QkvParams in params.h): the normed tokens are packed once for all three
// projections, then each token's heads are normed and turned where they lie.
#include <algorithm>

#include "kernels/cpu/norm_rows.h"
#include "kernels/cpu/token_panels.h"
#include "kernels/kernels.h"

namespace dgrt {
namespace {

struct Arrays {
  float* normed;  // [S, D]
  MatrixProducts work;
  Arrays(const QkvParams& p, int num_threads, Scratch& scratch)
      : normed(scratch.Take<float>(p.num_tokens * p.hidden_size)),
        work(p.format, p.hidden_size, p.num_tokens, num_threads, scratch) {}
};

}  // namespace

size_t QkvWorkspaceBytes(const QkvParams& params, int num_threads) {
  Scratch scratch(nullptr);
  Arrays(params, num_threads, scratch);
  return scratch.used();
}

void LaunchQkv(const QkvParams& p, ThreadPool& pool) {
  Scratch scratch(p.workspace);
  const Arrays arrays(p, pool.num_threads(), scratch);
  const MatrixProducts& work = arrays.work;
  const NormRows& rows = NormRowsOf(SelectedCpuIsa());
  pool.ParallelFor(NumTokenPanels(p.num_tokens), [&](int64_t panel) {
    const int64_t end = std::min(p.num_tokens, (panel + 1) * kTokenLanes);
    for (int64_t token = panel * kTokenLanes; token < end; ++token) {
      const int64_t at = token * p.hidden_size;
      rows.Norm(nullptr, p.x + at, p.eps, p.input_norm, p.hidden_size, arrays.normed + at);
    }
    PackPanel(arrays.normed, p.hidden_size, p.num_tokens, panel, work.panels, work.products);
  });

  const int64_t q_width = p.num_heads * p.head_dim, kv_width = p.num_kv_heads * p.head_dim;
  const Columns q{p.q_proj, q_width, p.q}, k{p.k_proj, kv_width, p.k}, v{p.v_proj, kv_width, p.v};
  const bool has_v = p.v_proj.values != nullptr;
  if (has_v) {
    work.Multiply({q, k, v}, pool);
  } else {
    work.Multiply({q, k}, pool);
  }

  const int64_t half = p.head_dim / 2;
  ForEachToken(pool, p.num_tokens, [&](int64_t token) {
    const auto turn = [&](float* head, const float* norm) {
      rows.Norm(nullptr, head, p.eps, norm, p.head_dim, head);
      rows.rotate(head, p.cos + token * half, p.sin + token * half, half);
    };
    for (int64_t at = token * kv_width; at < (token + 1) * kv_width; at += p.head_dim) {
      rows.Norm(nullptr, has_v ? p.v + at : p.k + at, p.eps, nullptr, p.head_dim, p.v + at);
      turn(p.k + at, p.k_norm);
    }
    for (int64_t at = token * q_width; at < (token + 1) * q_width; at += p.head_dim) turn(p.q + at, p.q_norm);
  });
}

}  // namespace dgrt
