// What each file of the extension adds to the module. module.cc calls these and nothing else.
#pragma once

#include <pybind11/pybind11.h>

namespace dgrt::python {

void RegisterErrors(pybind11::module_& module);
void RegisterRuntime(pybind11::module_& module);
void RegisterSession(pybind11::module_& module);  // after RegisterRuntime: it names Runtime
void RegisterKernels(pybind11::module_& module);

}  // namespace dgrt::python
