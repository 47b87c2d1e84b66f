// Implementation of ort_library.h. The library is never unloaded: its threads and allocators outlive every session.
#include "engine/ort_library.h"

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string_view>
#include <vector>

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <unistd.h>

#include <onnxruntime_cxx_api.h>

#include "common/check.h"
#include "common/env.h"

namespace dgrt {
namespace {

namespace fs = std::filesystem;

// The function table that the headers of this build describe; any newer library serves it too.
constexpr uint32_t kApiVersion = ORT_API_VERSION;
constexpr char kVariable[] = "DGRT_ORT_LIBRARY";

struct Loaded {
  std::string path;
  void* handle = nullptr;
  std::string version;
};

struct Candidate {
  std::string path;
  std::string origin;  // for the message
};

// Whether some ONNX Runtime is in the process already, such as that inside the Python module `onnxruntime`.
bool HasAnotherLibrary() {
  const auto is_one = [](dl_phdr_info* info, size_t, void*) -> int {
    return std::string_view(info->dlpi_name).find("onnxruntime") != std::string_view::npos ? 1 : 0;
  };
  return ::dl_iterate_phdr(is_one, nullptr) != 0;
}

#ifdef __GLIBC__
void EndAtOnce(int status, void*) {
  std::fflush(nullptr);
  ::_exit(status);
}

// Exit handlers run in reverse order: those of the child itself have run when this one does.
void EndChildrenAtOnce() { ::on_exit(EndAtOnce, nullptr); }
#endif

// Official builds report what is loaded and run to their maker, on a thread of their own, unless this variable is set
// before the library begins. dgrt sends nothing anywhere. The thread is also what a child of fork() would wait for in the
// library's exit handlers, for ever. A value that is there already is the user's decision.
void KeepQuiet() {
  const auto found = SetUnlessSet("ORT_DISABLE_TELEMETRY", "1");
  const bool may_report = found ? *found != "1" : HasAnotherLibrary();
#ifdef __GLIBC__
  // Reports are on: children end without the exit handlers that this process has registered. Those functions have to
  // stay when the binary that contains them is closed.
  if (!may_report) return;
  Dl_info info{};
  if (::dladdr(reinterpret_cast<const void*>(&EndAtOnce), &info) != 0) {
    ::dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
  }
  ::pthread_atfork(nullptr, nullptr, EndChildrenAtOnce);
#else
  static_cast<void>(may_report);
#endif
}

// Folder of the binary that contains this code (libdgrt.so or the Python extension).
fs::path OwnFolder() {
  Dl_info info{};
  if (::dladdr(reinterpret_cast<const void*>(&LoadOrtLibrary), &info) == 0 || info.dli_fname == nullptr) return {};
  std::error_code error;
  return fs::canonical(info.dli_fname, error).parent_path();
}

std::vector<Candidate> Candidates(const std::string& explicit_path) {
  if (!explicit_path.empty()) return {{explicit_path, "option ort_library"}};
  if (const auto path = EnvString(kVariable)) return {{*path, kVariable}};
  std::vector<Candidate> candidates;
  if (const fs::path folder = OwnFolder(); !folder.empty()) {
    for (const char* name : {"libonnxruntime.so.1", "libonnxruntime.so"}) {
      candidates.push_back({(folder / name).string(), "beside dgrt"});
    }
  }
  for (const char* name : {"libonnxruntime.so.1", "libonnxruntime.so"}) candidates.push_back({name, "system"});
  return candidates;
}

[[noreturn]] void FailNotFound(const std::vector<std::string>& attempts) {
  std::string text = "ONNX Runtime's shared library could not be loaded. Tried:";
  for (const std::string& attempt : attempts) text += "\n  " + attempt;
  throw Unsupported(text + "\nGive its path as option ort_library or in DGRT_ORT_LIBRARY. The Python wheel has it: "
                           "pip install onnxruntime, then onnxruntime/capi/libonnxruntime.so.* in site-packages.");
}

// Opens the first candidate that can be opened.
Loaded OpenFirst(const std::vector<Candidate>& candidates) {
  std::vector<std::string> attempts;
  for (const Candidate& candidate : candidates) {
    // Local: the process may contain another copy of ONNX Runtime (the wheel's own module links one).
    void* handle = ::dlopen(candidate.path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle != nullptr) return {candidate.path, handle, {}};
    const char* reason = ::dlerror();
    attempts.push_back(Message(candidate.path, " (", candidate.origin, "): ", reason ? reason : "unknown error"));
  }
  FailNotFound(attempts);
}

// Asks the library for the function table that the headers of this build describe.
void InitialiseWrapper(Loaded& loaded) {
  using GetApiBase = const OrtApiBase* (*)();
  const auto get_api_base = reinterpret_cast<GetApiBase>(::dlsym(loaded.handle, "OrtGetApiBase"));
  if (get_api_base == nullptr) {
    throw Unsupported(Message(loaded.path, ": not ONNX Runtime: it has no symbol OrtGetApiBase"));
  }
  const OrtApiBase* base = get_api_base();
  loaded.version = base->GetVersionString();
  // Version 1.N serves the tables 1..N. Asking for more also prints to stderr, so the number is compared first.
  const long minor = loaded.version.starts_with("1.") ? std::strtol(loaded.version.c_str() + 2, nullptr, 10) : 0;
  const OrtApi* api = minor >= static_cast<long>(kApiVersion) || minor == 0 ? base->GetApi(kApiVersion) : nullptr;
  if (api == nullptr) {
    throw Unsupported(Message(loaded.path, ": ONNX Runtime too old: expected 1.", kApiVersion, " or newer, found ",
                              loaded.version));
  }
  Ort::InitApi(api);
}

std::mutex mutex;
std::optional<Loaded> loaded;  // guarded by mutex

}  // namespace

void UseOrtApi(const OrtApi* api) {
  const std::lock_guard lock(mutex);
  if (!loaded) Ort::InitApi(api);
}

std::string LoadOrtLibrary(const std::string& explicit_path) {
  const std::lock_guard lock(mutex);
  if (!loaded) {
    KeepQuiet();
    Loaded opened = OpenFirst(Candidates(explicit_path));
    InitialiseWrapper(opened);
    loaded = std::move(opened);
  } else if (!explicit_path.empty() && explicit_path != loaded->path) {
    // One function table per process: a second library would be used through the first one's table.
    std::error_code error;
    if (!fs::equivalent(explicit_path, loaded->path, error)) {
      void* handle = ::dlopen(explicit_path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
      if (handle != nullptr) ::dlclose(handle);
      if (handle != loaded->handle) {
        throw Unsupported(Message("ONNX Runtime is loaded once per process: expected ", loaded->path,
                                  " again, found ort_library ", explicit_path));
      }
    }
  }
  return loaded->version;
}

}  // namespace dgrt
