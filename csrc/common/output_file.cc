// Implementation of output_file.h.
#include "common/output_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "common/check.h"

namespace dgrt {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPartPrefix = ".dgrt-part-";  // also in dgrt/files.py

std::string NameOf(std::string_view kind, std::string path) {
  std::replace_if(path.begin(), path.end(), [](unsigned char c) { return c < ' '; }, '?');  // the text is one line
  return Message(kind, " '", path, "'");
}

[[noreturn]] void RefuseToWrite(const std::string& name, const std::string& why) {
  throw InvalidArgument(Message(name, ": cannot write: ", why));
}

const char* KindOf(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

// What `path` names when all symbolic links are followed, whether it exists or not.
std::string Resolve(const std::string& name, std::string path) {
  constexpr int kMostLinks = 40;  // as many as the system follows
  if (path.empty() || path.find('\0') != std::string::npos) RefuseToWrite(name, "expected the path of a file");
  for (int i = 0; i < kMostLinks; ++i) {
    std::error_code error;
    const fs::path next = fs::read_symlink(path, error);
    if (error) return path;
    path = (fs::path(path).parent_path() / next).string();
  }
  RefuseToWrite(name, "too many symbolic links");
}

// Opens nothing but regular files, and never waits.
int OpenRegular(const std::string& path, struct stat* facts) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fd >= 0 && ::fstat(fd, facts) == 0 && S_ISREG(facts->st_mode)) return fd;
  const int error = errno;
  if (fd >= 0) ::close(fd);
  errno = error;
  return -1;
}

bool BeginsWith(const std::string& path, std::string_view magic) {
  struct stat facts{};
  const int fd = OpenRegular(path, &facts);
  if (fd < 0) return false;
  std::string found(magic.size(), '\0');
  const ssize_t size = ::pread(fd, found.data(), found.size(), 0);
  ::close(fd);
  return size == static_cast<ssize_t>(magic.size()) && found == magic;
}

// What is printed later would go to a file without a name. "/dev/stdout" leads here, too.
bool IsStandardOutput(const struct stat& facts) {
  return std::ranges::any_of(std::array{STDOUT_FILENO, STDERR_FILENO}, [&](int fd) {
    struct stat open{};
    return ::fstat(fd, &open) == 0 && open.st_dev == facts.st_dev && open.st_ino == facts.st_ino;
  });
}

void CheckReplaceable(const std::string& name, const std::string& target, std::string_view magic, Overwrite overwrite) {
  struct stat facts{};
  if (::stat(target.c_str(), &facts) != 0) {
    if (errno != ENOENT) RefuseToWrite(name, std::strerror(errno));
    return;
  }
  if (!S_ISREG(facts.st_mode)) RefuseToWrite(name, Message("expected a regular file or none, found ", KindOf(facts.st_mode)));
  if (IsStandardOutput(facts)) {
    RefuseToWrite(name, "expected a file of its own, found that of standard output or error: give another path");
  }
  if (::faccessat(AT_FDCWD, target.c_str(), W_OK, AT_EACCESS) != 0) RefuseToWrite(name, std::strerror(errno));
  if (facts.st_size == 0 || overwrite == Overwrite::kOtherFiles || BeginsWith(target, magic)) return;
  RefuseToWrite(name, "expected such a file, an empty one or none, found another kind of file: give another path, or allow "
                      "it to be overwritten");
}

// Part files that nobody holds the lock of: their process was killed.
void RemoveLeftovers(const std::string& folder) {
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string path = it->path().string();
    if (!it->path().filename().string().starts_with(kPartPrefix) || it->is_symlink(error)) continue;
    struct stat facts{};
    const int fd = OpenRegular(path, &facts);
    if (fd < 0) continue;
    if (::flock(fd, LOCK_EX | LOCK_NB) == 0) ::unlink(path.c_str());
    ::close(fd);
  }
}

// As the file that is replaced has them, as far as the process may; a new one is the user's alone.
void KeepOwnerAndMode(int fd, const std::string& target) {
  struct stat old{};
  if (::stat(target.c_str(), &old) != 0) return;
  if (::fchown(fd, old.st_uid, old.st_gid) != 0 && ::fchown(fd, static_cast<uid_t>(-1), old.st_gid) != 0) {
    old.st_mode &= ~static_cast<mode_t>(S_IRWXG);  // another group gets no rights that only the old one had
  }
  static_cast<void>(::fchmod(fd, old.st_mode & (S_IRWXU | S_IRWXG | S_IRWXO)));
}

}  // namespace

void RequireRegularFile(std::string_view kind, const std::string& path) {
  const std::string name = NameOf(kind, path);
  struct stat facts{};
  if (path.find('\0') != std::string::npos) throw InvalidArgument(Message(name, ": expected a path without zero bytes"));
  if (::stat(path.c_str(), &facts) != 0) throw InvalidArgument(Message(name, ": cannot read: ", std::strerror(errno)));
  if (S_ISREG(facts.st_mode)) return;
  throw InvalidArgument(Message(name, ": cannot read: expected a regular file, found ", KindOf(facts.st_mode)));
}

OutputFile::OutputFile(std::string_view kind, const std::string& path, std::string_view magic, int64_t bytes,
                       Overwrite overwrite)
    : name_(NameOf(kind, path)), bytes_(bytes), target_(Resolve(name_, path)) {
  if (target_.ends_with('/')) RefuseToWrite(name_, "expected the path of a file, found that of a folder");
  CheckReplaceable(name_, target_, magic, overwrite);
  const std::string parent = fs::path(target_).parent_path().string();
  const std::string folder = parent.empty() ? "." : parent;
  RemoveLeftovers(folder);
  CheckRoom(folder);
  OpenPart(folder);
  KeepOwnerAndMode(fd_, target_);
}

OutputFile::~OutputFile() {
  if (!part_.empty()) ::unlink(part_.c_str());
  if (fd_ >= 0) ::close(fd_);
}

void OutputFile::CheckRoom(const std::string& folder) const {
  struct statvfs space{};
  if (::statvfs(folder.c_str(), &space) != 0) RefuseToWrite(name_, std::strerror(errno));
  const auto free = static_cast<int64_t>(space.f_bavail * space.f_frsize);
  const bool is_known = space.f_blocks > 0;  // some file systems do not tell
  if (is_known && bytes_ > free) throw DeviceError(Message(name_, ": expected ", bytes_, " bytes free on the disk, found ", free));
  struct rlimit limit{};
  // Writing more would end a process that does not catch the signal.
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
      static_cast<uint64_t>(bytes_) > limit.rlim_cur) {
    throw DeviceError(Message(name_, ": expected a limit on file sizes of at least ", bytes_, " bytes, found ",
                              limit.rlim_cur, " (ulimit -f)"));
  }
}

void OutputFile::OpenPart(const std::string& folder) {
  while (true) {
    part_ = folder + "/" + std::string(kPartPrefix) + "XXXXXX";
    fd_ = ::mkostemp(part_.data(), O_CLOEXEC);
    if (fd_ < 0) {
      part_.clear();
      RefuseToWrite(name_, std::strerror(errno));
    }
    ::flock(fd_, LOCK_EX | LOCK_NB);  // where there are no locks, nobody removes leftovers either
    struct stat facts{};
    if (::fstat(fd_, &facts) != 0 || facts.st_nlink > 0) return;
    ::close(std::exchange(fd_, -1));  // taken for a leftover before the lock was there
  }
}

void OutputFile::Write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) Fail();
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

void OutputFile::Finish() {
  if (::fsync(fd_) != 0 || ::rename(part_.c_str(), target_.c_str()) != 0) Fail();
  part_.clear();
}

void OutputFile::Fail() const {
  throw DeviceError(Message(name_, ": writing ", bytes_, " bytes failed: ", std::strerror(errno)));
}

}  // namespace dgrt
