// A linear layer on the CPU (formula: LinearParams in params.h; inner loops: row_products.h). The tokens are packed once,
// then threads take blocks of weight rows: each weight is read from memory once.
#include "common/thread_pool.h"
#include "kernels/cpu/scratch.h"
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
  const int64_t num_panels = NumTokenPanels(p.num_tokens), panel_bytes = PanelBytes(p.num_inputs, p.dtype);

  pool.ParallelFor(num_panels, [&](int64_t panel) {
    const float* rows[kTokenLanes];
    PanelRows(p.x, p.num_inputs, p.num_tokens, panel, rows);
    products.pack(rows, p.num_inputs, p.dtype, panels + panel * panel_bytes);
  });
  pool.ParallelFor(CeilDiv(p.num_outputs, kBlockRows), [&](int64_t block) {
    const int64_t first = block * kBlockRows, count = std::min(kBlockRows, p.num_outputs - first);
    const WeightRows weight = RowsOf(p.weight, p.dtype, p.num_inputs, first, count);
    alignas(64) float tile[kMaxPanels * kBlockRows * kTokenLanes];
    for (int64_t panel = 0; panel < num_panels; panel += kMaxPanels) {
      const int64_t together = std::min(kMaxPanels, num_panels - panel);
      products.multiply(weight, p.num_inputs, panels + panel * panel_bytes, panel_bytes, together, tile);
      for (int64_t i = 0; i < together; ++i) {
        float* rows[kTokenLanes];
        PanelRows(p.y + first, p.num_outputs, p.num_tokens, panel + i, rows);
        products.unpack(tile + i * count * kTokenLanes, count, rows);
      }
    }
  });
}

}  // namespace dgrt
