// A file that appears at its path whole or not at all, and never in place of something that is not ours. Used for files that
// a user names: a device, pipe, socket or folder is refused, a symbolic link stays one, mode and owner of what is
// replaced are kept. dgrt/files.py has the same rules for Python; both call their part files alike, so each removes
// what a killed process of the other left.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace dgrt {

// Which regular files may be replaced. An empty one always may.
enum class Overwrite {
  kOwnFiles,    // those of the same kind
  kOtherFiles,  // any
};

// Throws InvalidArgument unless `path` is a regular file: opening a pipe would wait for its other end. `kind`: for the text.
void RequireRegularFile(std::string_view kind, const std::string& path);

class OutputFile {
 public:
  // `magic`: what files of this kind begin with. `bytes`: how many will be written. Throws InvalidArgument for a path that
  // cannot or must not be written, DeviceError if there is no room.
  OutputFile(std::string_view kind, const std::string& path, std::string_view magic, int64_t bytes, Overwrite overwrite);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void Write(std::span<const std::byte> bytes);
  // Everything is on the disk, and the file is at its path.
  void Finish();

 private:
  [[noreturn]] void Fail() const;
  void CheckRoom(const std::string& folder) const;
  void OpenPart(const std::string& folder);

  const std::string name_;  // kind and path, for the texts
  const int64_t bytes_;
  std::string target_;      // behind all symbolic links
  std::string part_;        // "" when it is gone or has become the target
  int fd_ = -1;             // of the part; its lock says that somebody writes
};

}  // namespace dgrt
