// The folder of a package, held open, and the files in it. Everything is reached through the folder's descriptor: another
// folder that takes its name never mixes with it. Used by package_files.cc and manifest.cc.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <span>
#include <string>

namespace dgrt {

// A file descriptor that is closed with its owner.
class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor();
  Descriptor(Descriptor&& other) noexcept : number_(other.number_) { other.number_ = -1; }
  Descriptor& operator=(Descriptor&&) = delete;

  int number() const { return number_; }

 private:
  int number_;
};

// A regular file, open for reading.
class PackageFile {
 public:
  PackageFile(Descriptor descriptor, std::string path) : descriptor_(std::move(descriptor)), path_(std::move(path)) {}

  int descriptor() const { return descriptor_.number(); }
  const std::string& path() const { return path_; }
  // As it is now.
  struct stat Status() const;
  // Throws ContractMismatch if the file ends before.
  void Read(int64_t offset, std::span<std::byte> into) const;

 private:
  Descriptor descriptor_;
  std::string path_;  // for messages
};

class PackageDir {
 public:
  // Throws InvalidArgument unless `dir` is a folder.
  explicit PackageDir(const std::string& dir);

  // Where the folder was when it was opened; symbolic links resolved.
  const std::string& path() const { return path_; }
  std::string PathOf(const std::string& name) const { return path_ + "/" + name; }
  // A name under which this very folder can be reached as long as the object lives, for those who open by path.
  std::string LivePath() const;
  // Where the folder is now, as far as /proc tells.
  std::string CurrentPath() const;

  // What stands under a name, links not followed; false if nothing does.
  bool Find(const std::string& name, struct stat& status) const;
  // Throws ContractMismatch unless it is a regular file, in the folder itself. `expected` is for the message.
  PackageFile Open(const std::string& name, const std::string& expected) const;

 private:
  Descriptor descriptor_;
  std::string path_;
};

}  // namespace dgrt
