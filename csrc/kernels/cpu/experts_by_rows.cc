// Implementation of experts_by_rows.h. The stages are those of gated_mlp.cc, but tokens stay rows: each is quantised once, however
// many experts it goes to, and nothing is packed.
#include "kernels/cpu/experts_by_rows.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "kernels/cpu/int8_products.h"
#include "kernels/cpu/norm_rows.h"
#include "kernels/cpu/token_panels.h"

namespace dgrt {
namespace {

// The S * k chosen pairs in the order of their experts, of one expert in the order of the tokens; and what becomes of them.
struct Pairs {
  int64_t inner_step;  // bytes of a row of `inner`
  int64_t* begin;      // [E + 1]: an expert's first pair, and where the next one's begin
  int32_t* token;      // [S * k]
  float* weight;       // [S * k]
  int8_t* x;           // [S] tokens
  Int8Row* x_rows;     // [S]
  const Int8Row** of_pair;     // [S * k]: the pair's token
  unsigned char* inner;        // [S * k] rows of I floats, then quantised in their place
  Int8Row* inner_rows;         // [S * k]
  const Int8Row** of_inner;    // [S * k]
  float* tiles;                // [threads][3][pairs of an expert, at most S * k][kBlockRows]
  int64_t tile_size;

  Pairs(const ExpertsParams& p, int num_threads, Scratch& scratch)
      : inner_step(std::max(Padded(4 * p.inner_size), Int8RowBytes(p.inner_size))),
        begin(scratch.Take<int64_t>(p.num_experts + 1)),
        token(scratch.Take<int32_t>(count(p))),
        weight(scratch.Take<float>(count(p))),
        x(scratch.Take<int8_t>(p.num_tokens * Int8RowBytes(p.hidden_size))),
        x_rows(scratch.Take<Int8Row>(p.num_tokens)),
        of_pair(scratch.Take<const Int8Row*>(count(p))),
        inner(scratch.Take<unsigned char>(count(p) * inner_step)),
        inner_rows(scratch.Take<Int8Row>(count(p))),
        of_inner(scratch.Take<const Int8Row*>(count(p))),
        tiles(scratch.Take<float>(num_threads * 3 * count(p) * kBlockRows)),
        tile_size(count(p) * kBlockRows) {}

  static int64_t count(const ExpertsParams& p) { return p.num_tokens * p.top_k; }
  float* InnerRow(int64_t pair) const { return reinterpret_cast<float*>(inner + pair * inner_step); }
};

void SortPairs(const ExpertsParams& p, Pairs& pairs) {
  std::fill_n(pairs.begin, p.num_experts + 1, 0);
  for (int64_t i = 0; i < Pairs::count(p); ++i) {
    DGRT_CHECK(p.index[i] >= 0 && p.index[i] < p.num_experts);
    ++pairs.begin[p.index[i]];
  }
  int64_t before = 0;
  for (int64_t e = 0; e <= p.num_experts; ++e) before += std::exchange(pairs.begin[e], before);
  for (int64_t i = 0; i < Pairs::count(p); ++i) {  // begin[e] counts up to the expert's next free place while this lasts
    const int64_t place = pairs.begin[p.index[i]]++;
    pairs.token[place] = static_cast<int32_t>(i / p.top_k);
    pairs.weight[place] = p.weight[i];
    pairs.of_pair[place] = pairs.x_rows + i / p.top_k;
    pairs.of_inner[place] = pairs.inner_rows + place;
  }
  std::copy_backward(pairs.begin, pairs.begin + p.num_experts, pairs.begin + p.num_experts + 1);
  pairs.begin[0] = 0;
}

// Some inner rows of an expert, for all its pairs.
void MultiplyGateAndUp(const ExpertsParams& p, const Int4RowProducts& products, const Pairs& pairs, int64_t expert, int64_t first,
                       int64_t count, float* tiles) {
  const int64_t begin = pairs.begin[expert], num_pairs = pairs.begin[expert + 1] - begin, row = 2 * expert * p.inner_size + first;
  float *const gate = tiles, *const up = tiles + pairs.tile_size, *const h = tiles + 2 * pairs.tile_size;
  const auto multiply = [&](int64_t from, int64_t next, float* tile) {
    products.multiply(RowsFrom(p.gate_up, p.format, p.hidden_size, from), count, p.hidden_size, pairs.of_pair + begin, num_pairs,
                      RowsFrom(p.gate_up, p.format, p.hidden_size, next).values, tile, kBlockRows);
  };
  multiply(row, row + p.inner_size, gate);
  multiply(row + p.inner_size, row + count + (first + count < p.inner_size ? 0 : p.inner_size), up);  // what the next piece needs
  Int8ProductsOf(SelectedCpuIsa()).gate(gate, up, num_pairs * kBlockRows / kTokenLanes, h, 0);
  for (int64_t i = 0; i < num_pairs; ++i) std::copy_n(h + i * kBlockRows, count, pairs.InnerRow(begin + i) + first);
}

// Rows first .. first + count - 1 of every expert's down matrix: y[s, row] = sum of weight * result.
void AddDown(const ExpertsParams& p, const Int4RowProducts& products, const Pairs& pairs, int64_t first, int64_t count, float* tile) {
  const NormRows& rows = NormRowsOf(SelectedCpuIsa());
  for (int64_t token = 0; token < p.num_tokens; ++token) std::fill_n(p.y + token * p.hidden_size + first, count, 0.0f);
  for (int64_t expert = 0; expert < p.num_experts; ++expert) {
    const int64_t begin = pairs.begin[expert], num_pairs = pairs.begin[expert + 1] - begin;
    if (num_pairs == 0) continue;
    const auto rows_of = [&](int64_t e) { return RowsFrom(p.down, p.format, p.inner_size, e * p.hidden_size + first); };
    int64_t next = expert + 1;
    while (next < p.num_experts && pairs.begin[next] == pairs.begin[next + 1]) ++next;
    products.multiply(rows_of(expert), count, p.inner_size, pairs.of_inner + begin, num_pairs,
                      next < p.num_experts ? rows_of(next).values : nullptr, tile, kBlockRows);
    for (int64_t i = 0; i < num_pairs; ++i) {
      float* const y = p.y + pairs.token[begin + i] * p.hidden_size + first;
      rows.scale_add(y, tile + i * kBlockRows, pairs.weight[begin + i], nullptr, count, y);
    }
  }
}

}  // namespace

const Int4RowProducts* RowProductsFor(const ExpertsParams& p) {
  // Where both ways take the same time (Zen 5; rows of 2,816 and of 512).
  constexpr int64_t kMostPairs = 20, kLeastWidth = 1024;
  const bool suits = p.format == WeightFormat::kInt4 && p.hidden_size >= kLeastWidth && Pairs::count(p) <= kMostPairs * p.num_experts;
  return suits ? Int4RowProductsOf(SelectedCpuIsa()) : nullptr;
}

size_t ExpertsByRowsWorkspaceBytes(const ExpertsParams& p, int num_threads) {
  Scratch scratch(nullptr);
  Pairs(p, num_threads, scratch);
  return scratch.used();
}

void LaunchExpertsByRows(const ExpertsParams& p, const Int4RowProducts& products, ThreadPool& pool) {
  DGRT_CHECK(p.hidden_size <= kMaxInt8Width && p.inner_size <= kMaxInt8Width);
  Scratch scratch(p.workspace);
  Pairs pairs(p, pool.num_threads(), scratch);
  SortPairs(p, pairs);
  ForEachToken(pool, p.num_tokens, [&](int64_t token) {
    pairs.x_rows[token] = products.quantise(p.x + token * p.hidden_size, p.hidden_size,
                                            pairs.x + token * Int8RowBytes(p.hidden_size));
  });
  auto* const tiles = reinterpret_cast<unsigned char*>(pairs.tiles);
  const int64_t tiles_bytes = 3 * pairs.tile_size * static_cast<int64_t>(sizeof(float));
  const int64_t blocks = CeilDiv(p.inner_size, kBlockRows);
  ForEachPiece(pool, p.num_experts * blocks, tiles, tiles_bytes, [&](int64_t piece, unsigned char* own) {
    const int64_t expert = piece / blocks, first = piece % blocks * kBlockRows;
    if (pairs.begin[expert] == pairs.begin[expert + 1]) return;
    MultiplyGateAndUp(p, products, pairs, expert, first, std::min(kBlockRows, p.inner_size - first), reinterpret_cast<float*>(own));
  });
  ForEachToken(pool, Pairs::count(p), [&](int64_t pair) {
    auto* const row = pairs.InnerRow(pair);
    pairs.inner_rows[pair] = products.quantise(row, p.inner_size, reinterpret_cast<int8_t*>(row));
  });
  // Every thread has a piece or two even where rows are few.
  const int64_t rows = std::min(kBlockRows, std::max<int64_t>(32, p.hidden_size / (2 * pool.num_threads()) / 32 * 32));
  ForEachPiece(pool, CeilDiv(p.hidden_size, rows), tiles, tiles_bytes, [&](int64_t piece, unsigned char* own) {
    AddDown(p, products, pairs, piece * rows, std::min(rows, p.hidden_size - piece * rows), reinterpret_cast<float*>(own));
  });
}

}  // namespace dgrt
