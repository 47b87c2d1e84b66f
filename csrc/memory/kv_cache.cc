// Implementation of memory/kv_cache.h. Pages outside the committed range are inaccessible (PROT_NONE): an engine that
// reads rows it was not given stops at once instead of computing with them.
#include "memory/kv_cache.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <utility>

#include "common/check.h"

namespace dgrt {
namespace {

int64_t PageBytes() {
  static const int64_t bytes = sysconf(_SC_PAGESIZE);
  return bytes;
}

int64_t PageDown(int64_t bytes) { return bytes / PageBytes() * PageBytes(); }
int64_t PageUp(int64_t bytes) { return PageDown(bytes + PageBytes() - 1); }

bool MapPrivate(unsigned char* address, int64_t bytes, int protection) {
  return mmap(address, static_cast<size_t>(bytes), protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
              -1, 0) != MAP_FAILED;
}

}  // namespace

Reservation::Reservation(Reservation&& other) noexcept : cache_(std::exchange(other.cache_, nullptr)) {}

Reservation& Reservation::operator=(Reservation&& other) noexcept {
  std::swap(cache_, other.cache_);
  return *this;
}

Reservation::~Reservation() {
  if (cache_ != nullptr) cache_->Release();
}

void Reservation::Publish(int64_t num_rows) noexcept {
  if (cache_ != nullptr) std::exchange(cache_, nullptr)->Publish(num_rows);
}

int64_t KvBytes(std::span<const KvLayerShape> layers, int64_t kv_len, int64_t num_rows) {
  int64_t bytes = 0;
  for (const KvLayerShape& layer : layers) {
    bytes += 2 * (PageUp((kv_len + num_rows) * layer.row_bytes()) - PageDown(layer.first(kv_len) * layer.row_bytes()));
  }
  return bytes;
}

KvCache::KvCache(std::vector<KvLayerShape> layers, int64_t max_rows, int64_t memory_limit_bytes, MemoryBudget* budget)
    : shapes_(std::move(layers)),
      views_(shapes_.size()),
      views_after_(shapes_.size()),
      max_rows_(max_rows),
      limit_bytes_(memory_limit_bytes),
      budget_(budget) {
  DGRT_CHECK(max_rows > 0 && memory_limit_bytes >= 0);
  layers_.reserve(shapes_.size());
  for (const KvLayerShape& shape : shapes_) {
    DGRT_CHECK(shape.width > 0 && shape.sliding_window >= 0);
    Layer& layer = layers_.emplace_back();
    layer.shape = &shape;
    layer.reserved_bytes = PageUp(max_rows * layer.row_bytes());
    for (Buffer& buffer : layer.buffers) {
      void* base = mmap(nullptr, static_cast<size_t>(layer.reserved_bytes), PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (base == MAP_FAILED) {
        Unmap();
        throw OutOfMemory(Message("KV memory: the system refused ", layer.reserved_bytes, " bytes of address space for ",
                                  max_rows, " tokens of layer ", layers_.size() - 1));
      }
      buffer.base = static_cast<unsigned char*>(base);
    }
  }
}

KvCache::~KvCache() {
  Unmap();
  current_bytes_ = shared_bytes_ = 0;
  SettleBudget();
}

void KvCache::Unmap() noexcept {
  for (Layer& layer : layers_) {
    for (Buffer& buffer : layer.buffers) {
      if (buffer.base != nullptr) munmap(buffer.base, static_cast<size_t>(layer.reserved_bytes));
      buffer.base = nullptr;
    }
  }
}

void KvCache::RequireFits(int64_t kv_len, int64_t num_rows) const {
  const int64_t needed = KvBytes(shapes_, kv_len, num_rows);
  if (limit_bytes_ > 0 && needed > limit_bytes_) {
    throw OutOfMemory(Message("KV memory: ", kv_len + num_rows, " tokens need ", needed, " bytes, the limit leaves ",
                              limit_bytes_, " (in use: ", current_bytes_, ")"));
  }
  if (budget_ != nullptr && budget_->limit_bytes() > 0 && needed > budget_->limit_bytes()) {
    throw OutOfMemory(Message("KV memory: ", kv_len + num_rows, " tokens need ", needed,
                              " bytes, the limit for all sessions is ", budget_->limit_bytes()));
  }
}

// Charges what the layers grow by when num_rows are reserved, as one sum: of two sessions that each need the last bytes
// one gets them.
void KvCache::RequireBudget(int64_t num_rows) {
  int64_t growth = 0;
  for (const Layer& layer : layers_) {
    const int64_t end = PageUp((kv_len_ + num_rows) * layer.row_bytes());
    for (const Buffer& buffer : layer.buffers) growth += std::max<int64_t>(0, end - buffer.end);
  }
  if (budget_ != nullptr && !budget_->Charge(MemoryUse::kSequences, growth)) {
    throw OutOfMemory(budget_->Refusal(Message("a sequence of ", kv_len_ + num_rows, " tokens"), growth));
  }
  charged_bytes_ += growth;
}

// Gives back what was charged and is no longer held: called at the end of every change.
void KvCache::SettleBudget() noexcept {
  const int64_t held = current_bytes_ - shared_bytes_;
  if (budget_ != nullptr) budget_->Release(MemoryUse::kSequences, charged_bytes_ - held);
  charged_bytes_ = held;
}

Reservation KvCache::Reserve(int64_t num_rows) {
  DGRT_CHECK(num_rows > 0 && num_reserved_ == 0);
  if (kv_len_ + num_rows > max_rows_) {
    throw InternalError(Message("KV memory: ", num_rows, " rows after ", kv_len_, " exceed ", max_rows_));
  }
  RequireFits(kv_len_, num_rows);
  RequireBudget(num_rows);
  for (Layer& layer : layers_) {
    for (Buffer& buffer : layer.buffers) {
      if (Commit(&buffer, PageUp((kv_len_ + num_rows) * layer.row_bytes()))) continue;
      const int64_t in_use = current_bytes_;
      TrimTo(kv_len_);
      SettleBudget();
      throw OutOfMemory(Message("KV memory: ", kv_len_ + num_rows, " tokens need ", KvBytes(shapes_, kv_len_, num_rows),
                                " bytes; the system refused after ", in_use));
    }
  }
  num_reserved_ = num_rows;
  peak_bytes_ = std::max(peak_bytes_, current_bytes_);
  return Reservation(this);
}

std::span<const KvLayerView> KvCache::FillViews(std::vector<KvLayerView>& views, int64_t kv_len) {
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    views[i] = {reinterpret_cast<float*>(layer.buffers[0].base), reinterpret_cast<float*>(layer.buffers[1].base),
                layer.first(kv_len), layer.shape->width};
  }
  return views;
}

std::span<const KvLayerView> KvCache::Views() { return FillViews(views_, kv_len_); }

std::span<const KvLayerView> KvCache::ViewsAfter(int64_t num_rows) {
  DGRT_CHECK(num_rows <= num_reserved_);
  return FillViews(views_after_, kv_len_ + num_rows);
}

void KvCache::Clear() {
  DGRT_CHECK(num_reserved_ == 0);
  kv_len_ = 0;
  for (Layer& layer : layers_) {
    for (Buffer& buffer : layer.buffers) {
      Shrink(&buffer, buffer.end, buffer.end);
      buffer.begin = buffer.end = 0;
    }
  }
  SettleBudget();
}

void KvCache::Truncate(int64_t num_rows) {
  DGRT_CHECK(num_reserved_ == 0 && num_rows >= 0 && num_rows <= kv_len_);
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    const int64_t kept_from = (layer.buffers[0].begin + layer.row_bytes() - 1) / layer.row_bytes();
    if (layer.first(num_rows) >= kept_from) continue;
    throw Unsupported(Message("KV memory: rewinding from ", kv_len_, " to ", num_rows, " tokens: the window of layer ",
                              i, " needs token ", layer.first(num_rows), ", the oldest that it still has is ",
                              kept_from));
  }
  // The next row goes into the page that holds the last one: that page may not be shared.
  for (Layer& layer : layers_) {
    for (Buffer& buffer : layer.buffers) CopySharedPage(&buffer, num_rows * layer.row_bytes());
  }
  kv_len_ = num_rows;
  Release();
}

bool KvCache::Adopt(const KvChunkLayout& layout, std::span<const KvChunk> chunks) {
  DGRT_CHECK(kv_len_ == 0 && num_reserved_ == 0);
  const auto num_chunks = static_cast<int64_t>(chunks.size());
  const int64_t num_rows = num_chunks * layout.chunk_tokens;
  DGRT_CHECK(num_rows <= max_rows_);
  bool mapped = true;
  for (size_t i = 0; i < layers_.size(); ++i) {
    Layer& layer = layers_[i];
    const KvChunkLayout::Place& place = layout.places[i];
    const bool is_window = layer.shape->sliding_window > 0;
    const int64_t begin = PageDown(layer.first(num_rows) * layer.row_bytes());
    for (int which = 0; which < 2; ++which) {
      Buffer& buffer = layer.buffers[which];
      buffer.begin = buffer.end = begin;
      for (int64_t c = begin / place.bytes; mapped && c < num_chunks; ++c) {
        const KvChunk& chunk = chunks[static_cast<size_t>(c)];
        const SharedRange range{std::max(begin, c * place.bytes), (c + 1) * place.bytes,
                                is_window ? chunk.window : chunk.full};
        mapped = MapShared(&buffer, range, place.offset + which * place.bytes + range.begin - c * place.bytes);
        if (!mapped) break;
        buffer.end = range.end;
        current_bytes_ += range.end - range.begin;
      }
    }
  }
  if (!mapped) {
    Clear();
    return false;
  }
  kv_len_ = num_rows;
  peak_bytes_ = std::max(peak_bytes_, current_bytes_);
  return true;
}

void KvCache::Share(const KvChunkLayout& layout, const KvChunk& chunk) {
  DGRT_CHECK(num_reserved_ == layout.chunk_tokens && kv_len_ % layout.chunk_tokens == 0);
  const int64_t index = kv_len_ / layout.chunk_tokens;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const KvChunkLayout::Place& place = layout.places[i];
    const std::shared_ptr<const KvBlock>& block = layers_[i].shape->sliding_window > 0 ? chunk.window : chunk.full;
    if (block == nullptr) continue;
    for (int which = 0; which < 2; ++which) {
      const SharedRange range{index * place.bytes, (index + 1) * place.bytes, block};
      MapShared(&layers_[i].buffers[which], range, place.offset + which * place.bytes);
    }
  }
  SettleBudget();
}

KvSnapshot KvCache::Snapshot() const {
  KvSnapshot out{kv_len_,        num_reserved_, max_rows_,     PageBytes(),    limit_bytes_,
                 current_bytes_, peak_bytes_,   shared_bytes_, charged_bytes_, {}};
  for (const Layer& layer : layers_) {
    KvLayerSnapshot& one = out.layers.emplace_back();
    one = {layer.row_bytes(), layer.first(kv_len_), layer.buffers[0].begin, layer.buffers[0].end, 0};
    for (const Buffer& buffer : layer.buffers) {
      for (const SharedRange& range : buffer.shared) one.shared_bytes += range.end - range.begin;
    }
  }
  return out;
}

// Makes [buffer->end, end) usable. False when the system refuses; nothing has changed then.
bool KvCache::Commit(Buffer* buffer, int64_t end) {
  if (end <= buffer->end) return true;
  const int64_t bytes = end - buffer->end;
  unsigned char* const from = buffer->base + buffer->end;
  const bool usable = buffer->end < buffer->shared_end
                          ? MapPrivate(from, bytes, PROT_READ | PROT_WRITE)  // never access to what is a block's
                          : mprotect(from, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE) == 0;
  if (!usable) return false;
  buffer->end = end;
  current_bytes_ += bytes;
  return true;
}

// Maps a range of a block. Nothing else of the buffer changes: whether the range was committed before is the caller's.
bool KvCache::MapShared(Buffer* buffer, const SharedRange& range, int64_t from_in_block) {
  buffer->shared.reserve(buffer->shared.size() + 1);  // before anything has happened
  if (!range.block->Map(from_in_block, range.end - range.begin, buffer->base + range.begin)) return false;
  buffer->shared.push_back(range);
  buffer->shared_end = std::max(buffer->shared_end, range.end);
  shared_bytes_ += range.end - range.begin;
  return true;
}

// Makes the page that byte `at` cuts in two private, with what it holds.
void KvCache::CopySharedPage(Buffer* buffer, int64_t at) {
  const int64_t begin = PageDown(at), end = begin + PageBytes();
  bool is_shared = false;
  for (const SharedRange& range : buffer->shared) is_shared |= range.begin <= begin && begin < range.end;
  if (at == begin || !is_shared) return;
  if (budget_ != nullptr && !budget_->Charge(MemoryUse::kSequences, PageBytes())) {
    throw OutOfMemory(budget_->Refusal("a page of a rewound sequence", PageBytes()));
  }
  charged_bytes_ += PageBytes();
  buffer->shared.reserve(buffer->shared.size() + 1);  // a range may be cut in two
  const std::vector<unsigned char> page(buffer->base + begin, buffer->base + end);
  if (!MapPrivate(buffer->base + begin, PageBytes(), PROT_READ | PROT_WRITE)) {
    SettleBudget();
    throw OutOfMemory(Message("KV memory: the system refused to copy a page of ", PageBytes(), " bytes"));
  }
  std::memcpy(buffer->base + begin, page.data(), page.size());
  ForgetShared(buffer, begin, end);
}

// Bytes [begin, end) are no longer mapped from a block. Allocates only where a range is cut in two, for which
// CopySharedPage has made room.
void KvCache::ForgetShared(Buffer* buffer, int64_t begin, int64_t end) noexcept {
  std::vector<SharedRange>& shared = buffer->shared;
  for (size_t i = shared.size(); i-- > 0;) {
    SharedRange& range = shared[i];
    const int64_t cut_begin = std::max(range.begin, begin), cut_end = std::min(range.end, end);
    if (cut_begin >= cut_end) continue;
    shared_bytes_ -= cut_end - cut_begin;
    const bool cuts_front = cut_begin == range.begin, cuts_back = cut_end == range.end;
    if (cuts_front && cuts_back) {
      shared.erase(shared.begin() + static_cast<std::ptrdiff_t>(i));
    } else if (cuts_front) {
      range.begin = cut_end;
    } else if (cuts_back) {
      range.end = cut_begin;
    } else {
      const SharedRange behind{cut_end, range.end, range.block};
      range.end = cut_begin;
      shared.insert(shared.begin() + static_cast<std::ptrdiff_t>(i) + 1, behind);
    }
  }
}

// Gives back what lies outside [begin, end). If the system refuses, the pages merely stay: nothing depends on it.
void KvCache::Shrink(Buffer* buffer, int64_t begin, int64_t end) noexcept {
  const auto drop = [&](int64_t from, int64_t to) {
    if (from >= buffer->shared_end || !MapPrivate(buffer->base + from, to - from, PROT_NONE)) {
      madvise(buffer->base + from, static_cast<size_t>(to - from), MADV_DONTNEED);
      mprotect(buffer->base + from, static_cast<size_t>(to - from), PROT_NONE);
    }
    ForgetShared(buffer, from, to);
    current_bytes_ -= to - from;
  };
  if (begin > buffer->begin) {
    drop(buffer->begin, begin);
    buffer->begin = begin;
  }
  if (end < buffer->end) {
    drop(end, buffer->end);
    buffer->end = end;
  }
}

void KvCache::TrimTo(int64_t num_rows) noexcept {
  for (Layer& layer : layers_) {
    for (Buffer& buffer : layer.buffers) {
      Shrink(&buffer, PageDown(layer.first(kv_len_) * layer.row_bytes()),
             PageUp(num_rows * layer.row_bytes()));
    }
  }
}

void KvCache::Publish(int64_t num_rows) noexcept {
  kv_len_ += std::min(num_rows, num_reserved_);
  Release();
}

void KvCache::Release() noexcept {
  num_reserved_ = 0;
  TrimTo(kv_len_);
  SettleBudget();
}

}  // namespace dgrt
