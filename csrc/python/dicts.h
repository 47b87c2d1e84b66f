// What Python sees of plain structs: dicts with the field names of the Python dataclasses. Called with the GIL held.
#pragma once

#include <pybind11/pybind11.h>

#include "runtime/runtime.h"

namespace dgrt::python {

pybind11::dict ToDict(const Stats& stats);  // dgrt.Stats

// dgrt.StepTrace; arrays are copies. Without `with_soft` soft_in and soft_out are None.
pybind11::dict ToDict(const StepView& step, bool with_soft, const ModelFacts& model);

}  // namespace dgrt::python
