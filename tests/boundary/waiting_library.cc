// What a copy of ONNX Runtime that reports to its maker is to a child of fork(): a static object whose thread waits, and whose
// destructor would wait for that thread. Built and loaded by test_fork.py under a name of that library.
#include <condition_variable>
#include <mutex>
#include <thread>

namespace {

struct Waiting {
  std::mutex mutex;
  std::condition_variable changed;
  bool is_ending = false;
  std::thread thread{[this] {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return is_ending; });
  }};
  ~Waiting() {
    {
      const std::lock_guard lock(mutex);
      is_ending = true;
    }
    changed.notify_all();
    thread.join();
  }
} waiting;

}  // namespace
