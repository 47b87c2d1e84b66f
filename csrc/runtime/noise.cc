// Implementation of runtime/noise.h.
#include "runtime/noise.h"

#include "common/check.h"

namespace dgrt {
namespace {

PositionConstraint At(std::span<const PositionConstraint> constraints, size_t position) {
  return constraints.empty() ? PositionConstraint{} : constraints[position];
}

}  // namespace

int32_t DrawToken(const NoiseKey& key, NoiseStream stream, uint32_t position, int64_t vocab_size,
                  const PositionConstraint& constraint) {
  if (constraint.is_pinned()) return constraint.pinned;
  if (!constraint.is_restricted()) {
    return static_cast<int32_t>(NoiseInteger(key, stream, position, static_cast<uint32_t>(vocab_size)));
  }
  return constraint.allowed[NoiseInteger(key, stream, position, static_cast<uint32_t>(constraint.allowed.size()))];
}

void DrawInitialCanvas(NoiseKey key, int64_t vocab_size, std::span<const PositionConstraint> constraints,
                       std::span<int32_t> canvas) {
  DGRT_CHECK(constraints.empty() || constraints.size() == canvas.size());
  key.step = 0;
  for (size_t i = 0; i < canvas.size(); ++i) {
    canvas[i] = DrawToken(key, NoiseStream::kInitialCanvas, static_cast<uint32_t>(i), vocab_size, At(constraints, i));
  }
}

void Renoise(const NoiseKey& key, int64_t vocab_size, std::span<const PositionConstraint> constraints,
             std::span<const uint8_t> accepted, std::span<const int32_t> sampled, std::span<int32_t> canvas_out) {
  DGRT_CHECK(accepted.size() == canvas_out.size() && sampled.size() == canvas_out.size());
  DGRT_CHECK(constraints.empty() || constraints.size() == canvas_out.size());
  for (size_t i = 0; i < canvas_out.size(); ++i) {
    const auto position = static_cast<uint32_t>(i);
    canvas_out[i] = accepted[i] ? sampled[i]
                                : DrawToken(key, NoiseStream::kRenoise, position, vocab_size, At(constraints, i));
  }
}

void DrawUniforms(const NoiseKey& key, std::span<double> uniform) {
  for (size_t i = 0; i < uniform.size(); ++i) {
    uniform[i] = NoiseUniform(key, NoiseStream::kSampling, static_cast<uint32_t>(i));
  }
}

}  // namespace dgrt
