// Owned memory on a 64-byte border: kernel scratch and vectors that are read with wide loads. Sized once by the
// owner (a session), never grown. Bytes are zero at first, so nothing uninitialised can reach a result.
#pragma once

#include <cstddef>
#include <cstring>
#include <new>
#include <utility>

namespace dgrt {

template <typename T>
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t size) : size_(size) {
    if (size == 0) return;
    data_ = static_cast<T*>(::operator new(size * sizeof(T), kAlignment));
    std::memset(static_cast<void*>(data_), 0, size * sizeof(T));
  }
  ~AlignedBuffer() { ::operator delete(data_, kAlignment); }
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(T); }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  T* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace dgrt
