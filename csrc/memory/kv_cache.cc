// Implementation of memory/kv_cache.h. Pages outside the committed range are inaccessible (PROT_NONE): an engine that
// reads rows it was not given stops at once instead of computing with them.
#include "memory/kv_cache.h"

#include <sys/mman.h>
#include <unistd.h>

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

KvCache::KvCache(std::vector<KvLayerShape> layers, int64_t max_rows, int64_t memory_limit_bytes)
    : shapes_(std::move(layers)),
      views_(shapes_.size()),
      views_after_(shapes_.size()),
      max_rows_(max_rows),
      limit_bytes_(memory_limit_bytes) {
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

KvCache::~KvCache() { Unmap(); }

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
  if (limit_bytes_ == 0 || needed <= limit_bytes_) return;
  throw OutOfMemory(Message("KV memory: ", kv_len + num_rows, " tokens need ", needed, " bytes, the limit leaves ",
                            limit_bytes_, " (in use: ", current_bytes_, ")"));
}

Reservation KvCache::Reserve(int64_t num_rows) {
  DGRT_CHECK(num_rows > 0 && num_reserved_ == 0);
  if (kv_len_ + num_rows > max_rows_) {
    throw InternalError(Message("KV memory: ", num_rows, " rows after ", kv_len_, " exceed ", max_rows_));
  }
  RequireFits(kv_len_, num_rows);
  for (Layer& layer : layers_) {
    for (Buffer& buffer : layer.buffers) {
      if (Commit(&buffer, PageUp((kv_len_ + num_rows) * layer.row_bytes()))) continue;
      const int64_t in_use = current_bytes_;
      TrimTo(kv_len_);
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
}

KvSnapshot KvCache::Snapshot() const {
  KvSnapshot out{kv_len_, num_reserved_, max_rows_, PageBytes(), limit_bytes_, current_bytes_, peak_bytes_, {}};
  for (const Layer& layer : layers_) {
    out.layers.push_back({layer.row_bytes(), layer.first(kv_len_), layer.buffers[0].begin, layer.buffers[0].end});
  }
  return out;
}

// Makes [buffer->end, end) usable. False when the system refuses; nothing has changed then.
bool KvCache::Commit(Buffer* buffer, int64_t end) {
  if (end <= buffer->end) return true;
  const int64_t bytes = end - buffer->end;
  if (mprotect(buffer->base + buffer->end, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE) != 0) return false;
  buffer->end = end;
  current_bytes_ += bytes;
  return true;
}

// Gives back what lies outside [begin, end). If the system refuses, the pages merely stay: nothing depends on it.
void KvCache::Shrink(Buffer* buffer, int64_t begin, int64_t end) noexcept {
  const auto drop = [buffer](int64_t from, int64_t to) {
    madvise(buffer->base + from, static_cast<size_t>(to - from), MADV_DONTNEED);
    mprotect(buffer->base + from, static_cast<size_t>(to - from), PROT_NONE);
  };
  if (begin > buffer->begin) {
    drop(buffer->begin, begin);
    current_bytes_ -= begin - buffer->begin;
    buffer->begin = begin;
  }
  if (end < buffer->end) {
    drop(end, buffer->end);
    current_bytes_ -= buffer->end - end;
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
}

}  // namespace dgrt
