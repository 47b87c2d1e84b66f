// Cuts one launch's workspace into arrays on 64-byte borders. With no memory given it only counts: the same code that
// lays the arrays out says how many bytes they take.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dgrt {

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t Padded(int64_t bytes) { return CeilDiv(bytes, 64) * 64; }

class Scratch {
 public:
  explicit Scratch(void* memory) : memory_(static_cast<unsigned char*>(memory)) {}

  template <typename T>
  T* Take(int64_t count) {
    T* const at = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + used_);
    used_ += static_cast<size_t>(Padded(count * static_cast<int64_t>(sizeof(T))));
    return at;
  }
  size_t used() const { return used_; }

 private:
  unsigned char* memory_;
  size_t used_ = 0;
};

}  // namespace dgrt
