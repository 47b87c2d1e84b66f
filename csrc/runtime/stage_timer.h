// Adds the wall-clock time of a scope to one of the counters in stats.h. Used by the stages.
#pragma once

#include <chrono>

namespace dgrt {

class StageTimer {
 public:
  explicit StageTimer(double* milliseconds) : milliseconds_(milliseconds) {}
  ~StageTimer() {
    *milliseconds_ += std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start_).count();
  }
  StageTimer(const StageTimer&) = delete;
  StageTimer& operator=(const StageTimer&) = delete;

 private:
  double* milliseconds_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace dgrt
