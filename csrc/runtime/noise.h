// The draws of a generation: which key, stream and position each one has. Called by refine.cc (first canvas) and
// denoise_step.cc. Stateless: see common/philox.h.
#pragma once

#include <cstdint>
#include <span>

#include "common/constraint.h"
#include "common/philox.h"

namespace dgrt {

// A uniform token for one position of a canvas: from [0, vocab_size), from the allowed set, or the pinned token.
int32_t DrawToken(const NoiseKey& key, NoiseStream stream, uint32_t position, int64_t vocab_size,
                  const PositionConstraint& constraint);

// `constraints` below: one per position, or empty (all positions free).

// The canvas a refinement starts from: stream kInitialCanvas, step 0.
void DrawInitialCanvas(NoiseKey key, int64_t vocab_size, std::span<const PositionConstraint> constraints,
                       std::span<int32_t> canvas);

// Every position that was not accepted becomes noise again: stream kRenoise, the step's own number.
void Renoise(const NoiseKey& key, int64_t vocab_size, std::span<const PositionConstraint> constraints,
             std::span<const uint8_t> accepted, std::span<const int32_t> sampled, std::span<int32_t> canvas_out);

// One number in [0, 1) per position for sampling: stream kSampling.
void DrawUniforms(const NoiseKey& key, std::span<double> uniform);

}  // namespace dgrt
