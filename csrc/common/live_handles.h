// Counts the handles that the outside world holds (C API handles, Python objects): zero when everything is destroyed.
// Each binary (libdgrt, the Python extension) has its own count. Used by capi/ and python/ only.
#pragma once

#include <cstdint>

namespace dgrt {

int64_t LiveHandles() noexcept;

// A member of every handle type.
class LiveHandle {
 public:
  LiveHandle() noexcept;
  ~LiveHandle();
  LiveHandle(const LiveHandle&) = delete;
  LiveHandle& operator=(const LiveHandle&) = delete;
};

}  // namespace dgrt
