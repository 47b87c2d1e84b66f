// The checks of the verified tier: passes over a draft, and what each says of it. Called by verify.cc, which knows where
// the draft comes from and what the verdict leads to.
#pragma once

#include "runtime/session.h"

namespace dgrt {

// Whether the causal pass has a say.
bool ChecksCausally(const VerifyOptions& verify);

// Positions that are emitted if the draft is right: what the checks other than the fixed point are about. The padding
// behind a stop id is not.
size_t NumJudged(const Verification& verification);

// Checks the draft that is on Verification::drafted: `confirmed` and `missing`, and on that canvas its first denoise step.
// kCancelled; kDiscard as soon as too little of the draft is left for any use; kNone: all checks have spoken. Packed, it also
// does `step` of the canvas in work (has_plain_step).
Verdict RunChecks(SessionState& state, const CanvasPlan& plan, int32_t step);

// Checks what refinement made of a draft, by a causal pass over the `num_tokens` of it that would be emitted: kNone; kDiscard:
// it would not have passed as a draft either; kCancelled.
Verdict RunFinalCheck(SessionState& state, const CanvasPlan& plan, int64_t num_tokens);

}  // namespace dgrt
