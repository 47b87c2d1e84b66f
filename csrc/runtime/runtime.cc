// The facade of runtime.h: construction, sizes, and methods that hand over to the stages.
#include "runtime/runtime.h"

#include <algorithm>

#include "common/check.h"
#include "drafting/suffix_drafter.h"
#include "kernels/kernels.h"
#include "runtime/auto_drafter.h"
#include "runtime/model_drafter.h"
#include "runtime/runtime_impl.h"
#include "runtime/session.h"
#include "runtime/stage_timer.h"

namespace dgrt {
namespace {

// What is left of the limit for KV rows; 0: no limit.
int64_t KvLimit(int64_t memory_limit_bytes, int64_t workspace_bytes) {
  if (memory_limit_bytes == 0) return 0;
  if (memory_limit_bytes > workspace_bytes) return memory_limit_bytes - workspace_bytes;
  throw OutOfMemory(Message("memory limit of ", memory_limit_bytes, " bytes: the workspace of a session alone needs ",
                            workspace_bytes));
}

// The most KV memory that prompt and first canvas take: whichever of their reservations is the largest.
int64_t PromptKvBytes(std::span<const KvLayerShape> shapes, int64_t prompt_len, int64_t canvas_len) {
  int64_t most = 0;
  ForEachReservation(prompt_len, canvas_len, [&](int64_t kv_len, int64_t num_rows) {
    most = std::max(most, KvBytes(shapes, kv_len, num_rows));
  });
  return most;
}

}  // namespace

std::vector<KvLayerShape> KvShapes(const ModelFacts& model) {
  std::vector<KvLayerShape> shapes;
  for (const LayerFacts& layer : model.layers) {
    shapes.push_back({layer.kv_width(), layer.type == LayerType::kSliding ? model.sliding_window : 0});
  }
  return shapes;
}

bool Overlaps(const GenerateOptions& options) {
  return options.guarantee == Guarantee::kVerified && options.drafter == DrafterKind::kOverlap && !options.make_drafter;
}

// On a CPU a packed pass costs nearly what its three passes cost, and another session's memory (README.md beside this file).
bool Speculates(const GenerateOptions& options, const Engine& engine) {
  if (Overlaps(options)) return true;
  if (options.guarantee != Guarantee::kExact || options.logprobs) return false;
  return options.pipeline == Pipeline::kOn ||
         (options.pipeline == Pipeline::kAuto && engine.can_pack() && !engine.is_row_bound());
}

bool Verifies(const GenerateOptions& options) {
  return options.guarantee == Guarantee::kVerified && !Overlaps(options) &&
         (options.drafter != DrafterKind::kNone || options.make_drafter || !options.draft.empty());
}

bool Redrafts(const GenerateOptions& options, const Engine& engine) {
  const Redraft redraft = options.verify.redraft;
  const bool is_wanted = redraft == Redraft::kOn || (redraft == Redraft::kAuto && !engine.is_row_bound());
  const bool can_redraft = options.drafter == DrafterKind::kModel || options.make_drafter;
  return is_wanted && can_redraft && Verifies(options) && options.verify.one_pass;
}

int64_t PackedCanvases(const GenerateOptions& options, const Engine& engine) {
  const Packing packing = options.verify.packing;
  const bool packs = packing == Packing::kOn || (packing == Packing::kAuto && engine.can_pack() && !engine.is_row_bound());
  return Verifies(options) && packs ? 2 + options.verify.folds : 0;
}

namespace {

// The buffers of ModelDrafter and AutoDrafter. What a suffix drafter holds grows with the text and is not counted.
int64_t DrafterBytes(const GenerateOptions& options, const ModelFacts& model) {
  if (options.guarantee == Guarantee::kExact) return 0;
  const bool is_auto = options.drafter == DrafterKind::kAuto;
  const bool has_network = model.drafter && (is_auto || options.drafter == DrafterKind::kModel);
  return (has_network ? (4 + 4) * model.drafter->block_len : 0) + (is_auto ? 4 * model.canvas_len : 0);
}

}  // namespace

int64_t WorkspaceBytes(const GenerateOptions& options, const Engine& engine) {
  const ModelFacts& model = engine.model();
  const bool verifies = Verifies(options);
  const int64_t num_canvases = verifies ? 3 : Speculates(options, engine) ? 2 : 1;
  const auto float_bytes = static_cast<int64_t>(sizeof(float));
  const int64_t logprobs = Logprobs::NumRows(model) * model.hidden_size + model.canvas_len;
  // Five token rows, accepted, entropy, uniform, start canvas, confidence of a draft, origins.
  const int64_t per_position = 5 * 4 + 1 + 4 + 8 + 4 + 4 + 1;
  const int64_t rows = 3 * model.canvas_len * model.hidden_size * float_bytes;
  const int64_t overlap = Overlaps(options) ? (4 + model.hidden_size) * model.canvas_len * 4 : 0;  // of struct Overlap
  return num_canvases * (per_position * model.canvas_len + rows) + overlap +
         (options.logprobs || verifies ? logprobs * float_bytes : 0) +
         (verifies ? (4 + 4 + 1 + 1 + 4 + 4) * model.canvas_len : 0) +  // the rows of Verification
         DrafterBytes(options, model) +
         PackedCanvases(options, engine) * model.canvas_len * (1 + model.hidden_size) * float_bytes +
         static_cast<int64_t>(
             VocabularyHeadWorkspaceBytes(model.canvas_len, model.hidden_size, model.vocab_size));
}

Canvas::Canvas(const ModelFacts& model) {
  const size_t positions = static_cast<size_t>(model.canvas_len);
  const size_t floats = positions * static_cast<size_t>(model.hidden_size);
  for (std::vector<int32_t>* row : {&tokens, &next_tokens, &argmax, &previous_argmax, &sampled}) {
    row->assign(positions, model.pad_token_id);
  }
  accepted.assign(positions, 0);
  entropy.assign(positions, 0);
  uniform.assign(positions, 0);
  for (AlignedBuffer<float>* buffer : {&soft, &next_soft, &hidden}) *buffer = AlignedBuffer<float>(floats);
}

namespace {

std::unique_ptr<Drafter> MakeDrafter(SessionState& state) {
  const GenerateOptions& options = state.options;
  if (options.make_drafter) return options.make_drafter();
  if (options.guarantee == Guarantee::kExact) return nullptr;
  switch (options.drafter) {
    case DrafterKind::kNone: return options.draft.empty() ? nullptr : std::make_unique<SuffixDrafter>(options.draft);
    case DrafterKind::kSuffix: return std::make_unique<SuffixDrafter>(options.draft);
    case DrafterKind::kModel: return std::make_unique<ModelDrafter>(state);
    case DrafterKind::kAuto: return std::make_unique<AutoDrafter>(state, options.draft);
    case DrafterKind::kOverlap: return nullptr;  // the model's own steps: overlap.cc
  }
  throw InternalError("drafter: a kind that CheckOptions let through");
}

}  // namespace

SessionState::SessionState(std::shared_ptr<Runtime> owner, Engine& engine, Lanes& shared_lanes,
                           const GenerateOptions& wanted, Lanes::Clock::time_point start, int64_t memory_limit_bytes,
                           MemoryBudget* kv_budget, PrefixCache* prefix_cache)
    : runtime(std::move(owner)),
      model(engine.model()),
      table(engine.embedding()),
      lanes(shared_lanes),
      options(wanted),
      deadline(DeadlineOf(wanted, start)),
      executor(engine.CreateExecutor()),
      kv(KvShapes(model), model.context_len, KvLimit(memory_limit_bytes, WorkspaceBytes(wanted, engine)), kv_budget),
      prefixes(prefix_cache),
      canvas(model),
      head_workspace(VocabularyHeadWorkspaceBytes(model.canvas_len, model.hidden_size, model.vocab_size)),
      is_row_bound(engine.is_row_bound()),
      draft_costs(DraftCostsOf(model, is_row_bound)),
      speculation(Speculates(wanted, engine) ? std::make_unique<Speculation>(model, wanted) : nullptr),
      logprobs(wanted.logprobs || Verifies(wanted) ? std::make_unique<Logprobs>(model) : nullptr),
      verification(Verifies(wanted) ? std::make_unique<Verification>(model, PackedCanvases(wanted, engine)) : nullptr),
      redrafts(Redrafts(wanted, engine)),
      drafter(MakeDrafter(*this)),
      draft_confidence(drafter != nullptr ? static_cast<size_t>(model.canvas_len) : 0),
      origins(static_cast<size_t>(model.canvas_len)),
      start_canvas(static_cast<size_t>(model.canvas_len)) {}

std::chrono::steady_clock::time_point DeadlineOf(const GenerateOptions& options,
                                                 std::chrono::steady_clock::time_point start) {
  using Clock = std::chrono::steady_clock;
  if (options.deadline_ms == 0) return Clock::time_point::max();
  return start + std::chrono::duration_cast<Clock::duration>(
                     std::chrono::duration<double, std::milli>(options.deadline_ms));
}

// --- Runtime ---

Runtime::Runtime(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Runtime::~Runtime() = default;

std::shared_ptr<Runtime> Runtime::FromEngine(std::unique_ptr<Engine> engine, const GenerateOptions& defaults,
                                             const RuntimeOptions& options) {
  DGRT_CHECK(engine != nullptr);
  auto impl = std::make_unique<Impl>(ResolveOptions(options));
  impl->defaults = defaults;
  impl->engine = std::move(engine);
  impl->OpenKvMemory("no package");
  return std::shared_ptr<Runtime>(new Runtime(std::move(impl)));
}

const ModelFacts& Runtime::model() const { return impl_->engine->model(); }
const GenerateOptions& Runtime::default_options() const { return impl_->defaults; }
const std::string& Runtime::manifest_json() const { return impl_->manifest_json; }
std::string Runtime::description() const { return impl_->engine->description(); }
int Runtime::threads() const { return impl_->options.threads; }
int64_t Runtime::kv_limit_bytes() const { return impl_->options.kv_limit_bytes; }
void Runtime::RequireHome() const { impl_->home.Require("engine"); }

LaneStats Runtime::lane_stats() const {
  RequireHome();
  return impl_->lanes->stats();
}

int64_t Runtime::PlannedKvBytes(int64_t prompt_len, const GenerateOptions& options) const {
  const ModelFacts& facts = model();
  const std::vector<KvLayerShape> shapes = KvShapes(facts);
  const int64_t room = facts.context_len - prompt_len, wanted = options.max_new_tokens;
  int64_t tokens = wanted > 0 ? std::min(wanted, room) : room;
  if (options.guarantee != Guarantee::kCausal) {  // whole canvases
    const int64_t canvases = (tokens + facts.canvas_len - 1) / facts.canvas_len;
    tokens = std::min(canvases, MaxCanvases(prompt_len, facts.canvas_len, facts.context_len)) * facts.canvas_len;
  }
  const int64_t last_rows = std::min(tokens, facts.canvas_len);
  const int64_t bytes = std::max(PromptKvBytes(shapes, prompt_len, facts.canvas_len),
                                 KvBytes(shapes, prompt_len + tokens - last_rows, last_rows));
  // A shared chunk stays whole while a window sees one row of it.
  return bytes + (impl_->prefixes != nullptr ? impl_->prefixes->layout().window_bytes : 0);
}

void Runtime::CheckRequest(std::span<const int32_t> prompt, const GenerateOptions& options) const {
  RequireHome();
  CheckOptions(options, *impl_->engine);
  CheckPrompt(prompt, options.guarantee, model());
}

MemoryPlan Runtime::memory() const {
  const ModelFacts& facts = model();
  MemoryPlan plan;
  plan.weight_bytes = impl_->weight_bytes;
  plan.workspace_bytes = WorkspaceBytes(impl_->defaults, *impl_->engine);
  const std::vector<KvLayerShape> shapes = KvShapes(facts);
  // The longest prompt: nothing holds more.
  plan.kv_bytes_full_context = PromptKvBytes(shapes, facts.context_len - facts.canvas_len, facts.canvas_len);
  for (const KvLayerShape& shape : shapes) {
    const int64_t row_bytes = 2 * shape.row_bytes();
    (shape.sliding_window > 0 ? plan.kv_window_bytes : plan.kv_bytes_per_token) +=
        shape.sliding_window > 0 ? row_bytes * (shape.sliding_window - 1) : row_bytes;
  }
  return plan;
}

MemoryUsage Runtime::kv_usage() const {
  RequireHome();
  return impl_->kv_budget->usage();
}

// --- Session ---

struct Session::Impl {
  SessionState state;
};

namespace {

std::shared_ptr<Runtime> RequireRuntime(std::shared_ptr<Runtime> runtime) {
  if (runtime == nullptr) throw InvalidArgument("runtime: expected an open runtime, found none");
  return runtime;
}

}  // namespace

Session::Session(std::shared_ptr<Runtime> runtime, const GenerateOptions& options,
                 std::chrono::steady_clock::time_point start) {
  Runtime::Impl& shared = *RequireRuntime(runtime)->impl_;
  runtime->RequireHome();
  CheckOptions(options, *shared.engine);
  impl_.reset(new Impl{{std::move(runtime), *shared.engine, *shared.lanes, options, start,
                        shared.options.memory_limit_bytes, shared.kv_budget.get(), shared.prefixes.get()}});
}
Session::~Session() = default;

void Session::Prefill(std::span<const int32_t> prompt) {
  impl_->state.runtime->RequireHome();
  StageTimer timer(&impl_->state.stats.total_ms);
  const ActiveRequest active(impl_->state.lanes, impl_->state.lane_user);
  PrefillPrompt(impl_->state, prompt);
}

void Session::Extend(std::span<const int32_t> tokens) {
  impl_->state.runtime->RequireHome();
  StageTimer timer(&impl_->state.stats.total_ms);
  const ActiveRequest active(impl_->state.lanes, impl_->state.lane_user);
  ExtendPrompt(impl_->state, tokens);
}

std::span<const int32_t> Session::NextCanvas(GenerateSink* sink) {
  impl_->state.runtime->RequireHome();
  const ActiveRequest active(impl_->state.lanes, impl_->state.lane_user);
  return impl_->state.is_causal() ? RunCausalPass(impl_->state, sink) : RunCanvas(impl_->state, sink);
}

void Session::SetCanvas(std::span<const int32_t> canvas) {
  SessionState& state = impl_->state;
  if (state.is_causal()) throw InvalidArgument("canvas: expected guarantee exact or verified, found causal, which has no canvas");
  if (static_cast<int64_t>(canvas.size()) != state.model.canvas_len) {
    throw InvalidArgument(Message("canvas: expected ", state.model.canvas_len, " tokens, found ", canvas.size()));
  }
  RequireTokens("canvas", canvas, state.model.vocab_size);
  std::copy(canvas.begin(), canvas.end(), state.start_canvas.begin());
  state.has_start_canvas = true;
}

int64_t Session::Draft(std::span<int32_t> draft, std::span<float> confidence) {
  SessionState& state = impl_->state;
  if (state.prompt_len == 0) throw InvalidArgument("the session has no prompt: call Prefill first");
  if (draft.size() > static_cast<size_t>(state.model.canvas_len) || confidence.size() != draft.size()) {
    throw InvalidArgument(Message("draft: expected room for at most ", state.model.canvas_len, " tokens and as many "
                                  "confidences, found ", draft.size(), " and ", confidence.size()));
  }
  const ActiveRequest active(state.lanes, state.lane_user);
  const int64_t drafted = AskDrafter(state, draft);
  std::copy_n(state.draft_confidence.begin(), drafted, confidence.begin());
  return drafted;
}

std::span<const int32_t> Session::canvas() const { return impl_->state.canvas.argmax; }
void Session::Cancel() {
  impl_->state.cancelled.store(true);
  if (!impl_->state.runtime->impl_->home.IsHere()) return;  // nothing runs, and the lock may be held for ever
  impl_->state.lanes.Wake(impl_->state.lane_user);
}
FinishReason Session::finish_reason() const { return impl_->state.finish; }
std::span<const int32_t> Session::tokens() const { return impl_->state.tokens; }
std::span<const float> Session::logprobs() const {
  return impl_->state.logprobs != nullptr ? impl_->state.logprobs->tokens : std::span<const float>();
}
int64_t Session::kv_len() const { return impl_->state.kv.kv_len(); }
const Stats& Session::stats() const { return impl_->state.stats; }

}  // namespace dgrt
