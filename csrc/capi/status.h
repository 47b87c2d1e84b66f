// From exceptions to status codes: the one try/catch of the C API. Used by every file of capi/.
#pragma once

#include <utility>

#include "dgrt/dgrt.h"

namespace dgrt::capi {

// Records the exception in flight as this thread's last error and returns its status. Never throws.
dgrt_status CurrentExceptionStatus() noexcept;

const char* LastError() noexcept;
const char* StatusName(dgrt_status status) noexcept;

// Runs `body`; every exported function that can fail consists of one call of this.
template <typename Body>
dgrt_status Guarded(Body&& body) noexcept {
  try {
    std::forward<Body>(body)();
    return DGRT_OK;
  } catch (...) {
    return CurrentExceptionStatus();
  }
}

}  // namespace dgrt::capi
