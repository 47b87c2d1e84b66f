// dgrt._native.Runtime.
#include <memory>
#include <string>

#include <pybind11/stl.h>

#include "python/objects.h"
#include "python/register.h"

namespace py = pybind11;

namespace dgrt::python {
namespace {

std::unique_ptr<RuntimeObject> Open(const std::string& path, int threads, const std::string& ort_library,
                                    bool verify_weights, int64_t memory_limit_bytes, int64_t kv_limit_bytes,
                                    int64_t prefix_cache_bytes) {
  RuntimeOptions options;
  options.threads = threads;
  options.ort_library = ort_library;
  options.verify_weights = verify_weights;
  options.memory_limit_bytes = memory_limit_bytes;
  options.kv_limit_bytes = kv_limit_bytes;
  options.prefix_cache_bytes = prefix_cache_bytes;
  const py::gil_scoped_release release;
  return std::unique_ptr<RuntimeObject>(new RuntimeObject{HomeProcessRef(Runtime::Open(path, options))});
}

py::dict Defaults(const RuntimeObject& self) {
  const GenerateOptions& options = self.runtime->default_options();
  py::dict result;
  result["max_denoising_steps"] = options.sampler.max_denoising_steps;
  result["entropy_bound"] = options.sampler.entropy_bound;
  result["t_min"] = options.sampler.t_min;
  result["t_max"] = options.sampler.t_max;
  result["stability_threshold"] = options.sampler.stability_threshold;
  result["confidence_threshold"] = options.sampler.confidence_threshold;
  result["stop_ids"] = options.stop_ids;
  return result;
}

py::dict Memory(const RuntimeObject& self) {
  const MemoryPlan plan = self.runtime->memory();
  py::dict result;
  result["weight_bytes"] = plan.weight_bytes;
  result["kv_bytes_full_context"] = plan.kv_bytes_full_context;
  result["workspace_bytes"] = plan.workspace_bytes;
  result["kv_bytes_per_token"] = plan.kv_bytes_per_token;
  result["kv_window_bytes"] = plan.kv_window_bytes;
  return result;
}

py::dict PrefixStatsDict(const RuntimeObject& self) {
  const PrefixStats stats = self.runtime->prefix_stats();
  const MemoryUsage kv = self.runtime->kv_usage();
  py::dict result;
  result["lookups"] = stats.lookups;
  result["hits"] = stats.hits;
  result["prompt_tokens"] = stats.prompt_tokens;
  result["hit_tokens"] = stats.hit_tokens;
  result["stored_chunks"] = stats.stored_chunks;
  result["evicted_chunks"] = stats.evicted_chunks;
  result["evicted_windows"] = stats.evicted_windows;
  result["num_chunks"] = stats.num_chunks;
  result["bytes"] = stats.bytes;
  result["limit_bytes"] = stats.limit_bytes;
  result["kv_sequence_bytes"] = kv.sequence_bytes;
  result["kv_prefix_bytes"] = kv.prefix_bytes;
  result["kv_peak_bytes"] = kv.peak_bytes;
  result["kv_limit_bytes"] = kv.limit_bytes;
  return result;
}

py::bytes ReadFile(const RuntimeObject& self, const std::string& name) {
  std::string content;
  {
    const py::gil_scoped_release release;
    content = self.runtime->ReadFile(name);
  }
  return content;
}

void ClearPrefixes(const RuntimeObject& self) { self.runtime->ClearPrefixes(); }
void SavePrefixes(const RuntimeObject& self, const std::string& path, bool overwrite) {
  self.runtime->SavePrefixes(path, overwrite ? Overwrite::kOtherFiles : Overwrite::kOwnFiles);
}
int64_t LoadPrefixes(const RuntimeObject& self, const std::string& path) { return self.runtime->LoadPrefixes(path); }

}  // namespace

void RegisterRuntime(py::module_& module) {
  py::class_<RuntimeObject>(module, "Runtime", py::release_gil_before_calling_cpp_dtor(),
                            "A loaded engine package. Any thread; the GIL is released while loading.")
      .def(py::init(&Open), py::arg("path"), py::kw_only(), py::arg("threads") = 0, py::arg("ort_library") = "",
           py::arg("verify_weights") = false, py::arg("memory_limit_bytes") = 0, py::arg("kv_limit_bytes") = 0,
           py::arg("prefix_cache_bytes") = -1)
      .def_property_readonly("manifest_json",
                             [](const RuntimeObject& self) { return self.runtime->manifest_json(); })
      .def_property_readonly("description", [](const RuntimeObject& self) { return self.runtime->description(); })
      .def_property_readonly("threads", [](const RuntimeObject& self) { return self.runtime->threads(); })
      .def("read_file", &ReadFile, py::arg("name"), "A text file of the package, as it was exported.")
      .def("defaults", &Defaults, "Generation defaults of the package.")
      .def("memory", &Memory, "The fields of dgrt.MemoryPlan.")
      .def("prefix_stats", &PrefixStatsDict, "The fields of dgrt.PrefixStats.")
      .def("clear_prefixes", &ClearPrefixes, py::call_guard<py::gil_scoped_release>())
      .def("save_prefixes", &SavePrefixes, py::arg("path"), py::arg("overwrite"),
           py::call_guard<py::gil_scoped_release>())
      .def("load_prefixes", &LoadPrefixes, py::arg("path"), py::call_guard<py::gil_scoped_release>(),
           "Returns the chunks added.");
}

}  // namespace dgrt::python
