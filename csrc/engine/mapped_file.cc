// POSIX implementation of mapped_file.h.
#include "engine/mapped_file.h"

#include <cerrno>
#include <cstring>

#include <sys/mman.h>

#include "common/check.h"

namespace dgrt {

MappedFile::MappedFile(const PackageFile& file) : size_(static_cast<size_t>(file.Status().st_size)) {
  if (size_ == 0) return;
  address_ = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.descriptor(), 0);
  if (address_ == MAP_FAILED) {
    address_ = nullptr;
    throw ContractMismatch(Message(file.path(), ": cannot map ", size_, " bytes: ", std::strerror(errno)));
  }
}

MappedFile::~MappedFile() {
  if (address_ != nullptr) ::munmap(address_, size_);
}

}  // namespace dgrt
