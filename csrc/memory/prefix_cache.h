// KV rows of prompts, kept for later requests that begin with the same tokens. A tree of chunks: a node is one chunk of
// tokens behind the chunk of its parent, found by hash and compared in full. What a sequence gets is bit for bit what
// its own prefill would write, because prompts are cut into the same chunks whatever follows: only whole chunks that a
// prefill has computed from token 0 on may be given to Insert. Any thread. Called by runtime/prefix.cc; knows nothing
// of engines: whose rows these are is the caller's key.
//
// A node has the rows of the full layers, which every longer prompt needs, and those of the sliding layers, which only
// a prompt needs that goes on right behind. So a resume point is a border with all full parts on its path and the
// window parts that its windows see. Using one touches just these; what goes first is what was not touched for longest,
// among window parts and the full parts of leaves.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/kv_view.h"
#include "common/output_file.h"
#include "memory/kv_block.h"
#include "memory/kv_layout.h"
#include "memory/memory_budget.h"
#include "memory/memory_stats.h"

namespace dgrt {

// The first num_tokens tokens of a prompt are in these chunks.
struct PrefixMatch {
  int64_t num_tokens = 0;
  std::vector<KvChunk> chunks;
};

class PrefixCache {
 public:
  // `key` names the engine and everything else that the bits of a row depend on; it is compared when a snapshot is
  // loaded. `limit_bytes`: most bytes of parts, at least one chunk's. `budget` outlives the cache, the cache every use
  // of its blocks. Throws Unsupported where rows of a chunk do not fill pages, or the system lacks what is needed;
  // InvalidArgument for a limit below one chunk.
  PrefixCache(std::span<const KvLayerShape> shapes, int64_t chunk_tokens, int64_t limit_bytes, std::string key,
              MemoryBudget* budget);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  const KvChunkLayout& layout() const { return layout_; }

  // The longest resume point at or before max_tokens.
  PrefixMatch Find(std::span<const int32_t> prompt, int64_t max_tokens);

  // Keeps the rows of the last chunk of `tokens` (whole chunks, from the start of the prompt) as they lie in `rows`.
  // Returns what the cache now holds of that chunk, for KvCache::Share; nothing where it was not kept: no room, or the
  // chunk before it is gone. Never throws for want of memory.
  std::optional<KvChunk> Insert(std::span<const int32_t> tokens, std::span<const KvLayerView> rows);

  // Evicts parts that no sequence uses, until that many bytes are free or nothing is left; returns how many there were.
  int64_t EvictUnused(int64_t bytes);

  // Forgets everything. Sequences keep what they use.
  void Clear();

  PrefixStats stats() const;

  // Writes all that is held into one file, which appears whole or not at all. Throws InvalidArgument for a path that
  // cannot or must not be written (common/output_file.h), DeviceError if there is no room.
  void Save(const std::string& path, Overwrite overwrite = Overwrite::kOwnFiles) const;

  // Adds what Save wrote, the most recently used first, as far as there is room: nothing that is held goes. Returns the
  // chunks added. Throws ContractMismatch with expected and found for a file that is damaged, of another version,
  // engine or machine; nothing has changed then.
  int64_t Load(const std::string& path);

  // For tests: the first rule of the tree that is broken, in words; empty when all hold.
  std::string BrokenInvariant() const;

 private:
  struct Node {
    Node* parent = nullptr;  // null: the first chunk of a prompt
    uint64_t hash = 0;       // of the tokens from the start of the prompt
    int64_t depth = 1;       // chunks from the start of the prompt, this one included
    int64_t num_children = 0;
    std::vector<int32_t> tokens;
    KvChunk parts;           // full: always there
    uint64_t full_used = 0, window_used = 0;  // clock_ of the last use
  };
  // What goes next: the window part of a node, or the node as a whole.
  struct Victim {
    Node* node = nullptr;
    bool is_window_only = false;
  };
  // Parts that must stay while a chunk behind `path` is stored: the resume point at its end.
  using Kept = std::unordered_map<const Node*, bool>;  // true: the window part too

  std::vector<Node*> Path(std::span<const int32_t> tokens) const;
  Node* Child(const Node* parent, uint64_t hash, std::span<const int32_t> tokens) const;
  int64_t ResumeChunks(std::span<Node* const> path) const;
  void Touch(std::span<Node* const> path);
  int64_t BytesOf(const KvChunk& parts) const;
  Kept KeptFor(std::span<Node* const> path) const;
  bool MakeRoom(int64_t bytes, const Kept& kept);
  template <typename May>
  Victim OldestPart(May may) const;
  int64_t Evict(const Victim& victim);
  int64_t EvictOneUnused(const Kept& kept);
  std::shared_ptr<KvBlock> CopyRows(std::span<const KvLayerView> rows, int64_t begin, bool of_windows,
                                    const Kept& kept);
  struct Record;  // of one node in a snapshot
  std::vector<Record> Records() const;
  std::vector<Record> ReadRecords(const std::string& path);
  Node* AddNode(Node* parent, uint64_t hash, std::span<const int32_t> tokens, KvChunk parts);

  const std::vector<bool> is_window_;  // per layer
  const KvChunkLayout layout_;
  const int64_t limit_bytes_;
  const std::string key_;
  MemoryBudget* const budget_;
  KvBlockStore store_;

  // Rows are copied under it: another session's lookup may wait for one chunk to be copied, far less than to compute
  // it.
  mutable std::mutex mutex_;
  std::unordered_multimap<uint64_t, std::unique_ptr<Node>> nodes_;  // by hash; all below guarded by mutex_
  uint64_t clock_ = 0;
  PrefixStats stats_;
};

}  // namespace dgrt
