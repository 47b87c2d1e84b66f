// The Python extension dgrt._native; its exact surface is dgrt/_native.pyi. Registers only.
#include "common/cpu_limits.h"
#include "common/live_handles.h"
#include "dgrt/dgrt.h"
#include "python/register.h"

PYBIND11_MODULE(_native, module) {
  module.doc() = "Native runtime of dgrt; use the package dgrt instead.";
  module.attr("__version__") = DGRT_VERSION;
  module.attr("abi_version") = DGRT_ABI_VERSION;
  dgrt::python::RegisterErrors(module);
  dgrt::python::RegisterRuntime(module);
  dgrt::python::RegisterOptions(module);
  dgrt::python::RegisterSession(module);
  dgrt::python::RegisterScheduler(module);
  dgrt::python::RegisterKernels(module);
  module.def("usable_cpus", [] {
    const dgrt::CpuLimit limit = dgrt::UsableCpus();
    return pybind11::make_tuple(limit.cpus, limit.reason);
  }, "The default number of threads, and what decided it.");
  module.def("live_handles", &dgrt::LiveHandles, "Runtime, Session and Scheduler objects that exist now.");
}
