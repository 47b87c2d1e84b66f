// Manifest reader and package files: the good case, and one test per kind of damage. What a whole runtime
// answers to hostile packages is in tests/boundary/test_hostile_packages.py.
#include "engine/manifest.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "common/check.h"
#include "engine/contract.h"
#include "engine/package_files.h"
#include "common/sha256.h"
#include "test.h"

namespace dgrt {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string HashOf(const std::string& text) { return Sha256Hex(std::as_bytes(std::span(text.data(), text.size()))); }

// As export/README.md states it: the size in 8 bytes, then the file, or its header and blocks of each tensor.
std::string SampleOf(const std::string& text) {
  const size_t size = text.size();
  std::string hashed;
  for (int i = 0; i < 8; ++i) hashed.push_back(static_cast<char>(size >> (8 * i)));
  if (size <= 2 << 20) return HashOf(hashed + text);
  size_t start = 8 + static_cast<size_t>(*reinterpret_cast<const uint64_t*>(text.data()));
  hashed += text.substr(0, start);
  std::vector<size_t> ends;
  const json header = json::parse(text.substr(8, start - 8));
  for (const auto& [name, tensor] : header.items()) {
    if (name != "__metadata__") ends.push_back(start + tensor["data_offsets"][1].get<size_t>());
  }
  std::sort(ends.begin(), ends.end());
  for (const size_t end : ends) {
    const size_t bytes = end - start, count = 2 + (bytes >> 24);
    if (bytes <= 1024 * count) hashed += text.substr(start, bytes);
    for (size_t i = 0; bytes > 1024 * count && i < count; ++i) {
      hashed += text.substr(start + i * (bytes - 1024) / (count - 1), 1024);
    }
    start = end;
  }
  return HashOf(hashed);
}

// A safetensors file of these tensors, names and lengths, filled with noise.
std::string Weights(const std::vector<std::pair<std::string, size_t>>& tensors) {
  json header = {{"__metadata__", {{"format", "pt"}}}};
  size_t end = 0;
  for (const auto& [name, bytes] : tensors) {
    header[name] = {{"dtype", "U8"}, {"shape", {bytes}}, {"data_offsets", {end, end + bytes}}};
    end += bytes;
  }
  std::string text = header.dump();
  text.insert(0, 8, '\0');
  *reinterpret_cast<uint64_t*>(text.data()) = text.size() - 8;
  for (size_t i = 0; i < end; ++i) text.push_back(static_cast<char>(i * 2654435761u >> 24));
  return text;
}

void Write(const fs::path& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

// A package folder of its own with a manifest that is right; `damage` may change it before it is written.
class Package {
 public:
  Package() {
    std::string pattern = (fs::temp_directory_path() / "dgrt-manifest-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
    dir_ = pattern;
    Add("prefill.onnx", "prefill graph");
    Add("denoise.onnx", "denoise graph");
    Add("score.onnx", "score graph");
    Add("packed.onnx", "packed graph");
    Add("check.onnx", "checking graph");
    AddWeights(std::string(10 + 8 * 4 * 4, 'w'));
    manifest["format"] = "dgrt-engine";
    manifest["contract_version"] = contract::kContractVersion;
    manifest["profile"] = "portable";
    manifest["precision"] = "fp32";
    manifest["experts"] = "dense";
    manifest["model"] = {
        {"vocab_size", 8},      {"hidden_size", 4},   {"canvas_len", 6},   {"context_len", 64},
        {"sliding_window", 16}, {"num_heads", 4},     {"num_experts", 8},  {"top_k_experts", 2},
        {"pad_token_id", 0},    {"bos_token_id", -1}, {"final_logit_softcap", 30.0}};
    manifest["model"]["layers"] = json::array({{{"type", "sliding"}, {"head_dim", 2}, {"num_kv_heads", 2}},
                                               {{"type", "full"}, {"head_dim", 4}, {"num_kv_heads", 1}}});
    manifest["generation"] = {{"max_denoising_steps", 48}, {"entropy_bound", 0.1},       {"t_min", 0.4},
                              {"t_max", 0.8},              {"stability_threshold", 1},   {"confidence_threshold", 0.005},
                              {"stop_ids", {1, 7}}};
    for (const char* graph : {"prefill", "denoise", "score", "packed", "check"}) {
      manifest["graphs"][graph]["file"] = std::string(graph) + ".onnx";
    }
    manifest["embedding"] = {{"file", "model.safetensors"}, {"offset", 10}, {"bytes", 128}, {"dtype", "float32"}};
    manifest["weight_files"] = {"model.safetensors"};
  }
  ~Package() { fs::remove_all(dir_); }
  Package(const Package&) = delete;
  Package& operator=(const Package&) = delete;

  void Add(const std::string& name, const std::string& content) {
    Write(dir_ / name, content);
    manifest["files"][name] = {{"bytes", content.size()}, {"sha256", HashOf(content)}};
  }
  void AddWeights(const std::string& content) {
    Add("model.safetensors", content);
    manifest["files"]["model.safetensors"]["sample"] = SampleOf(content);
  }
  Manifest Load(bool verify_weights = false) {
    Write(dir_ / "manifest.json", manifest.dump());
    return LoadManifest(dir_.string(), verify_weights);
  }
  Manifest LoadText(const std::string& text) {
    Write(dir_ / "manifest.json", text);
    return LoadManifest(dir_.string(), false);
  }
  const fs::path& dir() const { return dir_; }

  json manifest;

 private:
  fs::path dir_;
};

TEST(AGoodManifestIsReadInFull) {
  Package package;
  package.manifest["a_key_of_the_future"] = {1, 2, 3};
  const Manifest manifest = package.Load(/*verify_weights=*/true);
  CHECK_EQ(manifest.model.vocab_size, 8);
  CHECK_EQ(manifest.model.context_len, 64);
  CHECK_EQ(manifest.model.layers.size(), 2u);
  CHECK(manifest.model.layers[0].type == LayerType::kSliding);
  CHECK(manifest.model.layers[1].type == LayerType::kFull);
  CHECK_EQ(manifest.model.layers[1].kv_width(), 4);
  CHECK_EQ(manifest.model.bos_token_id, -1);
  CHECK_EQ(manifest.generation.sampler.max_denoising_steps, 48);
  CHECK_NEAR(manifest.generation.sampler.entropy_bound, 0.1, 1e-7);
  CHECK_EQ(manifest.generation.stop_ids.size(), 2u);
  CHECK_EQ(manifest.embedding.offset, 10);
  CHECK(manifest.embedding.dtype == DType::kFloat32);
  CHECK_EQ(manifest.weight_bytes, 138);
  CHECK_EQ(manifest.prefill_file, "prefill.onnx");
  CHECK_EQ(manifest.json, package.manifest.dump());
}

TEST(AFolderThatIsNoPackageIsAnInvalidArgument) {
  Package package;
  CHECK_THROWS(InvalidArgument, "No such file", LoadManifest("/nonexistent/engine", false));
  CHECK_THROWS(InvalidArgument, "no manifest.json", LoadManifest(package.dir().string(), false));
  CHECK_THROWS(InvalidArgument, "expected a folder", LoadManifest((package.dir() / "prefill.onnx").string(), false));
}

TEST(TextThatIsNotJsonIsRefused) {
  Package package;
  CHECK_THROWS(ContractMismatch, "expected JSON", package.LoadText(""));
  CHECK_THROWS(ContractMismatch, "expected JSON", package.LoadText("{\"format\": "));
  CHECK_THROWS(ContractMismatch, "expected JSON", package.LoadText("\xff\xfe"));
  CHECK_THROWS(ContractMismatch, "expected an object", package.LoadText("[]"));
  CHECK_THROWS(ContractMismatch, "64 levels", package.LoadText(std::string(1'000'000, '[')));
}

// One change of a good manifest and a part of the message it must give.
void CheckRefused(const std::string& message_part, const std::function<void(json&)>& damage) {
  Package package;
  damage(package.manifest);
  CHECK_THROWS(ContractMismatch, message_part, package.Load());
}

TEST(FormatAndVersionAreCheckedFirst) {
  CheckRefused("format: expected 'dgrt-engine', found 'zip'", [](json& m) { m = {{"format", "zip"}}; });
  CheckRefused(Message("contract_version: expected ", contract::kContractVersion, ", found 9"),
               [](json& m) { m = {{"format", "dgrt-engine"}, {"contract_version", 9}}; });
  CheckRefused("contract_version: expected an integer", [](json& m) { m["contract_version"] = "1"; });
  CheckRefused("format: missing key", [](json& m) { m.erase("format"); });
}

TEST(EveryKeyIsRequiredAndTyped) {
  for (const char* key : {"profile", "precision", "model", "generation", "graphs", "embedding", "files", "weight_files"}) {
    CheckRefused(key, [&](json& m) { m.erase(key); });
    CheckRefused(key, [&](json& m) { m[key] = 1.5; });
  }
  const json model = Package().manifest["model"];
  for (const auto& [key, value] : model.items()) {
    const std::string name = "model." + key;
    CheckRefused(name.c_str(), [&](json& m) { m["model"].erase(key); });
    CheckRefused(name.c_str(), [&](json& m) { m["model"][key] = "x"; });
    CheckRefused(name.c_str(), [&](json& m) { m["model"][key] = -7; });
  }
}

TEST(TheProfileSaysWhetherOurOwnOperatorsAreNeeded) {
  Package package;
  CHECK_EQ(package.Load().operators, 0);
  package.manifest["profile"] = "fused";
  package.manifest["operators"] = contract::kOperatorsVersion;
  CHECK_EQ(package.Load().operators, contract::kOperatorsVersion);

  CheckRefused("profile: expected \"portable\" or \"fused\", found \"melted\"", [](json& m) { m["profile"] = "melted"; });
  CheckRefused("operators: missing key", [](json& m) { m["profile"] = "fused"; });
  const auto fused_with = [](const json& version) {
    return [version](json& m) {
      m["profile"] = "fused";
      m["operators"] = version;
    };
  };
  CheckRefused(Message("operators: expected ", contract::kOperatorsVersion, " or older, found 9"), fused_with(9));
  CheckRefused(Message("operators: expected ", contract::kOldestOperatorsVersion, " or newer, found 5; export"), fused_with(5));
  CheckRefused("operators: expected an integer from 1", fused_with(0));
  CheckRefused("operators: expected an integer from 1", fused_with("1"));
}

TEST(ThePrecisionIsOneThatTheProfileCanHave) {
  Package package;
  package.manifest["profile"] = "fused";
  package.manifest["operators"] = contract::kOperatorsVersion;
  for (const char* precision : {"fp32", "bf16", "int8", "int4"}) {
    package.manifest["precision"] = precision;
    CHECK_EQ(package.Load().precision, std::string(precision));
  }
  CheckRefused("precision: expected \"fp32\", \"bf16\", \"int8\" or \"int4\", found \"int2\"",
               [](json& m) { m["precision"] = "int2"; });
  CheckRefused("precision: expected \"fp32\" or \"bf16\" in the profile \"portable\", found \"int4\"",
               [](json& m) { m["precision"] = "int4"; });
}

TEST(AbsurdFactsAreRefused) {
  const uint64_t huge = uint64_t{1} << 63;
  for (const char* key : {"vocab_size", "hidden_size", "canvas_len", "context_len", "sliding_window", "num_heads"}) {
    CheckRefused(key, [&](json& m) { m["model"][key] = 0; });
    CheckRefused(key, [&](json& m) { m["model"][key] = int64_t{1} << 40; });
    CheckRefused(key, [&](json& m) { m["model"][key] = huge; });
    CheckRefused(key, [&](json& m) { m["model"][key] = 1e300; });
  }
  CheckRefused("context_len: expected an integer from 6", [](json& m) { m["model"]["context_len"] = 5; });
  CheckRefused("pad_token_id", [](json& m) { m["model"]["pad_token_id"] = 8; });
  CheckRefused("top_k_experts", [](json& m) { m["model"]["top_k_experts"] = 9; });
  CheckRefused("expected 1 to 4096 layers, found 0", [](json& m) { m["model"]["layers"] = json::array(); });
  CheckRefused("layers[1].num_kv_heads: expected a divisor", [](json& m) { m["model"]["layers"][1]["num_kv_heads"] = 3; });
  CheckRefused("layers[0].type", [](json& m) { m["model"]["layers"][0]["type"] = "round"; });
  CheckRefused("stop_ids[1]", [](json& m) { m["generation"]["stop_ids"][1] = 8; });
  CheckRefused("max_denoising_steps", [](json& m) { m["generation"]["max_denoising_steps"] = 0; });
  // What every session would refuse is refused with the package.
  CheckRefused("generation.entropy_bound: expected a number above 0", [](json& m) { m["generation"]["entropy_bound"] = 0; });
  CheckRefused("generation.t_max: expected a number above t_min", [](json& m) { m["generation"]["t_max"] = 0.4; });
  CheckRefused("KV memory", [](json& m) {
    m["model"]["context_len"] = int64_t{1} << 32;
    m["model"]["num_heads"] = 1 << 14;
    for (auto& layer : m["model"]["layers"]) layer = {{"type", "full"}, {"head_dim", 1 << 14}, {"num_kv_heads", 1 << 14}};
  });
}

namespace {

void AddDrafter(Package& package) {
  package.Add("drafter.onnx", "drafter graph");
  package.manifest["graphs"]["drafter"]["file"] = "drafter.onnx";
  package.manifest["drafter"] = {{"kv_layers", {1}}, {"block_len", 6}, {"mean_run", 2.5}, {"name", "small"}};
}

void CheckDrafterRefused(const std::string& message_part, const std::function<void(json&)>& damage) {
  Package package;
  AddDrafter(package);
  damage(package.manifest);
  CHECK_THROWS(ContractMismatch, message_part, package.Load());
}

}  // namespace

TEST(ADrafterIsOptionalAndReadInFull) {
  CHECK(!Package().Load().model.drafter);
  Package package;
  AddDrafter(package);
  const Manifest manifest = package.Load();
  CHECK(manifest.model.drafter->kv_layers == std::vector<int32_t>{1});
  CHECK_EQ(manifest.model.drafter->block_len, 6);
  CHECK_EQ(manifest.model.drafter->mean_run, 2.5f);
  CHECK_EQ(manifest.drafter_file, "drafter.onnx");
}

TEST(ADrafterMustFitItsModel) {
  CheckDrafterRefused("drafter: missing key", [](json& m) { m.erase("drafter"); });
  CheckDrafterRefused("graphs.drafter: missing key", [](json& m) { m["graphs"].erase("drafter"); });
  CheckDrafterRefused("drafter: expected an object", [](json& m) { m["drafter"] = true; });
  CheckDrafterRefused("drafter.block_len: expected an integer from 1 to 6, found 7",
                       [](json& m) { m["drafter"]["block_len"] = 7; });
  CheckDrafterRefused("drafter.block_len", [](json& m) { m["drafter"]["block_len"] = 0; });
  CheckDrafterRefused("drafter.mean_run", [](json& m) { m["drafter"]["mean_run"] = -1; });
  CheckDrafterRefused("drafter.mean_run", [](json& m) { m["drafter"].erase("mean_run"); });
  CheckDrafterRefused("drafter.kv_layers: expected at least one layer",
                       [](json& m) { m["drafter"]["kv_layers"] = json::array(); });
  CheckDrafterRefused("drafter.kv_layers: expected an array", [](json& m) { m["drafter"]["kv_layers"] = 1; });
  CheckDrafterRefused("drafter.kv_layers[0]: expected an integer from 0 to 1, found 2",
                       [](json& m) { m["drafter"]["kv_layers"] = {2}; });
  CheckDrafterRefused("drafter.kv_layers[0]: expected a full layer, found 0",
                       [](json& m) { m["drafter"]["kv_layers"] = {0}; });
  CheckDrafterRefused("drafter.kv_layers[1]: expected a layer behind the one before",
                       [](json& m) { m["drafter"]["kv_layers"] = {1, 1}; });
  CheckDrafterRefused("graphs.drafter.file", [](json& m) { m["graphs"]["drafter"]["file"] = "other.onnx"; });
  CheckDrafterRefused("expected weights only, found the graph drafter.onnx",
                      [](json& m) {
                        m["weight_files"].push_back("drafter.onnx");
                        m["files"]["drafter.onnx"]["sample"] = SampleOf("drafter graph");
                      });
}

TEST(TheEmbeddingMustLieInItsFile) {
  CheckRefused("embedding.bytes: expected 128", [](json& m) { m["embedding"]["bytes"] = 127; });
  CheckRefused("range inside model.safetensors", [](json& m) { m["embedding"]["offset"] = 11; });
  CheckRefused("range inside model.safetensors", [](json& m) { m["embedding"]["offset"] = INT64_MAX; });
  CheckRefused("embedding.offset", [](json& m) { m["embedding"]["offset"] = -1; });
  CheckRefused("embedding.dtype", [](json& m) { m["embedding"]["dtype"] = "float16"; });
  CheckRefused("embedding.bytes: expected 64", [](json& m) { m["embedding"]["dtype"] = "bfloat16"; });
  CheckRefused("embedding.file: expected a name that `files` lists", [](json& m) { m["embedding"]["file"] = "other"; });
}

TEST(NamesMustStayInTheFolder) {
  for (const char* name : {"../x", "/etc/passwd", "a/b", "..", ".", "", "a\\b", "manifest.json"}) {
    CheckRefused("directly in the package folder", [&](json& m) { m["files"][name] = {{"bytes", 1}, {"sha256", ""}}; });
  }
  CheckRefused("graphs.prefill.file", [](json& m) { m["graphs"]["prefill"]["file"] = "../prefill.onnx"; });
  CheckRefused("weights only, found the graph", [](json& m) {
    m["weight_files"].push_back("denoise.onnx");
    m["files"]["denoise.onnx"]["sample"] = SampleOf("denoise graph");
  });
  CheckRefused("weight_files", [](json& m) { m["weight_files"].push_back("nowhere.bin"); });
}

TEST(FilesMustExistWithTheirSizeAndHash) {
  Package package;
  package.Add("tokenizer.json", "{}");
  package.Load();
  Write(package.dir() / "tokenizer.json", "[]");
  CHECK_THROWS(ContractMismatch, "tokenizer.json: SHA-256: expected " + HashOf("{}") + ", found " + HashOf("[]"),
               package.Load());
  Write(package.dir() / "tokenizer.json", "{");
  CHECK_THROWS(ContractMismatch, "tokenizer.json: expected 2 bytes, found 1", package.Load());
  fs::remove(package.dir() / "tokenizer.json");
  CHECK_THROWS(ContractMismatch, "tokenizer.json: expected a file of 2 bytes, found none", package.Load());
  fs::create_directory(package.dir() / "tokenizer.json");
  CHECK_THROWS(ContractMismatch, "tokenizer.json: expected a regular file", package.Load());
}

TEST(ASmallWeightFileIsHashedWholeAtEveryLoad) {
  Package package;
  std::string changed(138, 'w');
  changed[77] = 'v';
  Write(package.dir() / "model.safetensors", changed);
  const std::string said = "model.safetensors: expected the bytes that were exported, found others (last written 2";
  CHECK_THROWS(ContractMismatch, said, package.Load());
  CHECK_THROWS(ContractMismatch, "export the checkpoint again", package.Load());
  Write(package.dir() / "model.safetensors", changed + "w");
  CHECK_THROWS(ContractMismatch, "model.safetensors: expected 138 bytes, found 139 (last written 2", package.Load());
  Write(package.dir() / "model.safetensors", std::string(138, 'w'));
  package.Load();
  fs::create_hard_link(package.dir() / "model.safetensors", package.dir() / "other name");
  package.Load();
  Write(package.dir() / "other name", changed);
  CHECK_THROWS(ContractMismatch, "shared by hard link (2 names", package.Load());
  CHECK_THROWS(ContractMismatch, "`dgrt export --copy`", package.Load());
}

TEST(EveryTensorOfALargeWeightFileIsSampled) {
  const std::vector<std::pair<std::string, size_t>> tensors = {
      {"norm", 2}, {"empty", 0}, {"scale", 2048}, {"bias", 2049}, {"a", 1 << 21}, {"large", (size_t{40} << 20) + 7}, {"b", 9000}};
  Package package;
  const std::string content = Weights(tensors);
  package.AddWeights(content);
  CHECK_EQ(package.Load(true).weight_bytes, static_cast<int64_t>(content.size()));
  const auto write_changed = [&](size_t place) {
    std::string changed = content;
    changed[place] ^= 1;
    Write(package.dir() / "model.safetensors", changed);
  };
  size_t start = 8 + static_cast<size_t>(*reinterpret_cast<const uint64_t*>(content.data()));
  std::vector<size_t> sampled = {0, 9, start / 2, start - 1};
  for (const auto& [name, bytes] : tensors) {
    if (bytes == 0) continue;
    sampled.insert(sampled.end(), {start, start + std::min<size_t>(bytes, 1024) - 1, start + bytes - 1});
    if (name == "large") sampled.insert(sampled.end(), {start + (bytes - 1024) / 3, start + 2 * (bytes - 1024) / 3 + 1023});
    start += bytes;
  }
  for (const size_t place : sampled) {
    write_changed(place);
    CHECK_THROWS(ContractMismatch, "model.safetensors: expected the bytes that were exported", package.Load());
  }
  write_changed(content.size() - 5000);  // between two blocks
  package.Load();
  CHECK_THROWS(ContractMismatch, "SHA-256: expected", package.Load(/*verify_weights=*/true));
}

TEST(AWeightFileOfTwoMebibytesIsHashedWhole) {
  Package package;
  std::string content = Weights({{"a", (2 << 20) - 96}});
  content.resize(2 << 20);
  package.AddWeights(content);
  package.Load();
  for (const size_t place : {size_t{0}, size_t{1'000'000}, size_t{2'000'000}, content.size() - 1}) {
    std::string changed = content;
    changed[place] ^= 1;
    Write(package.dir() / "model.safetensors", changed);
    CHECK_THROWS(ContractMismatch, "model.safetensors: expected the bytes that were exported", package.Load());
  }
}

// What took the place of a large weight file need not have a header.
TEST(AHeaderThatIsNoneIsAChange) {
  Package package;
  const std::string content = Weights({{"a", 3 << 20}});
  package.AddWeights(content);
  for (const std::string header : {"[]", "{", "{\"a\": 3}", "{\"a\": {}}", "{\"a\": {\"data_offsets\": [1]}}",
                                   "{\"a\": {\"data_offsets\": [0, -1]}}", "{\"a\": {\"data_offsets\": [0, 99999999]}}",
                                   "{\"a\": {\"data_offsets\": [0, 1e99]}}", "{}"}) {
    std::string changed = content;
    const size_t length = *reinterpret_cast<const uint64_t*>(content.data());
    changed.replace(8, length, header + std::string(length - header.size(), ' '));
    Write(package.dir() / "model.safetensors", changed);
    CHECK_THROWS(ContractMismatch, "model.safetensors: expected the bytes that were exported", package.Load());
  }
  for (const uint64_t length : {uint64_t{0}, uint64_t{3 << 20}, uint64_t{1} << 40, UINT64_MAX}) {
    std::string changed = content;
    *reinterpret_cast<uint64_t*>(changed.data()) = length;
    Write(package.dir() / "model.safetensors", changed);
    CHECK_THROWS(ContractMismatch, "model.safetensors: expected the bytes that were exported", package.Load());
  }
}

TEST(TheSampleIsRequiredOfWeightFilesAndOfNoOthers) {
  CheckRefused("files.model.safetensors.sample: missing key", [](json& m) { m["files"]["model.safetensors"].erase("sample"); });
  CheckRefused("sample: expected 64 lower-case", [](json& m) { m["files"]["model.safetensors"]["sample"] = "x"; });
  CheckRefused("expected the bytes that were exported",
               [](json& m) { m["files"]["model.safetensors"]["sample"] = std::string(64, '0'); });
  CheckRefused("embedding.file: expected a name that `weight_files` lists",
               [](json& m) { m["embedding"]["file"] = "check.onnx"; });
}

TEST(FilesAreNoSymbolicLinksButTheFolderMayBe) {
  Package package, other;
  for (const fs::path& target : {other.dir() / "prefill.onnx", fs::path("denoise.onnx"), fs::path("prefill.onnx")}) {
    fs::remove(package.dir() / "prefill.onnx");
    fs::create_symlink(target, package.dir() / "prefill.onnx");
    CHECK_THROWS(ContractMismatch, "found a symbolic link to " + target.string(), package.Load());
  }
  fs::remove(package.dir() / "prefill.onnx");
  fs::create_hard_link(other.dir() / "prefill.onnx", package.dir() / "prefill.onnx");
  package.Load();
  const fs::path alias = package.dir().string() + "-alias";
  fs::create_directory_symlink(package.dir(), alias);
  CHECK_EQ(LoadManifest(alias.string(), false).files->PathOf("x"), (fs::canonical(package.dir()) / "x").string());
  fs::remove(alias);
}

// What happens to a package that is open, and what its late readers then get.
TEST(AnOpenPackageIsTheFolderThatWasLoaded) {
  Package package, other;
  other.Add("score.onnx", "SCORE GRAPH");
  const fs::path place = package.dir(), moved = place.string() + "-moved";
  const Manifest manifest = package.Load();
  const PackageFiles& files = *manifest.files;
  fs::rename(place, moved);
  fs::rename(other.dir(), place);
  CHECK_EQ(files.Read("score.onnx"), "score graph");
  CHECK(fs::equivalent(files.LivePath(), moved));
  files.RequireSameWeights();
  fs::rename(place, other.dir());
  fs::rename(moved, place);

  Write(place / "score.onnx", "SCORE GRAPH");
  CHECK_THROWS(ContractMismatch, "score.onnx: SHA-256: expected", files.Read("score.onnx"));
  CHECK_THROWS(InvalidArgument, "found a weight file", files.Read("model.safetensors"));
  CHECK_THROWS(ContractMismatch, "expected a name that `files` lists", files.Read("manifest.json"));
}

TEST(AWeightFileThatIsReplacedUnderAnOpenPackageIsNoticed) {
  const std::string content(138, 'w');
  Package package;
  const fs::path weights = package.dir() / "model.safetensors", beside = package.dir() / "beside";
  const Manifest manifest = package.Load();
  const PackageFiles& files = *manifest.files;
  fs::create_hard_link(weights, beside);  // changes a time, not the bytes
  files.RequireSameWeights();
  fs::remove(weights);
  CHECK_THROWS(ContractMismatch, "found none; the package was deleted or replaced since", files.RequireSameWeights());
  Write(weights, content);  // the same bytes, but who knows for how long
  CHECK_THROWS(ContractMismatch, "found another; the package", files.RequireSameWeights());
  fs::rename(beside, weights);
  files.RequireSameWeights();
  Write(weights, std::string(138, 'v'));
  CHECK_THROWS(ContractMismatch, "expected the bytes that were exported", files.RequireSameWeights());
  CHECK_THROWS(ContractMismatch, "expected the bytes that were exported", files.RequireUnwritten());
  fs::resize_file(weights, 100);
  CHECK_THROWS(ContractMismatch, "expected 138 bytes, found 100 (last written", files.RequireUnwritten());
  Write(weights, content);
  files.RequireSameWeights();
}

}  // namespace
}  // namespace dgrt
