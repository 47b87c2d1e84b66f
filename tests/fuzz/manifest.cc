// Input: a manifest.json. The files that the seeds name lie beside it, so that a change of the rest reaches every check.
#include "engine/manifest.h"
#include "fuzz.h"

DGRT_FUZZ_JSON

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  for (const char* graph : {"prefill", "denoise", "score", "packed", "check"}) {
    dgrt::fuzz::Write(std::string(graph) + ".onnx", graph);
  }
  dgrt::fuzz::Write("model.safetensors", std::string(138, 'w'));
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  dgrt::fuzz::Write("manifest.json", dgrt::fuzz::Text(data, size));
  dgrt::fuzz::MayRefuse([] { dgrt::LoadManifest(dgrt::fuzz::Folder().string(), /*verify_weights=*/true); });
  return 0;
}
