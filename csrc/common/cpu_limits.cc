// Implementation of cpu_limits.h. A quota is a property of a control group and of all groups around it: the least counts.
// Version 1 has a hierarchy per controller, version 2 one for all; a system may mount both.
#include "common/cpu_limits.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iomanip>
#include <optional>
#include <sstream>
#include <string_view>
#include <thread>
#include <vector>

#include "common/check.h"

namespace dgrt {
namespace {

// The control groups that hold this process, where one of the versions is mounted.
struct Hierarchy {
  const char* version = "";
  std::string mount;  // folder of the outermost group that can be seen
  std::string group;  // of this process, below that: "" or "/a/b"
};

int BoundCpus() {
#ifdef __linux__
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0) return std::max(1, CPU_COUNT(&cpus));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, separator);) parts.push_back(part);
  return parts;
}

bool Lists(const std::string& names, std::string_view name) {
  const auto parts = Split(names, ',');
  return std::find(parts.begin(), parts.end(), name) != parts.end();
}

// mountinfo writes a space, tab, line end or backslash of a path as three octal digits.
std::string Unescaped(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      out += static_cast<char>(std::strtol(text.substr(i + 1, 3).c_str(), nullptr, 8));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

// The group of this process in a hierarchy, from /proc/self/cgroup: lines "number:controllers:group".
std::optional<std::string> OwnGroup(const std::string& root, bool is_v2) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (is_v2 ? line.starts_with("0::") : Lists(controllers, "cpu")) return line.substr(second + 1);
  }
  return std::nullopt;
}

// A container may see the outer path of its group while its own group is what is mounted.
std::string Below(const std::string& group, const std::string& mounted) {
  const std::string prefix = mounted == "/" ? "" : mounted;
  const bool is_inside = group.starts_with(prefix) && (group.size() == prefix.size() || group[prefix.size()] == '/');
  if (!is_inside || group.find("/..") != std::string::npos) return "";
  std::string rest = group.substr(prefix.size());
  while (rest.ends_with('/')) rest.pop_back();
  return rest;
}

// From /proc/self/mountinfo: "id parent device root mount options [optional ...] - type source super-options".
std::vector<Hierarchy> Hierarchies(const std::string& root) {
  std::vector<Hierarchy> found;
  std::ifstream file(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const auto fields = Split(line, ' ');
    const auto dash = std::find(fields.begin(), fields.end(), "-");
    if (fields.size() < 10 || fields.end() - dash < 4) continue;
    const bool is_v2 = dash[1] == "cgroup2";
    if (!is_v2 && !(dash[1] == "cgroup" && Lists(dash[3], "cpu"))) continue;
    const auto group = OwnGroup(root, is_v2);
    if (!group) continue;
    found.push_back({is_v2 ? "v2" : "v1", root + Unescaped(fields[4]), Below(*group, Unescaped(fields[3]))});
  }
  return found;
}

// CPUs' worth of time of one group; nothing where it has no quota.
std::optional<double> QuotaOf(const std::string& folder, bool is_v2) {
  double quota = 0, period = 0;
  if (is_v2) {
    std::ifstream(folder + "/cpu.max") >> quota >> period;  // "max 100000" leaves the quota 0
  } else {
    std::ifstream(folder + "/cpu.cfs_quota_us") >> quota;  // -1: none
    std::ifstream(folder + "/cpu.cfs_period_us") >> period;
  }
  if (!(quota > 0) || !(period > 0)) return std::nullopt;
  return quota / period;
}

}  // namespace

CpuLimit UsableCpus() {
  const int bound = BoundCpus();
  return UsableCpus(bound, std::max(bound, static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN))), "");
}

CpuLimit UsableCpus(int bound, int machine, const std::string& root) {
  CpuLimit limit{bound, bound == machine ? Message("all ", machine, " CPUs")
                                         : Message("bound to ", bound, " of ", machine, " CPUs (affinity mask)")};
  for (Hierarchy& hierarchy : Hierarchies(root)) {
    const bool is_v2 = std::string_view(hierarchy.version) == "v2";
    while (true) {  // from the process's own group outwards
      const auto quota = QuotaOf(hierarchy.mount + hierarchy.group, is_v2);
      if (quota && std::max(1.0, std::floor(*quota)) < limit.cpus) {
        limit.cpus = std::max(1, static_cast<int>(*quota));
        limit.reason = Message("CPU quota of ", std::setprecision(3), *quota, " of ", machine, " CPUs (cgroup ",
                               hierarchy.version, ")");
      }
      if (hierarchy.group.empty()) break;
      hierarchy.group.resize(hierarchy.group.rfind('/'));
    }
  }
  return limit;
}

}  // namespace dgrt
