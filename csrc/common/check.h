// Errors of the native code: one exception class per public status, and the checks that throw them.
// Everything above `common` throws these; capi/ turns them into status codes, python/ into Python
// exceptions of the same names. A message states what was expected and what was found.
#pragma once

#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace dgrt {

// Values are part of the C ABI (dgrt.h repeats them); never renumber.
enum class Status : int32_t {
  kOk = 0,
  kInvalidArgument = 1,
  kContractMismatch = 2,
  kUnsupported = 3,
  kOutOfMemory = 4,
  kCancelled = 5,
  kDeviceError = 6,
  kInternal = 7,
  kDeadlineExceeded = 8,
  kQueueFull = 9,
};

// Base of all errors that the native code throws on purpose.
class Error : public std::runtime_error {
 public:
  Error(Status status, const std::string& message) : std::runtime_error(message), status_(status) {}
  Status status() const { return status_; }

 private:
  Status status_;
};

template <Status kStatus>
class TypedError : public Error {
 public:
  explicit TypedError(const std::string& message) : Error(kStatus, message) {}
};

using InvalidArgument = TypedError<Status::kInvalidArgument>;
using ContractMismatch = TypedError<Status::kContractMismatch>;
using Unsupported = TypedError<Status::kUnsupported>;
using OutOfMemory = TypedError<Status::kOutOfMemory>;
using Cancelled = TypedError<Status::kCancelled>;
using DeviceError = TypedError<Status::kDeviceError>;
using DeadlineExceeded = TypedError<Status::kDeadlineExceeded>;
using QueueFull = TypedError<Status::kQueueFull>;
using InternalError = TypedError<Status::kInternal>;

// Message("expected ", 3, ", found ", 4): pieces streamed into one string.
template <typename... Parts>
std::string Message(Parts&&... parts) {
  std::ostringstream out;
  (out << ... << std::forward<Parts>(parts));
  return out.str();
}

}  // namespace dgrt

// Internal invariant: a failure is a bug of ours, never of the caller.
#define DGRT_CHECK(condition)                                                                   \
  do {                                                                                          \
    if (!(condition)) [[unlikely]] {                                                            \
      throw ::dgrt::InternalError(                                                              \
          ::dgrt::Message(__FILE__, ":", __LINE__, ": check failed: " #condition));             \
    }                                                                                           \
  } while (false)
