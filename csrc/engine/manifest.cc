// Reads manifest.json; the order of the checks is the order in which a damaged package is best explained: format and
// version first, then the files, then the facts. Unknown keys are ignored.
#include "engine/manifest.h"

#include <span>

#include "common/json_reader.h"
#include "engine/contract.h"
#include "engine/package_files.h"

namespace dgrt {
namespace {

using nlohmann::json;

constexpr int64_t kMaxManifestBytes = 64 << 20;
// Bounds of the facts: far above any model, far below what would overflow a product of three of them.
constexpr int64_t kMaxVocab = 1 << 24;
constexpr int64_t kMaxHidden = 1 << 20;
constexpr int64_t kMaxCanvas = 1 << 16;
constexpr int64_t kMaxContext = int64_t{1} << 32;
constexpr int64_t kMaxHeads = 1 << 14;
constexpr int64_t kMaxHeadDim = 1 << 14;
constexpr int64_t kMaxExperts = 1 << 16;
constexpr int64_t kMaxLayers = 1 << 12;
constexpr int64_t kMaxSteps = 1 << 16;
constexpr int64_t kMaxKvBytes = int64_t{1} << 56;  // of one session; address arithmetic stays far from overflow
constexpr float kMaxSoftcap = 1e6f;
constexpr float kMaxTemperature = 1e4f;
constexpr float kMaxNats = 1e9f;

std::string ReadManifestText(const PackageDir& dir) {
  struct stat status {};
  if (!dir.Find(contract::kManifestFile, status) || S_ISDIR(status.st_mode)) {
    throw InvalidArgument(Message(dir.path(), ": no ", contract::kManifestFile,
                                  " in this folder; `dgrt export CHECKPOINT -o FOLDER` writes an engine package"));
  }
  const PackageFile file = dir.Open(contract::kManifestFile, "a regular file");
  const int64_t size = file.Status().st_size;
  if (size > kMaxManifestBytes) {
    throw ContractMismatch(Message(file.path(), ": expected at most ", kMaxManifestBytes, " bytes, found ", size));
  }
  std::string text(static_cast<size_t>(size), '\0');
  file.Read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

void CheckVersion(const JsonObject& manifest) {
  const std::string format = manifest.String("format");
  if (format != contract::kFormat) {
    throw ContractMismatch(Message("manifest.json: format: expected '", contract::kFormat, "', found '", format, "'"));
  }
  const int64_t version = manifest.Integer("contract_version", 0, INT32_MAX);
  if (version != contract::kContractVersion) {
    throw ContractMismatch(Message("manifest.json: contract_version: expected ", contract::kContractVersion,
                                   ", found ", version, "; export the checkpoint again with this version of dgrt"));
  }
}

int ReadOperators(const JsonObject& manifest, const std::string& profile) {
  if (profile == contract::kPortableProfile) return 0;
  if (profile != contract::kFusedProfile) {
    JsonObject::Fail(manifest.PathOf("profile"), "\"portable\" or \"fused\"", manifest.At("profile"));
  }
  const int64_t version = manifest.Integer("operators", 1, INT32_MAX);
  if (version > contract::kOperatorsVersion) {
    throw ContractMismatch(Message("manifest.json: operators: expected ", contract::kOperatorsVersion,
                                   " or older, found ", version, "; the package needs a newer version of dgrt"));
  }
  if (version < contract::kOldestOperatorsVersion) {
    throw ContractMismatch(Message("manifest.json: operators: expected ", contract::kOldestOperatorsVersion,
                                   " or newer, found ", version, "; export the checkpoint again with this version of dgrt"));
  }
  return static_cast<int>(version);
}

std::string ReadPrecision(const JsonObject& manifest, const std::string& profile) {
  const std::string precision = manifest.String("precision");
  const bool is_quantised = precision == "int8" || precision == "int4";
  if (!is_quantised && precision != "fp32" && precision != "bf16") {
    JsonObject::Fail(manifest.PathOf("precision"), "\"fp32\", \"bf16\", \"int8\" or \"int4\"", manifest.At("precision"));
  }
  if (is_quantised && profile != contract::kFusedProfile) {
    JsonObject::Fail(manifest.PathOf("precision"), Message("\"fp32\" or \"bf16\" in the profile \"", profile, "\""),
                     manifest.At("precision"));
  }
  return precision;
}

LayerFacts ReadLayer(const JsonObject& layer) {
  LayerFacts facts;
  const std::string type = layer.String("type");
  if (type == "sliding") {
    facts.type = LayerType::kSliding;
  } else if (type == "full") {
    facts.type = LayerType::kFull;
  } else {
    JsonObject::Fail(layer.PathOf("type"), "\"sliding\" or \"full\"", layer.At("type"));
  }
  facts.head_dim = layer.Integer("head_dim", 1, kMaxHeadDim);
  facts.num_kv_heads = layer.Integer("num_kv_heads", 1, kMaxHeads);
  return facts;
}

ModelFacts ReadModel(const JsonObject& model) {
  ModelFacts facts;
  facts.vocab_size = model.Integer("vocab_size", 1, kMaxVocab);
  facts.hidden_size = model.Integer("hidden_size", 1, kMaxHidden);
  facts.canvas_len = model.Integer("canvas_len", 1, kMaxCanvas);
  facts.context_len = model.Integer("context_len", facts.canvas_len, kMaxContext);
  facts.sliding_window = model.Integer("sliding_window", 1, kMaxContext);
  facts.num_heads = model.Integer("num_heads", 1, kMaxHeads);
  facts.num_experts = model.Integer("num_experts", 0, kMaxExperts);
  facts.top_k_experts = model.Integer("top_k_experts", 0, facts.num_experts);
  facts.final_logit_softcap = model.Number("final_logit_softcap", 0.0f, kMaxSoftcap);
  facts.pad_token_id = static_cast<int32_t>(model.Integer("pad_token_id", 0, facts.vocab_size - 1));
  facts.bos_token_id = static_cast<int32_t>(model.Integer("bos_token_id", -1, facts.vocab_size - 1));
  const json& layers = model.Array("layers");
  if (layers.empty() || layers.size() > static_cast<size_t>(kMaxLayers)) {
    throw ContractMismatch(Message("manifest.json: model.layers: expected 1 to ", kMaxLayers, " layers, found ",
                                   layers.size()));
  }
  int64_t kv_bytes_per_token = 0;  // at most 2^12 layers x 2^28 values x 8 bytes
  for (size_t i = 0; i < layers.size(); ++i) {
    const JsonObject layer(layers[i], Message(model.PathOf("layers"), "[", i, "]"));
    facts.layers.push_back(ReadLayer(layer));
    if (facts.num_heads % facts.layers.back().num_kv_heads != 0) {
      JsonObject::Fail(layer.PathOf("num_kv_heads"), Message("a divisor of num_heads = ", facts.num_heads),
                       layer.At("num_kv_heads"));
    }
    kv_bytes_per_token += 2 * static_cast<int64_t>(sizeof(float)) * facts.layers.back().kv_width();
  }
  if (facts.context_len > kMaxKvBytes / kv_bytes_per_token) {
    throw ContractMismatch(Message("manifest.json: model: expected KV memory of at most ", kMaxKvBytes,
                                   " bytes, found context_len ", facts.context_len, " x ", kv_bytes_per_token,
                                   " bytes per token"));
  }
  return facts;
}

DrafterFacts ReadDrafter(const JsonObject& drafter, const ModelFacts& model) {
  DrafterFacts facts;
  facts.block_len = drafter.Integer("block_len", 1, model.canvas_len);
  facts.mean_run = drafter.Number("mean_run", 0.0f, static_cast<float>(model.canvas_len));
  const json& layers = drafter.Array("kv_layers");
  if (layers.empty()) JsonObject::Fail(drafter.PathOf("kv_layers"), "at least one layer", layers);
  for (size_t i = 0; i < layers.size(); ++i) {
    const std::string path = Message(drafter.PathOf("kv_layers"), "[", i, "]");
    const int64_t layer = JsonObject::IntegerValue(layers[i], path, 0, std::ssize(model.layers) - 1);
    if (i > 0 && layer <= facts.kv_layers.back()) JsonObject::Fail(path, "a layer behind the one before", layers[i]);
    if (model.layers[static_cast<size_t>(layer)].type != LayerType::kFull) {
      JsonObject::Fail(path, "a full layer", layers[i]);
    }
    facts.kv_layers.push_back(static_cast<int32_t>(layer));
  }
  return facts;
}

GenerationDefaults ReadGeneration(const JsonObject& generation, const ModelFacts& model) {
  GenerationDefaults defaults;
  SamplerOptions& sampler = defaults.sampler;
  sampler.max_denoising_steps = static_cast<int32_t>(generation.Integer("max_denoising_steps", 1, kMaxSteps));
  sampler.entropy_bound = generation.Number("entropy_bound", 0.0f, kMaxNats);
  sampler.t_min = generation.Number("t_min", 0.0f, kMaxTemperature);
  sampler.t_max = generation.Number("t_max", 0.0f, kMaxTemperature);
  sampler.stability_threshold = static_cast<int32_t>(generation.Integer("stability_threshold", 0, kMaxSteps));
  sampler.confidence_threshold = generation.Number("confidence_threshold", 0.0f, kMaxNats);
  if (const std::string broken = BrokenSampler(sampler); !broken.empty()) {
    throw ContractMismatch(Message("manifest.json: generation.", broken));
  }
  const json& stop_ids = generation.Array("stop_ids");
  for (size_t i = 0; i < stop_ids.size(); ++i) {
    defaults.stop_ids.push_back(static_cast<int32_t>(JsonObject::IntegerValue(
        stop_ids[i], Message(generation.PathOf("stop_ids"), "[", i, "]"), 0, model.vocab_size - 1)));
  }
  return defaults;
}

EmbeddingLocation ReadEmbedding(const JsonObject& embedding, const ModelFacts& model, const PackageFiles& files) {
  EmbeddingLocation location;
  location.file = embedding.String("file");
  const int64_t file_bytes = files.Bytes(location.file, "embedding.file");
  if (!files.IsWeightFile(location.file)) {
    JsonObject::Fail(embedding.PathOf("file"), "a name that `weight_files` lists", embedding.At("file"));
  }
  const std::string dtype = embedding.String("dtype");
  if (dtype == "float32") {
    location.dtype = DType::kFloat32;
  } else if (dtype == "bfloat16") {
    location.dtype = DType::kBFloat16;
  } else {
    JsonObject::Fail(embedding.PathOf("dtype"), "\"float32\" or \"bfloat16\"", embedding.At("dtype"));
  }
  const int64_t expected = model.vocab_size * model.hidden_size * BytesOf(location.dtype);
  location.bytes = embedding.Integer("bytes", 0, INT64_MAX);
  if (location.bytes != expected) {
    JsonObject::Fail(embedding.PathOf("bytes"),
                     Message(expected, " (", model.vocab_size, " x ", model.hidden_size, " ", dtype, ")"),
                     embedding.At("bytes"));
  }
  location.offset = embedding.Integer("offset", 0, INT64_MAX);
  if (location.bytes > file_bytes || location.offset > file_bytes - location.bytes) {
    throw ContractMismatch(Message("manifest.json: embedding: expected a range inside ", location.file, " (", file_bytes,
                                   " bytes), found offset ", location.offset, " + ", location.bytes, " bytes"));
  }
  return location;
}

std::string ReadGraphFile(const JsonObject& graphs, const char* name, const PackageFiles& files) {
  const JsonObject graph = graphs.Object(name);
  const std::string file = graph.String("file");
  files.Bytes(file, graph.PathOf("file"));
  if (files.IsWeightFile(file)) {  // weight files may go unhashed, graphs never
    throw ContractMismatch(Message("manifest.json: weight_files: expected weights only, found the graph ", file));
  }
  return file;
}

}  // namespace

Manifest LoadManifest(const std::string& dir, bool verify_weights) {
  PackageDir folder(dir);
  Manifest manifest;
  manifest.json = ReadManifestText(folder);
  const json document = ParseJson(manifest.json, folder.PathOf(contract::kManifestFile));
  const JsonObject root(document, Message(contract::kManifestFile, ": "));
  CheckVersion(root);

  manifest.files = std::make_shared<const PackageFiles>(std::move(folder), root);
  const PackageFiles& files = *manifest.files;
  manifest.weight_bytes = files.weight_bytes();
  manifest.files_hash = files.Hash();
  manifest.profile = root.String("profile");
  manifest.operators = ReadOperators(root, manifest.profile);
  manifest.precision = ReadPrecision(root, manifest.profile);
  manifest.experts = root.String("experts");
  manifest.model = ReadModel(root.Object("model"));
  manifest.generation = ReadGeneration(root.Object("generation"), manifest.model);
  manifest.embedding = ReadEmbedding(root.Object("embedding"), manifest.model, files);
  const JsonObject graphs = root.Object("graphs");
  manifest.prefill_file = ReadGraphFile(graphs, contract::kPrefillGraph, files);
  manifest.denoise_file = ReadGraphFile(graphs, contract::kDenoiseGraph, files);
  manifest.score_file = ReadGraphFile(graphs, contract::kScoreGraph, files);
  manifest.packed_file = ReadGraphFile(graphs, contract::kPackedGraph, files);
  manifest.check_file = ReadGraphFile(graphs, contract::kCheckGraph, files);
  if (root.Has("drafter") || graphs.Has(contract::kDrafterGraph)) {  // both or neither
    manifest.model.drafter = ReadDrafter(root.Object("drafter"), manifest.model);
    manifest.drafter_file = ReadGraphFile(graphs, contract::kDrafterGraph, files);
  }
  files.CheckHashes(verify_weights);  // last: the only check that takes time
  return manifest;
}

}  // namespace dgrt
