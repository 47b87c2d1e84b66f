// A linear layer on the CPU (formula: LinearParams in params.h; inner loops: row_products.h). The tokens are packed once,
// then threads take blocks of weight rows: each weight is read from memory once.
#include "kernels/cpu/token_panels.h"
#include "kernels/kernels.h"

namespace dgrt {
namespace {

unsigned char* PanelsOf(const LinearParams& p, Scratch& scratch) {
  return scratch.Take<unsigned char>(NumTokenPanels(p.num_tokens) * PanelBytes(p.num_inputs, p.dtype));
}

}  // namespace

size_t LinearWorkspaceBytes(const LinearParams& params) {
  Scratch scratch(nullptr);
  PanelsOf(params, scratch);
  return scratch.used();
}

void LaunchLinear(const LinearParams& p, ThreadPool& pool) {
  const RowProducts& products = RowProductsOf(SelectedCpuIsa());
  Scratch scratch(p.workspace);
  unsigned char* const panels = PanelsOf(p, scratch);
  PackTokens(p.x, p.num_inputs, p.num_tokens, p.dtype, panels, products, pool);
  pool.ParallelFor(CeilDiv(p.num_outputs, kBlockRows), [&](int64_t block) {
    MultiplyBlock(p.weight, p.dtype, p.num_outputs, p.num_inputs, block * kBlockRows, panels, NumTokenPanels(p.num_tokens),
                  products, [&](int64_t panel, float** rows) { PanelRows(p.y, p.num_outputs, p.num_tokens, panel, rows); });
  });
}

}  // namespace dgrt
