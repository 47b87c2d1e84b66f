// Turns "one thread at a time" from a rule into an error: a second concurrent call, or a call from inside the object's
// own callback, throws instead of corrupting its state. Used by capi/ and python/.
#pragma once

#include <atomic>

#include "common/check.h"

namespace dgrt {

class ExclusiveUse {
 public:
  class Scope {
   public:
    explicit Scope(std::atomic<bool>& busy) : busy_(busy) {
      if (busy_.exchange(true, std::memory_order_acquire)) {
        throw InvalidArgument("the handle is in use: by another thread, or by the call whose callback this is");
      }
    }
    ~Scope() { busy_.store(false, std::memory_order_release); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    std::atomic<bool>& busy_;
  };

  Scope Enter() { return Scope(busy_); }

 private:
  std::atomic<bool> busy_{false};
};

}  // namespace dgrt
