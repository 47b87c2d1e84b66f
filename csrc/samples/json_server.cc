// A server in one page: requests come as JSON lines on stdin, events go as JSON lines to stdout, many requests run at once.
// C++ over the C API, no Python anywhere: dgrt.h, libdgrt and a JSON header are all it needs.
//
//   json_server ENGINE [--ort LIBRARY] [--threads N] [--max-running N] [--max-queued N] [--kv-limit BYTES]
//
//   in   {"id": "a", "prompt": "text"}          a user turn; or "messages": [{"role": "user", "content": "text"}, ...]
//        also "tools" and "template", an object of variables for the chat template; "seed", "max_new_tokens",
//        "deadline_ms"; and {"cancel": "a"}, {"stats": true}
//   out  {"id": "a", "event": "text", "text": "..."}      as it becomes final
//        {"id": "a", "event": "done", "finish_reason": "stop", "tokens": 41, "ms": 52.1}
//        {"id": "a", "event": "error", "status": "DGRT_QUEUE_FULL", "message": "..."}
//
// The end of stdin lets running requests finish; the exit code is 0 then.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "dgrt/dgrt.h"

namespace {

using Json = nlohmann::ordered_json;  // keys stay in their order: the model sees them

constexpr const char* kFinishReasons[] = {"", "stop", "length", "cancelled"};

// Owns a handle of the C API.
template <typename T, void (*destroy)(T*)>
struct Destroy {
  void operator()(T* handle) const { destroy(handle); }
};
template <typename T, void (*destroy)(T*)>
using Handle = std::unique_ptr<T, Destroy<T, destroy>>;

class Failure : public std::runtime_error {
 public:
  explicit Failure(dgrt_status status) : std::runtime_error(dgrt_last_error()), status(dgrt_status_name(status)) {}
  const char* status;
};

void Check(dgrt_status status) {
  if (status != DGRT_OK) throw Failure(status);
}

// Lines of several threads never mix.
void Write(const Json& line) {
  static std::mutex mutex;
  const std::string text = line.dump(-1, ' ', false, Json::error_handler_t::replace);
  const std::lock_guard lock(mutex);
  std::fprintf(stdout, "%s\n", text.c_str());
  std::fflush(stdout);
}

void WriteError(const Json& id, const char* status, const char* message) {
  Write({{"id", id}, {"event", "error"}, {"status", status}, {"message", message}});
}

// One request. Its callbacks come one at a time, on threads of the scheduler; the fields are theirs once it is submitted.
class Answer {
 public:
  Answer(Json id, const dgrt_tokenizer* tokenizer) : id_(std::move(id)) {
    dgrt_detokenizer* detokenizer = nullptr;
    Check(dgrt_detokenizer_create(tokenizer, DGRT_SPECIAL_TOKENS_SKIP, &detokenizer));
    detokenizer_.reset(detokenizer);
  }

  void Submit(dgrt_scheduler* scheduler, const dgrt_session_options& options, const std::vector<int32_t>& prompt) {
    dgrt_callbacks callbacks{};
    callbacks.struct_size = sizeof(callbacks);
    callbacks.user_data = this;
    callbacks.on_commit = [](void* self, int32_t, const int32_t* tokens, size_t num_tokens) {
      return static_cast<Answer*>(self)->OnCommit(tokens, num_tokens);
    };
    callbacks.on_done = [](void* self, dgrt_status status, int32_t finish_reason, const char* error) {
      static_cast<Answer*>(self)->OnDone(status, finish_reason, error);
    };
    dgrt_request* request = nullptr;
    Check(dgrt_scheduler_submit(scheduler, &options, prompt.data(), prompt.size(), &callbacks, &request));
    request_.reset(request);
  }

  dgrt_request* request() const { return request_.get(); }

 private:
  int32_t OnCommit(const int32_t* tokens, size_t num_tokens) {
    num_tokens_ += num_tokens;
    const char* text = nullptr;
    size_t size = 0;
    if (dgrt_detokenizer_push(detokenizer_.get(), tokens, num_tokens, &text, &size) != DGRT_OK) return 1;
    WriteText(text, size);
    return 0;
  }

  void OnDone(dgrt_status status, int32_t finish_reason, const char* error) {
    const std::chrono::duration<double, std::milli> time = Clock::now() - start_;
    const char* text = nullptr;
    size_t size = 0;
    if (status != DGRT_OK) return WriteError(id_, dgrt_status_name(status), error);
    if (dgrt_detokenizer_finish(detokenizer_.get(), &text, &size) == DGRT_OK) WriteText(text, size);
    Write({{"id", id_}, {"event", "done"}, {"finish_reason", kFinishReasons[finish_reason]}, {"tokens", num_tokens_},
           {"ms", time.count()}});
  }

  void WriteText(const char* text, size_t size) const {
    if (size > 0) Write({{"id", id_}, {"event", "text"}, {"text", std::string(text, size)}});
  }

  using Clock = std::chrono::steady_clock;
  const Json id_;
  Handle<dgrt_detokenizer, dgrt_detokenizer_destroy> detokenizer_;
  Handle<dgrt_request, dgrt_request_destroy> request_;
  size_t num_tokens_ = 0;
  const Clock::time_point start_ = Clock::now();
};

class Server {
 public:
  Server(const char* engine, const dgrt_runtime_options& runtime_options, const dgrt_scheduler_options& options) {
    dgrt_runtime* runtime = nullptr;
    Check(dgrt_runtime_create(engine, &runtime_options, &runtime));
    runtime_.reset(runtime);
    dgrt_tokenizer* tokenizer = nullptr;
    Check(dgrt_tokenizer_create(engine, &tokenizer));
    tokenizer_.reset(tokenizer);
    dgrt_chat_template* chat = nullptr;
    Check(dgrt_chat_template_create(engine, &chat));
    chat_.reset(chat);
    dgrt_scheduler* scheduler = nullptr;
    Check(dgrt_scheduler_create(runtime, &options, &scheduler));
    scheduler_.reset(scheduler);
  }

  // One line of stdin.
  void Take(const std::string& line) {
    std::erase_if(answers_, [](const auto& entry) { return IsDone(entry.second->request(), 0); });
    Json id;
    try {
      const Json message = Json::parse(line);
      id = message.value("id", Json());
      if (message.contains("cancel")) {
        Cancel(message["cancel"]);
      } else if (message.contains("stats")) {
        WriteStats();
      } else {
        Submit(message, id);
      }
    } catch (const Failure& failure) {
      WriteError(id, failure.status, failure.what());
    } catch (const std::exception& error) {
      WriteError(id, "DGRT_INVALID_ARGUMENT", error.what());
    }
  }

  void WaitForAll() {
    for (const auto& [id, answer] : answers_) IsDone(answer->request(), -1);
  }

 private:
  std::vector<int32_t> Encode(const Json& message) const {
    Json conversation = message.value("template", Json::object());
    conversation["add_generation_prompt"] = true;
    if (message.contains("tools")) conversation["tools"] = message["tools"];
    if (message.contains("messages")) {
      conversation["messages"] = message["messages"];
    } else {
      const std::string prompt = message.at("prompt").get<std::string>();
      conversation["messages"] = Json::array({Json{{"role", "user"}, {"content", prompt}}});
    }
    const std::string given = conversation.dump();
    const char* text = nullptr;
    size_t size = 0, num_tokens = 0;
    const int32_t* tokens = nullptr;
    Check(dgrt_chat_template_render(chat_.get(), given.data(), given.size(), &text, &size));
    Check(dgrt_tokenizer_encode(tokenizer_.get(), text, size, &tokens, &num_tokens));
    return {tokens, tokens + num_tokens};
  }

  void Submit(const Json& message, const Json& id) {
    if (id.is_null() || answers_.contains(id.dump())) throw std::invalid_argument("id: expected one that is not in use");
    dgrt_session_options options;
    Check(dgrt_session_options_init(runtime_.get(), &options, sizeof(options)));
    options.seed = message.value("seed", uint64_t{0});
    options.max_new_tokens = message.value("max_new_tokens", int64_t{-1});
    options.deadline_ms = message.value("deadline_ms", 0.0);
    auto answer = std::make_unique<Answer>(id, tokenizer_.get());
    Answer& submitted = *(answers_[id.dump()] = std::move(answer));
    try {
      submitted.Submit(scheduler_.get(), options, Encode(message));
    } catch (...) {
      answers_.erase(id.dump());
      throw;
    }
  }

  void Cancel(const Json& id) {
    const auto found = answers_.find(id.dump());
    if (found != answers_.end()) Check(dgrt_request_cancel(found->second->request()));
  }

  void WriteStats() {
    dgrt_scheduler_counts counts{};
    counts.struct_size = sizeof(counts);
    Check(dgrt_scheduler_stats(scheduler_.get(), &counts));
    Write({{"event", "stats"}, {"queued", counts.queued}, {"running", counts.running}, {"finished", counts.finished},
           {"failed", counts.failed}, {"cancelled", counts.cancelled}, {"refused", counts.refused}});
  }

  static bool IsDone(dgrt_request* request, double timeout_ms) {
    int32_t done = 0;
    Check(dgrt_request_wait(request, timeout_ms, &done));
    return done == 1;
  }

  Handle<dgrt_runtime, dgrt_runtime_destroy> runtime_;
  Handle<dgrt_tokenizer, dgrt_tokenizer_destroy> tokenizer_;
  Handle<dgrt_chat_template, dgrt_chat_template_destroy> chat_;
  std::map<std::string, std::unique_ptr<Answer>> answers_;  // by id; before the scheduler, whose threads use them
  Handle<dgrt_scheduler, dgrt_scheduler_destroy> scheduler_;
};

int Usage() {
  std::fputs("usage: json_server ENGINE [--ort LIBRARY] [--threads N] [--max-running N] [--max-queued N] "
             "[--kv-limit BYTES]\n", stderr);
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    dgrt_runtime_options runtime_options;
    dgrt_scheduler_options options;
    Check(dgrt_runtime_options_init(&runtime_options, sizeof(runtime_options)));
    Check(dgrt_scheduler_options_init(&options, sizeof(options)));
    if (argc < 2 || argc % 2 != 0) return Usage();
    for (int i = 2; i < argc; i += 2) {
      const std::string name = argv[i];
      if (name == "--ort") runtime_options.ort_library = argv[i + 1];
      else if (name == "--threads") runtime_options.threads = std::stoi(argv[i + 1]);
      else if (name == "--max-running") options.max_running = std::stoi(argv[i + 1]);
      else if (name == "--max-queued") options.max_queued = std::stoi(argv[i + 1]);
      else if (name == "--kv-limit") runtime_options.kv_limit_bytes = std::stoll(argv[i + 1]);
      else return Usage();
    }
    Server server(argv[1], runtime_options, options);
    for (std::string line; std::getline(std::cin, line);) {
      if (!line.empty()) server.Take(line);
    }
    server.WaitForAll();
    return 0;
  } catch (const Failure& failure) {
    std::fprintf(stderr, "json_server: %s: %s\n", failure.status, failure.what());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "json_server: %s\n", error.what());
  }
  return 1;
}
