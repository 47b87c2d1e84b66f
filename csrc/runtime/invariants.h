// What must hold of a session between two calls, as a pure function over a snapshot that anyone can take through
// runtime.h. Tests call it after each operation, debug builds after each canvas, release builds never.
#pragma once

#include <cstdint>
#include <string>

#include "common/check.h"
#include "runtime/runtime.h"

namespace dgrt {

struct SessionSnapshot {
  bool is_causal = false;
  int64_t prompt_len = 0;  // 0: not prefilled
  int64_t canvas_len = 0;
  int64_t context_len = 0;
  int64_t kv_len = 0;
  int64_t num_tokens = 0;  // emitted
  int64_t canvases = 0;    // finished
  FinishReason finish = FinishReason::kNone;
};

// The first rule that is broken, in words; empty when all hold.
inline std::string BrokenSessionInvariant(const SessionSnapshot& s) {
  const bool ended_by_canvas = s.finish == FinishReason::kStop || s.finish == FinishReason::kLength;
  if (s.prompt_len == 0) {
    return s.kv_len == 0 && s.num_tokens == 0 ? "" : Message("no prompt, but ", s.kv_len, " rows of KV");
  }
  if (s.is_causal) {  // the row of the last token is written by the pass that needs it
    if (s.kv_len == s.prompt_len - 1 + s.num_tokens && s.kv_len < s.context_len) return "";
    return Message("kv_len ", s.kv_len, " with a prompt of ", s.prompt_len, " and ", s.num_tokens, " tokens");
  }
  // The canvas that ends a request is not written into KV.
  const int64_t in_kv = s.canvases - (ended_by_canvas ? 1 : 0);
  if (s.kv_len != s.prompt_len + in_kv * s.canvas_len) {
    return Message("kv_len ", s.kv_len, " with a prompt of ", s.prompt_len, " and ", in_kv, " canvases in KV");
  }
  if (s.kv_len > s.context_len) return Message("kv_len ", s.kv_len, " beyond the context of ", s.context_len);
  if (s.num_tokens > s.canvases * s.canvas_len) return Message(s.num_tokens, " tokens from ", s.canvases, " canvases");
  if (!ended_by_canvas && s.num_tokens != s.canvases * s.canvas_len) {
    return Message("a canvas was cut (", s.num_tokens, " tokens), but the request goes on");
  }
  if (s.finish == FinishReason::kNone && s.kv_len + s.canvas_len > s.context_len) {
    return "the request goes on without room for a canvas";
  }
  return "";
}

}  // namespace dgrt
