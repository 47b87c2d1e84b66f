// The CPU quota of control groups, on made-up trees of both versions: nested, in containers, and broken.
#include "common/cpu_limits.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>

#include "test.h"

namespace dgrt {
namespace {

namespace fs = std::filesystem;

struct FakeSystem {
  FakeSystem() { fs::create_directories(root); }
  ~FakeSystem() { fs::remove_all(root); }

  void Store(const std::string& path, const std::string& text) const {
    fs::create_directories(fs::path(root + path).parent_path());
    std::ofstream(root + path) << text;
  }
  CpuLimit Limit(int bound = 16) const { return UsableCpus(bound, 16, root); }

  const std::string root = (fs::temp_directory_path() / ("dgrt_cpu_test_" + std::to_string(getpid()))).string();
};

constexpr char kV2Mount[] = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
constexpr char kV1Mount[] = "33 23 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";

}  // namespace

TEST(WithoutControlGroupsTheAffinityMaskDecides) {
  FakeSystem system;
  CHECK_EQ(system.Limit().cpus, 16);
  CHECK_EQ(system.Limit().reason, std::string("all 16 CPUs"));
  CHECK_EQ(system.Limit(3).cpus, 3);
  CHECK_EQ(system.Limit(3).reason, std::string("bound to 3 of 16 CPUs (affinity mask)"));
  const CpuLimit here = UsableCpus();
  CHECK(here.cpus >= 1 && !here.reason.empty());
}

TEST(TheQuotaOfAContainerDecidesInBothVersions) {
  FakeSystem system;
  system.Store("/proc/self/cgroup", "0::/\n");
  system.Store("/proc/self/mountinfo", kV2Mount);
  system.Store("/sys/fs/cgroup/cpu.max", "250000 100000\n");
  CHECK_EQ(system.Limit().cpus, 2);
  CHECK_EQ(system.Limit().reason, std::string("CPU quota of 2.5 of 16 CPUs (cgroup v2)"));
  CHECK_EQ(system.Limit(2).reason, std::string("bound to 2 of 16 CPUs (affinity mask)"));  // as small, so it decides
  system.Store("/sys/fs/cgroup/cpu.max", "50000 100000\n");
  CHECK_EQ(system.Limit().cpus, 1);
  system.Store("/sys/fs/cgroup/cpu.max", "max 100000\n");
  CHECK_EQ(system.Limit().cpus, 16);

  system.Store("/proc/self/cgroup", "9:memory:/x\n4:cpu,cpuacct:/docker/abc\n0::/\n");
  system.Store("/proc/self/mountinfo", kV1Mount);
  system.Store("/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "400000\n");
  system.Store("/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n");
  CHECK_EQ(system.Limit().cpus, 4);
  CHECK_EQ(system.Limit().reason, std::string("CPU quota of 4 of 16 CPUs (cgroup v1)"));
  system.Store("/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "-1\n");
  CHECK_EQ(system.Limit().cpus, 16);
}

TEST(AGroupOfTheHostThatIsMountedInAContainerIsFound) {
  FakeSystem system;
  system.Store("/proc/self/cgroup", "0::/docker/a b/inner\n");
  system.Store("/proc/self/mountinfo", "30 23 0:26 /docker/a\\040b /sys/fs/c\\040g rw - cgroup2 cgroup2 rw\n");
  system.Store("/sys/fs/c g/cpu.max", "300000 100000\n");
  CHECK_EQ(system.Limit().cpus, 3);
  system.Store("/sys/fs/c g/inner/cpu.max", "100000 100000\n");
  CHECK_EQ(system.Limit().cpus, 1);
  system.Store("/proc/self/cgroup", "0::/../elsewhere\n");  // outside of what is mounted: its root still counts
  CHECK_EQ(system.Limit().cpus, 3);
}

TEST(TheLeastQuotaOfAllGroupsAroundTheProcessDecides) {
  FakeSystem system;
  std::mt19937 random(17);
  const auto draw = [&](int most) { return static_cast<int>(random() % static_cast<unsigned>(most + 1)); };
  for (int trial = 0; trial < 200; ++trial) {
    fs::remove_all(system.root);
    const bool is_v2 = draw(1) == 0, is_hybrid = draw(2) == 0;
    const std::string mount = is_v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu,cpuacct";
    std::string group;
    double least = 16;
    for (int level = 0, depth = draw(4); level <= depth; ++level) {
      if (level > 0) group += "/g" + std::to_string(draw(9));
      const int period = 10'000 * (1 + draw(9)), hundredths = draw(2) == 0 ? 0 : 10 + draw(2000);  // 0: no quota
      const std::string quota = std::to_string(static_cast<int64_t>(period) * hundredths / 100);
      if (is_v2) {
        system.Store(mount + group + "/cpu.max", (hundredths > 0 ? quota : "max") + " " + std::to_string(period) + "\n");
      } else {
        system.Store(mount + group + "/cpu.cfs_quota_us", hundredths > 0 ? quota : "-1");
        system.Store(mount + group + "/cpu.cfs_period_us", std::to_string(period));
      }
      if (hundredths > 0) least = std::min(least, hundredths / 100.0);
    }
    if (draw(3) == 0) system.Store(mount + "/other/cpu.max", "10000 100000\n");  // of somebody else
    const std::string own = group.empty() ? "/" : group;
    system.Store("/proc/self/cgroup", is_v2 ? "0::" + own + "\n" : "5:cpu,cpuacct:" + own + "\n0::/ignored\n");
    system.Store("/proc/self/mountinfo", std::string(is_v2 ? kV2Mount : kV1Mount) +
                                             (is_hybrid ? "9 1 0:2 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n" : ""));
    CHECK_EQ(system.Limit().cpus, std::max(1, static_cast<int>(least)));
  }
}

TEST(WhatCannotBeUnderstoodIsNoLimit) {
  FakeSystem system;
  std::mt19937 random(18);
  const std::string lines[] = {"0::/\n", "0::\n", ":\n", "::::\n", "5:cpu:/a\n", "\n", std::string("\0\0", 2)};
  const std::string mounts[] = {kV2Mount, kV1Mount, "- - - - -\n", "30\n", " \n", "1 2 3 4 5 6 - cgroup2\n",
                                "1 2 3 / /sys/fs/cgroup\\04 - cgroup2 a b c d\n"};
  const std::string quotas[] = {"", "max", "x y", "100000", "-5 100000", "100000 0", "nan 100000", "0 0", "\xff\xfe"};
  const auto pick = [&](const auto& texts) { return texts[random() % std::size(texts)]; };
  for (int trial = 0; trial < 200; ++trial) {
    system.Store("/proc/self/cgroup", pick(lines) + pick(lines));
    system.Store("/proc/self/mountinfo", pick(mounts) + pick(mounts));
    for (const char* file : {"/cpu.max", "/a/cpu.max", "/cpu,cpuacct/cpu.cfs_quota_us", "/cpu,cpuacct/a/cpu.cfs_period_us"}) {
      system.Store(std::string("/sys/fs/cgroup") + file, pick(quotas));
    }
    const CpuLimit limit = system.Limit();
    CHECK_EQ(limit.cpus, 16);
  }
}

}  // namespace dgrt
