// What drafting costs: the one place with such numbers. The unit is a causal pass over one row, which is what a drafted
// token saves where it is right.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "engine/engine.h"

namespace dgrt {

// One more row of a causal pass. Measured on mini and a CPU: 0.36 of 1.3 ms; where the weights are what a pass reads, rows
// are nearly free.
inline constexpr float kRowCost = 0.27f, kRowCostOfManyWeights = 0.02f;

// A further row of the drafter's network, as a share of its pass over one. The network has no experts, and its rows are
// cheap beside the model's: on mini, in one process under load, one thread, 0.06 of a pass that takes 0.28 of the model's.
inline constexpr float kNetworkRowCost = 0.06f;

struct DraftCosts {
  float row = 0;          // one more row of a causal pass
  float network = 0;      // a pass of the drafter's network over one row; 0: there is none
  float network_row = 0;  // one more row of it, as a share of that
};

// The network's layers and the vocabulary head against the model's, the head taken for as many layers as it has products
// per row where a layer has 12 D^2. On mini 0.39, and 0.28 measured.
inline float NetworkCost(const ModelFacts& model) {
  if (!model.drafter) return 0;
  const float head = static_cast<float>(model.vocab_size) / (12 * static_cast<float>(model.hidden_size));
  return (static_cast<float>(model.drafter->kv_layers.size()) + head) / (static_cast<float>(model.layers.size()) + head);
}

inline DraftCosts DraftCostsOf(const ModelFacts& model, bool is_row_bound) {
  return {is_row_bound ? kRowCost : kRowCostOfManyWeights, NetworkCost(model),
          is_row_bound ? kNetworkRowCost : kRowCostOfManyWeights};
}

// As many drafted tokens as are worth their row: a token that is right saves a pass, so while the chance that it and all
// before it are right is larger than what the row costs.
inline int64_t NumWorthTheirRow(std::span<const float> confidence, float row) {
  const auto is_not = [row](float chance) { return !(chance >= row); };
  return std::find_if(confidence.begin(), confidence.end(), is_not) - confidence.begin();
}

// Passes that these tokens are expected to save, those of their rows taken off.
inline float GainOf(std::span<const float> confidence, float row) {
  float gain = 0;
  for (const float chance : confidence.first(static_cast<size_t>(NumWorthTheirRow(confidence, row)))) gain += chance - row;
  return gain;
}

}  // namespace dgrt
