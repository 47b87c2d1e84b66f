// KV rows that several sequences may read at once: a range of an anonymous file in memory (memfd), which each of them
// maps read-only into its own addresses. Copy on write is never needed, because whole chunks are shared and nobody
// appends inside one; a stray write stops the program. Used by prefix_cache (writes, keeps) and kv_cache (maps).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "common/home_process.h"
#include "memory/memory_budget.h"

namespace dgrt {

class KvBlockStore;

// Lives as long as the cache holds it or a sequence maps it; its memory goes back to the system with the last of them.
class KvBlock {
 public:
  ~KvBlock();
  KvBlock(const KvBlock&) = delete;
  KvBlock& operator=(const KvBlock&) = delete;

  int64_t bytes() const { return bytes_; }
  // Maps bytes [from, from + size) at `address`, in place of what is mapped there. Multiples of the page size. False if
  // the system refuses.
  bool Map(int64_t from, int64_t size, void* address) const noexcept;
  bool Write(int64_t at, std::span<const std::byte> bytes) noexcept;  // before the block is shared
  void Read(int64_t at, std::span<std::byte> bytes) const;            // throws DeviceError

 private:
  friend class KvBlockStore;
  KvBlock(KvBlockStore* store, int64_t offset, int64_t bytes) : store_(store), offset_(offset), bytes_(bytes) {}

  KvBlockStore* const store_;
  const int64_t offset_;
  const int64_t bytes_;
};

// Any thread. One file descriptor for all blocks: a block takes the next range of the file, which is sparse and never
// reuses one, and punches a hole when it dies. What is bounded is the number of mappings of a process, 65,530 by
// default (vm.max_map_count): a sequence has two per layer and shared chunk.
class KvBlockStore {
 public:
  // Throws Unsupported if the system has no such files. `budget` outlives the store, the store its blocks.
  explicit KvBlockStore(MemoryBudget* budget);
  ~KvBlockStore();
  KvBlockStore(const KvBlockStore&) = delete;
  KvBlockStore& operator=(const KvBlockStore&) = delete;

  // Null where the budget does not allow it (nobody is asked to give anything back).
  std::shared_ptr<KvBlock> NewBlock(int64_t bytes);

 private:
  friend class KvBlock;

  MemoryBudget* const budget_;
  int fd_ = -1;
  std::atomic<int64_t> end_{0};  // of the file
  HomeProcess home_;             // a child of fork() shares the file: it must not punch holes into it
};

// What a sequence and the cache share of one chunk.
struct KvChunk {
  std::shared_ptr<const KvBlock> full;
  std::shared_ptr<const KvBlock> window;  // null: not there, or no longer
};

}  // namespace dgrt
