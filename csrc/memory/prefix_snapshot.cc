// PrefixCache::Save and Load: one little-endian file.
//   magic, version (uint32), bytes of the file (uint64), key (uint32 length and text), chunk_tokens, full_bytes,
//   window_bytes, number of nodes (int64 each)
//   per node, parents first: parent (int64, -1: none), full_used, window_used (uint64), has_window (int64), tokens
//   (int32 each), rows of the full layers, rows of the sliding layers if has_window
//   SHA-256 of all that, 64 hexadecimal digits
// A snapshot is input from outside: it is read into blocks of its own, and only when the hash at its end is right do
// they become part of the cache.
#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <type_traits>
#include <utility>

#include "common/check.h"
#include "common/output_file.h"
#include "common/sha256.h"
#include "memory/prefix_cache.h"
#include "memory/prefix_hash.h"

namespace dgrt {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr char kKind[] = "prefix snapshot";
constexpr char kMagic[8] = {'d', 'g', 'r', 't', ' ', 'k', 'v', '\n'};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kMaxKeyBytes = 1 << 16;
constexpr int64_t kHashBytes = 64;
constexpr int64_t kMaxNodes = int64_t{1} << 32;
constexpr uint64_t kMaxClock = uint64_t{1} << 62;
constexpr size_t kPieceBytes = 1 << 20;

class SnapshotWriter {
 public:
  SnapshotWriter(const std::string& path, uint64_t bytes, Overwrite overwrite)
      : file_(kKind, path, std::string_view(kMagic, sizeof(kMagic)), static_cast<int64_t>(bytes), overwrite) {}

  void Write(std::span<const std::byte> bytes) {
    sha256_.Update(bytes);
    file_.Write(bytes);
  }
  template <typename T>
  void Put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    Write(std::as_bytes(std::span(&value, 1)));
  }
  void Finish() {
    const std::string hex = sha256_.Hex();
    file_.Write(std::as_bytes(std::span(hex.data(), hex.size())));
    file_.Finish();
  }

 private:
  OutputFile file_;
  Sha256 sha256_;
};

class SnapshotReader {
 public:
  explicit SnapshotReader(const std::string& path) : path_(path) {
    RequireRegularFile(kKind, path);
    file_.open(path, std::ios::binary);
    std::error_code error;
    const uintmax_t size = std::filesystem::file_size(path, error);
    if (error || !file_) {
      throw InvalidArgument(Message("prefix snapshot '", path, "': cannot read: ",
                                    error ? error.message() : std::strerror(errno)));
    }
    file_bytes_ = static_cast<int64_t>(size);
    left_ = file_bytes_ - kHashBytes;
  }

  int64_t file_bytes() const { return file_bytes_; }

  template <typename Expected, typename Found>
  [[noreturn]] void Fail(const char* what, const Expected& expected, const Found& found) const {
    throw ContractMismatch(
        Message("prefix snapshot '", path_, "': ", what, ": expected ", expected, ", found ", found));
  }
  template <typename T>
  void Expect(const char* what, const T& expected, const T& found) const {
    if (!(found == expected)) Fail(what, expected, found);
  }

  void Read(std::span<std::byte> bytes) {
    const auto size = static_cast<int64_t>(bytes.size());
    if (size > left_) {
      Fail("contents", Message(size, " more bytes"), Message(std::max<int64_t>(0, left_), ": it is cut short"));
    }
    ReadRaw(bytes);
    left_ -= size;
    sha256_.Update(bytes);
  }
  template <typename T>
  T Get() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value;
    Read(std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  // The hash at the end of the file is that of all before it.
  void Finish() {
    if (left_ != 0) Fail("contents", "the hash behind the last node", Message(left_, " bytes more"));
    std::string stated(static_cast<size_t>(kHashBytes), ' ');
    ReadRaw(std::as_writable_bytes(std::span(stated.data(), stated.size())));
    if (const std::string found = sha256_.Hex(); found != stated) {
      Fail("SHA-256", Printable(stated), Message(found, ": it is damaged"));
    }
  }
  static std::string Printable(std::string text) {
    std::replace_if(text.begin(), text.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
    return text;
  }

 private:
  void ReadRaw(std::span<std::byte> bytes) {
    file_.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    if (!file_) Fail("contents", Message(bytes.size(), " more bytes"), "the end of the file");
  }

  const std::string path_;
  std::ifstream file_;
  int64_t file_bytes_ = 0;
  int64_t left_ = 0;  // bytes before the hash
  Sha256 sha256_;
};

void WriteBlock(SnapshotWriter& file, const KvBlock& block, std::vector<std::byte>& piece) {
  for (int64_t at = 0; at < block.bytes(); at += static_cast<int64_t>(piece.size())) {
    piece.resize(std::min(kPieceBytes, static_cast<size_t>(block.bytes() - at)));
    block.Read(at, piece);
    file.Write(piece);
  }
}

// Into `block`; null: read for the hash only. False where the block cannot hold it.
bool ReadBlock(SnapshotReader& file, int64_t bytes, KvBlock* block, std::vector<std::byte>& piece) {
  bool kept = block != nullptr;
  for (int64_t at = 0; at < bytes; at += static_cast<int64_t>(piece.size())) {
    piece.resize(std::min(kPieceBytes, static_cast<size_t>(bytes - at)));
    file.Read(piece);
    kept = kept && block->Write(at, piece);
  }
  return kept;
}

}  // namespace

struct PrefixCache::Record {
  int64_t parent = -1;  // index of the record, which comes before
  uint64_t full_used = 0, window_used = 0;
  std::vector<int32_t> tokens;
  KvChunk parts;
};

// The most recently used first; parents before children, because using a node uses its parent.
std::vector<PrefixCache::Record> PrefixCache::Records() const {
  const std::lock_guard lock(mutex_);
  std::vector<const Node*> nodes;
  for (const auto& [hash, node] : nodes_) nodes.push_back(node.get());
  std::sort(nodes.begin(), nodes.end(), [](const Node* a, const Node* b) {
    return a->full_used != b->full_used ? a->full_used > b->full_used : a->depth < b->depth;
  });
  std::unordered_map<const Node*, int64_t> index;
  std::vector<Record> records;
  for (const Node* node : nodes) {
    index[node] = static_cast<int64_t>(records.size());
    records.push_back({node->parent != nullptr ? index.at(node->parent) : -1, node->full_used, node->window_used,
                       node->tokens, node->parts});
  }
  return records;
}

void PrefixCache::Save(const std::string& path, Overwrite overwrite) const {
  const std::vector<Record> records = Records();  // holds the blocks, so the rest needs no lock
  uint64_t bytes = sizeof(kMagic) + sizeof(kVersion) + sizeof(bytes) + sizeof(uint32_t) + key_.size();
  bytes += 4 * sizeof(int64_t) + static_cast<uint64_t>(kHashBytes);
  for (const Record& record : records) {
    bytes += 4 * sizeof(int64_t) + std::as_bytes(std::span(record.tokens)).size();
    bytes += static_cast<uint64_t>(BytesOf(record.parts));
  }
  SnapshotWriter file(path, bytes, overwrite);
  file.Put(kMagic);
  file.Put(kVersion);
  file.Put(bytes);
  file.Put(static_cast<uint32_t>(key_.size()));
  file.Write(std::as_bytes(std::span(key_.data(), key_.size())));
  for (const int64_t number : {layout_.chunk_tokens, layout_.full_bytes, layout_.window_bytes,
                               static_cast<int64_t>(records.size())}) {
    file.Put(number);
  }
  std::vector<std::byte> piece;
  for (const Record& record : records) {
    file.Put(record.parent);
    file.Put(record.full_used);
    file.Put(record.window_used);
    file.Put(static_cast<int64_t>(record.parts.window != nullptr));
    file.Write(std::as_bytes(std::span(record.tokens)));
    WriteBlock(file, *record.parts.full, piece);
    if (record.parts.window != nullptr) WriteBlock(file, *record.parts.window, piece);
  }
  file.Finish();
}

// Reads the whole file, into blocks as far as there is room now; throws if anything about it is wrong.
std::vector<PrefixCache::Record> PrefixCache::ReadRecords(const std::string& path) {
  SnapshotReader file(path);
  char magic[sizeof(kMagic)];
  file.Read(std::as_writable_bytes(std::span(magic)));
  if (std::memcmp(magic, kMagic, sizeof(kMagic)) != 0) {
    file.Fail("format", "a prefix snapshot of dgrt", "another kind of file");
  }
  file.Expect("version", kVersion, file.Get<uint32_t>());
  file.Expect("bytes", file.Get<uint64_t>(), static_cast<uint64_t>(file.file_bytes()));
  const auto key_bytes = file.Get<uint32_t>();
  if (key_bytes > kMaxKeyBytes) file.Fail("key", Message("at most ", kMaxKeyBytes, " bytes"), key_bytes);
  std::string key(key_bytes, ' ');
  file.Read(std::as_writable_bytes(std::span(key.data(), key.size())));
  file.Expect("engine and machine", key_, SnapshotReader::Printable(key));
  file.Expect("tokens per chunk", layout_.chunk_tokens, file.Get<int64_t>());
  file.Expect("bytes of full layers", layout_.full_bytes, file.Get<int64_t>());
  file.Expect("bytes of sliding layers", layout_.window_bytes, file.Get<int64_t>());
  const auto num_records = file.Get<int64_t>();
  if (num_records < 0 || num_records > kMaxNodes) file.Fail("chunks", Message("0 to ", kMaxNodes), num_records);

  int64_t room = limit_bytes_ - stats().bytes;
  const auto read_part = [&](int64_t bytes, std::vector<std::byte>& piece) -> std::shared_ptr<const KvBlock> {
    std::shared_ptr<KvBlock> block = bytes <= room ? store_.NewBlock(bytes) : nullptr;
    if (!ReadBlock(file, bytes, block.get(), piece)) return nullptr;
    room -= bytes;
    return block;
  };
  std::vector<Record> records;
  std::vector<std::byte> piece;
  for (int64_t i = 0; i < num_records; ++i) {
    Record& record = records.emplace_back();
    record.parent = file.Get<int64_t>();
    if (record.parent < -1 || record.parent >= i) file.Fail("parent", Message("-1 to ", i - 1), record.parent);
    record.full_used = file.Get<uint64_t>();
    const uint64_t latest = record.parent >= 0 ? records[static_cast<size_t>(record.parent)].full_used : kMaxClock;
    if (record.full_used > latest) file.Fail("use of a chunk", Message("at most ", latest), record.full_used);
    record.window_used = file.Get<uint64_t>();
    if (record.window_used > record.full_used) file.Fail("use of a window", record.full_used, record.window_used);
    const auto has_window = file.Get<int64_t>();
    if (has_window < 0 || has_window > (layout_.window_bytes > 0 ? 1 : 0)) file.Fail("window", "0 or 1", has_window);
    record.tokens.resize(static_cast<size_t>(layout_.chunk_tokens));
    file.Read(std::as_writable_bytes(std::span(record.tokens)));
    record.parts.full = read_part(layout_.full_bytes, piece);
    if (has_window != 0) record.parts.window = read_part(layout_.window_bytes, piece);
  }
  file.Finish();
  return records;
}

int64_t PrefixCache::Load(const std::string& path) {
  std::vector<Record> records = ReadRecords(path);
  const std::lock_guard lock(mutex_);
  std::vector<Node*> nodes;  // one per record; null: there is no room for it
  const uint64_t clock = clock_;  // of what is held: everything in the file counts as used after it, in its own order
  const int64_t stored_before = stats_.stored_chunks;
  for (Record& record : records) {
    Node*& node = nodes.emplace_back();
    Node* parent = record.parent >= 0 ? nodes[static_cast<size_t>(record.parent)] : nullptr;
    if (record.parent >= 0 && parent == nullptr) continue;
    const uint64_t hash = PrefixHash(parent != nullptr ? parent->hash : 0, record.tokens);
    node = Child(parent, hash, record.tokens);
    if (node == nullptr && record.parts.full != nullptr && stats_.bytes + BytesOf(record.parts) <= limit_bytes_) {
      node = AddNode(parent, hash, record.tokens, record.parts);
    }
    if (node == nullptr) continue;
    if (node->parts.window == nullptr && record.parts.window != nullptr &&
        stats_.bytes + layout_.window_bytes <= limit_bytes_) {
      node->parts.window = record.parts.window;
      stats_.bytes += layout_.window_bytes;
    }
    node->full_used = clock + record.full_used;
    node->window_used = clock + record.window_used;
    clock_ = std::max(clock_, node->full_used);
  }
  return stats_.stored_chunks - stored_before;
}

}  // namespace dgrt
