// Turns: who gets the next lane, how wide it is, what ends a wait, and that none of it shows in a result.
#include <algorithm>
#include <atomic>
#include <latch>
#include <thread>
#include <vector>

#include "runtime/lanes.h"
#include "session_fixture.h"

namespace dgrt {
namespace {

using Turn = Lanes::Turn;
constexpr auto kNever = Lanes::Clock::time_point::max();
bool NotStopped() { return false; }

// A queue of users in this order.
LaneUser* Chain(std::vector<LaneUser*> users) {
  for (size_t i = 0; i < users.size(); ++i) users[i]->next = i + 1 < users.size() ? users[i + 1] : nullptr;
  return users.front();
}

TEST(TheLeastServedIsNextAndAmongEqualsTheFirst) {
  LaneUser a, b, c;
  a.served_rows = 5;
  b.served_rows = c.served_rows = 2;
  CHECK(NextInTurn(Chain({&a, &b, &c}), 0, 3) == &b);
  CHECK(NextInTurn(Chain({&c, &a, &b}), 0, 3) == &c);
}

TEST(OneWhoWasPassedOverFourTimesPerRequestIsNext) {
  LaneUser a, b, c;
  a.served_rows = 1000;
  a.waits_since = 10;
  b.waits_since = c.waits_since = 15;
  CHECK(NextInTurn(Chain({&a, &b, &c}), 21, 3) == &b);
  CHECK(NextInTurn(Chain({&a, &b, &c}), 22, 3) == &a);
}

// One lane, seven requests that have had much and one that is new: simulated grant by grant.
TEST(AShortRequestGetsMostTurnsAndTheOthersStillMove) {
  std::vector<LaneUser> users(8);
  for (size_t i = 0; i < 7; ++i) users[i].served_rows = 100'000;
  std::vector<LaneUser*> queue;
  for (LaneUser& user : users) queue.push_back(&user);
  std::vector<int> grants(8);
  const uint64_t num_grants = 320;
  for (uint64_t pass = 0; pass < num_grants; ++pass) {
    LaneUser* next = NextInTurn(Chain(queue), pass, 8);
    next->served_rows += 100;
    ++grants[static_cast<size_t>(next - users.data())];
    queue.erase(std::find(queue.begin(), queue.end(), next));
    next->waits_since = pass + 1;
    queue.push_back(next);
  }
  CHECK(grants[7] >= static_cast<int>(num_grants) * 3 / 4);
  // A quarter of an equal share, less rounding.
  for (size_t i = 0; i < 7; ++i) CHECK(grants[i] >= static_cast<int>(num_grants) / 32 - 2);
}

void End(Lanes& lanes, LaneUser& user, int64_t num_rows) {
  lanes.EndPass(user, num_rows, {});
  lanes.GiveBack(user);
}

struct TwoThreads {
  ThreadPool all{2}, one{1};
  Lanes lanes{all, one};
};

TEST(ALoneRequestHasAllThreads) {
  TwoThreads t;
  LaneUser user;
  const ActiveRequest active(t.lanes, user);
  CHECK(t.lanes.Enter(user, kNever, NotStopped) == Turn::kGranted);
  CHECK(user.threads == PassThreads::kAll);
  End(t.lanes, user, 3);
  CHECK_EQ(user.served_rows, int64_t{3});
  CHECK_EQ(t.lanes.stats().narrow_passes, int64_t{0});
}

TEST(AsManyRequestsAsThreadsHaveOneEachAndRunAtOnce) {
  TwoThreads t;
  LaneUser a, b;
  const ActiveRequest first(t.lanes, a), second(t.lanes, b);
  CHECK(t.lanes.Enter(a, kNever, NotStopped) == Turn::kGranted);
  CHECK(t.lanes.Enter(b, kNever, NotStopped) == Turn::kGranted);  // does not wait for a
  CHECK(a.threads == PassThreads::kOne && b.threads == PassThreads::kOne);
  End(t.lanes, a, 1);
  End(t.lanes, b, 1);
}

TEST(AWideLaneAndANarrowOneAreNeverInUseAtOnce) {
  TwoThreads t;
  LaneUser a, b;
  const ActiveRequest first(t.lanes, a);
  CHECK(t.lanes.Enter(a, kNever, NotStopped) == Turn::kGranted);
  const ActiveRequest second(t.lanes, b);
  std::atomic<bool> entered{false};
  std::thread other([&] {
    CHECK(t.lanes.Enter(b, kNever, NotStopped) == Turn::kGranted);
    entered = true;
  });
  while (t.lanes.stats().waiting == 0) std::this_thread::yield();
  CHECK(!entered);
  End(t.lanes, a, 1);
  other.join();
  CHECK(b.threads == PassThreads::kOne);
  End(t.lanes, b, 1);
}

TEST(AUserKeepsItsLaneWhileItIsItsTurn) {
  TwoThreads t;
  LaneUser shorter, longer, waiting;
  longer.served_rows = waiting.served_rows = 100;
  const ActiveRequest first(t.lanes, shorter), second(t.lanes, longer), third(t.lanes, waiting);
  CHECK(t.lanes.Enter(shorter, kNever, NotStopped) == Turn::kGranted);
  CHECK(t.lanes.Enter(longer, kNever, NotStopped) == Turn::kGranted);
  std::atomic<bool> entered{false};
  std::thread other([&] {
    CHECK(t.lanes.Enter(waiting, kNever, NotStopped) == Turn::kGranted);
    entered = true;
  });
  while (t.lanes.stats().waiting == 0) std::this_thread::yield();
  t.lanes.EndPass(shorter, 10, {});
  CHECK(t.lanes.Enter(shorter, kNever, NotStopped) == Turn::kGranted);  // served least: it goes on at once
  CHECK(!entered);
  t.lanes.EndPass(longer, 10, {});
  const auto soon = Lanes::Clock::now() + std::chrono::milliseconds(1);
  CHECK(t.lanes.Enter(longer, soon, NotStopped) == Turn::kLate);  // its lane went to the one that waited
  other.join();
  End(t.lanes, shorter, 10);
  End(t.lanes, waiting, 10);
  CHECK_EQ(t.lanes.stats().passes, int64_t{4});
}

TEST(AWaitEndsByCancellingAndByTheDeadline) {
  TwoThreads t;
  LaneUser a, b;
  const ActiveRequest active(t.lanes, a);
  CHECK(t.lanes.Enter(a, kNever, NotStopped) == Turn::kGranted);  // wide: nobody else may run
  CHECK(t.lanes.Enter(b, Lanes::Clock::now() + std::chrono::milliseconds(5), NotStopped) == Turn::kLate);
  CHECK(t.lanes.Enter(b, Lanes::Clock::now(), NotStopped) == Turn::kLate);
  std::atomic<bool> stopped{false};
  std::thread other([&] { CHECK(t.lanes.Enter(b, kNever, [&] { return stopped.load(); }) == Turn::kStopped); });
  while (t.lanes.stats().waiting == 0) std::this_thread::yield();
  stopped = true;
  t.lanes.Wake(b);
  other.join();
  CHECK_EQ(t.lanes.stats().waiting, int64_t{0});
  End(t.lanes, a, 1);
}

// Sessions of all kinds, each on a thread of its own.
TEST(TokensAreTheSameAloneAndBesideOthers) {
  for (const int threads : {1, 2, 3}) {
    SessionFixture f;
    const auto runtime = f.Open(threads);
    const auto options = [&](size_t i) {
      GenerateOptions out = f.options;
      out.seed = i;
      out.max_new_tokens = 5 + static_cast<int64_t>(i) * 7;
      out.logprobs = i % 3 == 1;
      if (i % 3 == 2) out.guarantee = Guarantee::kCausal;
      return out;
    };
    const auto run = [&](size_t i) {
      Session session(runtime, options(i));
      Generate(session, f.prompt, nullptr);
      return ToVector(session.tokens());
    };
    std::vector<Tokens> alone, beside(9);
    for (size_t i = 0; i < beside.size(); ++i) alone.push_back(run(i));
    f.script->on_call = [](int64_t) { std::this_thread::sleep_for(std::chrono::microseconds(100)); };  // so that they overlap
    std::latch all_here(static_cast<ptrdiff_t>(beside.size()));
    std::vector<std::thread> clients;
    for (size_t i = 0; i < beside.size(); ++i) {
      clients.emplace_back([&, i] {
        all_here.arrive_and_wait();
        beside[i] = run(i);
      });
    }
    for (std::thread& client : clients) client.join();
    for (size_t i = 0; i < beside.size(); ++i) CHECK(beside[i] == alone[i]);
    const LaneStats stats = runtime->lane_stats();
    CHECK_EQ(stats.requests, int64_t{0});
    CHECK_EQ(stats.waiting, int64_t{0});
    CHECK_EQ(stats.narrow_passes > 0, threads > 1);
  }
}

TEST(ADeadlineEndsARequestBetweenStepsAndKeepsWhatWasCommitted) {
  SessionFixture f;
  f.options.deadline_ms = 1e6;
  auto runtime = f.Open();
  Session in_time(runtime, f.options);
  Generate(in_time, f.prompt, nullptr);
  CHECK(in_time.finish_reason() == FinishReason::kLength);

  f.options.deadline_ms = 30;
  Session late(runtime, f.options);
  late.Prefill(f.prompt);
  late.NextCanvas(nullptr);
  const Tokens committed = ToVector(late.tokens());
  std::this_thread::sleep_for(std::chrono::milliseconds(40));
  CHECK_THROWS(DeadlineExceeded, "deadline of 30 ms passed after 8 tokens", late.NextCanvas(nullptr));
  CHECK(ToVector(late.tokens()) == committed);

  f.options.deadline_ms = 1000;
  Session chat(runtime, f.options);
  Generate(chat, f.prompt, nullptr);
  std::this_thread::sleep_for(std::chrono::milliseconds(1000));
  chat.Extend(Tokens{1});  // has a deadline of its own
  CHECK_EQ(chat.stats().prefill_passes, 1);
  CHECK_EQ(runtime->lane_stats().requests, int64_t{0});

  f.options.deadline_ms = -1;
  CHECK_THROWS(InvalidArgument, "deadline_ms", Session(runtime, f.options));
}

}  // namespace
}  // namespace dgrt
