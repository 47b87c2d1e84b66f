// A host as an editor would be: asks for a rewrite, redraws one line with the current draft at each denoise step, and
// gives up when the user presses Ctrl-C. C++ over the C API, so that it needs nothing but dgrt.h and libdgrt.
//
//   inline_editor ENGINE "text" [--ort LIBRARY] [--seed N] [--cancel-after STEPS]
//
// Drafts go to stderr (one line, redrawn), the result to stdout. For the byte-level model `mini`.
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <unistd.h>

#include "byte_text.h"
#include "dgrt/dgrt.h"

namespace {

struct RuntimeDeleter {
  void operator()(dgrt_runtime* runtime) const { dgrt_runtime_destroy(runtime); }
};
struct SessionDeleter {
  void operator()(dgrt_session* session) const { dgrt_session_destroy(session); }
};
using RuntimeHandle = std::unique_ptr<dgrt_runtime, RuntimeDeleter>;
using SessionHandle = std::unique_ptr<dgrt_session, SessionDeleter>;

void Check(dgrt_status status) {
  if (status != DGRT_OK) throw std::runtime_error(std::string(dgrt_status_name(status)) + ": " + dgrt_last_error());
}

struct Arguments {
  std::string engine, text, ort_library;
  uint64_t seed = 0;
  int cancel_after = -1;  // denoise steps; -1: never
};

// Set by the signal handler, read by a watcher thread: a handler may do no more than this.
volatile std::sig_atomic_t interrupted = 0;

// One rewrite: draws drafts as they come and can be cancelled from another thread.
class Rewrite {
 public:
  Rewrite(const dgrt_runtime* runtime, const Arguments& arguments) : arguments_(arguments) {
    dgrt_session_options options;
    Check(dgrt_session_options_init(runtime, &options, sizeof(options)));
    options.seed = arguments.seed;
    dgrt_session* session = nullptr;
    Check(dgrt_session_create(runtime, &options, &session));
    session_.reset(session);
  }

  // Returns the finish reason.
  int32_t Run(std::string& result) {
    const std::vector<int32_t> prompt = byte_text::EncodePrompt(arguments_.text);
    Check(dgrt_session_prefill(session_.get(), prompt.data(), prompt.size()));
    dgrt_callbacks callbacks{};
    callbacks.struct_size = sizeof(callbacks);
    callbacks.user_data = this;
    callbacks.on_step = [](void* self, const dgrt_step* step) { return static_cast<Rewrite*>(self)->OnStep(*step); };
    int32_t finish = DGRT_FINISH_NONE;
    while (finish == DGRT_FINISH_NONE) {
      const int32_t* tokens = nullptr;
      size_t num_tokens = 0;
      Check(dgrt_session_next_canvas(session_.get(), &callbacks, &tokens, &num_tokens, &finish));
      result += byte_text::Decode({tokens, num_tokens}, /*is_draft=*/false);
    }
    if (steps_ > 0 && draws_) std::fputs("\r\x1b[K", stderr);
    return finish;
  }

  void Cancel() { (void)!dgrt_session_cancel(session_.get()); }

  int steps() const { return steps_; }

 private:
  int32_t OnStep(const dgrt_step& step) {
    ++steps_;
    const std::span<const int32_t> draft(step.argmax, static_cast<size_t>(step.canvas_len));
    int64_t settled = 0;
    for (int64_t i = 0; i < step.canvas_len; ++i) settled += step.accepted[i];
    const char* start = draws_ ? "\r\x1b[K" : "";
    const char* end = draws_ ? "" : "\n";
    std::fprintf(stderr, "%s%2d  %3d%%  %.100s%s", start, step.step, static_cast<int>(100 * settled / step.canvas_len),
                 byte_text::Decode(draft, /*is_draft=*/true).c_str(), end);
    std::fflush(stderr);
    // From inside the callback only cancel is allowed; it takes effect before the next step.
    if (steps_ == arguments_.cancel_after) Cancel();
    return 0;
  }

  const Arguments& arguments_;
  SessionHandle session_;
  int steps_ = 0;
  const bool draws_ = ::isatty(STDERR_FILENO) != 0;
};

Arguments Parse(int argc, char** argv) {
  Arguments arguments;
  std::vector<std::string> words;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    const bool takes_value = word == "--ort" || word == "--seed" || word == "--cancel-after";
    if (takes_value && i + 1 >= argc) throw std::invalid_argument(std::string(word) + " needs a value");
    if (word == "--ort") {
      arguments.ort_library = argv[++i];
    } else if (word == "--seed") {
      arguments.seed = std::strtoull(argv[++i], nullptr, 10);
    } else if (word == "--cancel-after") {
      arguments.cancel_after = std::atoi(argv[++i]);
    } else {
      words.emplace_back(word);
    }
  }
  if (words.size() != 2) throw std::invalid_argument("expected an engine folder and a text");
  arguments.engine = words[0];
  arguments.text = words[1];
  return arguments;
}

RuntimeHandle OpenRuntime(const Arguments& arguments) {
  dgrt_runtime_options options;
  Check(dgrt_runtime_options_init(&options, sizeof(options)));
  options.ort_library = arguments.ort_library.c_str();
  dgrt_runtime* runtime = nullptr;
  Check(dgrt_runtime_create(arguments.engine.c_str(), &options, &runtime));
  return RuntimeHandle(runtime);
}

int Main(const Arguments& arguments) {
  const RuntimeHandle runtime = OpenRuntime(arguments);
  Rewrite rewrite(runtime.get(), arguments);
  std::signal(SIGINT, [](int) { interrupted = 1; });
  std::string result;
  int32_t finish = DGRT_FINISH_NONE;
  {
    // Cancel may come from any thread; a signal handler itself must not call into a library.
    const std::jthread watcher([&](const std::stop_token& stop) {
      while (!stop.stop_requested()) {
        if (interrupted != 0) return rewrite.Cancel();
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
    });
    finish = rewrite.Run(result);
  }
  if (finish == DGRT_FINISH_CANCELLED) {
    std::fprintf(stderr, "\ncancelled after %d steps; the text stays as it was\n", rewrite.steps());
    return 130;
  }
  std::printf("%s\n", result.c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return Main(Parse(argc, argv));
  } catch (const std::invalid_argument& error) {
    std::fprintf(stderr, "%s\nusage: %s ENGINE TEXT [--ort LIBRARY] [--seed N] [--cancel-after STEPS]\n", error.what(),
                 argv[0]);
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
