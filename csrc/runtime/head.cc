// Implementation of head.h.
#include "runtime/head.h"

#include <bit>
#include <cmath>

namespace dgrt {

VocabularyHeadParams HeadParams(SessionState& state, Canvas& canvas) {
  VocabularyHeadParams params;
  params.hidden = canvas.hidden.data();
  params.table = state.table;
  params.softcap = state.model.final_logit_softcap;
  params.embed_scale = std::sqrt(static_cast<float>(state.model.hidden_size));
  params.uniform = canvas.uniform.data();
  params.argmax = canvas.argmax.data();
  params.entropy = canvas.entropy.data();
  params.sampled = canvas.sampled.data();
  params.workspace = state.head_workspace.data();
  return params;
}

// All exponent bits set means infinite or NaN. Integers, because compilers may not reorder a sum of floats.
bool AllFinite(std::span<const float> numbers) {
  constexpr uint32_t kExponent = 0x7f800000u;
  uint32_t found = 0;
  for (const float x : numbers) found |= static_cast<uint32_t>((std::bit_cast<uint32_t>(x) & kExponent) == kExponent);
  return found == 0;
}

float MeanEntropy(std::span<const float> entropies) {
  double sum = 0;
  for (const float entropy : entropies) sum += static_cast<double>(entropy);
  return static_cast<float>(sum / static_cast<double>(entropies.size()));
}

}  // namespace dgrt
