// A linear layer on the CPU (formula: LinearParams in params.h; inner loops: row_products.h). The tokens are packed once,
// then threads take blocks of weight rows: each weight is read from memory once.
#include "kernels/cpu/token_panels.h"
#include "kernels/kernels.h"

namespace dgrt {
namespace {

struct Arrays {
  int64_t rows;  // of a piece of work
  int64_t unpacked_bytes;
  unsigned char *panels, *unpacked;  // [panels]; [threads]
  Arrays(const LinearParams& p, const LayerProducts& products, int num_threads, Scratch& scratch)
      : rows(products.RowsOfPiece(p.num_inputs, kBlockRows)),
        unpacked_bytes(Padded(products.UnpackedBytes(rows, p.num_inputs))),
        panels(scratch.Take<unsigned char>(NumTokenPanels(p.num_tokens) * products.BytesOfPanel(p.num_inputs))),
        unpacked(scratch.Take<unsigned char>(num_threads * unpacked_bytes)) {}
};

}  // namespace

size_t LinearWorkspaceBytes(const LinearParams& params, int num_threads) {
  Scratch scratch(nullptr);
  Arrays(params, LayerProducts(params.format), num_threads, scratch);
  return scratch.used();
}

void LaunchLinear(const LinearParams& p, ThreadPool& pool) {
  const LayerProducts products(p.format);
  Scratch scratch(p.workspace);
  const Arrays arrays(p, products, pool.num_threads(), scratch);
  PackTokens(p.x, p.num_inputs, p.num_tokens, arrays.panels, products, pool);
  const auto out_rows = [&](int64_t panel, float** rows) { PanelRows(p.y, p.num_outputs, p.num_tokens, panel, rows); };
  const int64_t pieces = CeilDiv(p.num_outputs, arrays.rows);
  ForEachPiece(pool, pieces, arrays.unpacked, arrays.unpacked_bytes, [&](int64_t piece, unsigned char* unpacked) {
    const int64_t first = piece * arrays.rows, count = std::min(arrays.rows, p.num_outputs - first);
    MultiplyBlock(products, p.weight, p.num_inputs, first, count, unpacked, arrays.panels, NumTokenPanels(p.num_tokens),
                  out_rows);
  });
}

}  // namespace dgrt
