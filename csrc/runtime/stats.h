// Counters of one generation, and of a runtime. Each stage writes its own; all counts are exact, times are wall clock.
#pragma once

#include <cstdint>
#include <vector>

namespace dgrt {

struct Stats {
  int64_t prefill_passes = 0;   // prefill.cc: engine passes over the prompt (one per chunk)
  int64_t denoise_passes = 0;   // denoise_step.cc
  int64_t commit_passes = 0;    // commit.cc: causal passes over a finished canvas; over the last one only with logprobs
  int64_t causal_passes = 0;    // causal.cc: passes that emit tokens of the causal distribution
  int64_t packed_passes = 0;    // speculate.cc: a denoise step, a commit and a step of the next canvas in one
  int64_t packed_commits = 0;   // commit.cc: commits whose KV rows a packed pass had written
  int64_t verify_passes = 0;    // checks.cc: passes that check a draft; the first denoise step of a drafted canvas is (in) one
  int64_t draft_calls = 0;      // drafter calls (0 with drafter "none"); overlap.cc: canvases begun ahead
  int64_t draft_passes = 0;     // model_drafter.cc: passes of the engine's drafter network
  int64_t draft_rows = 0;       // token rows of these; they are not in row_tokens
  int64_t draft_commits = 0;    // commit.cc: canvases committed as drafted, after the checks alone
  int64_t draft_refines = 0;    // commit.cc: canvases refined from what the checks left of a draft
  int64_t draft_discards = 0;   // commit.cc: canvases refined from noise because the checks left too little of a draft
  int64_t accepted_drafts = 0;  // drafted positions that were committed unchanged
  int64_t row_tokens = 0;       // token rows over all passes
  int64_t canvases = 0;         // finished canvases
  std::vector<int32_t> steps_per_canvas;  // commit.cc: steps beside the canvas before included
  int64_t prompt_tokens = 0;
  int64_t prefix_tokens = 0;    // of the prompt, those whose rows were there: prefix cache or turns before
  int64_t tokens = 0;           // emitted tokens: up to and including the first stop id
  double prefill_ms = 0;        // engine time of prefill
  double denoise_ms = 0;        // engine time of denoise passes
  double commit_ms = 0;         // engine time of commit passes
  double causal_ms = 0;         // engine time of causal passes
  double packed_ms = 0;         // engine time of packed passes
  double verify_ms = 0;         // engine time of passes that check a draft
  double head_ms = 0;           // vocabulary head, acceptance and renoise
  double draft_ms = 0;
  double queued_ms = 0;         // scheduler.cc: from its submission to its start
  double wait_ms = 0;           // for a lane, while other requests had them
  double total_ms = 0;
  int64_t peak_kv_bytes = 0;    // bytes of KV rows held at the longest moment

  // Non-pad tokens per target pass of any kind after the prompt's.
  double tokens_per_pass() const {
    const int64_t passes = denoise_passes + commit_passes + causal_passes + packed_passes + verify_passes;
    return passes > 0 ? static_cast<double>(tokens) / static_cast<double>(passes) : 0.0;
  }
};

// Passes of all sessions of a runtime. Written by lanes.cc.
struct LaneStats {
  int64_t requests = 0;        // that are inside a call now
  int64_t waiting = 0;         // of these, for a lane
  int64_t passes = 0;          // begun so far
  int64_t narrow_passes = 0;   // of these, on one thread beside others
  double busy_thread_ms = 0;   // threads x time of all passes so far
};

}  // namespace dgrt
