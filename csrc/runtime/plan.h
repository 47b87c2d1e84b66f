// Position arithmetic and schedules: the only place where lengths are added up. Pure constexpr functions, used by the
// stages and by tests. (How far back a sliding layer sees: FirstVisibleToken in memory/kv_cache.h.)
#pragma once

#include <algorithm>
#include <cstdint>

namespace dgrt {

// Prompt tokens per engine pass. Part of the result: the same prompt is always cut at the same places, so a prefix
// gives the same bits whatever follows it.
inline constexpr int64_t kPrefillChunkTokens = 512;

constexpr int64_t PrefillChunkEnd(int64_t begin, int64_t num_tokens) {
  return std::min(begin + kPrefillChunkTokens, num_tokens);
}
constexpr int64_t NumPrefillChunks(int64_t num_tokens) {
  return (num_tokens + kPrefillChunkTokens - 1) / kPrefillChunkTokens;
}

// Calls visit(kv_len, num_rows) for each reservation of KV rows from an empty cache to the first canvas: the chunks of the
// prompt, then the canvas. In sliding layers a chunk may need more than the canvas does.
template <typename Visit>
constexpr void ForEachReservation(int64_t prompt_len, int64_t canvas_len, Visit visit) {
  for (int64_t begin = 0; begin < prompt_len; begin = PrefillChunkEnd(begin, prompt_len)) {
    visit(begin, PrefillChunkEnd(begin, prompt_len) - begin);
  }
  visit(prompt_len, canvas_len);
}

// Canvas positions are kv_len .. kv_len + canvas_len - 1, all below context_len.
constexpr bool CanvasFits(int64_t kv_len, int64_t canvas_len, int64_t context_len) {
  return kv_len + canvas_len <= context_len;
}

// Most canvases a context can hold after a prompt.
constexpr int64_t MaxCanvases(int64_t prompt_len, int64_t canvas_len, int64_t context_len) {
  return std::max<int64_t>(0, (context_len - prompt_len) / canvas_len);
}

// T_n = t_min + (t_max - t_min) n / N, every operation rounded to float as in the reference. Each goes through double,
// which holds it exactly enough that the one rounding is the float operation's; so no compiler can fuse two of them.
constexpr float TemperatureOfStep(float t_min, float t_max, int32_t step, int32_t num_steps) {
  const float range = static_cast<float>(static_cast<double>(t_max) - static_cast<double>(t_min));
  const float fraction = static_cast<float>(step) / static_cast<float>(num_steps);
  const float rise = static_cast<float>(static_cast<double>(range) * static_cast<double>(fraction));
  return static_cast<float>(static_cast<double>(t_min) + static_cast<double>(rise));
}

// What one canvas is going to be, fixed before anything runs.
struct CanvasPlan {
  int32_t index = 0;     // of the canvas in its request
  int64_t kv_len = 0;    // committed rows it looks back on; position of its first token
  int64_t num_rows = 0;  // KV rows to reserve: L
};

}  // namespace dgrt
