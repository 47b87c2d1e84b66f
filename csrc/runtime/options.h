// Options of a runtime and of one generation. Defaults of the sampler come from the engine's manifest
// (generation_config.json of the checkpoint), never from here.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/sampler_options.h"

namespace dgrt {

struct RuntimeOptions {
  int threads = 0;                   // CPU threads for engine and kernels; 0: all the process may use
  std::string ort_library;           // path of libonnxruntime; empty: DGRT_ORT_LIBRARY, then the default search
  bool verify_weights = false;       // also hash the weight files at load (reads them once)
  int64_t memory_limit_bytes = 0;    // KV + workspace of one session; 0: none
};

struct GenerateOptions {
  int64_t max_new_tokens = -1;       // -1: until a stop id or the context ends
  uint64_t seed = 0;
  uint32_t request = 0;              // distinguishes requests that share a seed; < 2^24
  SamplerOptions sampler;
  std::vector<int32_t> stop_ids;
};

}  // namespace dgrt
