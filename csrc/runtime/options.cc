// The checks of options (options.h), before anything runs: each failure names the option, what was expected and what was
// found. Called by the facade in runtime.cc and by open.cc.
#include <algorithm>
#include <cmath>

#include "common/check.h"
#include "common/cpu_limits.h"
#include "common/env.h"
#include "kernels/cpu/isa.h"
#include "runtime/runtime_impl.h"
#include "runtime/session.h"

namespace dgrt {
namespace {

constexpr int kMaxThreads = 1024;
constexpr double kMaxDeadlineMs = 1e12;
constexpr double kMaxFolds = 16, kMostNats = 1e9, kMostSteps = 1e9, kMostChanged = 1e9;

// An option that is not as it must be.
template <typename Value>
[[noreturn]] void Reject(const char* option, const char* expected, Value found) {
  throw InvalidArgument(Message(option, ": expected ", expected, ", found ", found));
}

void RequireRange(const char* option, double value, double low, double high) {
  if (!(value >= low && value <= high)) Reject(option, Message(low, " to ", high).c_str(), value);
}

void CheckVerifyOptions(const VerifyOptions& verify) {
  RequireRange("verify.trust", verify.trust, 0, 1);
  RequireRange("verify.folds", verify.folds, 0, kMaxFolds);
  RequireRange("verify.causal_floor", verify.causal_floor, 0, kMostNats);
  RequireRange("verify.causal_budget", verify.causal_budget, 0, kMostNats);
  RequireRange("verify.min_confirmed", verify.min_confirmed, 0, 1);
  RequireRange("verify.expected_steps", verify.expected_steps, 1, kMostSteps);
  if (verify.packing < Packing::kAuto || verify.packing > Packing::kOn) {
    Reject("verify.packing", "0 (auto), 1 (off) or 2 (on)", static_cast<int32_t>(verify.packing));
  }
  if (verify.redraft < Redraft::kAuto || verify.redraft > Redraft::kOn) {
    Reject("verify.redraft", "0 (auto), 1 (off) or 2 (on)", static_cast<int32_t>(verify.redraft));
  }
}

// A tier that takes drafters, but not this one; a draft, which it has no use for; an engine that cannot pack.
void CheckOverlap(const GenerateOptions& options, const Engine& engine) {
  RequireRange("overlap.min_settled", options.overlap.min_settled, 0, 1);
  RequireRange("overlap.max_changed", options.overlap.max_changed, 0, kMostChanged);
  if (options.drafter != DrafterKind::kOverlap) return;
  if (options.guarantee != Guarantee::kVerified) {
    throw InvalidArgument("drafter: expected none, suffix, model or auto with guarantee causal, found overlap; guarantee "
                          "verified takes it");
  }
  if (!options.draft.empty()) {
    throw InvalidArgument("draft: expected none with drafter overlap, found one; drafters suffix and auto copy from it");
  }
  if (Overlaps(options) && !engine.can_pack()) {
    throw Unsupported("drafter: expected none, suffix, model or auto with this engine, found overlap: a packed pass of it "
                      "rounds differently");
  }
}

}  // namespace

RuntimeOptions ResolveOptions(const RuntimeOptions& options) {
  RuntimeOptions out = options;
  if (options.threads < 0 || options.threads > kMaxThreads) Reject("threads", "0 to 1024", options.threads);
  if (options.memory_limit_bytes < 0) Reject("memory_limit_bytes", "0 or more", options.memory_limit_bytes);
  if (options.kv_limit_bytes < 0) Reject("kv_limit_bytes", "0 or more", options.kv_limit_bytes);
  if (options.prefix_cache_bytes < -1) Reject("prefix_cache_bytes", "-1 or more", options.prefix_cache_bytes);
  if (const auto isa = EnvString("DGRT_CPU_ISA")) UseCpuIsa(isa->c_str());
  if (out.threads == 0) {
    const auto wanted = EnvInteger("DGRT_THREADS", 1, kMaxThreads);
    out.threads = wanted ? static_cast<int>(*wanted) : std::min(kMaxThreads, UsableCpus().cpus);
  }
  return out;
}

void RequireTokens(const char* what, std::span<const int32_t> tokens, int64_t vocab_size) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= 0 && tokens[i] < vocab_size) continue;
    throw InvalidArgument(Message(what, "[", i, "]: expected a token id in [0, ", vocab_size, "), found ", tokens[i]));
  }
}

void CheckOptions(const GenerateOptions& options, const Engine& engine) {
  const ModelFacts& model = engine.model();
  if (options.max_new_tokens < 1 && options.max_new_tokens != -1) {
    Reject("max_new_tokens", "at least 1, or -1 for no limit", options.max_new_tokens);
  }
  if (!(options.deadline_ms >= 0 && options.deadline_ms <= kMaxDeadlineMs)) {
    Reject("deadline_ms", "0 (none) to 1e12", options.deadline_ms);
  }
  if (options.request >= kMaxRequest) Reject("request", "a number below 2^24", options.request);
  if (const std::string broken = BrokenSampler(options.sampler); !broken.empty()) throw InvalidArgument(broken);
  RequireTokens("stop_ids", options.stop_ids, model.vocab_size);
  if (options.guarantee < Guarantee::kExact || options.guarantee > Guarantee::kVerified) {
    Reject("guarantee", "0 (exact), 1 (causal) or 2 (verified)", static_cast<int32_t>(options.guarantee));
  }
  if (options.drafter < DrafterKind::kNone || options.drafter > DrafterKind::kOverlap) {
    Reject("drafter", "0 (none), 1 (suffix), 2 (model), 3 (auto) or 4 (overlap)", static_cast<int32_t>(options.drafter));
  }
  const bool is_chosen = options.drafter != DrafterKind::kNone && options.drafter != DrafterKind::kAuto;
  if (options.guarantee == Guarantee::kExact && (is_chosen || options.make_drafter)) {
    throw InvalidArgument(
        "drafter: expected none or auto with guarantee exact, found a drafter; guarantees causal and verified take one");
  }
  if (options.drafter == DrafterKind::kModel && !model.drafter) {
    throw Unsupported("drafter: expected none, suffix or auto with this engine, found model: the package has no drafter; "
                      "`dgrt export CHECKPOINT -o ENGINE --drafter DRAFTER` writes one that has");
  }
  if (options.drafter == DrafterKind::kModel && !options.draft.empty()) {
    throw InvalidArgument("draft: expected none with drafter model, found one; drafters suffix and auto copy from it");
  }
  if (options.guarantee != Guarantee::kVerified && !options.draft.empty()) {
    throw InvalidArgument(Message("draft: expected none without guarantee verified, found ", options.draft.size(),
                                  " tokens"));
  }
  RequireTokens("draft", options.draft, model.vocab_size);
  CheckVerifyOptions(options.verify);
  CheckOverlap(options, engine);
  if (options.pipeline < Pipeline::kAuto || options.pipeline > Pipeline::kOn) {
    Reject("pipeline", "0 (auto), 1 (off) or 2 (on)", static_cast<int32_t>(options.pipeline));
  }
  const char* tier = options.guarantee == Guarantee::kCausal ? "causal" : "verified";
  if (options.guarantee != Guarantee::kExact && options.pipeline == Pipeline::kOn) {
    throw InvalidArgument(Message("pipeline: expected auto or off with guarantee ", tier, ", found on"));
  }
  if (options.logprobs && options.guarantee != Guarantee::kExact) {
    throw InvalidArgument(Message("logprobs: expected guarantee exact, found ", tier));
  }
  if (options.logprobs && options.pipeline == Pipeline::kOn) {
    throw InvalidArgument("logprobs: expected pipeline auto or off, found on: the commit pass has to be its own");
  }
  const float temperature = options.causal_temperature;
  if (!(temperature == 0 || temperature >= kLowestTemperature) || !std::isfinite(temperature)) {
    Reject("causal_temperature", Message("0, or a number from ", kLowestTemperature).c_str(), temperature);
  }
  if (options.pipeline == Pipeline::kOn && !engine.can_pack()) {
    throw Unsupported("pipeline: expected auto or off with this engine, found on: a packed pass of it rounds differently");
  }
  if (options.guarantee == Guarantee::kVerified && options.verify.packing == Packing::kOn && !engine.can_pack()) {
    throw Unsupported(
        "verify.packing: expected auto or off with this engine, found on: a packed pass of it rounds differently");
  }
}

}  // namespace dgrt
