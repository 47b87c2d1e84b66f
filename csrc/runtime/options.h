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
  kVerified = 2,  // canvases that the model's own stop rule holds for; drafted ones also passed the checks below
};

// Commit speculation of kExact: whether a denoise step may carry along what follows if it is the last one.
enum class Pipeline : int32_t {
  kAuto = 0,  // where weights, not rows, are what a pass costs
  kOff = 1,   // never: the plain loop
  kOn = 2,    // in every step where something may follow and nothing is computed ahead yet
};

// Whether the checks of kVerified are one pass or each a pass of its own. Like Pipeline it changes the passes, never the
// tokens.
enum class Packing : int32_t {
  kAuto = 0,  // one, where weights, not rows, are what a pass costs
  kOff = 1,   // each on its own: none runs that can change nothing any more
  kOn = 2,    // one
};

// Whether the drafter is asked again after each denoise step of a canvas from noise, now knowing what the step found, and its
// draft checked beside the next step (kVerified, drafter kModel).
enum class Redraft : int32_t {
  kAuto = 0,  // where weights, not rows, are what a pass costs: there a check beside a step is nearly free
  kOff = 1,
  kOn = 2,
};

// Who proposes tokens (csrc/drafting/README.md).
enum class DrafterKind : int32_t {
  kNone = 0,
  kSuffix = 1,  // copies of what followed the same words before
  kModel = 2,   // the engine's own drafter network
  kAuto = 3,    // chosen among those above as the text goes on; none of them with kExact
  kOverlap = 4,  // the model itself: the next canvas begins while this one settles (kVerified, without `draft`)
};

// The checks of kVerified (checks.cc), and what it takes to try a draft. The defaults are those of the design, fixed before
// anything was measured with them, but for min_confirmed. Logits are softmaxed at the temperature of the first step.
struct VerifyOptions {
  // A draft is cut before the first token that its drafter believes less in, given that all before it are right.
  float trust = 0.5f;
  // Fixed point (C1), always: the pass over the draft answers with the draft; for a commit with a mean entropy below
  // SamplerOptions::confidence_threshold.
  // Leave-out (C2): so many passes, each with another part of the draft replaced by noise, answer with the draft where
  // they did not see it. 0: off.
  int32_t folds = 2;
  // Causal floor (C3): the causal pass, which never sees a token that it predicts, gives a drafted token at most so many
  // nats less than its favourite. 0: off.
  float causal_floor = 7;
  // For a commit also: at most so many nats less over the whole draft.
  float causal_budget = 24;
  // Share of the canvas (up to a drafted stop id) that all checks have to confirm for the draft to be of any use; with
  // fewer the canvas is refined from noise, as without a draft. (With 0.5, as the design has it, drafts that were the answer
  // to another 4x4 Sudoku cost 2.5 points of right answers: what is confirmed by chance misleads the steps that follow.)
  float min_confirmed = 0.9f;
  // false: a draft is only where refinement starts from. With both checks off that is what transformers does with
  // generate(decoder_input_ids=draft).
  bool one_pass = true;
  // true: also try drafts that do not look worth the passes.
  bool always = false;
  // Denoise steps of a canvas from noise, until the sequence has had one. Decides what is worth trying, nothing else.
  float expected_steps = 8;
  Packing packing = Packing::kAuto;
  Redraft redraft = Redraft::kAuto;
};

// When DrafterKind::kOverlap begins the next canvas, and when it begins it again (overlap.cc). Numbers of the design; nothing
// has been tuned on them, so they are neither in Python nor in C: for tests and measurements.
struct OverlapOptions {
  // Share of the canvas whose most likely tokens stayed in the last step: from there on the next canvas is worth a step.
  float min_settled = 0.95f;
  // Positions that may have changed since then. With more the next canvas stands behind another text and begins from its
  // noise, as soon as the share holds again.
  int32_t max_changed = 8;
};

struct GenerateOptions {
  int64_t max_new_tokens = -1;       // -1: until a stop id or the context ends
  uint64_t seed = 0;
  double deadline_ms = 0;            // from the making of the session, its next turn or submission; 0: none
  uint32_t request = 0;              // distinguishes requests that share a seed; < 2^24
  Guarantee guarantee = Guarantee::kExact;
  Pipeline pipeline = Pipeline::kAuto;       // only of kExact; changes the passes, never the tokens
  bool logprobs = false;             // only of kExact: also the causal pass's log-probability of each token
  DrafterKind drafter = DrafterKind::kNone;  // not with kExact, but for kAuto
  std::vector<int32_t> draft;        // only of kVerified: the output as the caller expects it; implies kSuffix or kAuto
  VerifyOptions verify;              // of kVerified, but for kOverlap, which has nothing to check
  OverlapOptions overlap;            // of kOverlap
  float causal_temperature = 1;      // of kCausal; 1: the model's own distribution, 0: its most likely token
  std::function<std::unique_ptr<Drafter>()> make_drafter;  // a drafter of the caller's own, in place of `drafter`
  SamplerOptions sampler;
  std::vector<int32_t> stop_ids;
};

}  // namespace dgrt
