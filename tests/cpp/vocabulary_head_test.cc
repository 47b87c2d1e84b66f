// kernels/cpu/vocabulary_head.cc against the formulas of params.h computed naively in double, over awkward shapes, and
// each variant of kernels/cpu/gemm_tile.h against plain sums.
#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "common/aligned_buffer.h"
#include "common/thread_pool.h"
#include "kernels/cpu/gemm_tile.h"
#include "kernels/kernels.h"
#include "test.h"

namespace dgrt {
namespace {

constexpr double kScoreTolerance = 2e-5;    // absolute, scores up to softcap / temperature = 75: float sums over D
constexpr double kEntropyTolerance = 1e-4;  // nats
constexpr double kSoftTolerance = 1e-4;     // absolute, entries up to about 10
constexpr double kBorderTolerance = 2e-5;   // of the total weight: where one token ends and the next begins

struct HeadCase {
  int64_t len = 1, vocab = 111, dim = 8;
  DType dtype = DType::kFloat32;
  size_t misalignment = 0;  // bytes
  float softcap = 30, temperature = 0.7f, spread = 2;
  bool bf16_products = false;
};

HeadCase OfBf16Products(int64_t len, int64_t vocab, int64_t dim, size_t misalignment = 0) {
  return {.len = len, .vocab = vocab, .dim = dim, .dtype = DType::kBFloat16, .misalignment = misalignment, .bf16_products = true};
}

// To bf16, ties to even.
float Rounded(float x) {
  uint32_t word;
  std::memcpy(&word, &x, 4);
  word = (word + 0x7fffu + (word >> 16 & 1u)) & 0xffff0000u;
  std::memcpy(&x, &word, 4);
  return x;
}

struct HeadOutput {
  std::vector<int32_t> argmax, sampled;
  std::vector<float> entropy, soft;
  std::vector<int32_t> scored;
  std::vector<float> log_prob;
  bool operator==(const HeadOutput&) const = default;
};

struct Fixture {
  explicit Fixture(const HeadCase& shape) : c(shape), hidden(Size(c.len * c.dim)), table(Size(c.vocab * c.dim)) {
    std::mt19937 random(static_cast<uint32_t>(c.len * 7919 + c.vocab * 31 + c.dim));
    std::normal_distribution<float> normal;
    const float scale = c.spread / std::sqrt(static_cast<float>(c.dim));
    for (float& x : hidden) x = 3 * normal(random);
    const size_t element = c.dtype == DType::kFloat32 ? 4 : 2;
    bytes.resize(table.size() * element + c.misalignment);
    for (size_t i = 0; i < table.size(); ++i) {
      float x = scale * normal(random);
      uint32_t word;
      std::memcpy(&word, &x, 4);
      if (c.dtype == DType::kBFloat16) word &= 0xffff0000u;
      std::memcpy(&x, &word, 4);
      table[i] = x;
      const uint16_t half = static_cast<uint16_t>(word >> 16);
      const void* source = c.dtype == DType::kFloat32 ? static_cast<const void*>(&word) : &half;
      std::memcpy(bytes.data() + c.misalignment + i * element, source, element);
    }
    std::uniform_real_distribution<double> unit;
    for (int64_t i = 0; i < c.len; ++i) uniform.push_back(unit(random));
  }
  static size_t Size(int64_t n) { return static_cast<size_t>(n); }

  // Some token that the row may have.
  int32_t ScoredOf(int64_t row, const PositionConstraint* constraints) const {
    const PositionConstraint none, &constraint = constraints == nullptr ? none : constraints[row];
    if (constraint.is_pinned()) return constraint.pinned;
    if (constraint.is_restricted()) return constraint.allowed[Size(row) % constraint.allowed.size()];
    return static_cast<int32_t>((row * 37 + 5) % c.vocab);
  }

  HeadOutput Run(int threads, const PositionConstraint* constraints = nullptr, bool want_soft = true) const {
    HeadOutput out{std::vector<int32_t>(Size(c.len), -7), std::vector<int32_t>(Size(c.len), -7),
                   std::vector<float>(Size(c.len), -7), std::vector<float>(want_soft ? Size(c.len * c.dim) : 0, -7),
                   {}, std::vector<float>(Size(c.len), -7)};
    for (int64_t row = 0; row < c.len; ++row) out.scored.push_back(ScoredOf(row, constraints));
    AlignedBuffer<unsigned char> workspace(VocabularyHeadWorkspaceBytes(c.len, c.dim, c.vocab));
    std::memset(workspace.data(), 0xff, workspace.bytes());  // NaN everywhere: nothing may be read before it is written
    VocabularyHeadParams params;
    params.hidden = hidden.data();
    params.table = {bytes.data() + c.misalignment, c.dtype, c.vocab, c.dim, c.bf16_products};
    params.canvas_len = c.len;
    params.softcap = c.softcap;
    params.temperature = c.temperature;
    params.embed_scale = 1.5f;
    params.uniform = uniform.data();
    params.constraints = constraints;
    params.argmax = out.argmax.data();
    params.entropy = out.entropy.data();
    params.sampled = out.sampled.data();
    params.soft = want_soft ? out.soft.data() : nullptr;
    params.scored = out.scored.data();
    params.log_prob = out.log_prob.data();
    params.workspace = workspace.data();
    ThreadPool pool(threads);
    LaunchVocabularyHead(params, pool);
    return out;
  }

  HeadCase c;
  std::vector<float> hidden, table;
  std::vector<unsigned char> bytes;
  std::vector<double> uniform;
};

double Product(float a, float b) { return static_cast<double>(a) * static_cast<double>(b); }

// Scores of one row over `ids`, in double.
std::vector<double> Scores(const Fixture& f, int64_t row, const std::vector<int32_t>& ids) {
  std::vector<double> scores;
  for (const int32_t id : ids) {
    double dot = 0;
    for (int64_t d = 0; d < f.c.dim; ++d) {
      const float hidden = f.hidden[Fixture::Size(row * f.c.dim + d)];
      dot += Product(f.c.bf16_products ? Rounded(hidden) : hidden, f.table[Fixture::Size(id * f.c.dim + d)]);
    }
    const double cap = static_cast<double>(f.c.softcap);
    scores.push_back((cap > 0 ? cap * std::tanh(dot / cap) : dot) / static_cast<double>(f.c.temperature));
  }
  return scores;
}

void CheckRow(const Fixture& f, const HeadOutput& out, int64_t row, const std::vector<int32_t>& ids) {
  const std::vector<double> scores = Scores(f, row, ids);
  const double best = *std::max_element(scores.begin(), scores.end());
  double total = 0;
  for (const double s : scores) total += std::exp(s - best);
  double entropy = 0, below = 0, from = -1, to = -1, argmax_score = -1e9, log_prob = 1;
  std::vector<double> soft(Fixture::Size(f.c.dim)), magnitude(Fixture::Size(f.c.dim));
  for (size_t i = 0; i < ids.size(); ++i) {
    const double p = std::exp(scores[i] - best) / total;
    entropy -= p * (scores[i] - best - std::log(total));
    if (ids[i] == out.sampled[Fixture::Size(row)]) from = below, to = below + p;
    if (ids[i] == out.argmax[Fixture::Size(row)]) argmax_score = scores[i];
    if (ids[i] == out.scored[Fixture::Size(row)]) log_prob = scores[i] - best - std::log(total);
    below += p;
    for (int64_t d = 0; d < f.c.dim; ++d) {
      const double part = 1.5 * p * static_cast<double>(f.table[Fixture::Size(ids[i] * f.c.dim + d)]);
      soft[Fixture::Size(d)] += part;
      magnitude[Fixture::Size(d)] += std::abs(part);
    }
  }
  CHECK_NEAR(argmax_score, best, kScoreTolerance);
  CHECK_NEAR(out.entropy[Fixture::Size(row)], entropy, kEntropyTolerance);
  CHECK_NEAR(out.log_prob[Fixture::Size(row)], log_prob, kEntropyTolerance + kScoreTolerance);
  const double u = f.uniform[Fixture::Size(row)];
  CHECK(from >= 0);  // an id of the set
  CHECK(u >= from - kBorderTolerance && u < to + kBorderTolerance);
  const double rounding = f.c.bf16_products ? 1.0 / 256 : 0;  // of a weight
  for (int64_t d = 0; d < f.c.dim && !out.soft.empty(); ++d) {
    CHECK_NEAR(out.soft[Fixture::Size(row * f.c.dim + d)], soft[Fixture::Size(d)],
               kSoftTolerance + rounding * magnitude[Fixture::Size(d)]);
  }
}

std::vector<int32_t> AllIds(int64_t vocab) {
  std::vector<int32_t> ids(Fixture::Size(vocab));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  return ids;
}

void CheckAgainstFormulas(const HeadCase& shape) {
  const Fixture fixture(shape);
  const HeadOutput out = fixture.Run(2);
  for (int64_t row = 0; row < shape.len; ++row) CheckRow(fixture, out, row, AllIds(shape.vocab));
}

}  // namespace

TEST(HeadMatchesTheFormulasOnAwkwardShapes) {
  for (const int64_t len : {1, 3, 17, 31}) {
    for (const int64_t vocab : {1, 111, 384, 512, 513, 3203}) {
      for (const int64_t dim : {1, 8, 33, 128}) CheckAgainstFormulas({len, vocab, dim});
    }
  }
}

TEST(HeadMatchesTheFormulasOnFullCanvases) {
  CheckAgainstFormulas({96, 384, 128});
  CheckAgainstFormulas({256, 3203, 33});
}

TEST(HeadReadsBf16AndUnalignedTables) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const size_t misalignment : {0u, 1u, 2u, 3u}) {
      for (const int64_t dim : {8, 33, 64}) CheckAgainstFormulas({17, 513, dim, dtype, misalignment});
    }
  }
}

TEST(HeadMatchesTheFormulasForFlatAndPeakedDistributionsAndWithoutSoftcap) {
  for (const float spread : {0.0f, 0.01f, 1.0f, 8.0f}) {
    for (const float softcap : {0.0f, 30.0f}) {
      for (const float temperature : {0.4f, 1.0f, 5.0f}) {
        const float reach = softcap > 0 ? spread : spread / 2;
        CheckAgainstFormulas({17, 1300, 33, DType::kFloat32, 0, softcap, temperature, reach});
      }
    }
  }
}

TEST(HeadOfBf16ProductsMatchesTheFormulasOnEveryInstructionSet) {
  for (const CpuIsa isa : UsableCpuIsas()) {
    UseCpuIsa(CpuIsaName(isa));
    for (const int64_t len : {1, 17, 70}) {
      for (const int64_t vocab : {1, 111, 513, 1300}) {
        for (const int64_t dim : {1, 8, 33, 128}) CheckAgainstFormulas(OfBf16Products(len, vocab, dim, len % 3));
      }
    }
    CheckAgainstFormulas(OfBf16Products(256, 3203, 100));
  }
  UseCpuIsa(CpuIsaName(UsableCpuIsas().front()));
}

TEST(HeadGivesTheSameBitsForAnyNumberOfThreads) {
  for (const HeadCase& shape : {HeadCase{96, 1300, 33}, OfBf16Products(150, 1300, 33)}) {
    const Fixture fixture(shape);
    const HeadOutput expected = fixture.Run(1);
    for (const int threads : {2, 3, 7}) CHECK(fixture.Run(threads) == expected);
  }
}

void CheckRowsAlone(const HeadCase& shape) {
  Fixture fixture(shape);
  // Some know what they want, and for them most ids weigh nothing; some do not.
  for (size_t i = 0; i < fixture.hidden.size(); ++i) fixture.hidden[i] *= std::array{1.0f, 10.0f, 0.01f}[i / 33 % 3];
  const HeadOutput together = fixture.Run(2);
  for (int64_t row = 0; row < 40; ++row) CheckRow(fixture, together, row, AllIds(1300));
  for (const int64_t row : {0, 1, 15, 16, 17, 38, 39}) {
    Fixture alone = fixture;
    alone.c.len = 1;
    alone.hidden.assign(fixture.hidden.begin() + row * 33, fixture.hidden.begin() + (row + 1) * 33);
    alone.uniform = {fixture.uniform[Fixture::Size(row)]};
    const HeadOutput out = alone.Run(1);
    CHECK_EQ(out.argmax[0], together.argmax[Fixture::Size(row)]);
    CHECK_EQ(out.entropy[0], together.entropy[Fixture::Size(row)]);
    CHECK_EQ(out.sampled[0], together.sampled[Fixture::Size(row)]);
    CHECK(std::equal(out.soft.begin(), out.soft.end(), together.soft.begin() + row * 33));
  }
}

TEST(ARowDoesNotDependOnTheRowsBesideIt) {
  CheckRowsAlone({40, 1300, 33});
  CheckRowsAlone(OfBf16Products(40, 1300, 33, 1));
}

TEST(SkippingTheSoftEmbeddingChangesNothingElse) {
  const Fixture fixture({31, 513, 33});
  const HeadOutput with = fixture.Run(2), without = fixture.Run(2, nullptr, false);
  CHECK(with.argmax == without.argmax && with.entropy == without.entropy && with.sampled == without.sampled);
}

TEST(TheSmallestIdWinsATieWithinAndAcrossTiles) {
  Fixture fixture({3, 1300, 8});
  // Ids 5, 7 and 700 share the row that fits best; the others are zero.
  std::fill(fixture.bytes.begin(), fixture.bytes.end(), static_cast<unsigned char>(0));
  for (const size_t id : {5u, 7u, 700u}) std::memcpy(fixture.bytes.data() + id * 32, fixture.hidden.data(), 32);
  CHECK_EQ(fixture.Run(1).argmax[0], 5);
  std::fill(fixture.bytes.begin(), fixture.bytes.end(), static_cast<unsigned char>(0));
  CHECK_EQ(fixture.Run(1).argmax[1], 0);  // all equal
  CHECK_NEAR(fixture.Run(1).entropy[1], std::log(1300.0), 1e-5);
}

TEST(TheExtremesOfTheUniformGiveTheFirstAndTheLastToken) {
  Fixture fixture({2, 1300, 8});
  std::fill(fixture.bytes.begin(), fixture.bytes.end(), static_cast<unsigned char>(0));  // all tokens equally likely
  fixture.uniform = {0.0, 1.0 - 1e-16};
  const HeadOutput out = fixture.Run(1);
  CHECK_EQ(out.sampled[0], 0);
  CHECK_EQ(out.sampled[1], 1299);
}

void CheckPinned(const HeadCase& shape) {
  const Fixture fixture(shape);
  std::vector<PositionConstraint> constraints(17);
  constraints[0].pinned = 512;
  constraints[9].pinned = 3;
  const HeadOutput out = fixture.Run(2, constraints.data()), free = fixture.Run(2);
  for (const size_t row : {0u, 9u}) {
    CHECK_EQ(out.argmax[row], constraints[row].pinned);
    CHECK_EQ(out.sampled[row], constraints[row].pinned);
    CHECK_EQ(out.entropy[row], 0.0f);
    for (size_t d = 0; d < 33; ++d) {
      CHECK_EQ(out.soft[row * 33 + d], 1.5f * fixture.table[Fixture::Size(constraints[row].pinned) * 33 + d]);
    }
  }
  for (size_t row = 0; row < 17; ++row) {  // the others do not notice
    if (row == 0 || row == 9) continue;
    CHECK_EQ(out.entropy[row], free.entropy[row]);
    CHECK_EQ(out.sampled[row], free.sampled[row]);
  }
}

TEST(PinnedPositionsAreCertainAndKeepTheirToken) {
  CheckPinned({17, 513, 33, DType::kBFloat16, 1});
  CheckPinned(OfBf16Products(17, 513, 33, 1));
}

void CheckAllowedSets(const HeadCase& shape) {
  const Fixture fixture(shape);
  std::vector<std::vector<int32_t>> sets = {{42}, {0, 3202}, {}, {}};
  for (int32_t id = 1; id < 3203; id += 2) sets[2].push_back(id);
  for (int32_t id = 100; id < 140; ++id) sets[3].push_back(id);
  std::vector<PositionConstraint> constraints(31);
  for (size_t row = 0; row < 31; ++row) {
    if (row % 5 < 4) constraints[row].allowed = sets[row % 5];
  }
  constraints[30].pinned = 7;
  const HeadOutput out = fixture.Run(2, constraints.data());
  for (int64_t row = 0; row < 30; ++row) {
    CheckRow(fixture, out, row, row % 5 < 4 ? sets[Fixture::Size(row % 5)] : AllIds(3203));
  }
  CHECK_EQ(out.entropy[0], 0.0f);
  CHECK(fixture.Run(1, constraints.data()) == out);
}

TEST(AllowedSetsRenormaliseOverTheSet) {
  CheckAllowedSets({31, 3203, 33});
  CheckAllowedSets(OfBf16Products(31, 3203, 33));
}

TEST(SampledTokensFollowTheDistribution) {
  Fixture fixture({256, 640, 8});
  for (int64_t row = 1; row < 256; ++row) {  // every row the same distribution, many draws
    std::copy_n(fixture.hidden.begin(), 8, fixture.hidden.begin() + row * 8);
  }
  const std::vector<double> scores = Scores(fixture, 0, AllIds(640));
  double total = 0;
  for (const double s : scores) total += std::exp(s);
  std::vector<double> counts(640);
  std::mt19937_64 random(3);
  std::uniform_real_distribution<double> unit;
  const int rounds = 80;
  for (int round = 0; round < rounds; ++round) {
    for (double& u : fixture.uniform) u = unit(random);
    for (const int32_t token : fixture.Run(2, nullptr, false).sampled) counts[Fixture::Size(token)] += 1;
  }
  const double draws = 256.0 * rounds;
  for (size_t id = 0; id < 640; ++id) {  // six sigma plus one for the rare ones
    const double expected = draws * std::exp(scores[id]) / total;
    CHECK_NEAR(counts[id], expected, 6 * std::sqrt(expected) + 1);
  }
}

void CheckNotANumber(const HeadCase& shape) {
  Fixture fixture(shape);
  const HeadOutput expected = fixture.Run(2);
  fixture.hidden[3 * 33 + 5] = std::numeric_limits<float>::quiet_NaN();
  const HeadOutput out = fixture.Run(2);
  CHECK(std::isnan(out.entropy[3]));
  CHECK(out.argmax[3] >= 0 && out.argmax[3] < 513);
  CHECK(out.sampled[3] >= 0 && out.sampled[3] < 513);
  for (const size_t row : {0u, 2u, 4u, 16u}) CHECK_EQ(out.entropy[row], expected.entropy[row]);
}

TEST(NotANumberInHiddenShowsInTheEntropyAndStaysInItsRow) {
  CheckNotANumber({17, 513, 33});
  CheckNotANumber(OfBf16Products(17, 513, 33));
}

TEST(EveryVariantOfTheTileLoopsAgreesWithPlainSums) {
  constexpr int64_t kDim = 33, kIds = 80;
  constexpr int64_t kPanels = NumPanels(kDim);
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> rows(kIds * kDim), row_hidden(kDim);
  for (float& x : rows) x = normal(random);
  for (float& x : row_hidden) x = normal(random);
  for (const CpuIsa isa : UsableCpuIsas()) {
    const TileKernels* const kernels = &TileKernelsOf(isa);
    AlignedBuffer<float> tile(kPanels * kPanelFloats), hidden(kPanels * kPanelWidth * kRowLanes);
    AlignedBuffer<float> scores(kIds * kRowLanes), soft(kPanels * kPanelWidth * kRowLanes), max(kRowLanes);
    AlignedBuffer<float> rescale(kRowLanes), runs(kTileRuns * kRowLanes);
    AlignedBuffer<double> weighted(kRowLanes);
    std::vector<int32_t> arg(kRowLanes);
    for (int64_t id = 0; id < kIds; ++id) {
      kernels->load_row(&rows[Fixture::Size(id * kDim)], DType::kFloat32, kDim, tile.data(), id);
    }
    for (size_t i = 0; i < kDim * kRowLanes; ++i) hidden[i] = 5 * normal(random);
    for (size_t i = 0; i < soft.size(); ++i) soft[i] = normal(random);
    const std::vector<float> before(soft.begin(), soft.end());
    for (size_t lane = 0; lane < kRowLanes; ++lane) {
      max[lane] = -std::numeric_limits<float>::infinity();
      rescale[lane] = 0.5f;
    }
    kernels->score(tile.data(), kIds, hidden.data(), kPanels, scores.data());
    kernels->cap(scores.data(), kIds, 30.0f, 0.7f);
    for (size_t lane = 0; lane < kRowLanes; ++lane) {
      double best = -1e9;
      for (size_t id = 0; id < kIds; ++id) {
        double dot = 0;
        for (size_t d = 0; d < kDim; ++d) dot += Product(rows[id * kDim + d], hidden[d * kRowLanes + lane]);
        const double expected = 30 * std::tanh(dot / 30) / static_cast<double>(0.7f);
        CHECK_NEAR(scores[id * kRowLanes + lane], expected, kScoreTolerance);
        best = std::max(best, static_cast<double>(scores[id * kRowLanes + lane]));
      }
      CHECK(best > 0);
    }
    const std::vector<float> kept(scores.begin(), scores.end());
    kernels->update_max(scores.data(), kIds, 1000, max.data(), arg.data());
    kernels->weigh(scores.data(), kIds, max.data(), runs.data(), weighted.data());
    kernels->accumulate(scores.data(), tile.data(), kIds, rescale.data(), kPanels, soft.data());
    for (size_t lane = 0; lane < kRowLanes; ++lane) {
      CHECK_EQ(kept[Fixture::Size(arg[lane] - 1000) * kRowLanes + lane], max[lane]);
      double sum = 0, sum_weighted = 0;
      for (size_t id = 0; id < kIds; ++id) {
        const float x = kept[id * kRowLanes + lane] - max[lane];
        const double weight = std::exp(static_cast<double>(x));
        CHECK_NEAR(scores[id * kRowLanes + lane] / weight, 1.0, 5e-7);
        sum += weight;
        sum_weighted += static_cast<double>(x) * weight;
      }
      CHECK_NEAR(runs[lane] + runs[kRowLanes + lane], sum, 1e-5);
      CHECK_NEAR(weighted[lane], sum_weighted, 1e-5);
      for (size_t d = 0; d < kDim; ++d) {
        double expected = 0.5 * static_cast<double>(before[d * kRowLanes + lane]);
        for (size_t id = 0; id < kIds; ++id) expected += Product(scores[id * kRowLanes + lane], rows[id * kDim + d]);
        CHECK_NEAR(soft[d * kRowLanes + lane], expected, 1e-5);
      }
    }
    double dot = 0;
    for (size_t d = 0; d < kDim; ++d) dot += Product(rows[d], row_hidden[d]);
    CHECK_NEAR(kernels->dot(row_hidden.data(), rows.data(), DType::kFloat32, kDim), dot, 1e-5);
  }
}

TEST(TheSoftcapIsAccurateToAFewUnitsInTheLastPlace) {
  AlignedBuffer<float> numbers(kVocabTile * kRowLanes);
  for (const CpuIsa isa : UsableCpuIsas()) {
    const TileKernels* const kernels = &TileKernelsOf(isa);
    std::mt19937 random(11);
    std::uniform_real_distribution<float> exponent(-20.0f, 5.0f);
    std::vector<float> before(numbers.size());
    for (size_t i = 0; i < numbers.size(); ++i) before[i] = (i % 2 ? -1.0f : 1.0f) * std::exp2(exponent(random));
    std::copy(before.begin(), before.end(), numbers.begin());
    kernels->cap(numbers.data(), kVocabTile, 1.0f, 1.0f);
    for (size_t i = 0; i < numbers.size(); ++i) {
      CHECK_NEAR(numbers[i] / std::tanh(static_cast<double>(before[i])), 1.0, 5e-7);
    }
  }
}

TEST(TheWorkspaceIsFarFromAMatrixOfAllScores) {
  constexpr int64_t kCanvas = 256, kHidden = 2816, kVocab = 262144;  // the released model
  CHECK(VocabularyHeadWorkspaceBytes(kCanvas, kHidden, kVocab) * 4 < kCanvas * kVocab * sizeof(float));
}

}  // namespace dgrt
