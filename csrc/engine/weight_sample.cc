// Implementation of weight_sample.h. Twin: sample_of in export/dgrt_export/manifest.py.
#include "engine/weight_sample.h"

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "common/json_reader.h"
#include "engine/contract.h"

namespace dgrt {
namespace {

constexpr int64_t kChunkBytes = 1 << 20;
constexpr int64_t kLengthBytes = 8;               // of the number before the header
constexpr int64_t kMaxHeaderBytes = 100'000'000;  // the format allows no more

// The text of a safetensors header; nothing if the file does not begin with one.
std::optional<std::string> ReadHeader(const PackageFile& file, int64_t bytes) {
  std::array<std::byte, kLengthBytes> length;
  file.Read(0, length);
  uint64_t header_bytes = 0;
  for (size_t i = 0; i < length.size(); ++i) header_bytes |= std::to_integer<uint64_t>(length[i]) << (8 * i);
  if (header_bytes > static_cast<uint64_t>(std::min(kMaxHeaderBytes, bytes - kLengthBytes))) return std::nullopt;
  std::string text(header_bytes, '\0');
  file.Read(kLengthBytes, std::as_writable_bytes(std::span(text)));
  return text;
}

// Where each tensor ends, and the file. Throws ContractMismatch if the header is none.
std::set<int64_t> ReadEnds(const std::string& header, int64_t bytes) {
  const int64_t start = kLengthBytes + std::ssize(header);
  const nlohmann::json document = ParseJson(header, "header");
  std::set<int64_t> ends{bytes};
  for (const auto& [name, value] : JsonObject(document, "header").raw().items()) {
    if (name == "__metadata__") continue;
    const nlohmann::json& offsets = JsonObject(value, name).Array("data_offsets");
    if (offsets.size() != 2) JsonObject::Fail(name, "two offsets", offsets);
    ends.insert(start + JsonObject::IntegerValue(offsets[1], name, 0, bytes - start));
  }
  return ends;
}

void HashTensor(const PackageFile& file, int64_t offset, int64_t bytes, Sha256& hash) {
  const int64_t count = 2 + bytes / contract::kSampleStrideBytes;
  const int64_t room = bytes - contract::kSampleBlockBytes;  // for the first byte of a block
  if (bytes <= count * contract::kSampleBlockBytes) return HashRange(file, offset, bytes, hash);
  for (int64_t i = 0; i < count; ++i) {
    HashRange(file, offset + i * room / (count - 1), contract::kSampleBlockBytes, hash);
  }
}

// Whether the file still has a header, without which it is another file.
bool HashParts(const PackageFile& file, int64_t bytes, Sha256& hash) {
  const std::optional<std::string> header = ReadHeader(file, bytes);
  if (!header) return false;
  std::set<int64_t> ends;
  try {
    ends = ReadEnds(*header, bytes);
  } catch (const ContractMismatch&) {
    return false;
  }
  int64_t start = kLengthBytes + std::ssize(*header);
  HashRange(file, 0, start, hash);
  for (const int64_t end : ends) {
    HashTensor(file, start, end - start, hash);
    start = end;
  }
  return true;
}

}  // namespace

void HashRange(const PackageFile& file, int64_t offset, int64_t bytes, Sha256& hash) {
  std::vector<std::byte> chunk(static_cast<size_t>(std::min(bytes, kChunkBytes)));
  while (bytes > 0) {
    const auto part = std::span(chunk).first(static_cast<size_t>(std::min(bytes, kChunkBytes)));
    file.Read(offset, part);
    hash.Update(part);
    offset += std::ssize(part);
    bytes -= std::ssize(part);
  }
}

std::string SampleOf(const PackageFile& file, int64_t bytes) {
  std::array<std::byte, 8> size;
  for (size_t i = 0; i < size.size(); ++i) size[i] = static_cast<std::byte>(static_cast<uint64_t>(bytes) >> (8 * i));
  Sha256 hash;
  hash.Update(size);
  if (bytes <= contract::kSampleWholeBytes) {
    HashRange(file, 0, bytes, hash);
  } else if (!HashParts(file, bytes, hash)) {
    return "";
  }
  return hash.Hex();
}

}  // namespace dgrt
