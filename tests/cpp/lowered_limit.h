// Lowers a resource limit of this process for a scope, to see what happens when the system refuses.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>

#include <sys/resource.h>

#include "test.h"

namespace dgrt::test {

// `room` bytes beyond what the process uses now. For RLIMIT_AS and RLIMIT_DATA.
class LoweredLimit {
 public:
  LoweredLimit(int resource, int64_t room) : resource_(resource) {
    CHECK_EQ(getrlimit(Resource(), &before_), 0);
    rlimit lowered = before_;
    lowered.rlim_cur = static_cast<rlim_t>(InUse(resource == RLIMIT_AS ? "VmSize:" : "VmData:") + room);
    CHECK_EQ(setrlimit(Resource(), &lowered), 0);
  }
  ~LoweredLimit() { setrlimit(Resource(), &before_); }
  LoweredLimit(const LoweredLimit&) = delete;
  LoweredLimit& operator=(const LoweredLimit&) = delete;

 private:
  __rlimit_resource Resource() const { return static_cast<__rlimit_resource>(resource_); }

  static int64_t InUse(const std::string& key) {
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;) {
      int64_t kilobytes = 0;
      if (word == key && status >> kilobytes) return kilobytes * 1024;
    }
    return 0;
  }

  int resource_;
  rlimit before_{};
};

}  // namespace dgrt::test
