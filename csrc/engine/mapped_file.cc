// POSIX implementation of mapped_file.h.
#include "engine/mapped_file.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/check.h"

namespace dgrt {

MappedFile::MappedFile(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) throw ContractMismatch(Message(path, ": cannot open: ", std::strerror(errno)));
  struct stat status {};
  if (::fstat(file, &status) != 0 || status.st_size < 0) {
    const int error = errno;
    ::close(file);
    throw ContractMismatch(Message(path, ": cannot stat: ", std::strerror(error)));
  }
  size_ = static_cast<size_t>(status.st_size);
  if (size_ > 0) {
    address_ = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file, 0);
  }
  const int error = errno;
  ::close(file);  // the mapping keeps the file
  if (address_ == MAP_FAILED) {
    address_ = nullptr;
    throw ContractMismatch(Message(path, ": cannot map ", size_, " bytes: ", std::strerror(error)));
  }
}

MappedFile::~MappedFile() {
  if (address_ != nullptr) ::munmap(address_, size_);
}

}  // namespace dgrt
