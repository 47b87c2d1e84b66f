// What the KV memory of a runtime reports: plain numbers, also for the facade of runtime/.
#pragma once

#include <cstdint>

namespace dgrt {

struct MemoryUsage {
  int64_t sequence_bytes = 0;  // rows that one sequence has to itself
  int64_t prefix_bytes = 0;    // rows of cached prefixes, shared or not, each counted once
  int64_t peak_bytes = 0;      // of both together
  int64_t limit_bytes = 0;     // 0: none
  int64_t total_bytes() const { return sequence_bytes + prefix_bytes; }
};

struct PrefixStats {
  int64_t lookups = 0;          // prompts asked for
  int64_t hits = 0;             // of them, those that found a resume point
  int64_t prompt_tokens = 0;    // of all lookups
  int64_t hit_tokens = 0;       // of them, those whose rows were there
  int64_t stored_chunks = 0;    // nodes made, also by Load
  int64_t evicted_chunks = 0;   // nodes dropped
  int64_t evicted_windows = 0;  // window parts dropped from nodes that stayed
  int64_t num_chunks = 0;       // nodes now
  int64_t bytes = 0;            // of their parts
  int64_t limit_bytes = 0;
};

}  // namespace dgrt
