// Implementation of arrays.h.
#include "python/arrays.h"

namespace py = pybind11;

namespace dgrt::python {

std::string Describe(const py::array& array) {
  std::string text = std::string(py::str(array.dtype())) + " [";
  for (py::ssize_t i = 0; i < array.ndim(); ++i) text += (i > 0 ? ", " : "") + std::to_string(array.shape(i));
  text += "]";
  if ((array.flags() & py::array::c_style) == 0) text += ", not contiguous";
  if (array.itemsize() > 0 && reinterpret_cast<uintptr_t>(array.data()) % static_cast<uintptr_t>(array.itemsize()) != 0) {
    text += ", not aligned";
  }
  return text;
}

}  // namespace dgrt::python
