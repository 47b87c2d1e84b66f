// Implementation of memory/kv_block.h.
#include "memory/kv_block.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/check.h"

namespace dgrt {

KvBlock::~KvBlock() {
  if (bytes_ > 0 && store_->home_.IsHere()) {
    fallocate(store_->fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset_, bytes_);
  }
  store_->budget_->Release(MemoryUse::kPrefixes, bytes_);
}

bool KvBlock::Map(int64_t from, int64_t size, void* address) const noexcept {
  return mmap(address, static_cast<size_t>(size), PROT_READ, MAP_SHARED | MAP_FIXED, store_->fd_, offset_ + from) !=
         MAP_FAILED;
}

// Written through the file and not through a mapping, where memory that is not to be had would end the process.
bool KvBlock::Write(int64_t at, std::span<const std::byte> bytes) noexcept {
  while (!bytes.empty()) {
    const ssize_t written = pwrite(store_->fd_, bytes.data(), bytes.size(), offset_ + at);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(written));
    at += written;
  }
  return true;
}

void KvBlock::Read(int64_t at, std::span<std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t got = pread(store_->fd_, bytes.data(), bytes.size(), offset_ + at);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) throw DeviceError(Message("prefix cache: cannot read a block: ", std::strerror(errno)));
    bytes = bytes.subspan(static_cast<size_t>(got));
    at += got;
  }
}

KvBlockStore::KvBlockStore(MemoryBudget* budget)
    : budget_(budget), fd_(memfd_create("dgrt prefix cache", MFD_CLOEXEC)) {
  if (fd_ < 0) throw Unsupported(Message("prefix cache: the system has no files in memory: ", std::strerror(errno)));
}

KvBlockStore::~KvBlockStore() { close(fd_); }

std::shared_ptr<KvBlock> KvBlockStore::NewBlock(int64_t bytes) {
  if (!budget_->TryCharge(MemoryUse::kPrefixes, bytes)) return nullptr;
  std::unique_ptr<KvBlock> block;
  try {
    block.reset(new KvBlock(this, end_.fetch_add(bytes), bytes));
  } catch (...) {
    budget_->Release(MemoryUse::kPrefixes, bytes);
    throw;
  }
  return block;
}

}  // namespace dgrt
