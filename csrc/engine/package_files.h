// The `files` table of a manifest against the folder: names, sizes, hashes. It lives as long as the engine, which opens
// some files late: what was checked and what is used are the same bytes, or it is an error.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "common/json_reader.h"
#include "engine/package_dir.h"

namespace dgrt {

class PackageFiles {
 public:
  // Checks names, places and sizes, and opens the weight files. Throws ContractMismatch naming the file.
  PackageFiles(PackageDir dir, const JsonObject& manifest);

  // The size of a file that the manifest's key `user` refers to; throws if `files` does not list it.
  int64_t Bytes(const std::string& name, const std::string& user) const;
  bool IsWeightFile(const std::string& name) const;
  int64_t weight_bytes() const;
  // One hash over the names and stated hashes of all files.
  std::string Hash() const;

  // Hashes everything except the weight files, and samples of these (export/README.md) or, on request, all of them.
  void CheckHashes(bool verify_weights) const;
  // The content of a file that is not a weight file, hashed. Throws ContractMismatch if it is not what was exported.
  std::string Read(const std::string& name) const;
  // A weight file, opened with the package.
  const PackageFile& Weights(const std::string& name) const;
  // Throws ContractMismatch if an opened weight file was written into since. Costs microseconds while its times stay.
  void RequireUnwritten() const;
  // The same, and that the weight files in the folder are still those that were opened. For those who open files by path:
  // called before and after, it proves that they opened the same.
  void RequireSameWeights() const;

  std::string PathOf(const std::string& name) const { return dir_.PathOf(name); }
  std::string LivePath() const { return dir_.LivePath(); }
  std::string CurrentPath() const { return dir_.CurrentPath(); }

 private:
  struct Entry {
    int64_t bytes = 0;
    std::string sha256;
    std::string sample;               // of weight files
    std::optional<PackageFile> file;  // of weight files
    mutable struct stat status {};    // of `file`, when its bytes were last known to be right; guarded by mutex_
  };

  PackageFile OpenChecked(const std::string& name, const Entry& entry) const;
  static void CheckSample(const Entry& entry);
  static void CheckSize(const PackageFile& file, const Entry& entry);
  static void CheckAll(const PackageFile& file, const Entry& entry);
  static void RequireHash(const std::string& found, const PackageFile& file, const Entry& entry);

  PackageDir dir_;
  std::map<std::string, Entry> entries_;
  mutable std::mutex mutex_;
};

}  // namespace dgrt
