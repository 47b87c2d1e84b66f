// The C++ facade that the C API and the Python binding stand on. runtime/generate.cc is the table of contents.
//   Runtime: a loaded engine package; any thread. Session: one sequence; one thread at a time, Cancel from any.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/output_file.h"
#include "engine/engine.h"
#include "memory/memory_stats.h"
#include "runtime/options.h"
#include "runtime/sink.h"
#include "runtime/stats.h"

namespace dgrt {

enum class FinishReason : int32_t { kNone = 0, kStop = 1, kLength = 2, kCancelled = 3 };

// "", "stop", "length" or "cancelled".
constexpr const char* FinishReasonName(FinishReason reason) {
  constexpr const char* kNames[] = {"", "stop", "length", "cancelled"};
  return kNames[static_cast<int32_t>(reason)];
}

class PrefixCache;  // memory/prefix_cache.h

struct MemoryPlan {
  int64_t weight_bytes = 0;          // weight files of the package
  int64_t kv_bytes_full_context = 0; // one session at context_len
  int64_t workspace_bytes = 0;       // one session: hidden, soft, head scratch
  int64_t kv_bytes_per_token = 0;    // full layers: grows with every token
  int64_t kv_window_bytes = 0;       // sliding layers: the W - 1 tokens that a long sequence keeps between two passes
};

// When a request that began at `start` has to be finished; max(): no deadline.
std::chrono::steady_clock::time_point DeadlineOf(const GenerateOptions& options,
                                                 std::chrono::steady_clock::time_point start);

class Runtime {
 public:
  // Opens an engine package folder. Throws ContractMismatch, InvalidArgument, Unsupported, OutOfMemory.
  static std::shared_ptr<Runtime> Open(const std::string& package_dir, const RuntimeOptions& options);
  // Wraps an engine that exists already (tests).
  static std::shared_ptr<Runtime> FromEngine(std::unique_ptr<Engine> engine, const GenerateOptions& defaults,
                                             const RuntimeOptions& options);
  ~Runtime();

  const ModelFacts& model() const;
  const GenerateOptions& default_options() const;   // from the manifest
  const std::string& manifest_json() const;         // the manifest as read; "" for FromEngine
  // A text file of the package: the bytes that were exported, or ContractMismatch. Not for FromEngine.
  std::string ReadFile(const std::string& name) const;
  MemoryPlan memory() const;
  int64_t kv_limit_bytes() const;                   // of all sessions and cached prefixes together; 0: none
  MemoryUsage kv_usage() const;                     // KV memory of all sessions and the prefix cache, now
  LaneStats lane_stats() const;                     // passes of all sessions
  // The most KV memory that a request can come to take: until max_new_tokens or the context ends.
  int64_t PlannedKvBytes(int64_t prompt_len, const GenerateOptions& options) const;
  // Throws InvalidArgument in a child of fork(), where the engine's threads do not exist and its locks may be held for ever.
  void RequireHome() const;
  // Throws what a session with these options and its Prefill would throw before running anything.
  void CheckRequest(std::span<const int32_t> prompt, const GenerateOptions& options) const;

  // The prefix cache (memory/prefix_cache.h). While it is off, statistics are zero and Save and Load throw Unsupported.
  PrefixStats prefix_stats() const;
  void ClearPrefixes();
  void SavePrefixes(const std::string& path, Overwrite overwrite = Overwrite::kOwnFiles) const;
  int64_t LoadPrefixes(const std::string& path);    // returns the chunks added

  std::string description() const;
  int threads() const;

 private:
  friend class Session;
  struct Impl;
  PrefixCache& RequirePrefixes() const;
  explicit Runtime(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// One sequence. Construct, Prefill once, NextCanvas until finish_reason() is not kNone. Keeps its runtime alive.
class Session {
 public:
  // `start`: what a deadline counts from.
  Session(std::shared_ptr<Runtime> runtime, const GenerateOptions& options,
          std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now());
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Runs the prompt through the engine in chunks. Throws InvalidArgument for an empty prompt, unknown ids, or a
  // prompt that leaves no room for one canvas. Ctrl-C safe: Cancel between chunks throws Cancelled.
  void Prefill(std::span<const int32_t> prompt);
  // Another turn, after the session has ended with kStop or kLength: the emitted tokens that are not in KV yet and then
  // `tokens` become part of the prompt, without prefilling what is there. From here on everything is as in a session
  // whose prompt is all text so far (tokens(), statistics, noise, max_new_tokens, deadline: they begin anew), except that
  // rows which other passes wrote may differ in rounding from those of one prefill. Throws as Prefill does; a failure
  // leaves the session as it was, or, if more than 512 rows were to be written, possibly as before Prefill.
  void Extend(std::span<const int32_t> tokens);
  // Refines and commits one canvas; returns the tokens it emitted (possibly none after Cancel). If it throws,
  // committed tokens and KV length are as before the call.
  std::span<const int32_t> NextCanvas(GenerateSink* sink);
  // Starts the next canvas from these L tokens instead of noise (used once).
  void SetCanvas(std::span<const int32_t> canvas);
  // What the session's drafter expects next, as the stages ask it: writes at most draft.size() <= L tokens and how likely it
  // is that each and all before it are right; returns how many. For measurements: it changes no token, but it counts.
  int64_t Draft(std::span<int32_t> draft, std::span<float> confidence);
  // The canvas as it stands (argmax canvas of the last step), [L].
  std::span<const int32_t> canvas() const;
  // Any thread: the running or next call stops between two denoise steps; finish_reason becomes kCancelled.
  void Cancel();

  FinishReason finish_reason() const;
  std::span<const int32_t> tokens() const;   // emitted so far, prompt excluded
  std::span<const float> logprobs() const;   // one per emitted token, nats; empty unless GenerateOptions::logprobs
  int64_t kv_len() const;                    // committed KV rows
  const Stats& stats() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Convenience: Prefill, then NextCanvas until done. `session` must be fresh.
void Generate(Session& session, std::span<const int32_t> prompt, GenerateSink* sink);

}  // namespace dgrt
