// The manifest of an engine package (format: export/README.md), read and checked before anything else is opened or
// allocated. A package is input from outside: every number is bounded, every file is in the folder and has the
// size and hash that the manifest states. Called by runtime/open.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/sampler_options.h"
#include "engine/engine.h"

namespace dgrt {

class PackageFiles;

// From generation_config.json of the checkpoint.
struct GenerationDefaults {
  SamplerOptions sampler;
  std::vector<int32_t> stop_ids;
};

// Where the tied token table [V, D] lies.
struct EmbeddingLocation {
  std::string file;
  int64_t offset = 0;
  int64_t bytes = 0;
  DType dtype = DType::kFloat32;
};

struct Manifest {
  ModelFacts model;
  GenerationDefaults generation;
  EmbeddingLocation embedding;
  std::string prefill_file, denoise_file, score_file, packed_file, check_file;  // names inside dir
  std::string drafter_file;                // empty: the package has no drafter
  std::string profile, precision, experts;
  int operators = 0;                       // version of our own operators that the graphs use; 0: none
  int64_t weight_bytes = 0;                // all weight files
  std::string files_hash;                  // over the hashes of all files
  std::string json;                        // as read
  std::shared_ptr<const PackageFiles> files;  // checked; opens what is opened late
};

// Throws InvalidArgument if `dir` is not an engine package at all, ContractMismatch (naming file, expected and found)
// if it is one that cannot be trusted or understood. `verify_weights`: hash the weight files whole, not samples of them.
Manifest LoadManifest(const std::string& dir, bool verify_weights);

}  // namespace dgrt
