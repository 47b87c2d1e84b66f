// Implementation of package_files.h.
#include "engine/package_files.h"

#include <algorithm>
#include <array>
#include <ctime>

#include "common/sha256.h"
#include "engine/contract.h"
#include "engine/weight_sample.h"

namespace dgrt {
namespace {

constexpr size_t kMaxFiles = 4096;
constexpr int64_t kMaxFileBytes = int64_t{1} << 50;
constexpr int64_t kMaxReadBytes = INT32_MAX;  // a protobuf message cannot be larger

// A plain name: it cannot leave the folder. ONNX Runtime applies a rule of the same strength to external data.
bool IsPlainName(const std::string& name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
         name.find_first_of(std::string("/\\\0", 3)) == std::string::npos;
}

std::string ReadSha256(const JsonObject& object, const char* key) {
  std::string text = object.String(key);
  const bool is_hex = std::all_of(text.begin(), text.end(),
                                  [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  if (text.size() != 64 || !is_hex) {
    JsonObject::Fail(object.PathOf(key), "64 lower-case hexadecimal digits", object.At(key));
  }
  return text;
}

// When a file changed, and what to do about it.
std::string ChangeOf(const PackageFile& file) {
  const struct stat status = file.Status();
  struct tm utc {};
  std::array<char, 64> time{};
  if (::gmtime_r(&status.st_mtim.tv_sec, &utc) != nullptr) {
    std::strftime(time.data(), time.size(), "%Y-%m-%d %H:%M:%S UTC", &utc);
  }
  std::string text =
      Message(" (last written ", time.data(), "); copy the package again or export the checkpoint again");
  if (status.st_nlink > 1) {
    text += Message(". The file is shared by hard link (", status.st_nlink,
                    " names, such as the checkpoint's): something wrote into it; `dgrt export --copy` makes an engine of "
                    "its own");
  }
  return text;
}

bool SameFile(const struct stat& a, const struct stat& b) { return a.st_dev == b.st_dev && a.st_ino == b.st_ino; }

bool SameTime(const struct timespec& a, const struct timespec& b) { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }

}  // namespace

PackageFiles::PackageFiles(PackageDir dir, const JsonObject& manifest) : dir_(std::move(dir)) {
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
    entry.sha256 = ReadSha256(object, "sha256");
    entries_.emplace(name, std::move(entry));
  }
  for (const auto& value : manifest.Array("weight_files")) {
    if (!value.is_string() || !entries_.contains(value.get<std::string>())) {
      JsonObject::Fail(manifest.PathOf("weight_files"), "names that `files` lists", value);
    }
    const auto name = value.get<std::string>();
    entries_.at(name).sample = ReadSha256(files.Object(name.c_str()), "sample");
  }
  for (auto& [name, entry] : entries_) {
    PackageFile file = OpenChecked(name, entry);
    if (entry.sample.empty()) continue;
    entry.status = file.Status();
    entry.file.emplace(std::move(file));
  }
}

PackageFile PackageFiles::OpenChecked(const std::string& name, const Entry& entry) const {
  PackageFile file = dir_.Open(name, Message("a file of ", entry.bytes, " bytes"));
  CheckSize(file, entry);
  return file;
}

void PackageFiles::CheckSize(const PackageFile& file, const Entry& entry) {
  const int64_t size = file.Status().st_size;
  if (size == entry.bytes) return;
  throw ContractMismatch(Message(file.path(), ": expected ", entry.bytes, " bytes, found ", size, ChangeOf(file)));
}

int64_t PackageFiles::Bytes(const std::string& name, const std::string& user) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) {
    throw ContractMismatch(Message("manifest.json: ", user, ": expected a name that `files` lists, found '", name, "'"));
  }
  return found->second.bytes;
}

bool PackageFiles::IsWeightFile(const std::string& name) const { return entries_.at(name).file.has_value(); }

std::string PackageFiles::Hash() const {
  std::string text;
  for (const auto& [name, entry] : entries_) text += entry.sha256 + " " + name + "\n";
  return Sha256Hex(std::as_bytes(std::span(text)));
}

int64_t PackageFiles::weight_bytes() const {
  int64_t total = 0;
  for (const auto& [name, entry] : entries_) total += entry.file ? entry.bytes : 0;
  return total;
}

void PackageFiles::CheckHashes(bool verify_weights) const {
  for (const auto& [name, entry] : entries_) {
    if (!entry.file) {
      CheckAll(OpenChecked(name, entry), entry);
      continue;
    }
    CheckSample(entry);
    if (verify_weights) CheckAll(*entry.file, entry);
  }
}

void PackageFiles::CheckSample(const Entry& entry) {
  if (SampleOf(*entry.file, entry.bytes) == entry.sample) return;
  throw ContractMismatch(
      Message(entry.file->path(), ": expected the bytes that were exported, found others", ChangeOf(*entry.file)));
}

void PackageFiles::CheckAll(const PackageFile& file, const Entry& entry) {
  Sha256 hash;
  HashRange(file, 0, entry.bytes, hash);
  RequireHash(hash.Hex(), file, entry);
}

void PackageFiles::RequireHash(const std::string& found, const PackageFile& file, const Entry& entry) {
  if (found == entry.sha256) return;
  throw ContractMismatch(Message(file.path(), ": SHA-256: expected ", entry.sha256, ", found ", found, ChangeOf(file)));
}

std::string PackageFiles::Read(const std::string& name) const {
  Bytes(name, "a file to read");
  const Entry& entry = entries_.at(name);
  if (entry.file) throw InvalidArgument(Message(PathOf(name), ": expected a graph or text, found a weight file"));
  if (entry.bytes > kMaxReadBytes) {
    throw ContractMismatch(Message(PathOf(name), ": expected at most ", kMaxReadBytes, " bytes, found ", entry.bytes));
  }
  const PackageFile file = OpenChecked(name, entry);
  std::string content(static_cast<size_t>(entry.bytes), '\0');
  const auto bytes = std::as_writable_bytes(std::span(content));
  file.Read(0, bytes);
  RequireHash(Sha256Hex(bytes), file, entry);
  return content;
}

const PackageFile& PackageFiles::Weights(const std::string& name) const { return *entries_.at(name).file; }

void PackageFiles::RequireUnwritten() const {
  const std::lock_guard lock(mutex_);
  for (const auto& [name, entry] : entries_) {
    if (!entry.file) continue;
    const struct stat now = entry.file->Status();
    const bool is_old = now.st_size == entry.status.st_size && SameTime(now.st_mtim, entry.status.st_mtim) &&
                        SameTime(now.st_ctim, entry.status.st_ctim);
    if (is_old) continue;
    CheckSize(*entry.file, entry);
    CheckSample(entry);  // times also change with the file's links and mode
    entry.status = now;
  }
}

void PackageFiles::RequireSameWeights() const {
  for (const auto& [name, entry] : entries_) {
    if (!entry.file) continue;
    struct stat named {};
    const bool is_there = dir_.Find(name, named);
    if (is_there && SameFile(named, entry.file->Status())) continue;
    throw ContractMismatch(Message(PathOf(name), ": expected the file that was opened with the engine, found ",
                                   is_there ? "another" : "none",
                                   "; the package was deleted or replaced since: open the engine again"));
  }
  RequireUnwritten();
}

}  // namespace dgrt
