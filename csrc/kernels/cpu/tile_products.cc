// Implementation of tile_products.h.
//
// Four of the eight tile registers hold sums: two blocks of rows by two panels, or four blocks by the last panel alone. So
// four sums are under way at a time, which is what hides the length of an instruction, and a tile that was loaded is used
// twice. A row's sums follow its depth whatever is beside it. The processor's tiles are set up and given back in every call
// (50 ns): other libraries on the thread may have a set-up of their own.
#include "kernels/cpu/tile_products.h"

#include "kernels/cpu/x86_variants.inc"

#if DGRT_X86_VARIANTS
#include <immintrin.h>
#endif

namespace dgrt {

#if DGRT_X86_VARIANTS
namespace {

#pragma GCC push_options
#pragma GCC target("amx-tile,amx-bf16,amx-int8,avx512f")

constexpr int64_t kRows = 16;   // of a tile
constexpr int64_t kLine = 64;   // bytes of a row of a tile
constexpr int64_t kTileBytes = kRows * kLine;

// All tiles are whole; what a matrix lacks is zeros.
struct alignas(kLine) TileConfig {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
constexpr TileConfig kWholeTiles = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

struct TileRegisters {
  TileRegisters() { _tile_loadconfig(&kWholeTiles); }
  ~TileRegisters() { _tile_release(); }
  TileRegisters(const TileRegisters&) = delete;
  TileRegisters& operator=(const TileRegisters&) = delete;
};

// Rows of bytes, `step` apart.
struct Lines {
  const unsigned char* at;
  int64_t step;
};

// The first `rows` rows, `bytes` of each, as a whole tile in `copy`.
inline Lines Completed(Lines from, int64_t rows, int64_t bytes, unsigned char* copy) {
  __builtin_memset(copy, 0, kTileBytes);
  for (int64_t row = 0; row < rows; ++row) __builtin_memcpy(copy + row * kLine, from.at + row * from.step, bytes);
  return {copy, kLine};
}

// Registers: sums 0 to 3, weight rows 4 and 5, tokens 6 and 7. Instructions by name: of the compiler's own functions, which take
// numbers only where they are written out, the loads do not say that they read memory.
template <int kRegister>
inline void LoadTile(Lines lines) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(lines.at), "r"(lines.step), "i"(kRegister) : "memory");
}

template <int kRegister>
inline void StoreTile(float* to) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(kLine), "i"(kRegister) : "memory");
}

template <bool kInt8, int kSum, int kWeight, int kToken>
inline void Multiply() {
  if constexpr (kInt8) {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kWeight), "i"(kToken));
  } else {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kWeight), "i"(kToken));
  }
}

// One step of depth: tiles of weight rows times one or two of tokens.
template <bool kInt8, int kRowTiles, int kPanels>
inline void Step(const Lines* weights, const Lines* tokens) {
  LoadTile<6>(tokens[0]);
  if constexpr (kPanels == 2) LoadTile<7>(tokens[1]);
  LoadTile<4>(weights[0]);
  Multiply<kInt8, 0, 4, 6>();
  if constexpr (kPanels == 2) Multiply<kInt8, 1, 4, 7>();
  if constexpr (kRowTiles >= 2) {
    LoadTile<5>(weights[1]);
    Multiply<kInt8, kPanels, 5, 6>();
    if constexpr (kPanels == 2) Multiply<kInt8, 3, 5, 7>();
  }
  if constexpr (kRowTiles == 4) {
    LoadTile<7>(weights[2]);
    Multiply<kInt8, 2, 7, 6>();
    LoadTile<4>(weights[3]);
    Multiply<kInt8, 3, 4, 6>();
  }
}

struct Matrix {
  const unsigned char* rows;
  int64_t num_rows, row_bytes, step;  // bytes of a row, from row to row
  const unsigned char* next;          // as in WeightRows, and so is
  int64_t next_bytes;
};

// kRowTiles tiles of rows from `first` on (one tile: maybe of fewer rows) by kPanels panels. Sums [panel][row of the
// matrix][16] to `out`, panels `out_step` words apart.
template <bool kInt8, int kRowTiles, int kPanels>
void Block(const Matrix& matrix, int64_t first, const unsigned char* panels, int64_t panel_bytes, bool fetch_next, float* out,
           int64_t out_step) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const unsigned char* const block = matrix.rows + first * matrix.step;
  const int64_t behind = first + kRowTiles * kRows;
  const unsigned char* fetched = behind < matrix.num_rows ? matrix.rows + behind * matrix.step : matrix.next;
  int64_t fetched_step = matrix.step, fetched_bytes = matrix.row_bytes;
  if (matrix.next_bytes != 0) {
    fetched = matrix.next == nullptr ? nullptr : matrix.next + first * matrix.next_bytes;
    fetched_step = fetched_bytes = matrix.next_bytes;
  }
  if (!fetch_next || fetched == nullptr) fetched_bytes = 0;
  const int64_t rows = matrix.num_rows - first < kRows ? matrix.num_rows - first : kRows;
  Lines weights[kRowTiles], tokens[kPanels];
  const int64_t whole = rows == kRows ? matrix.row_bytes / kLine : 0;
  for (int64_t k = 0; k < whole; ++k) {
    if (k * kLine < fetched_bytes) {  // short rows end before the processor has seen a pattern
#pragma GCC unroll 16
      for (int64_t row = 0; row < kRowTiles * kRows; ++row) __builtin_prefetch(fetched + row * fetched_step + k * kLine, 0, 2);
    }
    for (int tile = 0; tile < kRowTiles; ++tile) weights[tile] = {block + tile * kRows * matrix.step + k * kLine, matrix.step};
    for (int panel = 0; panel < kPanels; ++panel) tokens[panel] = {panels + panel * panel_bytes + k * kTileBytes, kLine};
    Step<kInt8, kRowTiles, kPanels>(weights, tokens);
  }
  for (int64_t k = whole; k * kLine < matrix.row_bytes; ++k) {
    alignas(kLine) unsigned char copies[kRowTiles + kPanels][kTileBytes];
    const int64_t left = matrix.row_bytes - k * kLine, bytes = left < kLine ? left : kLine;
    for (int tile = 0; tile < kRowTiles; ++tile) {
      weights[tile] = Completed({block + tile * kRows * matrix.step + k * kLine, matrix.step}, rows, bytes, copies[tile]);
    }
    for (int panel = 0; panel < kPanels; ++panel) {  // the last word of a panel is completed by zeros already
      tokens[panel] = Completed({panels + panel * panel_bytes + k * kTileBytes, kLine}, (bytes + 3) / 4, kLine,
                                copies[kRowTiles + panel]);
    }
    Step<kInt8, kRowTiles, kPanels>(weights, tokens);
  }
  alignas(kLine) float few[kPanels][kRows * kTokenLanes];  // of fewer rows
  float* to = out + first * kTokenLanes;
  if (rows < kRows) {
    to = few[0];
    out_step = kRows * kTokenLanes;
  }
  constexpr int64_t kTile = kRows * kTokenLanes;
  StoreTile<0>(to);
  if constexpr (kPanels == 2) StoreTile<1>(to + out_step);
  if constexpr (kRowTiles >= 2) StoreTile<kPanels>(to + kTile);
  if constexpr (kRowTiles == 2 && kPanels == 2) StoreTile<3>(to + out_step + kTile);
  if constexpr (kRowTiles == 4) {
    StoreTile<2>(to + 2 * kTile);
    StoreTile<3>(to + 3 * kTile);
  }
  if (rows < kRows) {
    for (int panel = 0; panel < kPanels; ++panel) {
      __builtin_memcpy(out + panel * matrix.num_rows * kTokenLanes, few[panel], static_cast<size_t>(rows * kLine));
    }
  }
}

// Blocks over all rows. The last one begins earlier where rows end inside it: the same sums are written again.
template <bool kInt8, int kPanels>
void Rows(const Matrix& matrix, const unsigned char* panels, int64_t panel_bytes, bool fetch_next, float* out) {
  const int64_t out_step = matrix.num_rows * kTokenLanes;
  for (int64_t row = 0; row < matrix.num_rows;) {
    const int64_t left = matrix.num_rows - row;
    if (kPanels == 1 && left >= 4 * kRows) {
      Block<kInt8, 4 / kPanels, kPanels>(matrix, row, panels, panel_bytes, fetch_next, out, out_step);
      row += 4 * kRows;
    } else if (left >= 2 * kRows) {
      Block<kInt8, 2, kPanels>(matrix, row, panels, panel_bytes, fetch_next, out, out_step);
      row += 2 * kRows;
    } else {
      const int64_t last = matrix.num_rows - kRows, first = row < last ? row : last;
      Block<kInt8, 1, kPanels>(matrix, first > 0 ? first : 0, panels, panel_bytes, fetch_next, out, out_step);
      row += kRows;
    }
  }
}

template <bool kInt8>
void MultiplyMatrix(const Matrix& matrix, const unsigned char* panels, int64_t panel_bytes, int64_t num_panels, bool fetches_next,
                    float* out) {
  const TileRegisters registers;
  for (int64_t panel = 0; panel < num_panels; panel += 2) {
    if (num_panels - panel >= 2) {
      Rows<kInt8, 2>(matrix, panels, panel_bytes, fetches_next && panel == 0, out);
    } else {
      Rows<kInt8, 1>(matrix, panels, panel_bytes, fetches_next && panel == 0, out);
    }
    panels += 2 * panel_bytes;
    out += 2 * matrix.num_rows * kTokenLanes;
  }
}

}  // namespace

void MultiplyOnTiles(const WeightRows& weight, int64_t depth, const void* panels, int64_t panel_bytes, int64_t num_panels,
                     float* out) {
  const Matrix matrix = {static_cast<const unsigned char*>(weight.data), weight.num_rows, 2 * depth, 2 * weight.row_step,
                         static_cast<const unsigned char*>(weight.next), weight.next_bytes};
  MultiplyMatrix<false>(matrix, static_cast<const unsigned char*>(panels), panel_bytes, num_panels,
                        weight.fetches_next, out);
}

void MultiplyInt8OnTiles(const WeightRows& weight, int64_t depth, const void* panels, int64_t panel_bytes, int64_t num_panels,
                         float* out) {
  const Matrix matrix = {static_cast<const unsigned char*>(weight.data), weight.num_rows, depth, depth,
                         static_cast<const unsigned char*>(weight.next), weight.next_bytes};
  MultiplyMatrix<true>(matrix, static_cast<const unsigned char*>(panels), panel_bytes, num_panels, weight.fetches_next, out);
  for (int64_t panel = 0; panel < num_panels; ++panel) {
    const __m512 tokens = _mm512_loadu_ps(static_cast<const unsigned char*>(panels) + panel * panel_bytes + (depth + 3) / 4 * kLine);
    for (int64_t row = 0; row < weight.num_rows; ++row, out += kTokenLanes) {
      const __m512 scale = _mm512_set1_ps(ScaleOfRow(weight.scales, row));
      const __m512 sums = _mm512_maskz_cvtepi32_ps(0xffff, _mm512_loadu_si512(out));  // a mask: see row_products.cc
      _mm512_storeu_ps(out, _mm512_mul_ps(_mm512_mul_ps(sums, tokens), scale));
    }
  }
}

#pragma GCC pop_options
#endif

}  // namespace dgrt
