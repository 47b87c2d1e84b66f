// How many CPUs this process may keep busy: those that it is bound to, or the CPU time that its control group (a container,
// a service) gives it, whichever is less. Used by runtime/ for the default number of threads, by python/ for `dgrt doctor`.
#pragma once

#include <string>

namespace dgrt {

struct CpuLimit {
  int cpus = 1;        // at least 1
  std::string reason;  // "CPU quota of 2.5 of 16 CPUs (cgroup v2)"
};

CpuLimit UsableCpus();

// The same of a process that is bound to `bound` of `machine` CPUs, with `root` in front of /proc and /sys. For tests.
CpuLimit UsableCpus(int bound, int machine, const std::string& root);

}  // namespace dgrt
