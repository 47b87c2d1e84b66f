// Implementation of package_files.h.
#include "engine/package_files.h"

#include <algorithm>

#include "engine/contract.h"
#include "engine/mapped_file.h"
#include "common/sha256.h"

namespace dgrt {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxFiles = 4096;
constexpr int64_t kMaxFileBytes = int64_t{1} << 50;

// A plain name: it cannot leave the folder. ONNX Runtime applies a rule of the same strength to external data.
bool IsPlainName(const std::string& name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
         name.find_first_of(std::string("/\\\0", 3)) == std::string::npos;
}

bool IsSha256(const std::string& text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

}  // namespace

PackageFiles::PackageFiles(fs::path dir, const JsonObject& manifest) : dir_(std::move(dir)) {
  const JsonObject files = manifest.Object("files");
  if (files.raw().size() > kMaxFiles) {
    throw ContractMismatch(Message("manifest.json: files: expected at most ", kMaxFiles, " entries, found ",
                                   files.raw().size()));
  }
  for (const auto& [name, value] : files.raw().items()) {
    if (!IsPlainName(name) || name == contract::kManifestFile) {
      throw ContractMismatch(Message("manifest.json: files: expected the name of a file directly in the package folder, "
                                     "found '", name, "'"));
    }
    const JsonObject object(value, files.PathOf(name));
    Entry entry;
    entry.bytes = object.Integer("bytes", 0, kMaxFileBytes);
    entry.sha256 = object.String("sha256");
    if (!IsSha256(entry.sha256)) {
      JsonObject::Fail(object.PathOf("sha256"), "64 lower-case hexadecimal digits", object.At("sha256"));
    }
    entries_.emplace(name, std::move(entry));
  }
  for (const auto& value : manifest.Array("weight_files")) {
    if (!value.is_string() || !entries_.contains(value.get<std::string>())) {
      JsonObject::Fail(manifest.PathOf("weight_files"), "names that `files` lists", value);
    }
    entries_.at(value.get<std::string>()).is_weights = true;
  }
  for (const auto& [name, entry] : entries_) CheckPlace(name, entry);
}

void PackageFiles::CheckPlace(const std::string& name, const Entry& entry) const {
  const fs::path path = dir_ / name;
  std::error_code error;
  const fs::path real = fs::canonical(path, error);
  if (error) {
    throw ContractMismatch(Message(path.string(), ": expected a file of ", entry.bytes, " bytes, found none (",
                                   error.message(), ")"));
  }
  // A link inside the folder is harmless; one that leaves it would also be refused by ONNX Runtime, less clearly.
  if (real.parent_path() != dir_) {
    throw ContractMismatch(Message(path.string(), ": expected a file inside the package folder, found a link to ",
                                   real.string(), "; copy or hard-link the file instead"));
  }
  if (!fs::is_regular_file(real, error)) {
    throw ContractMismatch(Message(path.string(), ": expected a regular file, found something else"));
  }
  const uintmax_t size = fs::file_size(real, error);
  if (error || size != static_cast<uintmax_t>(entry.bytes)) {
    throw ContractMismatch(Message(path.string(), ": expected ", entry.bytes, " bytes, found ",
                                   error ? error.message() : std::to_string(size)));
  }
}

int64_t PackageFiles::Bytes(const std::string& name, const std::string& user) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) {
    throw ContractMismatch(Message("manifest.json: ", user, ": expected a name that `files` lists, found '", name, "'"));
  }
  return found->second.bytes;
}

void PackageFiles::CheckHash(const std::string& name) const {
  const fs::path path = dir_ / name;
  const std::string found = Sha256Hex(MappedFile(path.string()).bytes());
  const std::string& expected = entries_.at(name).sha256;
  if (found != expected) {
    throw ContractMismatch(Message(path.string(), ": SHA-256: expected ", expected, ", found ", found));
  }
}

void PackageFiles::CheckHashes(bool verify_weights) const {
  for (const auto& [name, entry] : entries_) {
    if (!entry.is_weights || verify_weights) CheckHash(name);
  }
}

bool PackageFiles::IsWeightFile(const std::string& name) const { return entries_.at(name).is_weights; }

std::string PackageFiles::Hash() const {
  std::string text;
  for (const auto& [name, entry] : entries_) text += entry.sha256 + " " + name + "\n";
  return Sha256Hex(std::as_bytes(std::span(text)));
}

int64_t PackageFiles::weight_bytes() const {
  int64_t total = 0;
  for (const auto& [name, entry] : entries_) total += entry.is_weights ? entry.bytes : 0;
  return total;
}

}  // namespace dgrt
