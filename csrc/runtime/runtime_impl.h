// What a Runtime holds. Shared by runtime.cc and open.cc only.
#pragma once

#include <memory>
#include <string>

#include "common/thread_pool.h"
#include "engine/engine.h"
#include "runtime/runtime.h"

namespace dgrt {

struct Runtime::Impl {
  RuntimeOptions options;          // threads resolved
  GenerateOptions defaults;        // from the manifest
  std::string manifest_json;
  int64_t weight_bytes = 0;
  std::unique_ptr<ThreadPool> pool;  // before the engine, whose operators use it
  std::unique_ptr<Engine> engine;
};

// Checked options with `threads` resolved: a number as given, 0 as DGRT_THREADS or else all CPUs the process may use.
RuntimeOptions ResolveOptions(const RuntimeOptions& options);

}  // namespace dgrt
