// The drafter that chooses among drafters as a text goes on: copies (suffix_drafter.h), the engine's network
// (model_drafter.h) where it has one, or nothing. Whatever the text, it takes care not to be slower than no drafter by more
// than a small share: it keeps account of what its drafts have cost and saved, in counts, and spends only what it has.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "drafting/drafter.h"
#include "drafting/suffix_drafter.h"
#include "runtime/model_drafter.h"
#include "runtime/session.h"

namespace dgrt {

class AutoDrafter : public Drafter {
 public:
  // `state` outlives this. `expected`: as for SuffixDrafter.
  AutoDrafter(SessionState& state, std::span<const int32_t> expected);

  void Append(std::span<const int32_t> tokens) override;
  int64_t Draft(std::span<int32_t> draft, std::span<float> confidence) override;

 private:
  float Allowance() const;
  int64_t DraftTokens(std::span<int32_t> draft, std::span<float> confidence);
  int64_t DraftCanvas(std::span<int32_t> draft, std::span<float> confidence);
  bool MayAskForCanvas() const;

  SessionState& state_;
  SuffixDrafter suffix_;
  std::optional<ModelDrafter> model_;  // where the engine has a drafter
  // Causal tier, in passes of one row.
  float first_look_;               // may be spent before anything is saved
  float balance_ = 0;              // saved, less what was spent
  std::vector<int32_t> offered_;   // [L] tokens that the pass that runs now looks at
  int64_t num_offered_ = 0;
};

}  // namespace dgrt
