// Bounds of the renderer. A template comes with a checkpoint from anywhere, so that it may not use up memory, time or
// stack. Every bound is far beyond what a chat needs, and running into one is an error that names it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dgrt::jinja {

inline constexpr size_t kMaxTemplateBytes = size_t{1} << 20;
inline constexpr size_t kMaxInputBytes = size_t{64} << 20;   // JSON of one conversation
inline constexpr int kMaxNesting = 100;                      // of statements and brackets in the template's text
inline constexpr int kMaxExpressionDepth = 200;              // of the tree: a + b + c has two levels
inline constexpr int kMaxEvaluationDepth = 500;              // levels of trees under evaluation, through macros
inline constexpr int kMaxValueDepth = 100;                   // lists in lists, and the input's JSON
inline constexpr size_t kMaxSteps = size_t{20'000'000};      // evaluated nodes, elements and portions of text
inline constexpr size_t kTextBytesPerStep = 256;
inline constexpr size_t kMaxTextBytes = size_t{64} << 20;    // of one string, the output among them
inline constexpr size_t kMaxLiveBytes = size_t{256} << 20;   // of all values
inline constexpr int64_t kMaxRange = 100'000;                // elements of range(), as in Jinja's sandbox

}  // namespace dgrt::jinja
