// The state of one sequence and the stages that work on it. Internal to runtime/: the outside sees runtime.h. Who
// writes which field is the state table in csrc/README.md.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/aligned_buffer.h"
#include "common/philox.h"
#include "drafting/drafter.h"
#include "engine/engine.h"
#include "memory/kv_cache.h"
#include "memory/prefix_cache.h"
#include "runtime/draft_costs.h"
#include "runtime/lanes.h"
#include "runtime/plan.h"
#include "runtime/runtime.h"

namespace dgrt {

// The canvas in work and the scratch of its denoise steps. All memory is taken when the session is made.
// Written by refine.cc and denoise_step.cc (the next canvas also by speculate.cc); commit.cc and logprobs.cc only read.
struct Canvas {
  explicit Canvas(const ModelFacts& model);

  std::vector<int32_t> tokens;           // [L] input of the step
  std::vector<int32_t> next_tokens;      // [L] output of the step; swapped with tokens between steps
  std::vector<int32_t> argmax;           // [L] most likely tokens of the last step: what is committed
  std::vector<int32_t> previous_argmax;  // [L] of the step before
  std::vector<int32_t> sampled;          // [L]
  std::vector<uint8_t> accepted;         // [L] 0 or 1
  std::vector<float> entropy;            // [L] nats
  std::vector<double> uniform;           // [L] the numbers that sampled came from
  AlignedBuffer<float> soft;             // [L, D] self-conditioning of the step; zeros on the first
  AlignedBuffer<float> next_soft;        // [L, D] for the next step; swapped with soft
  AlignedBuffer<float> hidden;           // [L, D] engine output
  int32_t num_steps = 0;                 // steps done
  int32_t num_equal = 0;                 // steps right before the last one with the same argmax canvas
};

// What overlapping canvases take beside commit speculation. Written by overlap.cc.
struct Overlap {
  explicit Overlap(const ModelFacts& model);

  std::vector<int32_t> began_behind;  // [L] the argmax canvas when the next canvas began
  // The canvas in work as it was when the one before was committed, for another try after a failure.
  int32_t canvas_index = -1;          // of that canvas; -1: the one in work began from noise
  std::vector<int32_t> tokens, argmax, previous_argmax;  // [L]
  AlignedBuffer<float> soft;          // [L, D]
  int32_t num_steps = 0;
};

// What was computed ahead in the hope that the canvas in work ends as `candidate`, or not far from it. Stages: written by
// speculate.cc and overlap.cc, except -> kCommitted, which is commit.cc's.
struct Speculation {
  Speculation(const ModelFacts& model, const GenerateOptions& options);

  enum class Stage {
    kNone,
    kBegun,      // only with overlap: the argmax canvas is not the candidate, and `next` is kept all the same
    kRight,      // the argmax canvas is the candidate: the reserved KV rows are its, `next` has done a step behind it
    kCommitted,  // the canvas was committed: `next` is the one to go on with
  };
  Canvas next;
  std::vector<int32_t> candidate;  // [L]
  Stage stage = Stage::kNone;
  const std::unique_ptr<Overlap> overlap;  // null: exact; `next` is right to the bit or nothing
};

// What the causal pass predicts behind the last committed token and behind the tokens of a canvas; with
// GenerateOptions::logprobs also what it thinks of the emitted ones. Written by logprobs.cc, in the verified tier rows 1 ..
// L by checks.cc.
struct Logprobs {
  explicit Logprobs(const ModelFacts& model)
      : hidden(static_cast<size_t>(NumRows(model) * model.hidden_size)), canvas(static_cast<size_t>(model.canvas_len)) {}
  static int64_t NumRows(const ModelFacts& model) { return std::max(kPrefillChunkTokens, 1 + model.canvas_len); }

  // [NumRows, D] row 0: behind the last committed token; rows 1 .. L: behind those of the canvas. While the prompt is
  // prefilled: behind the tokens of its last chunk.
  AlignedBuffer<float> hidden;
  std::vector<float> canvas;    // [L] of the canvas that is being committed, nats
  std::vector<float> tokens;    // one per emitted token, nats
};

// What became of a draft.
enum class Verdict {
  kNone,       // there was none, or none worth trying
  kCommit,     // all checks hold for the whole canvas: state.canvas is finished
  kRefine,     // what the checks confirm is in state.canvas, and the first step is done
  kWarmStart,  // nothing was to be checked: state.canvas starts from the draft
  kDiscard,    // too little was confirmed: as if there had been none
  kCancelled,
};

// The draft of the canvas in work, what the checks found, and what the sequence has learned. Written by verify.cc and
// checks.cc.
struct Verification {
  // `num_packed`: canvases of a packed check, as PackedCanvases() says.
  Verification(const ModelFacts& model, int64_t num_packed);

  std::vector<int32_t> draft;       // [L]
  bool is_redraft = false;          // made in the middle of the canvas: it is committed or of no use
  int64_t num_drafted = 0;          // tokens that are trusted, a stop id at most at their end
  bool is_whole = false;            // they fill the canvas or end with a stop id; behind that lies padding
  int32_t draft_of = -1;            // the canvas that it was made for, at its start
  std::vector<int32_t> refused;     // [L] the last draft that the checks refused ...
  int64_t num_refused = 0;          // ... of this canvas; 0: none
  std::vector<uint8_t> confirmed;   // [L] by all checks so far
  std::vector<uint8_t> fold;        // [num_drafted] in which leave-out pass the position is noise
  std::vector<float> log_prob, best_log_prob;  // of the tokens judged last, causal, nats
  double missing = 0;               // nats that its tokens are below the causal pass's favourites, over all positions
  Canvas drafted;                   // the draft, and what its fixed-point check makes of it
  Canvas left_out;                  // of a leave-out check
  // [G, L] of a packed check: the canvas in work, the draft, then what each fold sees; empty: none
  std::vector<int32_t> packed_canvases;
  AlignedBuffer<float> packed_hidden;    // [G, L, D]
  bool has_plain_step = false;      // a packed check has done the next step of the canvas in work as well
  Verdict verdict = Verdict::kNone;
  bool is_in_kv = false;            // the reserved KV rows are those of the finished canvas, all of them
  double measured_steps = 0;        // of a canvas from noise; 0: there was none yet
  int64_t tries = 0, gains = 0;     // drafts that were checked; of these, those that saved passes
};

struct SessionState {
  SessionState(std::shared_ptr<Runtime> owner, Engine& engine, Lanes& lanes, const GenerateOptions& wanted,
               Lanes::Clock::time_point start, int64_t memory_limit_bytes, MemoryBudget* kv_budget,
               PrefixCache* prefix_cache);

  const std::shared_ptr<Runtime> runtime;  // first: outlives everything below
  const ModelFacts& model;
  const EmbeddingTable table;
  Lanes& lanes;
  LaneUser lane_user;
  const GenerateOptions options;
  Lanes::Clock::time_point deadline;  // max(): none; another turn begins it anew
  const std::unique_ptr<Executor> executor;
  KvCache kv;  // before the canvas: a memory limit that is too low is found before memory is taken
  PrefixCache* const prefixes;  // of the runtime; null: off
  Canvas canvas;
  AlignedBuffer<unsigned char> head_workspace;
  const bool is_row_bound;                         // of the engine
  const DraftCosts draft_costs;
  const std::unique_ptr<Speculation> speculation;  // null: the plain loop
  const std::unique_ptr<Logprobs> logprobs;        // null: not wanted
  const std::unique_ptr<Verification> verification;  // null: another tier, or no drafter
  const bool redrafts;                             // asks the drafter in the middle of a canvas

  int64_t prompt_len = 0;             // 0: not prefilled
  std::vector<int32_t> tokens;        // committed, emitted
  int32_t canvas_index = 0;           // of the next canvas
  FinishReason finish = FinishReason::kNone;
  int32_t pending_token = 0;          // causal tier: emitted last (or end of the prompt), its KV row not yet written
  std::unique_ptr<Drafter> drafter;   // null: none
  std::vector<float> draft_confidence;  // [L] of the draft in work: that a token and all before it are right
  std::vector<TokenOrigin> origins;     // [L] of the tokens that are being committed
  std::vector<int32_t> start_canvas;  // [L] given by SetCanvas; used while has_start_canvas
  bool has_start_canvas = false;
  std::atomic<bool> cancelled{false};
  Stats stats;

  bool is_causal() const { return options.guarantee == Guarantee::kCausal; }
  NoiseKey noise_key(int32_t canvas_index_of_draw, int32_t step) const {
    return {options.seed, options.request, static_cast<uint32_t>(canvas_index_of_draw), static_cast<uint32_t>(step)};
  }
};

// Throws InvalidArgument, naming the option, what is expected and what was found; Unsupported if the engine cannot do it.
void CheckOptions(const GenerateOptions& options, const Engine& engine);

// Throws InvalidArgument for a prompt that is empty, leaves no room for a canvas, or has unknown tokens.
void CheckPrompt(std::span<const int32_t> prompt, Guarantee guarantee, const ModelFacts& model);

// Throws InvalidArgument, naming the first token that is not in [0, vocab_size).
void RequireTokens(const char* what, std::span<const int32_t> tokens, int64_t vocab_size);

// Whether canvases overlap: drafter kOverlap, if no drafter of the caller's own is in its place.
bool Overlaps(const GenerateOptions& options);

// Whether a session computes ahead, which takes a second canvas.
bool Speculates(const GenerateOptions& options, const Engine& engine);

// Whether a session checks drafts of canvases, which takes a second canvas as well.
bool Verifies(const GenerateOptions& options);

// Whether a session asks its drafter after each step.
bool Redrafts(const GenerateOptions& options, const Engine& engine);

// How many canvases a checking pass holds: that in work, the draft, and one for each fold. 0: each check is a pass of its own.
int64_t PackedCanvases(const GenerateOptions& options, const Engine& engine);

// Bytes of one session beside its KV rows.
int64_t WorkspaceBytes(const GenerateOptions& options, const Engine& engine);

// The layers of a model as the KV cache wants them.
std::vector<KvLayerShape> KvShapes(const ModelFacts& model);

// Every pass, with the vocabulary head behind it, runs while its stage holds a lane. Waits for one; empty if the session
// was cancelled; throws DeadlineExceeded.
HeldLane TakeLane(SessionState& state, int64_t num_rows);

// The same for a pass that finishes what is done already: neither cancelling nor the deadline ends the wait.
HeldLane TakeLaneToFinish(SessionState& state, int64_t num_rows);

// Before a callback, which may take its time: a session keeps its lane from pass to pass while it is its turn.
void GiveLaneBack(SessionState& state);

// --- the stages, in the order of the prompt ---

// prefill.cc: the prompt's KV rows, chunk after chunk. On failure nothing is left of it.
void PrefillPrompt(SessionState& state, std::span<const int32_t> prompt);

// prefill.cc: the next turn of a session that has ended. On failure as Session::Extend says.
void ExtendPrompt(SessionState& state, std::span<const int32_t> tokens);

// prefix.cc: takes the longest start of the prompt that the prefix cache has, at most num_rows; returns its length.
int64_t ResumeFromPrefix(SessionState& state, std::span<const int32_t> prompt, int64_t num_rows);

// prefix.cc: `tokens` are all prompt tokens whose rows are there, the last chunk's reserved and not yet published.
// Keeps that chunk for later prompts if it is a whole one.
void KeepPrefix(SessionState& state, std::span<const int32_t> tokens) noexcept;

// verify.cc: gets a draft for the canvas and lets the checks decide what becomes of it. Changes nothing that outlives the
// canvas but the counts of passes.
Verdict VerifyDraft(SessionState& state, const CanvasPlan& plan);

// verify.cc: after a step of a canvas from noise: asks the drafter again and checks its draft before `step`. kCommit:
// state.canvas is finished; kNone: it is as it was, or has done `step` if Verification says so; kCancelled.
Verdict VerifyRedraft(SessionState& state, const CanvasPlan& plan, int32_t step);

// verify.cc: whether what refinement made of a draft may be committed (kCommit), or the canvas has to be refined from noise
// (kDiscard). A canvas from noise may.
Verdict ConfirmRefined(SessionState& state, const CanvasPlan& plan);

// verify.cc: where the tokens of the finished canvas came from, into state.origins.
void FindOrigins(SessionState& state) noexcept;

// verify.cc: the canvas was committed, with so many tokens emitted.
void LearnFromDraft(SessionState& state, int64_t num_tokens) noexcept;

// refine.cc: denoise steps until the stop rule holds or the schedule ends.
enum class RefineOutcome { kDone, kCancelled };
RefineOutcome Refine(SessionState& state, const CanvasPlan& plan, GenerateSink* sink);

// refine.cc: a canvas before its first step: noise, no self-conditioning.
void StartCanvas(const SessionState& state, int32_t index, Canvas& canvas);

// denoise_step.cc: one decoder forward and one sampler update of state.canvas at step n. False: cancelled before it began.
bool DenoiseStep(SessionState& state, const CanvasPlan& plan, int32_t step);

// denoise_step.cc: the sampler update alone, from canvas.hidden; `index` of the canvas in its request.
void UpdateCanvas(SessionState& state, const HeldLane& lane, int32_t index, int32_t step, Canvas& canvas);

// speculate.cc: whether the next step should be a PackedStep. A matter of speed only.
bool WorthPacking(const SessionState& state, const CanvasPlan& plan);

// speculate.cc: DenoiseStep that also computes ahead.
bool PackedStep(SessionState& state, const CanvasPlan& plan, int32_t step);

// speculate.cc: after a plain step: whether what was computed ahead is void because the argmax canvas has changed.
void CheckSpeculation(SessionState& state);

// speculate.cc: makes the canvas that was computed ahead the canvas in work, if there is one. True: its first step is done.
bool AdoptNextCanvas(SessionState& state);

// overlap.cc: whether so little of the canvas changes that the next one may begin.
bool IsSettled(const SessionState& state);

// overlap.cc: the next canvas before its first step, behind the argmax canvas of the one in work.
void BeginNextCanvas(SessionState& state, const CanvasPlan& plan);

// overlap.cc: whether the next canvas is of use though it stood behind another text than it would be committed behind now.
bool IsWorthKeeping(const SessionState& state);

// overlap.cc: the next canvas has done a step that nobody is told of; it is ready for another.
void FinishStepAhead(Canvas& next);

// overlap.cc: puts a canvas that has begun beside the one before in work. How many steps it has done; 0: there is none.
int32_t ResumeOverlapped(SessionState& state, const CanvasPlan& plan);

// overlap.cc: another turn begins: nothing that was computed ahead belongs to it.
void ForgetWhatIsAhead(SessionState& state) noexcept;

// commit.cc: what of the finished canvas is emitted and why the request ends, if it does. No side effects.
struct Emission {
  int64_t num_tokens = 0;
  FinishReason finish = FinishReason::kNone;
};
Emission PlanEmission(const SessionState& state, const CanvasPlan& plan);

// commit.cc: the only irreversible act. Writes the canvas into KV unless the request ends with it, tells the sink,
// then publishes. Returns the emitted tokens.
std::span<const int32_t> Commit(SessionState& state, const CanvasPlan& plan, Reservation rows, const Emission& emission,
                                GenerateSink* sink);

// logprobs.cc: the last chunk of the prompt; keeps the prediction behind its last token.
void ScorePrompt(SessionState& state, std::span<const int32_t> chunk);

// logprobs.cc: a causal pass over `tokens` at the canvas's place, writing KV rows as a commit does, with the prediction
// behind each.
void PredictBehind(SessionState& state, const CanvasPlan& plan, std::span<const int32_t> tokens);

// logprobs.cc: that over the argmax canvas, and, if log-probabilities are wanted, what it thinks of it.
void ScoreCanvas(SessionState& state, const HeldLane& lane, const CanvasPlan& plan);

// logprobs.cc: the first num_tokens of the canvas were emitted.
void PublishLogprobs(SessionState& state, int64_t num_tokens) noexcept;

// generate.cc: one canvas from plan to commit.
std::span<const int32_t> RunCanvas(SessionState& state, GenerateSink* sink);

// causal.cc: the causal tier's counterpart of RunCanvas: one pass, which emits at least one token.
std::span<const int32_t> RunCausalPass(SessionState& state, GenerateSink* sink);

// draft.cc: the drafter's guess of what comes next, up to the first id that does not exist; how sure it is goes into
// draft_confidence. A drafter that fails is dropped: the text goes on without it. Throws ContractMismatch for a drafter
// graph that is not the contract's. A drafter that runs passes takes a lane for each.
int64_t AskDrafter(SessionState& state, std::span<int32_t> draft);

// draft.cc: the same in the middle of a canvas, with what its last step found.
int64_t AskDrafterAgain(SessionState& state, std::span<int32_t> draft);

// draft.cc: the text grew by these tokens. A drafter that fails is dropped here too.
void ShowDrafter(SessionState& state, std::span<const int32_t> tokens) noexcept;

// generate.cc: throws InternalError in debug builds if the session is not as it must be between two calls.
void CheckInvariants(const SessionState& state);

}  // namespace dgrt
