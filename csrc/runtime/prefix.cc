// The prefix cache in the life of a prompt: what of it is there already, and keeping what was computed. A cache that
// fails costs speed and never a result. Called by prefill.cc; OpenKvMemory by runtime.cc and open.cc; and what the
// facade offers of it.
#include <algorithm>
#include <fstream>
#include <span>

#include "common/check.h"
#include "common/sha256.h"
#include "kernels/cpu/isa.h"
#include "runtime/runtime_impl.h"
#include "runtime/session.h"

namespace dgrt {
namespace {

constexpr int64_t kMaxDefaultBytes = int64_t{1} << 30;

// What ONNX Runtime chooses its kernels by; "" where the system does not say.
std::string CpuFlags() {
  std::ifstream cpus("/proc/cpuinfo");
  for (std::string line; std::getline(cpus, line);) {
    if (line.starts_with("flags") || line.starts_with("Features")) return line;
  }
  return "";
}

// Everything that the bits of a row depend on beside the tokens: package, library, instruction sets.
std::string KeyOf(const Engine& engine, const std::string& engine_hash) {
  const std::string flags = CpuFlags();
  return Message(engine_hash, ", ", engine.description(), ", ", CpuIsaName(SelectedCpuIsa()), ", CPU flags ",
                 Sha256Hex(std::as_bytes(std::span(flags))).substr(0, 8));
}

}  // namespace

void Runtime::Impl::OpenKvMemory(const std::string& engine_hash) {
  kv_budget = std::make_unique<MemoryBudget>(options.kv_limit_bytes);
  if (options.prefix_cache_bytes == 0) return;
  const std::vector<KvLayerShape> shapes = KvShapes(engine->model());
  const bool by_default = options.prefix_cache_bytes < 0;
  int64_t most = options.prefix_cache_bytes;
  if (by_default) {  // every chunk of one context
    const KvChunkLayout layout(shapes, kPrefillChunkTokens);
    const int64_t num_chunks = NumPrefillChunks(engine->model().context_len);
    most = std::min(num_chunks * (layout.full_bytes + layout.window_bytes), kMaxDefaultBytes);
  }
  try {
    prefixes = std::make_unique<PrefixCache>(shapes, kPrefillChunkTokens, most, KeyOf(*engine, engine_hash),
                                             kv_budget.get());
  } catch (const Error&) {  // rows that do not fill pages, more than 1 GiB per chunk, no files in memory
    if (!by_default) throw;
  }
}

PrefixStats Runtime::prefix_stats() const {
  RequireHome();
  return impl_->prefixes != nullptr ? impl_->prefixes->stats() : PrefixStats{};
}

void Runtime::ClearPrefixes() {
  RequireHome();
  if (impl_->prefixes != nullptr) impl_->prefixes->Clear();
}

PrefixCache& Runtime::RequirePrefixes() const {
  RequireHome();
  if (impl_->prefixes == nullptr) throw Unsupported("prefix cache: it is off in this runtime");
  return *impl_->prefixes;
}

void Runtime::SavePrefixes(const std::string& path, Overwrite overwrite) const { RequirePrefixes().Save(path, overwrite); }

int64_t Runtime::LoadPrefixes(const std::string& path) { return RequirePrefixes().Load(path); }

int64_t ResumeFromPrefix(SessionState& state, std::span<const int32_t> prompt, int64_t num_rows) {
  state.stats.prefix_tokens = 0;
  if (state.prefixes == nullptr) return 0;
  // Log-probabilities begin with the prediction behind the last row: its chunk is computed again.
  const int64_t most = state.logprobs != nullptr ? num_rows - 1 : num_rows;
  const PrefixMatch match = state.prefixes->Find(prompt, most);
  if (match.num_tokens == 0 || !state.kv.Adopt(state.prefixes->layout(), match.chunks)) return 0;
  state.stats.prefix_tokens = match.num_tokens;
  return match.num_tokens;
}

void KeepPrefix(SessionState& state, std::span<const int32_t> tokens) noexcept {
  if (state.prefixes == nullptr || tokens.size() % kPrefillChunkTokens != 0) return;
  try {
    const auto chunk = state.prefixes->Insert(tokens, state.kv.Views());
    if (chunk) state.kv.Share(state.prefixes->layout(), *chunk);
  } catch (...) {  // no memory for the bookkeeping
  }
}

}  // namespace dgrt
