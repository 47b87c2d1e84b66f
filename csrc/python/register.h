// What each file of the extension adds to the module. module.cc calls these and nothing else.
#pragma once

#include <exception>

#include <pybind11/pybind11.h>

namespace dgrt::python {

void RegisterErrors(pybind11::module_& module);
pybind11::object ToPython(const std::exception_ptr& error);  // the exception that a caller would see; None for none
void RegisterRuntime(pybind11::module_& module);
// The order matters: signatures name classes that are registered already.
void RegisterOptions(pybind11::module_& module);
void RegisterSession(pybind11::module_& module);
void RegisterScheduler(pybind11::module_& module);
void RegisterKernels(pybind11::module_& module);

}  // namespace dgrt::python
