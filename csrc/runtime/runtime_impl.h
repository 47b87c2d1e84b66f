// What a Runtime holds. Shared by runtime.cc and open.cc only.
#pragma once

#include <memory>
#include <string>

#include "common/home_process.h"
#include "common/thread_pool.h"
#include "engine/engine.h"
#include "memory/memory_budget.h"
#include "memory/prefix_cache.h"
#include "runtime/lanes.h"
#include "runtime/runtime.h"

namespace dgrt {

class PackageFiles;

struct Runtime::Impl {
  HomeProcess home;                // of all threads below
  RuntimeOptions options;          // threads resolved
  GenerateOptions defaults;        // from the manifest
  std::string manifest_json;
  std::shared_ptr<const PackageFiles> files;  // null for FromEngine
  int64_t weight_bytes = 0;
  // Before the engine, whose operators use them: of wide and of narrow lanes.
  std::unique_ptr<ThreadPool> pool, one_thread;
  std::unique_ptr<Lanes> lanes;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<MemoryBudget> kv_budget;  // before the cache, which charges it
  std::unique_ptr<PrefixCache> prefixes;    // null: off

  // With `options` resolved.
  explicit Impl(const RuntimeOptions& resolved)
      : options(resolved),
        pool(std::make_unique<ThreadPool>(resolved.threads)),
        one_thread(std::make_unique<ThreadPool>(1)),
        lanes(std::make_unique<Lanes>(*pool, *one_thread)) {}

  // prefix.cc: makes budget and cache. `engine_hash`: of the package.
  void OpenKvMemory(const std::string& engine_hash);
};

// Checked options with `threads` resolved: a number as given, 0 as DGRT_THREADS or else all CPUs the process may use.
RuntimeOptions ResolveOptions(const RuntimeOptions& options);

}  // namespace dgrt
