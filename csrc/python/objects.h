// The two objects behind dgrt._native.Runtime and dgrt._native.Session.
#pragma once

#include <memory>

#include "common/exclusive_use.h"
#include "common/home_process.h"
#include "common/live_handles.h"
#include "runtime/runtime.h"

namespace dgrt::python {

struct RuntimeObject {
  HomeProcessRef<Runtime> runtime;
  LiveHandle live{};
};

struct SessionObject {
  HomeProcessRef<Runtime> runtime;  // first: dropped last
  Session session;
  ExclusiveUse use{};
  LiveHandle live{};
};

}  // namespace dgrt::python
