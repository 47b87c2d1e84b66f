// Requests in a scheduler: their tokens are those they would have alone, and whatever happens to one (failure, NaN,
// cancelling, deadline, a sink that throws, no memory) happens to no other.
#include <atomic>
#include <condition_variable>
#include <thread>
#include <vector>

#include "serving/scheduler.h"
#include "session_fixture.h"

namespace dgrt {
namespace {

// Holds every engine call back until it is opened.
class Gate {
 public:
  void Pass() {
    std::unique_lock lock(mutex_);
    ++arrived_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
  }
  void Open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void AwaitArrivals(int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return arrived_ >= count; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
  int arrived_ = 0;
};

struct ServingFixture : SessionFixture {
  GenerateOptions Options(size_t i) const {
    GenerateOptions out = options;
    out.seed = i;
    out.max_new_tokens = 5 + static_cast<int64_t>(i % 5) * 9;
    if (i % 4 == 3) out.guarantee = Guarantee::kCausal;
    return out;
  }
  Tokens Prompt(size_t i) const { return {1 + static_cast<int32_t>(i % 40), 2, 3, 4}; }
  Tokens Alone(size_t i) {
    SessionFixture clean;
    clean.options = options;
    Session session(clean.Open(), Options(i));
    Generate(session, Prompt(i), nullptr);
    return ToVector(session.tokens());
  }
};

Status StatusOf(const RequestResult& result) {
  if (result.error == nullptr) return Status::kOk;
  try {
    std::rethrow_exception(result.error);
  } catch (const Error& error) {
    return error.status();
  } catch (...) {
    return Status::kInternal;
  }
}

std::string TextOf(const RequestResult& result) {
  try {
    if (result.error != nullptr) std::rethrow_exception(result.error);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

// Writes down the commits and whether it was told of the end, once and last.
struct CommitSink : RequestSink {
  CommitSink(Tokens* committed, std::atomic<int>* ends) : committed_(committed), ends_(ends) {}
  void OnCommit(int32_t, std::span<const int32_t> tokens, std::span<const TokenOrigin>) override {
    committed_->insert(committed_->end(), tokens.begin(), tokens.end());
  }
  void OnDone(const RequestResult&) noexcept override { ++*ends_; }

 private:
  Tokens* const committed_;
  std::atomic<int>* const ends_;
};

TEST(RequestsHaveTheTokensTheyWouldHaveAlone) {
  constexpr size_t kRequests = 24;
  ServingFixture f;
  std::vector<Tokens> alone;
  for (size_t i = 0; i < kRequests; ++i) alone.push_back(f.Alone(i));
  for (const int threads : {1, 2, 4}) {
    const auto scheduler = Scheduler::Create(f.Open(threads), {.max_running = 8, .max_queued = 64});
    std::vector<Tokens> committed(kRequests);
    std::atomic<int> ends{0};
    std::vector<std::shared_ptr<Request>> requests;
    for (size_t i = 0; i < kRequests; ++i) {
      requests.push_back(scheduler->Submit(f.Prompt(i), f.Options(i), std::make_unique<CommitSink>(&committed[i], &ends)));
    }
    for (size_t i = 0; i < kRequests; ++i) {
      requests[i]->Wait();
      CHECK(requests[i]->result().tokens == alone[i]);
      CHECK(committed[i] == alone[i]);
      CHECK(requests[i]->result().finish != FinishReason::kNone);
      CHECK_EQ(requests[i]->result().stats.tokens, static_cast<int64_t>(alone[i].size()));
    }
    CHECK_EQ(ends.load(), static_cast<int>(kRequests));
    const SchedulerStats stats = scheduler->stats();
    CHECK_EQ(stats.finished, static_cast<int64_t>(kRequests));
    CHECK_EQ(stats.queued + stats.running + stats.failed + stats.planned_kv_bytes, int64_t{0});
  }
}

// The failing call belongs to some request; exactly that one fails, with its own error.
void CheckOneFails(int64_t FakeScript::*at_call, const char* text) {
  constexpr size_t kRequests = 6;
  ServingFixture clean;
  std::vector<Tokens> alone;
  for (size_t i = 0; i < kRequests; ++i) alone.push_back(clean.Alone(i));
  for (int64_t call = 1; call <= 40; call += 3) {
    ServingFixture f;
    (*f.script).*at_call = call;
    const auto scheduler = Scheduler::Create(f.Open(2), {.max_running = 4, .max_queued = 8});
    std::vector<std::shared_ptr<Request>> requests;
    for (size_t i = 0; i < kRequests; ++i) requests.push_back(scheduler->Submit(f.Prompt(i), f.Options(i), nullptr));
    int failed = 0;
    for (size_t i = 0; i < kRequests; ++i) {
      requests[i]->Wait();
      const RequestResult& result = requests[i]->result();
      if (result.error == nullptr) {
        CHECK(result.tokens == alone[i]);
        continue;
      }
      ++failed;
      CHECK(StatusOf(result) == Status::kDeviceError);
      CHECK(TextOf(result).find(text) != std::string::npos);
      CHECK(result.tokens.size() < alone[i].size());
      CHECK(std::equal(result.tokens.begin(), result.tokens.end(), alone[i].begin()));  // what was committed stays
    }
    CHECK(failed <= 1);
    if (at_call == &FakeScript::fail_at_call) CHECK_EQ(failed, 1);
  }
}

TEST(AnEngineErrorFailsOnlyItsRequest) { CheckOneFails(&FakeScript::fail_at_call, "fake failure"); }
TEST(ANanFailsOnlyItsRequest) { CheckOneFails(&FakeScript::nan_at_call, "not finite"); }

TEST(ASinkThatThrowsFailsOnlyItsRequest) {
  struct Thrower : RequestSink {
    void OnCommit(int32_t, std::span<const int32_t>, std::span<const TokenOrigin>) override {
      throw std::runtime_error("no more");
    }
  };
  ServingFixture f;
  const auto scheduler = Scheduler::Create(f.Open(2), {});
  const auto bad = scheduler->Submit(f.Prompt(1), f.Options(1), std::make_unique<Thrower>());
  const auto good = scheduler->Submit(f.Prompt(2), f.Options(2), nullptr);
  bad->Wait();
  good->Wait();
  CHECK_EQ(TextOf(bad->result()), std::string("no more"));
  CHECK(good->result().tokens == f.Alone(2));
}

TEST(AFullQueueRefusesWithTheNumbers) {
  ServingFixture f;
  Gate gate;
  f.script->on_call = [&](int64_t) { gate.Pass(); };
  const auto scheduler = Scheduler::Create(f.Open(1), {.max_running = 1, .max_queued = 2});
  std::vector<std::shared_ptr<Request>> requests;
  for (size_t i = 0; i < 3; ++i) requests.push_back(scheduler->Submit(f.Prompt(i), f.Options(i), nullptr));
  gate.AwaitArrivals(1);
  CHECK_THROWS(QueueFull, "expected fewer than 3 requests (max_running 1, max_queued 2), found 3",
               scheduler->Submit(f.Prompt(3), f.Options(3), nullptr));
  CHECK_EQ(scheduler->stats().refused, int64_t{1});
  gate.Open();
  for (const auto& request : requests) request->Wait();
  scheduler->Submit(f.Prompt(3), f.Options(3), nullptr)->Wait();
}

TEST(CancellingEndsAQueuedRequestAtOnceAndARunningOneBetweenPasses) {
  ServingFixture f;
  Gate gate;
  f.script->on_call = [&](int64_t) { gate.Pass(); };
  const auto scheduler = Scheduler::Create(f.Open(1), {.max_running = 1, .max_queued = 4});
  const auto running = scheduler->Submit(f.Prompt(0), f.Options(0), nullptr);
  gate.AwaitArrivals(1);
  const auto queued = scheduler->Submit(f.Prompt(1), f.Options(1), nullptr);
  const auto after = scheduler->Submit(f.Prompt(2), f.Options(2), nullptr);
  queued->Cancel();
  queued->Wait();  // although the one worker that may run requests is held back
  CHECK(queued->result().finish == FinishReason::kCancelled);
  CHECK(queued->result().error == nullptr);
  CHECK(!running->is_done());
  CHECK(!running->WaitFor(std::chrono::milliseconds(1)));
  CHECK_THROWS(InvalidArgument, "wait for it", running->result());
  running->Cancel();
  gate.Open();
  running->Wait();
  CHECK(running->result().finish == FinishReason::kCancelled);
  after->Wait();
  CHECK(after->result().tokens == f.Alone(2));
  CHECK_EQ(scheduler->stats().cancelled, int64_t{2});
  running->Cancel();  // does nothing
}

TEST(ADeadlinePassesInTheQueueAndWhileRunning) {
  ServingFixture f;
  Gate gate;
  f.script->on_call = [&](int64_t) { gate.Pass(); };
  const auto scheduler = Scheduler::Create(f.Open(1), {.max_running = 1, .max_queued = 4});
  GenerateOptions hurried = f.Options(0);
  hurried.deadline_ms = 20;
  const auto running = scheduler->Submit(f.Prompt(0), hurried, nullptr);
  gate.AwaitArrivals(1);
  const auto queued = scheduler->Submit(f.Prompt(1), hurried, nullptr);
  queued->Wait();
  CHECK(StatusOf(queued->result()) == Status::kDeadlineExceeded);
  CHECK_EQ(TextOf(queued->result()), std::string("deadline of 20 ms passed in the queue"));
  gate.Open();
  running->Wait();
  CHECK(StatusOf(running->result()) == Status::kDeadlineExceeded);
  CHECK_EQ(scheduler->stats().failed, int64_t{2});
}

TEST(RequestsStartOnlyIfTheirMemoryFitsAndInOrder) {
  ServingFixture f;
  RuntimeOptions runtime_options;
  runtime_options.threads = 2;
  const int64_t plan = f.Open()->PlannedKvBytes(4, f.Options(0));
  runtime_options.kv_limit_bytes = 2 * plan + plan / 2;
  const auto runtime =
      Runtime::FromEngine(std::make_unique<FakeEngine>(f.script, f.log), f.options, runtime_options);
  Gate gate;
  f.script->on_call = [&](int64_t) { gate.Pass(); };
  const auto scheduler = Scheduler::Create(runtime, {.max_running = 8, .max_queued = 8});
  std::vector<std::shared_ptr<Request>> requests;
  for (size_t i = 0; i < 5; ++i) requests.push_back(scheduler->Submit(f.Prompt(i), f.Options(0), nullptr));
  gate.AwaitArrivals(1);
  while (scheduler->stats().running < 2) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK_EQ(scheduler->stats().running, int64_t{2});
  CHECK_EQ(scheduler->stats().planned_kv_bytes, 2 * plan);
  GenerateOptions endless = f.Options(0);
  endless.max_new_tokens = -1;
  runtime_options.kv_limit_bytes = plan;
  const auto small = Runtime::FromEngine(std::make_unique<FakeEngine>(f.script, f.log), f.options, runtime_options);
  const auto strict = Scheduler::Create(small, {});
  CHECK_THROWS(OutOfMemory, "may take", strict->Submit(Tokens(200, 1), endless, nullptr));
  gate.Open();
  for (const auto& request : requests) {
    request->Wait();
    CHECK(request->result().error == nullptr);
    CHECK(request->result().stats.peak_kv_bytes <= plan);
  }
}

TEST(WrongRequestsAreRefusedAtOnce) {
  ServingFixture f;
  const auto scheduler = Scheduler::Create(f.Open(), {});
  CHECK_THROWS(InvalidArgument, "empty", scheduler->Submit({}, f.options, nullptr));
  CHECK_THROWS(InvalidArgument, "prompt[1]", scheduler->Submit({1, 4000}, f.options, nullptr));
  CHECK_THROWS(InvalidArgument, "no room for one canvas", scheduler->Submit(Tokens(250, 1), f.options, nullptr));
  GenerateOptions wrong = f.options;
  wrong.max_new_tokens = 0;
  CHECK_THROWS(InvalidArgument, "max_new_tokens", scheduler->Submit(f.prompt, wrong, nullptr));
  CHECK_THROWS(InvalidArgument, "max_running: expected 1 to 1024, found 0", Scheduler::Create(f.Open(), {.max_running = 0}));
  CHECK_THROWS(InvalidArgument, "max_queued", Scheduler::Create(f.Open(), {.max_queued = -1}));
  CHECK_THROWS(InvalidArgument, "runtime", Scheduler::Create(nullptr, {}));
}

TEST(ASchedulerThatIsDestroyedTellsEveryRequest) {
  ServingFixture f;
  std::vector<std::shared_ptr<Request>> requests;
  std::vector<Tokens> committed(20);
  std::atomic<int> ends{0};
  {
    const auto scheduler = Scheduler::Create(f.Open(2), {.max_running = 3, .max_queued = 32});
    for (size_t i = 0; i < 20; ++i) {
      requests.push_back(scheduler->Submit(f.Prompt(i), f.Options(i), std::make_unique<CommitSink>(&committed[i], &ends)));
    }
  }
  CHECK_EQ(ends.load(), 20);
  for (const auto& request : requests) {
    CHECK(request->is_done());
    request->Cancel();  // its scheduler is gone
    CHECK(request->result().error == nullptr);
  }
}

TEST(TheLastReferenceMayBeDroppedInASink) {
  struct Holder : RequestSink {
    void OnCommit(int32_t, std::span<const int32_t>, std::span<const TokenOrigin>) override { scheduler.reset(); }
    std::shared_ptr<Scheduler> scheduler;
  };
  ServingFixture f;
  auto scheduler = Scheduler::Create(f.Open(2), {});
  auto sink = std::make_unique<Holder>();
  sink->scheduler = scheduler;
  const auto first = scheduler->Submit(f.Prompt(1), f.Options(1), std::move(sink));
  const auto second = scheduler->Submit(f.Prompt(2), f.Options(2), nullptr);
  scheduler.reset();
  first->Wait();
  second->Wait();
  CHECK(first->result().finish != FinishReason::kNone);
}

// Requests come, are cancelled and run pass by pass, in random order; after every operation the books must balance.
TEST(RandomOperationsKeepTheBooks) {
  ServingFixture f;
  std::mutex mutex;
  std::condition_variable changed;
  int allowed = 0, arrived = 0;  // engine calls
  f.script->on_call = [&](int64_t) {
    std::unique_lock lock(mutex);
    ++arrived;
    changed.wait(lock, [&] { return allowed > 0; });
    --allowed;
  };
  const auto allow = [&](int calls) {
    const std::lock_guard lock(mutex);
    allowed += calls;
    changed.notify_all();
  };
  std::vector<Tokens> alone;
  for (size_t i = 0; i < 10; ++i) alone.push_back(f.Alone(i));
  const SchedulerOptions limits{.max_running = 3, .max_queued = 4};
  const auto runtime = f.Open(2);
  const auto scheduler = Scheduler::Create(runtime, limits);
  std::vector<std::pair<size_t, std::shared_ptr<Request>>> requests;
  int64_t refused = 0;
  uint64_t random = 12345;
  const auto next_random = [&random](uint64_t below) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    return (random >> 33) % below;
  };
  for (int operation = 0; operation < 400; ++operation) {
    switch (next_random(8)) {
      case 0:
      case 1:
      case 2:
        try {
          const size_t i = next_random(10);
          requests.emplace_back(i, scheduler->Submit(f.Prompt(i), f.Options(i), nullptr));
        } catch (const QueueFull&) {
          ++refused;
        }
        break;
      case 3:
        if (!requests.empty()) requests[next_random(requests.size())].second->Cancel();
        break;
      default:
        allow(static_cast<int>(next_random(60)));
        std::this_thread::sleep_for(std::chrono::microseconds(next_random(200)));
    }
    const SchedulerStats stats = scheduler->stats();
    const int64_t ended = stats.finished + stats.failed + stats.cancelled;
    CHECK_EQ(ended + stats.queued + stats.running, static_cast<int64_t>(requests.size()));
    CHECK(stats.running <= limits.max_running && stats.queued + stats.running <= limits.max_running + limits.max_queued);
    CHECK_EQ(stats.refused, refused);
    CHECK_EQ(stats.failed, int64_t{0});
    CHECK((stats.planned_kv_bytes > 0) == (stats.running > 0));
    const LaneStats lanes = runtime->lane_stats();
    CHECK(lanes.waiting <= lanes.requests && lanes.requests <= limits.max_running);
    const SchedulerStats after = scheduler->stats();
    const bool is_same = after.queued == stats.queued && after.finished + after.cancelled == stats.finished + stats.cancelled;
    CHECK(!is_same || lanes.requests <= stats.running);  // else one has started or ended between the two looks
  }
  allow(1'000'000);
  int64_t finished = 0;
  for (const auto& [i, request] : requests) {
    request->Wait();
    const RequestResult& result = request->result();
    if (result.finish == FinishReason::kCancelled) {
      CHECK(std::equal(result.tokens.begin(), result.tokens.end(), alone[i].begin()));
    } else {
      ++finished;
      CHECK(result.tokens == alone[i]);
    }
  }
  CHECK_EQ(scheduler->stats().finished, finished);
  const auto last = scheduler->Submit(f.Prompt(3), f.Options(3), nullptr);  // all places are free again
  last->Wait();
  CHECK(last->result().tokens == alone[3]);
  CHECK_EQ(scheduler->stats().planned_kv_bytes, int64_t{0});
}

// Cancelled before the n-th engine call, for every n: nothing stays behind and what was committed is right.
TEST(CancellingAtAnyPassLeavesNothingBehind) {
  ServingFixture f;
  const Tokens alone = f.Alone(4);
  for (int64_t at = 1;; ++at) {
    const auto runtime = f.Open(1);
    std::shared_ptr<Request> request;
    std::atomic<bool> is_submitted{false};
    const int64_t before = f.log->num_calls;
    f.script->on_call = [&](int64_t call) {
      while (!is_submitted) std::this_thread::yield();
      if (call - before == at) request->Cancel();
    };
    const auto scheduler = Scheduler::Create(runtime, {});
    request = scheduler->Submit(f.Prompt(4), f.Options(4), nullptr);
    is_submitted = true;
    request->Wait();
    const RequestResult& result = request->result();
    CHECK(result.error == nullptr);
    CHECK(std::equal(result.tokens.begin(), result.tokens.end(), alone.begin()));
    CHECK_EQ(scheduler->stats().running + runtime->lane_stats().requests, int64_t{0});
    if (result.finish != FinishReason::kCancelled) {
      CHECK(result.tokens == alone && at > 10);
      break;
    }
  }
}

TEST(ManyClientsWithShortRequestsLeaveNothingBehind) {
  ServingFixture f;
  f.script->record_prefills = false;
  const auto runtime = f.Open(2);
  const auto scheduler = Scheduler::Create(runtime, {.max_running = 8, .max_queued = 16});
  std::vector<Tokens> alone;
  for (size_t i = 0; i < 8; ++i) alone.push_back(f.Alone(i));
  std::atomic<int> served{0}, refused{0}, cancelled{0};
  std::vector<std::thread> clients;
  for (size_t client = 0; client < 64; ++client) {
    clients.emplace_back([&, client] {
      for (size_t n = 0; n < 6; ++n) {
        const size_t i = (client + n) % 8;
        try {
          const auto request = scheduler->Submit(f.Prompt(i), f.Options(i), nullptr);
          if ((client + n) % 5 == 0) request->Cancel();
          request->Wait();
          const RequestResult& result = request->result();
          CHECK(result.error == nullptr);
          if (result.finish == FinishReason::kCancelled) {
            ++cancelled;
          } else {
            CHECK(result.tokens == alone[i]);
            ++served;
          }
        } catch (const QueueFull&) {
          ++refused;
        }
      }
    });
  }
  for (std::thread& client : clients) client.join();
  CHECK_EQ(served + refused + cancelled, 64 * 6);
  const SchedulerStats stats = scheduler->stats();
  CHECK_EQ(stats.finished, int64_t{served});
  CHECK_EQ(stats.cancelled, int64_t{cancelled});
  CHECK_EQ(stats.refused, int64_t{refused});
  CHECK_EQ(stats.queued + stats.running + stats.failed + stats.planned_kv_bytes, int64_t{0});
  CHECK_EQ(runtime->lane_stats().requests + runtime->lane_stats().waiting, int64_t{0});
}

}  // namespace
}  // namespace dgrt
