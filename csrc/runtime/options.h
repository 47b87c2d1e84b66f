// Options of a runtime and of one generation. Defaults of the sampler come from the engine's manifest
// (generation_config.json of the checkpoint), never from here.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/sampler_options.h"

namespace dgrt {

class Drafter;  // drafting/drafter.h

struct RuntimeOptions {
  int threads = 0;                   // CPU threads for engine and kernels; 0: all the process may use
  std::string ort_library;           // path of libonnxruntime; empty: DGRT_ORT_LIBRARY, then the default search
  bool verify_weights = false;       // also hash the weight files at load (reads them once)
  int64_t memory_limit_bytes = 0;    // KV + workspace of one session; 0: none
  int64_t kv_limit_bytes = 0;        // KV of all sessions and cached prefixes together; 0: none
  int64_t prefix_cache_bytes = -1;   // most KV of prompts kept for later ones; 0: off, -1: a context's, at most 1 GiB
};

// What the tokens of a generation promise (csrc/runtime/README.md).
enum class Guarantee : int32_t {
  kExact = 0,   // those of the refinement loop, for a seed
  kCausal = 1,  // those of plain sampling from the causal pass, for a seed, with any drafter
};

// Commit speculation of kExact: whether a denoise step may carry along what follows if it is the last one.
enum class Pipeline : int32_t {
  kAuto = 0,  // where weights, not rows, are what a pass costs
  kOff = 1,   // never: the plain loop
  kOn = 2,    // in every step where something may follow and nothing is computed ahead yet
};

enum class DrafterKind : int32_t { kNone = 0, kSuffix = 1 };

struct GenerateOptions {
  int64_t max_new_tokens = -1;       // -1: until a stop id or the context ends
  uint64_t seed = 0;
  double deadline_ms = 0;            // from the making of the session, its next turn or submission; 0: none
  uint32_t request = 0;              // distinguishes requests that share a seed; < 2^24
  Guarantee guarantee = Guarantee::kExact;
  Pipeline pipeline = Pipeline::kAuto;       // only of kExact; changes the passes, never the tokens
  bool logprobs = false;             // only of kExact: also the causal pass's log-probability of each token
  DrafterKind drafter = DrafterKind::kNone;  // only with kCausal
  float causal_temperature = 1;      // of kCausal; 1: the model's own distribution, 0: its most likely token
  std::function<std::unique_ptr<Drafter>()> make_drafter;  // a drafter of the caller's own, in place of `drafter`
  SamplerOptions sampler;
  std::vector<int32_t> stop_ids;
};

}  // namespace dgrt
