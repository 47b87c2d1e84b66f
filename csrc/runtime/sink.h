// What a generation tells its caller while it runs. Called on the generating thread; borrowed spans are valid only
// during the call. A sink that throws ends the generation with that exception; committed state stays as it was.
#pragma once

#include <cstdint>
#include <span>

namespace dgrt {

// One denoise step in full; the fields mirror dgrt.StepTrace. All spans have L (or L * D) elements.
struct StepView {
  int32_t canvas_index = 0;
  int32_t step = 0;                      // n, counting down from N
  float temperature = 0;
  int64_t kv_len = 0;
  std::span<const int32_t> canvas_in;    // [L]
  std::span<const float> soft_in;        // [L, D]
  std::span<const int32_t> argmax;       // [L]
  std::span<const float> entropy;        // [L] nats
  std::span<const int32_t> sampled;      // [L]
  std::span<const uint8_t> accepted;     // [L] 0 or 1
  std::span<const int32_t> canvas_out;   // [L]
  std::span<const float> soft_out;       // [L, D], empty on the last step of a canvas
  bool stopped = false;                  // the stop rule held on this step
};

// Where an emitted token came from.
enum class TokenOrigin : uint8_t {
  kUndrafted = 0,  // no draft had a say: the plain loop, or plain sampling
  kDrafted = 1,    // committed as drafted
  kRevised = 2,    // a draft that was of use had another token there
};

class GenerateSink {
 public:
  virtual ~GenerateSink() = default;
  virtual void OnStep(const StepView&) {}
  // False: OnStep does nothing. A session gives its lane away before every call of it.
  virtual bool WantsSteps() const { return true; }
  // Tokens that became final: the emitted part of one canvas (cut after the first stop id), and where each came from.
  virtual void OnCommit(int32_t /*canvas_index*/, std::span<const int32_t> /*tokens*/,
                        std::span<const TokenOrigin> /*origins*/) {}
};

}  // namespace dgrt
