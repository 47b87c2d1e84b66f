// The drafter with weights: one pass of the engine's drafter network over a block of unknown tokens behind the text, which
// it sees through the model's own KV rows, and the model's vocabulary head over what comes out. It lives in runtime/
// because it runs passes of its session, in a lane like every pass; it writes nothing of the session but its counters and
// the scratch of the canvas.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "drafting/block_policy.h"
#include "drafting/calibration.h"
#include "drafting/drafter.h"
#include "runtime/session.h"

namespace dgrt {

class ModelDrafter : public Drafter {
 public:
  // `state` has an engine with a drafter, and outlives this.
  explicit ModelDrafter(SessionState& state);

  void Append(std::span<const int32_t> tokens) override;
  // Causal tier: what is left of the last draft where that is the better offer, else the network's next one, else
  // nothing. Verified tier: always the network's, as many tokens as it can.
  int64_t Draft(std::span<int32_t> draft, std::span<float> confidence) override;
  int64_t Redraft(std::span<const float> evidence, std::span<int32_t> draft, std::span<float> confidence) override;

  // Causal tier: passes that a draft of at most `most` tokens is expected to save, its cost taken off; negative: there would
  // be none.
  float Offer(int64_t most) const;
  // Causal tier: what Draft would spend on the network.
  float Cost(int64_t most) const;

 private:
  bool AsksNetwork(int64_t most) const;
  float GainOfRest(int64_t most) const;
  int64_t CopyRest(std::span<int32_t> draft, std::span<float> confidence) const;
  void AskNetwork(int64_t num_rows, const float* evidence);
  void EndDraft();

  SessionState& state_;
  BlockPolicy policy_;
  Calibration calibration_;
  int32_t anchor_ = 0;              // the text's last token
  // The last draft; the text has confirmed its first num_right_ tokens.
  std::vector<int32_t> tokens_;     // [block_len]
  std::vector<float> probability_;  // [block_len] as the network says
  int64_t num_drafted_ = 0, num_right_ = 0;
  int64_t num_offered_ = 0;         // in the pass that runs now: tokens that are worth their row
  int64_t num_tried_ = 0, num_saved_ = 0;  // in the passes before
};

}  // namespace dgrt
