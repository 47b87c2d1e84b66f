// The `files` table of a manifest against the folder: names, sizes, hashes. Used by manifest.cc only.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "common/json_reader.h"

namespace dgrt {

// Files of one package whose existence, place and size have been checked.
class PackageFiles {
 public:
  // `dir` is canonical. Throws ContractMismatch naming the file.
  PackageFiles(std::filesystem::path dir, const JsonObject& manifest);

  // The size of a file that the manifest's key `user` refers to; throws if `files` does not list it.
  int64_t Bytes(const std::string& name, const std::string& user) const;
  void CheckHash(const std::string& name) const;
  // Hashes everything except the weight files, or those too.
  void CheckHashes(bool verify_weights) const;
  bool IsWeightFile(const std::string& name) const;
  int64_t weight_bytes() const;
  // One hash over the names and stated hashes of all files.
  std::string Hash() const;

 private:
  struct Entry {
    int64_t bytes = 0;
    std::string sha256;
    bool is_weights = false;
  };

  void CheckPlace(const std::string& name, const Entry& entry) const;

  std::filesystem::path dir_;
  std::map<std::string, Entry> entries_;
};

}  // namespace dgrt
