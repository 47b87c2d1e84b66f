// The vocabulary head on the CPU (formulas: VocabularyHeadParams in params.h; inner loops: gemm_tile.h). Called by
// runtime/denoise_step.cc and by tests through the binding. Knows nothing of canvases in time, schedules or engines.
//
// One pass over the table in tiles of kVocabTile ids, in the manner of an online softmax: for each tile a block of 16
// rows computes its scores, raises its maximum, turns scores into weights relative to it, and adds weights x tile to
// the soft embedding (rescaled when the maximum rose). Kept per row and tile: the maximum and the sums of the weights,
// by runs of kRunIds. From those the last stage gets entropy and the run of ids that the uniform number selects, and
// computes the scores of that one run again.
// Work is shared out by blocks of rows, tile after tile, so the table is read from memory once for all threads; while
// one tile is worked on, the next is unpacked. A row's arithmetic is the same wherever it runs.
// Where products are of bf16 and the processor multiplies pairs of it, both are those of the layers (row_products.h), of up to
// four blocks at a time: table rows, where they lie, times packed rows; and the rows' weights times the table packed by
// columns. A set of ids, whose rows are scattered, goes the other way, with the same numbers rounded.
#include <algorithm>
#include <cmath>
#include <limits>

#include "common/check.h"
#include "common/thread_pool.h"
#include "kernels/cpu/gemm_tile.h"
#include "kernels/cpu/token_panels.h"
#include "kernels/cpu/scratch.h"
#include "kernels/kernels.h"

namespace dgrt {
namespace {

constexpr int64_t kPieceIds = 32;  // table rows unpacked per chunk of work; even
constexpr int64_t kColumnPanelBytes = PanelBytes(kVocabTile, DType::kBFloat16) + 64;  // no power of two apart
constexpr int64_t kWeightStep = kVocabTile + 32;                                       // of rows of weights, likewise
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// Scratch of one launch, cut from the caller's workspace. Sizes follow from L, D and V alone.
struct HeadScratch {
  float* tile[2];         // [panels][kVocabTile][16]: the tile in work and the next one; or as bf16, packed by columns
  float* rounded;         // [L, D] the rows that the products see, if not the given ones
  float* hidden;          // [blocks][panels * 16][kRowLanes]; or as bf16, packed
  float* soft;            // same shape; relative to the running maximum; or, of the blocks of a chunk, [panels][rows][16]
  float* best;            // [blocks][kRowLanes] running maximum
  int32_t* arg;           // [blocks][kRowLanes] its position in the id list
  float* tile_max;        // [blocks][tiles][kRowLanes] running maximum after the tile
  double* tile_weighted;  // [blocks][tiles][kRowLanes] sum of weight * (score - tile_max)
  float* run_sum;         // [blocks][tiles][kTileRuns][kRowLanes] sums of weights relative to tile_max; 0 beyond the end
  int32_t* rows;          // [L] rows of the group in work
  uint8_t* done;          // [L]
};

// Cuts the scratch from `base` and returns the bytes used.
size_t Carve(void* base, int64_t canvas_len, int64_t hidden_size, int64_t vocab_size, HeadScratch* out) {
  const int64_t blocks = CeilDiv(canvas_len, kRowLanes);
  const int64_t panels = NumPanels(hidden_size);
  const int64_t block_tiles = blocks * CeilDiv(vocab_size, kVocabTile);
  Scratch scratch(base);
  for (float*& tile : out->tile) tile = scratch.Take<float>(panels * kPanelFloats);
  out->rounded = scratch.Take<float>(CeilDiv(canvas_len * hidden_size, kRowLanes) * kRowLanes);
  out->hidden = scratch.Take<float>(blocks * panels * kPanelWidth * kRowLanes);
  out->soft = scratch.Take<float>(blocks * panels * kPanelWidth * kRowLanes);
  out->best = scratch.Take<float>(blocks * kRowLanes);
  out->arg = scratch.Take<int32_t>(blocks * kRowLanes);
  out->tile_max = scratch.Take<float>(block_tiles * kRowLanes);
  out->tile_weighted = scratch.Take<double>(block_tiles * kRowLanes);
  out->run_sum = scratch.Take<float>(block_tiles * kTileRuns * kRowLanes);
  out->rows = scratch.Take<int32_t>(canvas_len);
  out->done = scratch.Take<uint8_t>(canvas_len);
  return scratch.used();
}

class VocabularyHead {
 public:
  VocabularyHead(const VocabularyHeadParams& params, ThreadPool& pool)
      : params_(params),
        pool_(pool),
        kernels_(TileKernelsOf(SelectedCpuIsa())),
        products_(RowProductsOf(SelectedCpuIsa())),
        hidden_(params.hidden),
        panels_(NumPanels(params.table.hidden_size)),
        block_floats_(panels_ * kPanelWidth * kRowLanes),
        row_bytes_(params.table.hidden_size * BytesOf(params.table.dtype)) {
    Carve(params.workspace, params.canvas_len, params.table.hidden_size, params.table.vocab_size, &scratch_);
  }

  // Rows that share a set of ids (usually all of them: the whole vocabulary) go through the tiles together.
  void Run() {
    if (params_.table.bf16_products) RoundHidden();
    std::fill_n(scratch_.done, params_.canvas_len, uint8_t{0});
    for (int64_t row = 0; row < params_.canvas_len; ++row) {
      if (scratch_.done[row]) continue;
      if (params_.constraints != nullptr && params_.constraints[row].is_pinned()) {
        FinishPinned(row);
      } else {
        CollectGroup(row);
        RunGroup();
      }
    }
  }

 private:
  std::span<const int32_t> AllowedOf(int64_t row) const {
    return params_.constraints != nullptr ? params_.constraints[row].allowed : std::span<const int32_t>();
  }

  // The id at a position of the group's list.
  int32_t IdAt(int64_t index) const {
    return ids_.empty() ? static_cast<int32_t>(index) : ids_[static_cast<size_t>(index)];
  }

  const void* TableRow(int32_t id) const {
    return static_cast<const unsigned char*>(params_.table.rows) + id * row_bytes_;
  }

  void RoundHidden() {
    const int64_t count = params_.canvas_len * params_.table.hidden_size;
    std::copy_n(params_.hidden, count, scratch_.rounded);
    std::fill_n(scratch_.rounded + count, CeilDiv(count, kRowLanes) * kRowLanes - count, 0.0f);
    products_.round(scratch_.rounded, CeilDiv(count, kRowLanes) * kRowLanes);
    hidden_ = scratch_.rounded;
  }

  void CollectGroup(int64_t first_row) {
    ids_ = AllowedOf(first_row);
    num_rows_ = 0;
    for (int64_t row = first_row; row < params_.canvas_len; ++row) {
      const std::span<const int32_t> allowed = AllowedOf(row);
      const bool pinned = params_.constraints != nullptr && params_.constraints[row].is_pinned();
      if (pinned || allowed.data() != ids_.data() || allowed.size() != ids_.size()) continue;
      scratch_.rows[num_rows_++] = static_cast<int32_t>(row);
      scratch_.done[row] = 1;
    }
    num_ids_ = ids_.empty() ? params_.table.vocab_size : static_cast<int64_t>(ids_.size());
    num_tiles_ = CeilDiv(num_ids_, kVocabTile);
    uses_pairs_ = params_.table.bf16_products && ids_.empty() && products_.operands == DType::kBFloat16;
    const int64_t blocks = CeilDiv(num_rows_, kRowLanes);
    chunk_blocks_ = uses_pairs_ ? std::min(kMaxPanels, CeilDiv(blocks, 2 * int64_t{pool_.num_threads()})) : 1;
    num_chunks_ = CeilDiv(blocks, chunk_blocks_);
  }

  void RunGroup() {
    pool_.ParallelFor(num_chunks_ + NumPieces(0), [&](int64_t work) {
      if (work < num_chunks_) {
        for (int64_t block = work * chunk_blocks_; block < LastBlock(work); ++block) StartBlock(block);
      } else {
        LoadPiece(0, work - num_chunks_);
      }
    });
    for (int64_t tile = 0; tile < num_tiles_; ++tile) {
      pool_.ParallelFor(num_chunks_ + NumPieces(tile + 1), [&](int64_t work) {
        if (work >= num_chunks_) {
          LoadPiece(tile + 1, work - num_chunks_);
        } else if (uses_pairs_) {
          WorkTileInPairs(work, tile);
        } else {
          WorkTile(work, tile);
        }
      });
    }
    pool_.ParallelFor(num_rows_, [&](int64_t index) { FinishRow(index); });
  }

  // One past the last block of a chunk.
  int64_t LastBlock(int64_t chunk) const { return std::min((chunk + 1) * chunk_blocks_, CeilDiv(num_rows_, kRowLanes)); }
  int64_t IdsInTile(int64_t tile) const { return std::min(kVocabTile, num_ids_ - tile * kVocabTile); }
  int64_t NumPieces(int64_t tile) const { return tile < num_tiles_ ? CeilDiv(IdsInTile(tile), kPieceIds) : 0; }

  void LoadPiece(int64_t tile, int64_t piece) {
    const int64_t end = std::min((piece + 1) * kPieceIds, IdsInTile(tile));
    if (uses_pairs_) {
      if (params_.soft == nullptr) return;
      const void* rows[kPieceIds];
      const int64_t begin = piece * kPieceIds;
      for (int64_t i = begin; i < end; ++i) rows[i - begin] = TableRow(IdAt(tile * kVocabTile + i));
      return products_.pack_columns(rows, end - begin, params_.table.hidden_size, params_.table.dtype, scratch_.tile[tile % 2],
                                    kColumnPanelBytes, begin / 2);
    }
    for (int64_t i = piece * kPieceIds; i < end; ++i) {
      kernels_.load_row(TableRow(IdAt(tile * kVocabTile + i)), params_.table.dtype, params_.table.hidden_size,
                        scratch_.tile[tile % 2], i);
    }
  }

  // Transposes the hidden states of a block into lanes; unused lanes and dimensions are zero.
  void StartBlock(int64_t block) {
    float* hidden = scratch_.hidden + block * block_floats_;
    std::fill_n(hidden, block_floats_, 0.0f);
    std::fill_n(scratch_.soft + block * block_floats_, block_floats_, 0.0f);
    std::fill_n(scratch_.best + block * kRowLanes, kRowLanes, kMinusInfinity);
    std::fill_n(scratch_.arg + block * kRowLanes, kRowLanes, 0);
    const int64_t lanes = std::min(kRowLanes, num_rows_ - block * kRowLanes);
    if (uses_pairs_) {
      const float* rows[kRowLanes] = {};
      for (int64_t lane = 0; lane < lanes; ++lane) rows[lane] = HiddenOf(block * kRowLanes + lane);
      return products_.pack(rows, params_.table.hidden_size, DType::kBFloat16, hidden);
    }
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const float* row = HiddenOf(block * kRowLanes + lane);
      for (int64_t d = 0; d < params_.table.hidden_size; ++d) hidden[d * kRowLanes + lane] = row[d];
    }
  }

  const float* HiddenOf(int64_t index) const { return hidden_ + scratch_.rows[index] * params_.table.hidden_size; }

  // Scores of one block and one tile, in place, to weights relative to the row's maximum so far; rescale[16] is what the
  // maximum's rise leaves of the weights before, where the soft embedding is wanted.
  void Weigh(int64_t block, int64_t tile, float* scores, float* rescale) {
    const int64_t num_ids = IdsInTile(tile);
    float* best = scratch_.best + block * kRowLanes;
    alignas(64) float before[kRowLanes];
    kernels_.cap(scores, num_ids, params_.softcap, params_.temperature);
    std::copy_n(best, kRowLanes, before);
    kernels_.update_max(scores, num_ids, static_cast<int32_t>(tile * kVocabTile), best,
                        scratch_.arg + block * kRowLanes);
    const int64_t stats = (block * num_tiles_ + tile) * kRowLanes;
    std::copy_n(best, kRowLanes, scratch_.tile_max + stats);
    float* runs = scratch_.run_sum + stats * kTileRuns;
    std::fill_n(runs, kTileRuns * kRowLanes, 0.0f);
    kernels_.weigh(scores, num_ids, best, runs, scratch_.tile_weighted + stats);
    if (params_.soft == nullptr) return;
    for (int64_t lane = 0; lane < kRowLanes; ++lane) {
      rescale[lane] = before[lane] == best[lane] ? 1.0f : std::exp(before[lane] - best[lane]);  // 0 after -infinity
    }
  }

  void WorkTile(int64_t block, int64_t tile) {
    alignas(64) float scores[kVocabTile * kRowLanes];
    alignas(64) float rescale[kRowLanes];
    const int64_t num_ids = IdsInTile(tile);
    const float* table = scratch_.tile[tile % 2];
    kernels_.score(table, CeilDiv(num_ids, kPanelWidth) * kPanelWidth, scratch_.hidden + block * block_floats_, panels_,
                   scores);
    Weigh(block, tile, scores, rescale);
    if (params_.soft == nullptr) return;
    if (params_.table.bf16_products) products_.round(scores, num_ids * kRowLanes);
    kernels_.accumulate(scores, table, num_ids, rescale, panels_, scratch_.soft + block * block_floats_);
  }

  void WorkTileInPairs(int64_t chunk, int64_t tile) {
    alignas(64) float scores[kMaxPanels * kVocabTile * kRowLanes];
    alignas(64) uint16_t weights[kMaxPanels * kRowLanes * kWeightStep];
    alignas(64) float rescale[kMaxPanels * kRowLanes];
    const int64_t first = chunk * chunk_blocks_, blocks = LastBlock(chunk) - first, num_ids = IdsInTile(tile);
    const int64_t width = params_.table.hidden_size, block_bytes = block_floats_ * static_cast<int64_t>(sizeof(float));
    const WeightRows ids{.data = TableRow(static_cast<int32_t>(tile * kVocabTile)), .dtype = DType::kBFloat16,
                         .num_rows = num_ids, .row_step = width};
    products_.multiply(ids, width, scratch_.hidden + first * block_floats_, block_bytes, blocks, scores);
    for (int64_t i = 0; i < blocks; ++i) {
      float* const of_block = scores + i * num_ids * kRowLanes;
      Weigh(first + i, tile, of_block, rescale + i * kRowLanes);
      if (params_.soft == nullptr) continue;
      products_.unpack_rounded(of_block, num_ids, weights + i * kRowLanes * kWeightStep, kWeightStep);
    }
    if (params_.soft == nullptr) return;
    const int64_t rows = blocks * kRowLanes;
    const WeightRows weight{.data = weights, .dtype = DType::kBFloat16, .num_rows = rows, .row_step = kWeightStep};
    const auto* const table = reinterpret_cast<const unsigned char*>(scratch_.tile[tile % 2]);
    AddWeightedColumns(products_, weight, num_ids, table, kColumnPanelBytes, panels_, rescale,
                       scores,  // which are read no more
                       scratch_.soft + first * block_floats_);
  }

  // What is left of one row's pass over one tile.
  struct TileStats {
    double lower;    // tile maximum - final maximum, <= 0
    double factor;   // exp(lower): turns the tile's weights into final ones
    double sum;      // of the tile's weights
    double weighted;
    const float* runs;  // [kTileRuns], kRowLanes apart
  };
  TileStats StatsOf(int64_t index, int64_t tile) const {
    const int64_t block = index / kRowLanes, lane = index % kRowLanes;
    const int64_t stats = (block * num_tiles_ + tile) * kRowLanes;
    TileStats out;
    out.lower = static_cast<double>(scratch_.tile_max[stats + lane]) - scratch_.best[index];
    out.factor = std::exp(out.lower);
    out.weighted = scratch_.tile_weighted[stats + lane];
    out.runs = scratch_.run_sum + stats * kTileRuns + lane;
    out.sum = 0;
    for (int64_t run = 0; run < kTileRuns; ++run) out.sum += out.runs[run * kRowLanes];
    return out;
  }

  void FinishRow(int64_t index) {
    const int64_t row = scratch_.rows[index];
    double total = 0, weighted = 0;  // sums of w and w * (s - best) over all ids, w = exp(s - best)
    for (int64_t tile = 0; tile < num_tiles_; ++tile) {
      const TileStats stats = StatsOf(index, tile);
      total += stats.factor * stats.sum;
      weighted += stats.factor * (stats.weighted + stats.sum * stats.lower);
    }
    if (params_.argmax != nullptr) params_.argmax[row] = IdAt(scratch_.arg[index]);
    // -sum p ln p with ln p = (s - best) - ln total: both terms are >= 0, nothing cancels.
    if (params_.entropy != nullptr) params_.entropy[row] = static_cast<float>(std::log(total) - weighted / total);
    if (params_.sampled != nullptr) params_.sampled[row] = Sample(index, params_.uniform[row] * total);
    if (params_.scored != nullptr) params_.log_prob[row] = LogProb(index, params_.scored[row], total);
    if (params_.best_log_prob != nullptr) params_.best_log_prob[row] = static_cast<float>(-std::log(total));
    if (params_.soft == nullptr) return;
    const float scale = static_cast<float>(params_.embed_scale / total);
    float* out = params_.soft + row * params_.table.hidden_size;
    if (uses_pairs_) {
      const int64_t first = index / kRowLanes / chunk_blocks_ * chunk_blocks_;
      const int64_t rows = (LastBlock(first / chunk_blocks_) - first) * kRowLanes;
      const float* soft = scratch_.soft + first * block_floats_ + (index - first * kRowLanes) * kPanelWidth;
      for (int64_t d = 0; d < params_.table.hidden_size; ++d) {
        out[d] = scale * soft[d / kPanelWidth * rows * kPanelWidth + d % kPanelWidth];
      }
      return;
    }
    const float* soft = scratch_.soft + index / kRowLanes * block_floats_ + index % kRowLanes;
    for (int64_t d = 0; d < params_.table.hidden_size; ++d) out[d] = scale * soft[d * kRowLanes];
  }

  // The score is computed again, because of all scores only sums are kept; it rounds differently, so a sure token could
  // come out a little above 0.
  float LogProb(int64_t index, int32_t id, double total) const {
    alignas(64) float score[kRowLanes] = {};
    const EmbeddingTable& table = params_.table;
    score[0] = kernels_.dot(HiddenOf(index), TableRow(id), table.dtype, table.hidden_size);
    kernels_.cap(score, 1, params_.softcap, params_.temperature);
    return std::min(0.0f, static_cast<float>(static_cast<double>(score[0]) - scratch_.best[index] - std::log(total)));
  }

  // The tile that the target falls into, the run inside the tile, the token inside the run.
  int32_t Sample(int64_t index, double target) {
    for (int64_t tile = 0; tile < num_tiles_; ++tile) {
      const TileStats stats = StatsOf(index, tile);
      const double weight = stats.factor * stats.sum;
      if (!(weight > target)) {
        target -= weight;
        continue;
      }
      double heaviest = -1;  // chosen if rounding runs past the end: never a run without mass
      int64_t chosen = 0;
      double part = 1;
      for (int64_t run = 0; run < kTileRuns; ++run) {
        const double run_weight = stats.factor * stats.runs[run * kRowLanes];
        if (run_weight > target) {
          chosen = run;
          part = target / run_weight;
          break;
        }
        target -= run_weight;
        if (run_weight > heaviest) {
          heaviest = run_weight;
          chosen = run;
        }
      }
      return SampleInRun(tile * kVocabTile + chosen * kRunIds, index, part);
    }
    return IdAt(scratch_.arg[index]);  // rounding at the very end, or sums that are not numbers
  }

  // The token at `part` (in [0, 1]) of the weight of one run. Its weights are computed again, so the part is taken of
  // their own sum: the sum of the first pass differs by rounding, and what is left over must not reach for a token
  // that has no mass.
  int32_t SampleInRun(int64_t begin, int64_t index, double part) {
    alignas(64) float weights[kRunIds] = {};
    alignas(64) float max[kRowLanes], unused_sum[kRowLanes];
    alignas(64) double unused_weighted[kRowLanes];
    std::fill_n(max, kRowLanes, scratch_.best[index]);
    const int64_t num_ids = std::min(kRunIds, num_ids_ - begin);
    const EmbeddingTable& table = params_.table;
    for (int64_t i = 0; i < num_ids; ++i) {
      weights[i] = kernels_.dot(HiddenOf(index), TableRow(IdAt(begin + i)), table.dtype, table.hidden_size);
    }
    kernels_.cap(weights, kRunIds / kRowLanes, params_.softcap, params_.temperature);
    kernels_.weigh(weights, kRunIds / kRowLanes, max, unused_sum, unused_weighted);
    double total = 0;
    for (int64_t i = 0; i < num_ids; ++i) total += weights[i];
    double target = part * total;
    for (int64_t i = 0; i < num_ids; ++i) {
      if (weights[i] > target) return IdAt(begin + i);
      target -= weights[i];
    }
    return IdAt(begin + (std::max_element(weights, weights + num_ids) - weights));
  }

  void FinishPinned(int64_t row) {
    const int32_t id = params_.constraints[row].pinned;
    if (params_.argmax != nullptr) params_.argmax[row] = id;
    if (params_.sampled != nullptr) params_.sampled[row] = id;
    if (params_.entropy != nullptr) params_.entropy[row] = 0;
    if (params_.scored != nullptr) params_.log_prob[row] = 0;
    if (params_.best_log_prob != nullptr) params_.best_log_prob[row] = 0;
    if (params_.soft == nullptr) return;
    float* tile = scratch_.tile[0];  // free between groups
    kernels_.load_row(TableRow(id), params_.table.dtype, params_.table.hidden_size, tile, 0);
    float* out = params_.soft + row * params_.table.hidden_size;
    for (int64_t d = 0; d < params_.table.hidden_size; ++d) {
      out[d] = params_.embed_scale * tile[d / kPanelWidth * kPanelFloats + d % kPanelWidth];
    }
  }

  const VocabularyHeadParams& params_;
  ThreadPool& pool_;
  const TileKernels& kernels_;
  const RowProducts& products_;
  const float* hidden_;  // [L, D]
  const int64_t panels_, block_floats_, row_bytes_;
  HeadScratch scratch_;
  std::span<const int32_t> ids_;  // of the group in work; empty: the whole vocabulary
  int64_t num_rows_ = 0, num_ids_ = 0, num_tiles_ = 0;
  bool uses_pairs_ = false;
  int64_t chunk_blocks_ = 1, num_chunks_ = 0;  // blocks of rows that are worked on together; such chunks
};

}  // namespace

size_t VocabularyHeadWorkspaceBytes(int64_t canvas_len, int64_t hidden_size, int64_t vocab_size) {
  HeadScratch scratch;
  return Carve(nullptr, canvas_len, hidden_size, vocab_size, &scratch);
}

void LaunchVocabularyHead(const VocabularyHeadParams& params, ThreadPool& pool) {
  DGRT_CHECK(params.canvas_len > 0 && params.table.vocab_size > 0 && params.table.hidden_size > 0);
  DGRT_CHECK(params.temperature > 0 && params.workspace != nullptr);
  DGRT_CHECK(!params.table.bf16_products || params.table.dtype == DType::kBFloat16);
  DGRT_CHECK(reinterpret_cast<uintptr_t>(params.workspace) % 64 == 0);
  VocabularyHead(params, pool).Run();
}

}  // namespace dgrt
