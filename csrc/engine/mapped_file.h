// A whole file mapped read-only. Used by ort_engine.cc for the embedding table, which the vocabulary head reads straight
// from the checkpoint's own file. A file that is truncated under the mapping ends the process (SIGBUS).
#pragma once

#include <cstddef>
#include <span>

#include "engine/package_dir.h"

namespace dgrt {

class MappedFile {
 public:
  // Throws ContractMismatch, naming the file, if it cannot be mapped. An empty file maps to no bytes.
  explicit MappedFile(const PackageFile& file);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(address_), size_}; }

 private:
  void* address_ = nullptr;
  size_t size_ = 0;
};

}  // namespace dgrt
