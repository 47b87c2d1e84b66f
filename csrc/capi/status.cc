// The error table of the C API. The numbers are those of dgrt::Status (common/check.h).
#include "capi/status.h"

#include <exception>
#include <new>
#include <string>

#include "common/check.h"
#include "common/utf8.h"

namespace dgrt::capi {
namespace {

static_assert(DGRT_INVALID_ARGUMENT == static_cast<int>(Status::kInvalidArgument));
static_assert(DGRT_CONTRACT_MISMATCH == static_cast<int>(Status::kContractMismatch));
static_assert(DGRT_UNSUPPORTED == static_cast<int>(Status::kUnsupported));
static_assert(DGRT_OUT_OF_MEMORY == static_cast<int>(Status::kOutOfMemory));
static_assert(DGRT_CANCELLED == static_cast<int>(Status::kCancelled));
static_assert(DGRT_DEVICE_ERROR == static_cast<int>(Status::kDeviceError));
static_assert(DGRT_INTERNAL == static_cast<int>(Status::kInternal));
static_assert(DGRT_DEADLINE_EXCEEDED == static_cast<int>(Status::kDeadlineExceeded));
static_assert(DGRT_QUEUE_FULL == static_cast<int>(Status::kQueueFull));

thread_local std::string last_error;
// Shown when even the message could not be stored.
thread_local bool last_error_lost = false;

// UTF-8 whatever the text quotes, such as the target of a symbolic link.
void Record(const char* text) noexcept {
  try {
    last_error = text;
    for (size_t bad; (bad = utf8::FindInvalid(last_error)) < last_error.size();) last_error[bad] = '?';
    last_error_lost = false;
  } catch (...) {
    last_error_lost = true;
  }
}

}  // namespace

dgrt_status CurrentExceptionStatus() noexcept {
  try {
    throw;
  } catch (const Error& error) {
    Record(error.what());
    return static_cast<dgrt_status>(error.status());
  } catch (const std::bad_alloc&) {
    Record("out of memory");
    return DGRT_OUT_OF_MEMORY;
  } catch (const std::exception& error) {
    Record(error.what());
    return DGRT_INTERNAL;
  } catch (...) {
    Record("unknown exception");
    return DGRT_INTERNAL;
  }
}

const char* LastError() noexcept { return last_error_lost ? "out of memory" : last_error.c_str(); }

const char* StatusName(dgrt_status status) noexcept {
  switch (status) {
    case DGRT_OK: return "DGRT_OK";
    case DGRT_INVALID_ARGUMENT: return "DGRT_INVALID_ARGUMENT";
    case DGRT_CONTRACT_MISMATCH: return "DGRT_CONTRACT_MISMATCH";
    case DGRT_UNSUPPORTED: return "DGRT_UNSUPPORTED";
    case DGRT_OUT_OF_MEMORY: return "DGRT_OUT_OF_MEMORY";
    case DGRT_CANCELLED: return "DGRT_CANCELLED";
    case DGRT_DEVICE_ERROR: return "DGRT_DEVICE_ERROR";
    case DGRT_INTERNAL: return "DGRT_INTERNAL";
    case DGRT_DEADLINE_EXCEEDED: return "DGRT_DEADLINE_EXCEEDED";
    case DGRT_QUEUE_FULL: return "DGRT_QUEUE_FULL";
    default: return "unknown status";
  }
}

}  // namespace dgrt::capi
