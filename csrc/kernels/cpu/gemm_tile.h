// The hot loops of the vocabulary head on one tile of the table: two small matrix products and the vector
// mathematics between them. Called by vocabulary_head.cc only. Knows nothing of threads, sampling or constraints.
//
// All loops run over kRowLanes canvas rows side by side, one per vector lane, so a row's sums are chains in a fixed
// order (dimension after dimension, id after id): no result depends on which rows share a vector or on threads.
// Variants for AVX-512, AVX2 + FMA and plain vectors are built from gemm_tile.inc (isa.h chooses); their
// last bits differ from each other, so results are reproducible per kind of processor.
#pragma once

#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/params.h"

namespace dgrt {

inline constexpr int64_t kRowLanes = 16;    // canvas rows handled together: one AVX-512 register
inline constexpr int64_t kPanelWidth = 16;  // dimensions per panel: one cache line

// A tile of the table in fp32, in panels [ceil(D / 16)][kVocabTile][16], dimensions beyond D zero: both products then
// walk memory straight ahead, whatever D is (plain rows would be D * 4 bytes apart and collide in the cache).
inline constexpr int64_t kPanelFloats = kVocabTile * kPanelWidth;
constexpr int64_t NumPanels(int64_t hidden_size) { return (hidden_size + kPanelWidth - 1) / kPanelWidth; }

// Weights are added in float over this many ids, beyond that in double. The sums are kept, so that sampling has to
// look again at one run only.
inline constexpr int64_t kRunIds = 64;
inline constexpr int64_t kTileRuns = kVocabTile / kRunIds;

struct TileKernels {
  // One table row (dtype, possibly unaligned) into slot `id` of a tile.
  void (*load_row)(const void* row, DType dtype, int64_t hidden_size, float* tile, int64_t id);
  // scores[id][lane] = sum_d tile[id][d] * hidden[d][lane], hidden [num_panels * 16][kRowLanes]. num_ids is a multiple
  // of 16: the caller rounds up and ignores what comes out beyond the end of a short tile.
  void (*score)(const float* tile, int64_t num_ids, const float* hidden, int64_t num_panels, float* scores);
  // s = softcap * tanh(s / softcap) / temperature in place, [num_ids][kRowLanes]. Relative error of tanh below 5e-7.
  void (*cap)(float* scores, int64_t num_ids, float softcap, float temperature);
  // max[lane], arg[lane] = largest score and its first index plus first_id, where it exceeds the given max[lane].
  void (*update_max)(const float* scores, int64_t num_ids, int32_t first_id, float* max, int32_t* arg);
  // scores -> weights exp(s - max[lane]) in place; run_sum[run][lane] = their sums over runs of kRunIds ids,
  // weighted[lane] = sum of weight * (s - max) over all.
  void (*weigh)(float* scores, int64_t num_ids, const float* max, float* run_sum, double* weighted);
  // soft[d][lane] = soft[d][lane] * rescale[lane] + sum_id weights[id][lane] * tile[d][id].
  void (*accumulate)(const float* weights, const float* tile, int64_t num_ids, const float* rescale,
                     int64_t num_panels, float* soft);
  // hidden . row over hidden_size dimensions, in sixteen partial sums that are added as a tree.
  float (*dot)(const float* hidden, const void* row, DType dtype, int64_t hidden_size);
};

// The variant of an instruction set.
const TileKernels& TileKernelsOf(CpuIsa isa);

}  // namespace dgrt
