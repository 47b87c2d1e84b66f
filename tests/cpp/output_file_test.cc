// OutputFile: whole or not at all, and never in place of what is not ours. Pipes and a pseudo-terminal stand for devices.
#include "common/output_file.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>

#include "common/check.h"
#include "test.h"

namespace dgrt {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMagic = "magic!";
const std::string kOurs = "magic! old", kNew = "magic! new and longer";

std::string Bytes(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A folder with one entry of every kind; `facts` is what it looks like.
class Tree {
 public:
  explicit Tree(mode_t mode) {
    fs::remove_all(folder);
    fs::create_directories(folder / "folder");
    terminal_ = ::posix_openpt(O_RDWR | O_NOCTTY);
    CHECK(terminal_ >= 0 && ::grantpt(terminal_) == 0 && ::unlockpt(terminal_) == 0);
    terminal = ::ptsname(terminal_);
    Store("ours", kOurs, mode);
    Store("empty", "", mode);
    Store("theirs", "a text of mine", mode);
    Store("short", "mag", mode);
    CHECK_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
    socket_ = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = (folder / "socket").string();
    CHECK(path.copy(address.sun_path, sizeof(address.sun_path) - 1) == path.size());
    CHECK_EQ(::bind(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    for (const char* name : {"ours", "empty", "theirs", "pipe", "socket", "folder", "missing"}) {
      fs::create_symlink(name, folder / (std::string("link to ") + name));
      fs::create_symlink(folder / (std::string("link to ") + name), folder / (std::string("far link to ") + name));
    }
    fs::create_symlink(terminal, folder / "link to terminal");
    fs::create_symlink("loop", folder / "loop");
  }
  ~Tree() {
    ::close(terminal_);
    ::close(socket_);
    fs::remove_all(folder);
  }

  std::map<std::string, std::string> Facts() const {
    std::map<std::string, std::string> facts;
    for (const auto& entry : fs::directory_iterator(folder)) {
      struct stat found{};
      CHECK_EQ(::lstat(entry.path().c_str(), &found), 0);
      std::string text = std::to_string(found.st_mode);
      if (entry.is_symlink()) text += fs::read_symlink(entry.path()).string();
      else if (entry.is_regular_file()) text += Bytes(entry.path());
      facts[entry.path().filename().string()] = text;
    }
    return facts;
  }
  const fs::path folder = fs::temp_directory_path() / ("dgrt_out_" + std::to_string(getpid()));
  std::string terminal;

 private:
  void Store(const char* name, const std::string& text, mode_t mode) const {
    std::ofstream(folder / name, std::ios::binary) << text;
    CHECK_EQ(::chmod((folder / name).c_str(), mode), 0);
  }
  int terminal_ = -1, socket_ = -1;
};

void WriteNew(const std::string& path, Overwrite overwrite, bool finish) {
  OutputFile file("thing", path, kMagic, static_cast<int64_t>(kNew.size()), overwrite);
  file.Write(std::as_bytes(std::span(kNew.data(), kNew.size())));
  if (finish) file.Finish();
}

// What a path leads to in the end: the entry that is written; "" where writing is refused.
std::string Expected(const std::string& name, Overwrite overwrite) {
  const std::string end = name.substr(name.rfind(' ') + 1);
  if (end == "ours" || end == "empty" || end == "missing") return end;
  if ((end == "theirs" || end == "short") && overwrite == Overwrite::kOtherFiles) return end;
  return "";
}

}  // namespace

TEST(EveryKindOfPathIsWrittenWholeOrRefusedUntouched) {
  int cases = 0;
  for (const mode_t mode : {0600, 0640, 0444 | 0200, 0666}) {
    for (const Overwrite overwrite : {Overwrite::kOwnFiles, Overwrite::kOtherFiles}) {
      for (const bool finish : {true, false}) {
        std::vector<std::string> names = {"missing", "folder/", "folder/.", "", "no folder/file", "ours/file", "new/",
                                          std::string(300, 'x'), std::string("a\0b", 3)};
        for (const auto& [name, facts] : Tree(mode).Facts()) names.push_back(name);
        for (const std::string& name : names) {
          Tree tree(mode);
          auto before = tree.Facts();
          const std::string path = name.empty() ? "" : tree.folder.string() + "/" + name;
          const std::string end = Expected(name, overwrite);
          ++cases;
          if (end.empty()) {
            CHECK_THROWS(InvalidArgument, "cannot write: ", WriteNew(path, overwrite, finish));
          } else {
            WriteNew(path, overwrite, finish);
            const std::string had = before.contains(end) ? before[end].substr(0, 5) : std::to_string(S_IFREG | 0600);
            if (finish) before[end] = had + kNew;
          }
          CHECK(tree.Facts() == before);
        }
      }
    }
  }
  CHECK(cases >= 200);
}

TEST(ATerminalIsRefused) {
  Tree tree(0600);
  CHECK_THROWS(InvalidArgument, "found a device", WriteNew(tree.terminal, Overwrite::kOtherFiles, true));
}

TEST(APathWithoutAFolderIsInTheWorkingDirectory) {
  Tree tree(0600);
  const fs::path before = fs::current_path();
  fs::current_path(tree.folder);
  WriteNew("missing", Overwrite::kOwnFiles, true);
  fs::current_path(before);
  CHECK_EQ(Bytes(tree.folder / "missing"), kNew);
}

TEST(WhatAKilledWriterLeftIsRemovedAndWhatIsInUseIsNot) {
  Tree tree(0600);
  const fs::path left = tree.folder / ".dgrt-part-abcdef", used = tree.folder / ".dgrt-part-ghijkl";
  std::ofstream(left) << "half";
  std::ofstream(used) << "half";
  const int fd = ::open(used.c_str(), O_RDONLY | O_CLOEXEC);
  CHECK_EQ(::flock(fd, LOCK_EX), 0);
  WriteNew((tree.folder / "ours").string(), Overwrite::kOwnFiles, true);
  CHECK(!fs::exists(left) && fs::exists(used));
  ::close(fd);
  {
    OutputFile one("thing", (tree.folder / "one").string(), kMagic, 1, Overwrite::kOwnFiles);
    OutputFile two("thing", (tree.folder / "two").string(), kMagic, 1, Overwrite::kOwnFiles);
    one.Finish();
    two.Finish();
  }
  CHECK(fs::exists(tree.folder / "one") && fs::exists(tree.folder / "two") && !fs::exists(used));
}

TEST(WithoutRoomNothingIsWrittenAndTheOldFileStays) {
  Tree tree(0600);
  const std::string path = (tree.folder / "ours").string();
  const auto before = tree.Facts();
  CHECK_THROWS(DeviceError, "bytes free on the disk, found",
               OutputFile("thing", path, kMagic, int64_t{1} << 60, Overwrite::kOwnFiles));
  rlimit limit{};
  CHECK_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{10'000, limit.rlim_max};
  CHECK_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  std::string refused, failed;
  try {
    OutputFile("thing", path, kMagic, 10'001, Overwrite::kOwnFiles);
  } catch (const DeviceError& error) {
    refused = error.what();
  }
  try {  // more than was said: as a disk that fills up while it is written to
    OutputFile file("thing", path, kMagic, 1, Overwrite::kOwnFiles);
    const std::string much(20'000, 'x');
    file.Write(std::as_bytes(std::span(much.data(), much.size())));
  } catch (const DeviceError& error) {
    failed = error.what();
  }
  CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  ::signal(SIGXFSZ, handler);
  CHECK(refused.find("expected a limit on file sizes of at least 10001 bytes, found 10000") != std::string::npos);
  CHECK(failed.find("failed: File too large") != std::string::npos);
  CHECK(tree.Facts() == before);
}

// Such as /proc: 0 blocks in all does not mean that none is left.
TEST(AFileSystemThatTellsNoRoomIsNotTakenForAFullOne) {
  CHECK_THROWS(InvalidArgument, "cannot write", OutputFile("file", "/proc/self/none", kMagic, 100, Overwrite::kOwnFiles));
}

TEST(OnlyRegularFilesAreRead) {
  Tree tree(0600);
  RequireRegularFile("thing", (tree.folder / "link to ours").string());
  for (const char* name : {"pipe", "socket", "folder", "link to pipe", "link to terminal"}) {
    CHECK_THROWS(InvalidArgument, "expected a regular file, found a", RequireRegularFile("thing", (tree.folder / name).string()));
  }
  CHECK_THROWS(InvalidArgument, "cannot read: ", RequireRegularFile("thing", (tree.folder / "missing").string()));
  CHECK_THROWS(InvalidArgument, "zero bytes", RequireRegularFile("thing", std::string("a\0b", 3)));
}

}  // namespace dgrt
