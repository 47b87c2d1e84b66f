// numpy arrays at the border: strict checks with the found dtype and shape in the message, and copies outwards.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <pybind11/numpy.h>

#include "common/check.h"
#include "runtime/sink.h"

namespace dgrt::python {

// "float64 [2, 3], not contiguous"
std::string Describe(const pybind11::array& array);

// A borrowed view of a C-contiguous array of exactly this dtype and rank; throws InvalidArgument otherwise.
// `shape` is the text for the message, e.g. "[L, D]".
template <typename T>
std::span<const T> View(const pybind11::array& array, int rank, const char* name, const char* shape) {
  const bool fits = pybind11::isinstance<pybind11::array_t<T>>(array) && array.ndim() == rank &&
                    (array.flags() & pybind11::array::c_style) != 0 &&
                    reinterpret_cast<uintptr_t>(array.data()) % alignof(T) == 0;
  if (!fits) {
    throw InvalidArgument(Message(name, ": expected a C-contiguous, aligned array ",
                                  std::string(pybind11::str(pybind11::dtype::of<T>())), " ", shape, ", found ",
                                  Describe(array)));
  }
  return {static_cast<const T*>(array.data()), static_cast<size_t>(array.size())};
}

// Token ids, copied: other Python threads may write to the array while the GIL is released.
inline std::vector<int32_t> CopyTokens(const pybind11::array& array, const char* name) {
  const auto view = View<int32_t>(array, 1, name, "[n]");
  return {view.begin(), view.end()};
}

template <typename T>
pybind11::array_t<T> Copy(std::span<const T> values) {
  return pybind11::array_t<T>(static_cast<pybind11::ssize_t>(values.size()), values.data());
}

// As the numbers that Python sees.
inline std::span<const uint8_t> OriginNumbers(std::span<const TokenOrigin> origins) {
  return {reinterpret_cast<const uint8_t*>(origins.data()), origins.size()};
}

}  // namespace dgrt::python
