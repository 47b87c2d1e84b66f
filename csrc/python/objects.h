// The objects behind the classes of dgrt._native.
#pragma once

#include <memory>
#include <vector>

#include "common/exclusive_use.h"
#include "common/home_process.h"
#include "common/live_handles.h"
#include "runtime/runtime.h"
#include "serving/scheduler.h"

namespace dgrt::python {

struct RuntimeObject {
  HomeProcessRef<Runtime> runtime;
  LiveHandle live{};
};

struct SessionObject {
  HomeProcessRef<Runtime> runtime;  // first: dropped last
  Session session;
  std::vector<uint8_t> origins{};  // of the tokens that the last call emitted
  ExclusiveUse use{};
  LiveHandle live{};
};

// Destroyed with the GIL released: its threads may want it for their last callbacks.
struct SchedulerObject {
  HomeProcessRef<Scheduler> scheduler;
  LiveHandle live{};
};

struct RequestObject {
  std::shared_ptr<Request> request;
};

}  // namespace dgrt::python
