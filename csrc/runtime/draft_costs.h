// What drafting costs: the one place with such numbers. The unit is a causal pass over one row, which is what a drafted
// token saves where it is right.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "engine/engine.h"

namespace dgrt {

// One more row of a causal pass, as a share of a pass of one row. Of a small model on a CPU that is mostly what it takes to
// run a graph: on mini a pass over 96 rows takes 4.7 times one over a single row, with one thread and with two (medians of 25 in
// turns, idle machine). With many weights on a CPU a row of a mixture of experts reads experts of its own; that share is
// an estimate. Where the weights are what a pass reads, rows are nearly free.
inline constexpr float kRowCostOfSmallModel = 0.04f, kRowCost = 0.27f, kRowCostOfManyWeights = 0.02f;
inline constexpr int64_t kSmallModel = int64_t{1} << 23;  // parameters, as counted below

inline float RowCost(const ModelFacts& model, bool is_row_bound) {
  const int64_t parameters = 12 * std::ssize(model.layers) * model.hidden_size * model.hidden_size;
  return !is_row_bound ? kRowCostOfManyWeights : parameters < kSmallModel ? kRowCostOfSmallModel : kRowCost;
}

// A further row of the drafter's network, as a share of its pass over one. The network has no experts, and its rows are
// cheap beside the model's: on mini 0.05 of a pass that takes 0.27 of the model's.
inline constexpr float kNetworkRowCost = 0.06f;

struct DraftCosts {
  float row = 0;          // one more row of a causal pass
  float network = 0;      // a pass of the drafter's network over one row; 0: there is none
  float network_row = 0;  // one more row of it, as a share of that
};

// The network's layers and the vocabulary head against the model's, the head taken for as many layers as it has products
// per row where a layer has 12 D^2. On mini 0.39, and 0.27 measured.
inline float NetworkCost(const ModelFacts& model) {
  if (!model.drafter) return 0;
  const float head = static_cast<float>(model.vocab_size) / (12 * static_cast<float>(model.hidden_size));
  return (static_cast<float>(model.drafter->kv_layers.size()) + head) / (static_cast<float>(model.layers.size()) + head);
}

inline DraftCosts DraftCostsOf(const ModelFacts& model, bool is_row_bound) {
  return {RowCost(model, is_row_bound), NetworkCost(model),
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
