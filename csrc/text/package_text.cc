// Implementation of package_text.h.
#include "text/package_text.h"

#include <cstdint>
#include <filesystem>
#include <fstream>

#include "common/check.h"

namespace dgrt {
namespace {
namespace fs = std::filesystem;
constexpr uintmax_t kMaxBytes = 256 << 20;  // Gemma's tokenizer.json, the largest, has 33 MB
}  // namespace

std::optional<std::string> ReadPackageText(const std::string& folder, const std::string& name) {
  const fs::path path = fs::path(folder) / name;
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return std::nullopt;
  const uintmax_t size = fs::file_size(path, error);
  if (error || size > kMaxBytes) {
    throw ContractMismatch(Message(path.string(), ": expected at most ", kMaxBytes, " bytes, found ", size));
  }
  std::string text(size, '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(text.data(), static_cast<std::streamsize>(size))) {
    throw ContractMismatch(Message(path.string(), ": cannot read ", size, " bytes"));
  }
  return text;
}

}  // namespace dgrt
