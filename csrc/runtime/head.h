// What the stages that run the vocabulary head share: its parameters, and the guard against numbers that are not finite.
#pragma once

#include <span>
#include <string>

#include "common/check.h"
#include "kernels/params.h"
#include "runtime/session.h"

namespace dgrt {

// Parameters over the buffers of a canvas; length and temperature are the caller's to set, `soft` is null.
VocabularyHeadParams HeadParams(SessionState& state, Canvas& canvas);

bool AllFinite(std::span<const float> numbers);

// Over the positions of a canvas, nats: what the stop rule compares.
float MeanEntropy(std::span<const float> entropies);

// Throws DeviceError "<where()>: <what> not finite".
template <typename Where>
void RequireFinite(std::span<const float> numbers, const char* what, Where where) {
  if (!AllFinite(numbers)) throw DeviceError(Message(where(), ": ", what, " not finite"));
}

}  // namespace dgrt
