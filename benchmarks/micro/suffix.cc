// Time of the suffix drafter per canvas behind a long text: its bar is 1 ms at 100,000 tokens.
//
//   cmake --build --preset cpu-release --target dgrt_micro_suffix && build/cpu-release/benchmarks/micro/dgrt_micro_suffix
//
// The text is a third of new tokens and two thirds copies of what was there before, as in edits. Prints one JSON object per
// length: medians over 50 canvases of appending 256 tokens and of drafting 256.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <random>
#include <span>
#include <vector>

#include "drafting/suffix_drafter.h"

namespace dgrt {
namespace {

constexpr size_t kCanvas = 256, kVocabulary = 262'144;

double Milliseconds(std::chrono::steady_clock::duration time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

double Median(std::vector<double>& times) {
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

std::vector<int32_t> Text(size_t length) {
  std::mt19937 random(5);
  std::vector<int32_t> text;
  while (text.size() < length) {
    const size_t run = 20 + random() % 60;
    const bool copies = text.size() > 1000 && random() % 3 != 0;
    const size_t from = copies ? random() % (text.size() - run) : 0;
    for (size_t i = 0; i < run; ++i) {
      text.push_back(copies ? text[from + i] : static_cast<int32_t>(random() % kVocabulary));
    }
  }
  text.resize(length);
  return text;
}

void Measure(size_t length) {
  constexpr size_t kCanvases = 50;
  const std::vector<int32_t> text = Text(length + kCanvases * kCanvas);
  const std::span<const int32_t> all(text);
  SuffixDrafter drafter;
  const auto start = std::chrono::steady_clock::now();
  drafter.Append(all.first(length));
  const double prompt_ms = Milliseconds(std::chrono::steady_clock::now() - start);
  std::vector<double> append, draft;
  std::vector<int32_t> tokens(kCanvas);
  std::vector<float> confidence(kCanvas, 1.0f);
  for (size_t i = 0; i < kCanvases; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    drafter.Draft(tokens, confidence);
    const auto middle = std::chrono::steady_clock::now();
    drafter.Append(all.subspan(length + i * kCanvas, kCanvas));
    draft.push_back(Milliseconds(middle - begin));
    append.push_back(Milliseconds(std::chrono::steady_clock::now() - middle));
  }
  std::printf("{\"tokens\": %zu, \"prompt_ms\": %.1f, \"append_ms\": %.3f, \"draft_ms\": %.3f}\n", length, prompt_ms,
              Median(append), Median(draft));
}

}  // namespace
}  // namespace dgrt

int main() {
  for (const size_t length : {1'000u, 10'000u, 100'000u, 250'000u}) dgrt::Measure(length);
}
