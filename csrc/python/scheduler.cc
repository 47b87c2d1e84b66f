// dgrt._native.Scheduler and dgrt._native.Request.
#include <chrono>
#include <memory>
#include <utility>

#include "python/arrays.h"
#include "python/dicts.h"
#include "python/objects.h"
#include "python/register.h"
#include "python/step_sink.h"

namespace py = pybind11;

namespace dgrt::python {
namespace {

// Calls on_event(kind, value) on a thread of the scheduler: "step" and "commit" while the request runs, "done" at its end.
class EventSink : public RequestSink {
 public:
  EventSink(py::object on_event, bool want_steps, bool with_soft, const ModelFacts& model)
      : on_event_(std::move(on_event)), want_steps_(want_steps), with_soft_(with_soft), model_(model) {}
  ~EventSink() override {
    const py::gil_scoped_acquire gil;
    on_event_ = py::object();
  }

  bool WantsSteps() const override { return want_steps_; }
  void OnStep(const StepView& step) override {
    const py::gil_scoped_acquire gil;
    on_event_("step", ToDict(step, with_soft_, model_));
  }

  void OnCommit(int32_t, std::span<const int32_t> tokens, std::span<const TokenOrigin> origins) override {
    const py::gil_scoped_acquire gil;
    on_event_("commit", py::make_tuple(Copy(tokens), Copy(OriginNumbers(origins))));
  }

  void OnDone(const RequestResult& result) noexcept override {
    const py::gil_scoped_acquire gil;
    try {
      py::dict value;
      value["finish_reason"] = FinishReasonName(result.finish);
      value["tokens"] = Copy(std::span<const int32_t>(result.tokens));
      value["logprobs"] = Copy(std::span<const float>(result.logprobs));
      value["stats"] = ToDict(result.stats);
      value["error"] = ToPython(result.error);
      on_event_("done", value);
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("on_event");
    } catch (const std::exception& error) {
      PyErr_SetString(PyExc_RuntimeError, error.what());
      PyErr_WriteUnraisable(on_event_.ptr());
    }
  }

 private:
  py::object on_event_;
  bool want_steps_, with_soft_;
  const ModelFacts& model_;
};

std::unique_ptr<SchedulerObject> NewScheduler(const RuntimeObject& runtime, int32_t max_running, int32_t max_queued) {
  const py::gil_scoped_release release;
  return std::unique_ptr<SchedulerObject>(new SchedulerObject{
      HomeProcessRef(Scheduler::Create(runtime.runtime.get(), {max_running, max_queued}))});
}

RequestObject Submit(SchedulerObject& self, const py::array& prompt, const GenerateOptions& options, py::object on_event,
                     bool want_steps, bool with_soft) {
  if (on_event.is_none()) throw InvalidArgument("on_event: expected a callable, found None");
  RequireCallable(on_event, "on_event");
  auto tokens = CopyTokens(prompt, "prompt");
  const ModelFacts& model = self.scheduler->runtime()->model();
  auto sink = std::make_unique<EventSink>(std::move(on_event), want_steps, with_soft, model);
  const py::gil_scoped_release release;
  return {self.scheduler->Submit(std::move(tokens), options, std::move(sink))};
}

py::dict SchedulerStatsDict(const SchedulerObject& self) {
  const SchedulerStats stats = self.scheduler->stats();
  const LaneStats lanes = self.scheduler->runtime()->lane_stats();
  py::dict result;
  result["queued"] = stats.queued;
  result["running"] = stats.running;
  result["finished"] = stats.finished;
  result["failed"] = stats.failed;
  result["cancelled"] = stats.cancelled;
  result["refused"] = stats.refused;
  result["planned_kv_bytes"] = stats.planned_kv_bytes;
  result["passes"] = lanes.passes;
  result["narrow_passes"] = lanes.narrow_passes;
  result["busy_thread_ms"] = lanes.busy_thread_ms;
  return result;
}

bool WaitFor(const RequestObject& self, double seconds) {
  const py::gil_scoped_release release;
  return self.request->WaitFor(std::chrono::duration<double>(seconds));
}

}  // namespace

void RegisterScheduler(py::module_& module) {
  py::class_<RequestObject>(module, "Request", "A submitted request. Any thread.")
      .def("cancel",
           [](RequestObject& self) {
             const py::gil_scoped_release release;
             self.request->Cancel();
           },
           "Ends it: at once in the queue, between two passes when it runs.")
      .def_property_readonly("is_done", [](const RequestObject& self) { return self.request->is_done(); })
      .def("wait", &WaitFor, py::arg("seconds"), "Whether it is done; waits at most that long.");
  py::class_<SchedulerObject>(module, "Scheduler", py::release_gil_before_calling_cpp_dtor(),
                              "A bounded queue of requests in front of a runtime. Any thread.")
      .def(py::init(&NewScheduler), py::arg("runtime"), py::kw_only(), py::arg("max_running") = 8,
           py::arg("max_queued") = 256)
      .def("submit", &Submit, py::arg("prompt"), py::arg("options"), py::arg("on_event"), py::kw_only(),
           py::arg("want_steps") = false, py::arg("with_soft") = false,
           "Queues a request; on_event(kind, value) is called on threads of the scheduler.")
      .def("stats", &SchedulerStatsDict, "The fields of dgrt.SchedulerStats.");
}

}  // namespace dgrt::python
