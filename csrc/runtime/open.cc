// Runtime::Open: from a package folder to a runtime. Alone in its file because it is the only part of runtime/ that
// needs ONNX Runtime: everything else links and is tested without it.
#include "engine/manifest.h"
#include "engine/ort_engine.h"
#include "runtime/runtime_impl.h"

namespace dgrt {
namespace {

GenerateOptions DefaultsOf(const GenerationDefaults& from) {
  GenerateOptions out;
  out.sampler.max_denoising_steps = from.max_denoising_steps;
  out.sampler.entropy_bound = from.entropy_bound;
  out.sampler.t_min = from.t_min;
  out.sampler.t_max = from.t_max;
  out.sampler.stability_threshold = from.stability_threshold;
  out.sampler.confidence_threshold = from.confidence_threshold;
  out.stop_ids = from.stop_ids;
  return out;
}

}  // namespace

std::shared_ptr<Runtime> Runtime::Open(const std::string& package_dir, const RuntimeOptions& options) {
  const RuntimeOptions resolved = ResolveOptions(options);
  const Manifest manifest = LoadManifest(package_dir, resolved.verify_weights);
  OrtEngineOptions engine_options;
  engine_options.threads = resolved.threads;
  engine_options.ort_library = resolved.ort_library;

  auto impl = std::make_unique<Impl>();
  impl->options = resolved;
  impl->defaults = DefaultsOf(manifest.generation);
  impl->manifest_json = manifest.json;
  impl->weight_bytes = manifest.weight_bytes;
  impl->engine = OpenOrtEngine(manifest, engine_options);
  impl->pool = std::make_unique<ThreadPool>(resolved.threads);
  return std::shared_ptr<Runtime>(new Runtime(std::move(impl)));
}

}  // namespace dgrt
