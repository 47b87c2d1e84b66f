// Implementation of ort_engine.h: the environment, the sessions and the embedding table.
#include "engine/ort_engine.h"

#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <onnxruntime_cxx_api.h>
#include <onnxruntime_session_options_config_keys.h>

#include "common/check.h"
#include "common/env.h"
#include "common/thread_pool.h"
#include "engine/contract.h"
#include "engine/mapped_file.h"
#include "engine/ort_contract.h"
#include "engine/ort_error.h"
#include "engine/ort_executor.h"
#include "engine/ort_library.h"
#include "engine/ort_operators.h"
#include "engine/package_files.h"

namespace dgrt {
namespace {

// ONNX Runtime has one environment per process. It is never destroyed: its end would race with static destructors.
Ort::Env& Environment() {
  // Failures come as exceptions with the same text, so only what would end the process is logged.
  static auto* environment = new Ort::Env(ORT_LOGGING_LEVEL_FATAL, "dgrt");
  return *environment;
}

// `operators`: of the fused profile, or null.
Ort::SessionOptions SessionOptions(int threads, const OrtOperators* operators) {
  Ort::SessionOptions options;
  options.SetGraphOptimizationLevel(ORT_ENABLE_ALL);
  options.SetExecutionMode(ORT_SEQUENTIAL);
  options.SetInterOpNumThreads(1);
  // Threads of the session, not of the environment: the environment's pool would have the size that the first engine
  // of the process asked for. The second session's threads sleep while the first one runs.
  options.SetIntraOpNumThreads(threads);
  // Waiting threads sleep at once unless DGRT_ORT_SPIN_US says for how many microseconds they may spin: they share the
  // cores with the vocabulary head and with other processes. ONNX Runtime's own default made a step 2 to 4 times slower
  // on a shared machine (README.md beside this file).
  const int64_t spin_us = EnvInteger("DGRT_ORT_SPIN_US", 0, 1'000'000).value_or(0);
  options.AddConfigEntry(kOrtSessionOptionsConfigAllowIntraOpSpinning, spin_us > 0 ? "1" : "0");
  if (spin_us > 0) options.AddConfigEntry(kOrtSessionOptionsConfigIntraOpSpinDurationUs, std::to_string(spin_us).c_str());
  // The past grows with every canvas; a memory plan is kept per shape and would never be used again.
  options.DisableMemPattern();
  options.SetLogSeverityLevel(ORT_LOGGING_LEVEL_FATAL);
  if (operators != nullptr) options.Add(operators->domain());
  return options;
}

constexpr int kMostRenames = 4;  // of the folder, while a graph is opened

// ONNX Runtime gets a graph as bytes that were hashed, and opens the weight files itself, by path.
Ort::Session OpenSession(const PackageFiles& files, const std::string& file, int threads, const OrtOperators* operators) {
  files.RequireSameWeights();
  const std::string graph = files.Read(file);
  Ort::SessionOptions options = SessionOptions(threads, operators);
  options.AddConfigEntry(kOrtSessionOptionsModelExternalInitializersFileFolderPath, files.LivePath().c_str());
  for (int attempt = 1;; ++attempt) {
    const std::string place = files.CurrentPath();
    try {
      Ort::Session session = TranslateOrtErrors<ContractMismatch>(
          files.PathOf(file), [&] { return Ort::Session(Environment(), graph.data(), graph.size(), options); });
      files.RequireSameWeights();
      return session;
    } catch (const ContractMismatch&) {
      // ONNX Runtime looks twice where the folder is. To it, one that is renamed between has files outside of itself.
      if (attempt == kMostRenames || files.CurrentPath() == place) throw;
    }
  }
}

// A graph opened when first asked for: most are never needed, and a session may hold a prepacked copy of the weights.
class LazySession {
 public:
  using Check = void (*)(const Ort::Session& session, const ModelFacts& model, const std::string& file);
  LazySession(std::shared_ptr<const PackageFiles> files, std::string file, int threads, const OrtOperators* operators,
              Check check)
      : files_(std::move(files)), file_(std::move(file)), threads_(threads), operators_(operators), check_(check) {}

  Ort::Session& Get(const ModelFacts& model) {
    const std::lock_guard lock(mutex_);
    if (session_ == nullptr) {
      Ort::Session opened = OpenSession(*files_, file_, threads_, operators_);
      check_(opened, model, files_->PathOf(file_));
      session_ = std::move(opened);
    }
    return session_;
  }
  void Abandon() { session_.release(); }

 private:
  const std::shared_ptr<const PackageFiles> files_;
  const std::string file_;
  const int threads_;
  const OrtOperators* const operators_;
  const Check check_;
  std::mutex mutex_;
  Ort::Session session_{nullptr};  // guarded by mutex_ until it is open
};

// The graphs of a package, opened for a number of threads.
class GraphSet {
 public:
  GraphSet(const Manifest& manifest, ThreadPool& pool)
      : operators_(manifest.operators > 0 ? std::make_unique<OrtOperators>(pool) : nullptr),
        // A layer is made of our operators. What is left to ONNX Runtime is not worth a second thread, and threads of its own
        // would only be woken in turn with ours.
        threads_(operators_ != nullptr ? 1 : pool.num_threads()),
        prefill_(manifest.files, manifest.prefill_file, threads_, operators_.get(), CheckPrefillGraph),
        denoise_(manifest.files, manifest.denoise_file, threads_, operators_.get(), CheckDenoiseGraph),
        score_(manifest.files, manifest.score_file, threads_, operators_.get(), CheckScoreGraph),
        packed_(manifest.files, manifest.packed_file, threads_, operators_.get(), CheckPackedGraph),
        check_(manifest.files, manifest.check_file, threads_, operators_.get(), CheckCheckGraph) {
    if (manifest.drafter_file.empty()) return;
    drafter_.emplace(manifest.files, manifest.drafter_file, threads_, operators_.get(), CheckDrafterGraph);
  }

  // What every request needs.
  void Open(const ModelFacts& model) {
    prefill_.Get(model);
    denoise_.Get(model);
  }

  OrtGraphs View(const ModelFacts& model) {
    const auto opener = [&model](LazySession& session) { return [&] () -> Ort::Session& { return session.Get(model); }; };
    OrtGraphs graphs{opener(prefill_), opener(denoise_), opener(score_), opener(packed_), opener(check_), {}};
    if (drafter_) graphs.drafter = opener(*drafter_);
    return graphs;
  }

  void Abandon() {
    for (LazySession* session : {&prefill_, &denoise_, &score_, &packed_, &check_}) session->Abandon();
    if (drafter_) drafter_->Abandon();
  }

 private:
  std::unique_ptr<OrtOperators> operators_;  // before the sessions that use them; null in the portable profile
  int threads_;                              // of ONNX Runtime
  LazySession prefill_, denoise_, score_, packed_, check_;
  std::optional<LazySession> drafter_;
};

class OrtEngine : public Engine {
 public:
  OrtEngine(const Manifest& manifest, const OrtEngineOptions& options, const std::string& ort_version)
      : model_(manifest.model),
        embedding_location_(manifest.embedding),
        has_bf16_products_(manifest.profile == contract::kFusedProfile && manifest.precision != "fp32"),
        files_(manifest.files),
        embedding_file_(manifest.files->Weights(manifest.embedding.file)),
        all_threads_(manifest, *options.pool),
        one_thread_(manifest, *options.one_thread),
        experts_(manifest.experts),
        description_(Message("ONNX Runtime ", ort_version, ", CPU, ", manifest.profile, " ", manifest.precision)) {
    all_threads_.Open(model_);
    if (model_.drafter) no_evidence_.resize(static_cast<size_t>(model_.drafter->block_len * model_.hidden_size));
    const auto file_bytes = static_cast<int64_t>(embedding_file_.bytes().size());
    if (embedding_location_.bytes > file_bytes ||
        embedding_location_.offset > file_bytes - embedding_location_.bytes) {
      throw ContractMismatch(Message(embedding_location_.file, ": changed while the package was opened"));
    }
  }

  ~OrtEngine() override {
    // In a child of fork() the sessions' threads do not exist and could not be joined.
    if (home_.IsHere()) return;
    all_threads_.Abandon();
    one_thread_.Abandon();
  }

  const ModelFacts& model() const override { return model_; }

  EmbeddingTable embedding() const override {
    EmbeddingTable table;
    table.rows = embedding_file_.bytes().data() + embedding_location_.offset;
    table.dtype = embedding_location_.dtype;
    table.vocab_size = model_.vocab_size;
    table.hidden_size = model_.hidden_size;
    table.bf16_products = has_bf16_products_ && table.dtype == DType::kBFloat16;
    return table;
  }

  std::unique_ptr<Executor> CreateExecutor() override {
    if (home_.IsHere()) files_->RequireUnwritten();  // when a request begins, written weights are an error, not garbage
    return TranslateOrtErrors<DeviceError>("new executor", [&]() -> std::unique_ptr<Executor> {
      return std::make_unique<OrtExecutor>(
          OrtEngineView{all_threads_.View(model_), one_thread_.View(model_), &model_, no_evidence_, home_});
    });
  }

  // In the loop form the rows of an expert go through a kernel that ONNX Runtime chooses by their number, and three times
  // as many round differently (tests/export/test_parity.py).
  bool can_pack() const override { return experts_ != "loop"; }
  bool is_row_bound() const override { return true; }  // the CPU provider is the only one
  std::string description() const override { return description_; }

 private:
  ModelFacts model_;
  EmbeddingLocation embedding_location_;
  const bool has_bf16_products_;
  const std::shared_ptr<const PackageFiles> files_;
  MappedFile embedding_file_;
  std::vector<float> no_evidence_;  // [block_len, D] zeros: what a drafter sees where there is none
  GraphSet all_threads_, one_thread_;
  std::string experts_;
  std::string description_;
  HomeProcess home_;
};

}  // namespace

std::unique_ptr<Engine> OpenOrtEngine(const Manifest& manifest, const OrtEngineOptions& options) {
  DGRT_CHECK(options.pool != nullptr && options.one_thread != nullptr);
  const std::string version = LoadOrtLibrary(options.ort_library);
  return std::make_unique<OrtEngine>(manifest, options, version);
}

}  // namespace dgrt
