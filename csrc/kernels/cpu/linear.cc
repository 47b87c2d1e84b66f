// A linear layer on the CPU (formula: LinearParams in params.h; inner loops: row_products.h). The tokens are packed once,
// then threads take blocks of weight rows: each weight is read from memory once.
#include "kernels/cpu/norm_rows.h"
#include "kernels/cpu/token_panels.h"
#include "kernels/kernels.h"

namespace dgrt {
namespace {

MatrixProducts ProductsOf(const LinearParams& p, int num_threads, Scratch& scratch) {
  return {p.format, p.num_inputs, p.num_tokens, num_threads, scratch};
}

}  // namespace

size_t LinearWorkspaceBytes(const LinearParams& params, int num_threads) {
  Scratch scratch(nullptr);
  ProductsOf(params, num_threads, scratch);
  return scratch.used();
}

void LaunchLinear(const LinearParams& p, ThreadPool& pool) {
  Scratch scratch(p.workspace);
  const MatrixProducts work = ProductsOf(p, pool.num_threads(), scratch);
  PackTokens(p.x, p.num_inputs, p.num_tokens, work.panels, work.products, pool);
  work.Multiply({{p.weight, p.num_outputs, p.y}}, pool);
  if (p.norm == nullptr) return;
  const NormRows& rows = NormRowsOf(SelectedCpuIsa());
  ForEachToken(pool, p.num_tokens, [&](int64_t token) {
    float* const y = p.y + token * p.num_outputs;
    rows.Norm(p.residual + token * p.num_outputs, y, p.eps, p.norm, p.num_outputs, y);
  });
}

}  // namespace dgrt
