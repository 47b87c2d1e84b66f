// One process-wide counter; see the header.
#include "common/live_handles.h"

#include <atomic>

namespace dgrt {
namespace {
std::atomic<int64_t> live_handles{0};
}  // namespace

int64_t LiveHandles() noexcept { return live_handles.load(); }
LiveHandle::LiveHandle() noexcept { ++live_handles; }
LiveHandle::~LiveHandle() { --live_handles; }

}  // namespace dgrt
