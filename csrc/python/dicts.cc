// Implementation of dicts.h.
#include "python/dicts.h"

#include <pybind11/stl.h>

#include "python/arrays.h"

namespace py = pybind11;

namespace dgrt::python {
namespace {

py::object SoftArray(std::span<const float> soft, const ModelFacts& model) {
  if (soft.empty()) return py::none();
  return py::array_t<float>({model.canvas_len, model.hidden_size}, soft.data());
}

}  // namespace

py::dict ToDict(const Stats& stats) {
  py::dict result;
  result["prefill_passes"] = stats.prefill_passes;
  result["denoise_passes"] = stats.denoise_passes;
  result["commit_passes"] = stats.commit_passes;
  result["causal_passes"] = stats.causal_passes;
  result["packed_passes"] = stats.packed_passes;
  result["packed_commits"] = stats.packed_commits;
  result["verify_passes"] = stats.verify_passes;
  result["draft_calls"] = stats.draft_calls;
  result["draft_passes"] = stats.draft_passes;
  result["draft_rows"] = stats.draft_rows;
  result["draft_commits"] = stats.draft_commits;
  result["draft_refines"] = stats.draft_refines;
  result["draft_discards"] = stats.draft_discards;
  result["accepted_drafts"] = stats.accepted_drafts;
  result["row_tokens"] = stats.row_tokens;
  result["canvases"] = stats.canvases;
  result["steps_per_canvas"] = stats.steps_per_canvas;
  result["prompt_tokens"] = stats.prompt_tokens;
  result["prefix_tokens"] = stats.prefix_tokens;
  result["tokens"] = stats.tokens;
  result["tokens_per_pass"] = stats.tokens_per_pass();
  result["prefill_ms"] = stats.prefill_ms;
  result["denoise_ms"] = stats.denoise_ms;
  result["commit_ms"] = stats.commit_ms;
  result["causal_ms"] = stats.causal_ms;
  result["packed_ms"] = stats.packed_ms;
  result["verify_ms"] = stats.verify_ms;
  result["head_ms"] = stats.head_ms;
  result["draft_ms"] = stats.draft_ms;
  result["queued_ms"] = stats.queued_ms;
  result["wait_ms"] = stats.wait_ms;
  result["total_ms"] = stats.total_ms;
  result["peak_kv_bytes"] = stats.peak_kv_bytes;
  return result;
}

py::dict ToDict(const StepView& step, bool with_soft, const ModelFacts& model) {
  py::array_t<bool> accepted(static_cast<py::ssize_t>(step.accepted.size()));
  for (size_t i = 0; i < step.accepted.size(); ++i) accepted.mutable_data()[i] = step.accepted[i] != 0;
  py::dict result;
  result["canvas_index"] = step.canvas_index;
  result["step"] = step.step;
  result["temperature"] = step.temperature;
  result["kv_len"] = step.kv_len;
  result["canvas_in"] = Copy(step.canvas_in);
  result["soft_in"] = with_soft ? SoftArray(step.soft_in, model) : py::none();
  result["argmax"] = Copy(step.argmax);
  result["entropy"] = Copy(step.entropy);
  result["sampled"] = Copy(step.sampled);
  result["accepted"] = accepted;
  result["canvas_out"] = Copy(step.canvas_out);
  result["soft_out"] = with_soft ? SoftArray(step.soft_out, model) : py::none();
  result["stopped"] = step.stopped;
  return result;
}

}  // namespace dgrt::python
