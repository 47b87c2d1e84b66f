// An engine without a model, for tests: it answers with a scripted text, takes a scripted number of steps to become
// sure of it, and checks that the runtime shows it exactly the KV rows it should. Knows nothing of sessions.
//
// Script: position p after the prompt holds target[p] (the last token repeats beyond the end). Row l of a canvas is
// sure from its step 1 + l * num_steps / L on; before that it leans towards a token mixed from the canvas token and all
// visible KV rows, so noise and history show in what is sampled. A step with all-zero soft embedding starts a canvas.
// Causal: the row at position p is sure of the token at p + 1 unless p + 1 is a multiple of `causal_doubt`, where it leans
// towards a token mixed from itself and all rows before it.
// Drafter: knows the target, so it is right where the causal rows are sure, but for the positions of `draft_error`.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/engine.h"

namespace dgrt {

struct FakeScript {
  int64_t vocab_size = 48;       // V; D is the same, the table is the unit matrix
  int64_t canvas_len = 8;
  int64_t context_len = 256;
  int64_t sliding_window = 12;   // layer 0; layer 1 is full
  int64_t full_width = 5;        // of layer 1; 8: a chunk of rows fills pages, so the prefix cache can share it
  int64_t prompt_len = 4;        // where the target text starts
  std::vector<int32_t> target = {7};
  int32_t num_steps = 3;         // steps of a canvas until every row is sure
  int32_t new_mind_at = 0;       // from this step of a canvas on its first row is sure of another token; 0: never
  int64_t copies_from_row = -1;  // from this row on a denoise step is sure of the token that it is shown; -1: nowhere
  int64_t causal_doubt = 5;
  int64_t block_len = 0;         // of the drafter, which looks into layer 1; 0: there is none
  int64_t draft_error = 0;       // at positions that it divides the drafter is sure of another token; 0: nowhere
  bool draft_is_sure = true;     // false: it leans only
  bool checks_are_sure = false;  // canvases of a checking pass behind the first are as those of a late step
  bool evidence_helps = false;   // it is right everywhere, if it is shown a denoise pass
  int64_t fail_at_call = 0;      // this call of any kind throws DeviceError (1: the first; 0: none)
  int64_t nan_at_call = 0;       // this call, if it returns hidden states, leaves one NaN in the hidden states
  bool spoil_last_row = false;   // nan_at_call hits the last row instead of the first
  bool spoil_next = false;       // nan_at_call hits the next canvas of a packed pass, the draft of a checking pass
  bool can_pack = true;
  bool is_row_bound = true;
  bool record_prefills = true;   // off where a test counts allocations
  bool knows_steps = false;      // a step that was shown before has the number that it had, as after a failure in between
  std::function<void(int64_t call)> on_call;  // before every call: delays, cancelling, failure of any other kind
};

// What was asked of the executors of one engine. Shared with the test, which may change the script between calls and reads
// the log when none is running.
struct FakeLog {
  struct PrefillCall {
    int64_t kv_len = 0;
    std::vector<int32_t> tokens;
  };
  int64_t num_calls = 0;
  int64_t num_denoise_calls = 0;
  int64_t num_score_calls = 0;
  int64_t num_packed_calls = 0;
  int64_t num_check_calls = 0;
  struct DraftCall {
    int32_t anchor = 0;
    int64_t position = 0, num_rows = 0;
  };
  int64_t num_draft_calls = 0;
  DraftCall last_draft;               // that was finished
  std::vector<PrefillCall> prefills;  // finished ones
  std::mutex mutex;                   // held by executors while they write
};

class FakeEngine : public Engine {
 public:
  FakeEngine(std::shared_ptr<FakeScript> script, std::shared_ptr<FakeLog> log);

  const ModelFacts& model() const override { return model_; }
  EmbeddingTable embedding() const override;
  std::unique_ptr<Executor> CreateExecutor() override;
  bool can_pack() const override { return script_->can_pack; }
  bool is_row_bound() const override { return script_->is_row_bound; }
  std::string description() const override { return "fake engine"; }

 private:
  const std::shared_ptr<FakeScript> script_;
  const std::shared_ptr<FakeLog> log_;
  ModelFacts model_;
  std::vector<float> table_;
};

}  // namespace dgrt
