// The size-first rule of dgrt.h in one place: structs of callers that were built against an older or a newer header.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string_view>
#include <type_traits>

#include "common/check.h"

namespace dgrt::capi {

// Every struct of dgrt.h is a multiple of this, now and later, so that no field is ever cut in two.
inline constexpr size_t kStructGrain = 8;
// Larger than any of them will be. An uninitialised size must not make the library touch what lies behind the struct.
inline constexpr size_t kLargestStruct = 4096;

inline void CheckStructSize(size_t size, std::string_view name) {
  if (size < kStructGrain || size > kLargestStruct || size % kStructGrain != 0) {
    throw InvalidArgument(Message(name, ".struct_size: expected sizeof(", name, ") or that of another version, found ",
                                  size));
  }
}

// The caller's struct over `defaults`: shorter ones keep defaults at the end, longer ones must be zero there.
template <typename T>
T ReadSized(const T* given, const T& defaults, std::string_view name) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % kStructGrain == 0);
  T result = defaults;
  if (given == nullptr) return result;
  const size_t size = given->struct_size;
  CheckStructSize(size, name);
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  if (size > sizeof(T) && std::any_of(bytes + sizeof(T), bytes + size, [](unsigned char b) { return b != 0; })) {
    throw Unsupported(Message(name, ": this library knows ", sizeof(T), " bytes of it, the caller set options in its ",
                              size, " bytes beyond that"));
  }
  std::memcpy(&result, given, std::min(size, sizeof(T)));
  return result;
}

// `value` into the caller's struct of `size` bytes; what the library does not know becomes zero.
template <typename T>
void WriteSized(T* out, size_t size, const T& value, std::string_view name) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % kStructGrain == 0);
  if (out == nullptr) throw InvalidArgument(Message(name, ": the pointer is NULL"));
  CheckStructSize(size, name);
  auto* bytes = reinterpret_cast<unsigned char*>(out);
  std::memcpy(bytes, &value, std::min(size, sizeof(T)));
  if (size > sizeof(T)) std::memset(bytes + sizeof(T), 0, size - sizeof(T));
  out->struct_size = static_cast<uint32_t>(size);
}

}  // namespace dgrt::capi
