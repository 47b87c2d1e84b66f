// What stands behind the handles of dgrt.h, and the conversions between its structs and the C++ facade.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "common/exclusive_use.h"
#include "common/home_process.h"
#include "common/live_handles.h"
#include "dgrt/dgrt.h"
#include "runtime/runtime.h"

namespace dgrt::capi {

// Shared by a runtime handle and its sessions: borrowed strings live as long as any of them.
struct RuntimeState {
  HomeProcessRef<Runtime> runtime;
  std::string description;
};

template <typename T>
void RequireNotNull(const T* pointer, const char* name) {
  if (pointer == nullptr) throw InvalidArgument(Message(name, ": the pointer is NULL"));
}

inline void RequireZero(int32_t reserved, const char* name) {
  if (reserved != 0) throw Unsupported(Message(name, ": expected 0, found ", reserved));
}

inline bool ReadFlag(int32_t value, const char* name) {
  if (value != 0 && value != 1) throw InvalidArgument(Message(name, ": expected 0 or 1, found ", value));
  return value == 1;
}

// Where there is no context that bounds a count. A count beyond it is a mistake, and nothing may be read then.
inline constexpr int64_t kMostElements = INT32_MAX;

// `what`: "tokens", "bytes".
void RequireCount(uint64_t count, int64_t most, const char* name, const char* what);

// At most `most` tokens, nothing of which is read here. NULL is fine for none.
std::span<const int32_t> TokenSpan(const int32_t* tokens, uint64_t num_tokens, const char* name,
                                   int64_t most = kMostElements);

dgrt_session_options DefaultSessionOptions(const Runtime& runtime);
// The caller's options over the defaults of the package.
GenerateOptions ReadSessionOptions(const dgrt_session_options* given, const Runtime& runtime);
dgrt_stats ToStats(const Stats& stats, FinishReason finish, int64_t kv_len);

template <typename T>
void WriteSpan(std::span<const T> from, const T** data, size_t* size) {
  *data = from.data();
  *size = from.size();
}

// Turns the facade's events into the caller's function pointers.
class CallbackSink : public GenerateSink {
 public:
  CallbackSink(const dgrt_callbacks& callbacks, const ModelFacts& model) : callbacks_(callbacks), model_(model) {}
  bool WantsSteps() const override { return callbacks_.on_step != nullptr; }
  void OnStep(const StepView& step) override;
  void OnCommit(int32_t canvas_index, std::span<const int32_t> tokens, std::span<const TokenOrigin> origins) override;

 private:
  dgrt_callbacks callbacks_;
  const ModelFacts& model_;
};

dgrt_callbacks ReadCallbacks(const dgrt_callbacks* callbacks);

}  // namespace dgrt::capi

struct dgrt_runtime {
  std::shared_ptr<const dgrt::capi::RuntimeState> state;
  dgrt::LiveHandle live{};
};

struct dgrt_session {
  std::shared_ptr<const dgrt::capi::RuntimeState> state;  // first: dropped last
  dgrt::Session session;
  dgrt::ExclusiveUse use{};
  dgrt::LiveHandle live{};

  int64_t context_len() const { return state->runtime->model().context_len; }
};
