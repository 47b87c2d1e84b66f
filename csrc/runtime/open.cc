// Runtime::Open: from a package folder to a runtime. Alone in its file because it is the only part of runtime/ that
// needs ONNX Runtime: everything else links and is tested without it.
#include "engine/manifest.h"
#include "engine/ort_engine.h"
#include "engine/package_files.h"
#include "runtime/runtime_impl.h"

namespace dgrt {

std::shared_ptr<Runtime> Runtime::Open(const std::string& package_dir, const RuntimeOptions& options) {
  const RuntimeOptions resolved = ResolveOptions(options);
  const Manifest manifest = LoadManifest(package_dir, resolved.verify_weights);
  auto impl = std::make_unique<Impl>(resolved);
  impl->defaults.sampler = manifest.generation.sampler;
  impl->defaults.stop_ids = manifest.generation.stop_ids;
  impl->manifest_json = manifest.json;
  impl->files = manifest.files;
  impl->weight_bytes = manifest.weight_bytes;
  impl->engine = OpenOrtEngine(manifest, {impl->pool.get(), impl->one_thread.get(), resolved.ort_library});
  impl->OpenKvMemory(manifest.files_hash);
  return std::shared_ptr<Runtime>(new Runtime(std::move(impl)));
}

std::string Runtime::ReadFile(const std::string& name) const {
  DGRT_CHECK(impl_->files != nullptr);
  return impl_->files->Read(name);
}

}  // namespace dgrt
