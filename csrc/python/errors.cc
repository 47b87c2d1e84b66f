// The exception classes and the one translation from C++ to Python.
#include <array>
#include <exception>
#include <new>
#include <string>

#include "common/check.h"
#include "python/register.h"

namespace py = pybind11;

namespace dgrt::python {
namespace {

constexpr size_t kNumStatuses = 10;

// By status; filled once, never released: exceptions may be raised until the interpreter is gone.
std::array<PyObject*, kNumStatuses> exception_classes{};

PyObject* NewClass(py::module_& module, const char* name, const char* doc, const py::tuple& bases) {
  const std::string qualified = std::string("dgrt.") + name;  // where users find it
  PyObject* created = PyErr_NewExceptionWithDoc(qualified.c_str(), doc, bases.ptr(), nullptr);
  if (created == nullptr) throw py::error_already_set();
  module.add_object(name, py::reinterpret_borrow<py::object>(created));
  return created;
}

void Raise(Status status, const char* text) {
  PyObject* exception_class = exception_classes[static_cast<size_t>(status)];
  // `replace`: a message may quote a path that is not UTF-8.
  PyObject* message = PyUnicode_DecodeUTF8(text, static_cast<Py_ssize_t>(std::string(text).size()), "replace");
  if (message == nullptr) return;  // Python's own error stands
  PyErr_SetObject(exception_class, message);
  Py_DECREF(message);
}

void Translate(std::exception_ptr pointer) {
  try {
    if (pointer) std::rethrow_exception(pointer);
  } catch (const Error& error) {
    Raise(error.status(), error.what());
  } catch (const std::bad_alloc&) {
    Raise(Status::kOutOfMemory, "out of memory");
  } catch (const py::error_already_set&) {
    throw;  // raised in a callback: passes through as it is
  } catch (const py::builtin_exception&) {
    throw;
  } catch (const std::exception& error) {
    Raise(Status::kInternal, error.what());
  }
}

}  // namespace

py::object ToPython(const std::exception_ptr& error) {
  if (error == nullptr) return py::none();
  try {
    Translate(error);
    throw py::error_already_set();  // what Translate has raised
  } catch (const py::error_already_set& raised) {
    return raised.value();
  }
}

void RegisterErrors(py::module_& module) {
  PyObject* base = NewClass(module, "DgrtError", "Base of every error that dgrt raises on purpose.",
                            py::make_tuple(py::handle(PyExc_Exception)));
  const auto add = [&](Status status, const char* name, const char* doc, PyObject* second_base) {
    py::tuple bases = py::make_tuple(py::handle(base));
    if (second_base != nullptr) bases = py::make_tuple(py::handle(base), py::handle(second_base));
    exception_classes[static_cast<size_t>(status)] = NewClass(module, name, doc, bases);
  };
  add(Status::kInvalidArgument, "InvalidArgument", "An argument, option or prompt that cannot be right.",
      PyExc_ValueError);
  add(Status::kContractMismatch, "ContractMismatch",
      "An engine package of another format or version, or a damaged one.", nullptr);
  add(Status::kUnsupported, "Unsupported", "A request that is valid but that this build or engine cannot serve.",
      PyExc_NotImplementedError);
  add(Status::kOutOfMemory, "OutOfMemory", "A reservation that the limit or the machine does not allow.",
      PyExc_MemoryError);
  add(Status::kCancelled, "Cancelled", "A prefill that was cancelled before it finished.", nullptr);
  add(Status::kDeviceError, "DeviceError", "The engine or the device failed.", nullptr);
  add(Status::kInternal, "InternalError", "A defect in dgrt.", nullptr);
  add(Status::kDeadlineExceeded, "DeadlineExceeded", "A request whose deadline passed before it was finished.",
      PyExc_TimeoutError);
  add(Status::kQueueFull, "QueueFull", "A request more than the queue takes: try again later.", nullptr);
  py::register_local_exception_translator(&Translate);
}

}  // namespace dgrt::python
