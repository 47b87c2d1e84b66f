// POSIX implementation of package_dir.h.
#include "engine/package_dir.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "common/check.h"

namespace dgrt {
namespace {

int OpenFolder(const std::string& dir) {
  const int number = ::open(dir.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (number >= 0) return number;
  if (errno == ENOTDIR) {
    throw InvalidArgument(Message("engine package '", dir, "': expected a folder (written by `dgrt export`)"));
  }
  throw InvalidArgument(Message("engine package '", dir, "': ", std::strerror(errno)));
}

std::string Resolved(const std::string& dir) {
  std::error_code error;
  const std::filesystem::path real = std::filesystem::canonical(dir, error);
  return error ? dir : real.string();
}

std::string LinkTarget(int folder, const std::string& name) {
  std::string target(4096, '\0');
  const ssize_t length = ::readlinkat(folder, name.c_str(), target.data(), target.size());
  target.resize(length < 0 ? 0 : static_cast<size_t>(length));
  return target;
}

}  // namespace

Descriptor::~Descriptor() {
  if (number_ >= 0) ::close(number_);
}

struct stat PackageFile::Status() const {
  struct stat status {};
  if (::fstat(descriptor(), &status) != 0) {
    throw ContractMismatch(Message(path_, ": cannot stat: ", std::strerror(errno)));
  }
  return status;
}

void PackageFile::Read(int64_t offset, std::span<std::byte> into) const {
  while (!into.empty()) {
    const ssize_t count = ::pread(descriptor(), into.data(), into.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw ContractMismatch(Message(path_, ": cannot read: ", std::strerror(errno)));
    if (count == 0) throw ContractMismatch(Message(path_, ": expected more than ", offset, " bytes, found the end"));
    into = into.subspan(static_cast<size_t>(count));
    offset += count;
  }
}

PackageDir::PackageDir(const std::string& dir) : descriptor_(OpenFolder(dir)), path_(Resolved(dir)) {}

std::string PackageDir::LivePath() const {
  const std::string live = Message("/proc/self/fd/", descriptor_.number());
  // Without /proc the old name has to do. PackageFiles notices if it has become another folder's.
  return ::access(live.c_str(), X_OK) == 0 ? live : path_;
}

std::string PackageDir::CurrentPath() const { return LinkTarget(AT_FDCWD, LivePath()); }

bool PackageDir::Find(const std::string& name, struct stat& status) const {
  return ::fstatat(descriptor_.number(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0;
}

PackageFile PackageDir::Open(const std::string& name, const std::string& expected) const {
  const std::string path = PathOf(name);
  struct stat status {};
  if (!Find(name, status)) {
    throw ContractMismatch(Message(path, ": expected ", expected, ", found none (", std::strerror(errno), ")"));
  }
  // ONNX Runtime follows links and refuses those that leave the folder, less clearly.
  if (S_ISLNK(status.st_mode)) {
    throw ContractMismatch(Message(path, ": expected ", expected, ", found a symbolic link to ",
                                   LinkTarget(descriptor_.number(), name), "; copy or hard-link the file instead"));
  }
  // Looked at before it is opened: to open a pipe or a device may wait or do something.
  if (!S_ISREG(status.st_mode)) {
    throw ContractMismatch(Message(path, ": expected a regular file, found something else"));
  }
  const int number = ::openat(descriptor_.number(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (number < 0) throw ContractMismatch(Message(path, ": cannot open: ", std::strerror(errno)));
  PackageFile file(Descriptor(number), path);
  if (!S_ISREG(file.Status().st_mode)) {
    throw ContractMismatch(Message(path, ": expected a regular file, found something else"));
  }
  return file;
}

}  // namespace dgrt
