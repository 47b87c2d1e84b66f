/*
 * dgrt: C interface of the native runtime: token ids, and text in and out of them. The one installed header.
 *
 * Rules that hold everywhere:
 *  - Every function that can fail returns a dgrt_status; the text of the failure is dgrt_last_error() of the same thread.
 *    Outputs come last and are written only on DGRT_OK.
 *  - Structs begin with struct_size. The matching ..._init function fills the defaults. A shorter (older) struct gets
 *    defaults for the rest; a longer (newer) one must be zero beyond what this library knows, otherwise
 *    DGRT_UNSUPPORTED, so that no option is ever dropped silently.
 *  - "Borrowed until X" on a pointer output: the library owns it and it stays valid until X.
 *  - Handles are destroyed in any order (a session keeps its runtime alive); destroying NULL does nothing.
 *  - No exception crosses this interface. A callback must not throw, longjmp, or call a function on the session that is
 *    running it, except dgrt_session_cancel.
 *  - A count beyond the context (stop ids: the vocabulary; no runtime: 2^31 - 1) is DGRT_INVALID_ARGUMENT, and nothing is
 *    read. Flags are 0 or 1. Reserved fields of structs that the library reads are 0; in others it writes 0.
 *
 * fork():
 *  - Threads stay behind in the parent. In a child, what runs or changes a runtime, session, scheduler or request that
 *    was made before is refused at once with DGRT_INVALID_ARGUMENT; facts and tokens can be read, and the ..._destroy
 *    functions let go without waiting. A runtime that the child opens itself works.
 *  - A child ends with exit(), from main or by _exit(), as any process does, whether or not handles were destroyed or the
 *    library was closed before. Exit handlers run, with one exception: where ONNX Runtime was in the process before dgrt
 *    loaded it, or its usage reports were asked for (below), a child ends by _exit() after its own exit handlers and
 *    after stdio has been flushed. The handlers that would follow are those that its parent registered before fork();
 *    among them ONNX Runtime's own would wait for ever for a thread of the parent.
 *  - Do not fork while another thread is inside dgrt_runtime_create: a lock of the loader may stay taken in the child.
 *
 * ONNX Runtime's official builds report usage to their maker over the network. dgrt turns that off: when it loads the
 * library it sets ORT_DISABLE_TELEMETRY=1 in the process's environment, unless the variable is set already. A host that
 * reads its environment in other threads sets it itself, before they start.
 */
#ifndef DGRT_DGRT_H_
#define DGRT_DGRT_H_

#include <stddef.h>
#include <stdint.h>

#define DGRT_VERSION "0.1.0" /* the one place that defines the version; the Python build reads it from here */
#define DGRT_ABI_VERSION 1   /* changes when a program built against an older header could break */

#if defined(__GNUC__)
#define DGRT_API __attribute__((visibility("default")))
#define DGRT_MUST_USE __attribute__((warn_unused_result))
#else
#define DGRT_API
#define DGRT_MUST_USE
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t dgrt_status;
enum {
  DGRT_OK = 0,
  DGRT_INVALID_ARGUMENT = 1,  /* an argument, option or prompt that cannot be right */
  DGRT_CONTRACT_MISMATCH = 2, /* engine package of another format or version, or damaged; text has expected and found */
  DGRT_UNSUPPORTED = 3,       /* valid, but this build or engine cannot do it */
  DGRT_OUT_OF_MEMORY = 4,
  DGRT_CANCELLED = 5,
  DGRT_DEVICE_ERROR = 6, /* the engine failed while running */
  DGRT_INTERNAL = 7,     /* a defect of dgrt */
  DGRT_DEADLINE_EXCEEDED = 8,
  DGRT_QUEUE_FULL = 9 /* try again when a request has ended */
};

/* Why a session ended. */
enum { DGRT_FINISH_NONE = 0, DGRT_FINISH_STOP = 1, DGRT_FINISH_LENGTH = 2, DGRT_FINISH_CANCELLED = 3 };

/* What the tokens promise: EXACT, those of the refinement loop with this seed; CAUSAL, those of plain sampling from the
 * causal pass with this seed, several per pass where a drafter foresees them; VERIFIED, canvases that the model's own
 * stop rule holds for, those of EXACT unless a draft was of use: one that is committed as it is has also passed checks
 * that do not see what they judge. VERIFIED is not the distribution of EXACT: csrc/runtime/README.md says how far off. */
enum { DGRT_GUARANTEE_EXACT = 0, DGRT_GUARANTEE_CAUSAL = 1, DGRT_GUARANTEE_VERIFIED = 2 };
/* Who proposes tokens: NONE; SUFFIX, what followed the same words before in prompt or output; MODEL, the engine's own
 * drafter network (DGRT_UNSUPPORTED where the package has none: `dgrt export --drafter`); AUTO, whichever of these has
 * paid so far in this session, with care not to be slower than NONE; OVERLAP (VERIFIED only, without a draft;
 * DGRT_UNSUPPORTED with engines whose packed passes round differently), the next canvas begins while the one before is
 * still settling. With EXACT: NONE, or AUTO, which is NONE there. */
enum {
  DGRT_DRAFTER_NONE = 0,
  DGRT_DRAFTER_SUFFIX = 1,
  DGRT_DRAFTER_MODEL = 2,
  DGRT_DRAFTER_AUTO = 3,
  DGRT_DRAFTER_OVERLAP = 4
};
/* Whether a denoise step may carry along what follows if it is the last one (EXACT only): AUTO, where weights, not
 * rows, are what a pass costs; OFF, the plain loop; ON, wherever it can be. It changes the passes, never the tokens. */
enum { DGRT_PIPELINE_AUTO = 0, DGRT_PIPELINE_OFF = 1, DGRT_PIPELINE_ON = 2 };

/* Whether the checks of a draft are one pass (VERIFIED only): AUTO, where weights, not rows, are what a pass costs; OFF, each
 * is a pass of its own, and none runs that can change nothing any more; ON, one. It changes the passes, never the tokens. */
enum { DGRT_PACKING_AUTO = 0, DGRT_PACKING_OFF = 1, DGRT_PACKING_ON = 2 };
/* Whether DGRT_DRAFTER_MODEL is asked again after each denoise step of a canvas. */
enum { DGRT_REDRAFT_AUTO = 0, DGRT_REDRAFT_OFF = 1, DGRT_REDRAFT_ON = 2 };

/* Requests of one runtime: a bounded queue and a bounded number that run at once. Any thread. */
typedef struct dgrt_scheduler dgrt_scheduler;
/* A submitted request. Any thread; may outlive its scheduler. */
typedef struct dgrt_request dgrt_request;
/* A loaded engine package. Any thread may use it at any time. */
typedef struct dgrt_runtime dgrt_runtime;
/* One sequence. One thread at a time; a second concurrent call gets DGRT_INVALID_ARGUMENT. Cancel: any thread. */
typedef struct dgrt_session dgrt_session;

typedef struct dgrt_runtime_options {
  uint32_t struct_size;
  int32_t threads;            /* CPU threads; 0: as many CPUs as affinity mask and CPU quota (cgroup) leave the process */
  const char* ort_library;    /* path of libonnxruntime; NULL or "": $DGRT_ORT_LIBRARY, beside libdgrt, the system */
  int64_t memory_limit_bytes; /* KV and workspace of one session; 0: no limit */
  int32_t verify_weights;     /* 1: also hash the weight files (reads them once) */
  int32_t reserved;           /* 0 */
  int64_t kv_limit_bytes;     /* KV of all sessions and cached prefixes together; 0: no limit */
  int64_t prefix_cache_bytes; /* most KV of prompts kept for later ones; 0: off, -1: a context's, at most 1 GiB */
} dgrt_runtime_options;

/* Facts of a loaded package. Strings are borrowed until the last handle on the runtime (session or runtime) is gone. */
typedef struct dgrt_runtime_facts {
  uint32_t struct_size;
  int32_t threads;
  int64_t vocab_size;
  int64_t hidden_size;
  int64_t canvas_len;
  int64_t context_len;
  int64_t num_layers;
  int32_t pad_token_id;
  int32_t bos_token_id;      /* -1: none */
  const char* description;   /* engine, device, precision */
  const char* manifest_json; /* manifest.json as read */
} dgrt_runtime_facts;

typedef struct dgrt_memory {
  uint32_t struct_size;
  int32_t reserved;
  int64_t weight_bytes;
  int64_t kv_bytes_full_context; /* one session at context_len */
  int64_t workspace_bytes;       /* one session */
  int64_t kv_bytes_per_token;    /* full layers: grows with every token */
  int64_t kv_window_bytes;       /* sliding layers: what a long sequence keeps of them */
} dgrt_memory;

/* Defaults come from the engine package (generation_config.json of the checkpoint). */
typedef struct dgrt_session_options {
  uint32_t struct_size;
  uint32_t request;           /* distinguishes requests that share a seed; below 2^24 */
  uint64_t seed;
  int64_t max_new_tokens;     /* -1: until a stop id or the context ends */
  int32_t max_denoising_steps;
  int32_t stability_threshold; /* steps the argmax canvas must stay unchanged */
  float entropy_bound;        /* nats */
  float confidence_threshold; /* nats */
  float t_min;
  float t_max;
  const int32_t* stop_ids;    /* copied by dgrt_session_create; ..._init borrows the package's until the runtime ends */
  uint64_t num_stop_ids;
  int32_t guarantee;          /* DGRT_GUARANTEE_... */
  int32_t drafter;            /* DGRT_DRAFTER_... */
  float causal_temperature;   /* CAUSAL only; 1: the model's own distribution, 0: its most likely token */
  int32_t pipeline;           /* DGRT_PIPELINE_..., EXACT only */
  int32_t logprobs;           /* EXACT only, without pipeline: 1: also what dgrt_session_logprobs returns */
  int32_t verify_packing;     /* DGRT_PACKING_..., VERIFIED only */
  double deadline_ms;         /* from dgrt_session_create, _extend or dgrt_scheduler_submit; looked at between passes; 0: none */
  /* VERIFIED only. The output as the caller expects it, stop id included; copied; implies DGRT_DRAFTER_SUFFIX, if not
   * DGRT_DRAFTER_AUTO. */
  const int32_t* draft;
  uint64_t num_draft;         /* 0: none */
  float verify_trust;         /* a draft is cut before the first token that its drafter believes less in; 0 to 1 */
  int32_t verify_folds;       /* passes that each leave out a part of the draft; 0: no such check */
  float verify_causal_floor;  /* nats that the causal pass may put a drafted token below its favourite; 0: no such check */
  float verify_causal_budget; /* the same over a whole draft that is committed */
  float verify_min_confirmed; /* share of the canvas below which a draft is discarded; 0 to 1 */
  int32_t verify_one_pass;    /* 0: a draft is only where refinement starts from; 1: it may be committed as it is */
  int32_t verify_always;      /* 1: also try drafts that do not look worth their passes */
  float verify_expected_steps; /* denoise steps of a canvas without a draft, until the session knows better */
  int32_t verify_redraft;     /* DGRT_REDRAFT_... */
  int32_t reserved;           /* 0 */
} dgrt_session_options;

/* One denoise step, for on_step. All pointers are borrowed until the callback returns. */
typedef struct dgrt_step {
  uint32_t struct_size;
  int32_t canvas_index;
  int32_t step;              /* counting down from max_denoising_steps */
  float temperature;
  int64_t kv_len;            /* committed tokens in front of the canvas */
  int64_t canvas_len;        /* L */
  int64_t hidden_size;       /* D */
  const int32_t* canvas_in;  /* [L] */
  const int32_t* argmax;     /* [L] most likely token per position: the draft to show */
  const float* entropy;      /* [L] nats */
  const int32_t* sampled;    /* [L] */
  const uint8_t* accepted;   /* [L] 0 or 1 */
  const int32_t* canvas_out; /* [L] */
  const float* soft_in;      /* [L, D] */
  const float* soft_out;     /* [L, D], NULL on the last step of a canvas */
  int32_t stopped;           /* 1: the stop rule held on this step */
  int32_t reserved;
} dgrt_step;

/* Called on the thread that generates: the caller's own, or one of the scheduler, one call at a time per request. All
 * functions may be NULL. The first two: Each returns 0 to go on; any other value ends the
 * call with DGRT_CANCELLED and leaves the committed state as it was, so that the session can go on later. */
typedef struct dgrt_callbacks {
  uint32_t struct_size;
  int32_t reserved;
  void* user_data;
  int32_t (*on_step)(void* user_data, const dgrt_step* step); /* EXACT only */
  /* Tokens that become final: the emitted part of one canvas, or of one causal pass. Borrowed until the callback
   * returns. */
  int32_t (*on_commit)(void* user_data, int32_t canvas_index, const int32_t* tokens, size_t num_tokens);
  /* Submitted requests only: the last call for a request, whatever became of it. `error` is "" for DGRT_OK, else the text
   * of the failure, borrowed until the callback returns. */
  void (*on_done)(void* user_data, dgrt_status status, int32_t finish_reason, const char* error);
} dgrt_callbacks;

/* Counters of one session; exact. Times are wall clock, milliseconds. */
typedef struct dgrt_stats {
  uint32_t struct_size;
  int32_t finish_reason;     /* DGRT_FINISH_... */
  int64_t prefill_passes;    /* engine passes over the prompt */
  int64_t denoise_passes;
  int64_t commit_passes;     /* causal passes over a finished canvas; over the last one only with logprobs */
  int64_t packed_passes;     /* a denoise step, a commit and the next canvas's first step in one */
  int64_t draft_calls;
  int64_t accepted_drafts;   /* drafted positions that were committed unchanged */
  int64_t row_tokens;        /* token rows over all passes */
  int64_t canvases;
  int64_t prompt_tokens;
  int64_t tokens;            /* emitted */
  int64_t kv_len;            /* committed rows */
  int64_t peak_kv_bytes;
  double tokens_per_pass;    /* tokens / (denoise + commit + causal + packed + verify passes) */
  double prefill_ms;
  double denoise_ms;
  double commit_ms;
  double head_ms;            /* vocabulary head, acceptance, renoise */
  double draft_ms;
  double total_ms;
  const int32_t* steps_per_canvas; /* [num_steps_per_canvas]; borrowed until the next call on the session */
  uint64_t num_steps_per_canvas;
  int64_t causal_passes;     /* CAUSAL: passes that emit tokens */
  double causal_ms;
  int64_t packed_commits;    /* commits whose KV rows a packed pass had written */
  double packed_ms;
  double queued_ms;          /* from dgrt_scheduler_submit to the start; 0 without */
  double wait_ms;            /* in which other requests had the threads; part of total_ms */
  int64_t prefix_tokens;     /* of the prompt, those whose KV rows were there: prefix cache or turns before */
  int64_t verify_passes;     /* VERIFIED: passes that check a draft; the first denoise step of a drafted canvas is one */
  double verify_ms;
  int64_t draft_commits;     /* canvases committed as drafted */
  int64_t draft_refines;     /* refined from what the checks left of a draft */
  int64_t draft_discards;    /* refined from noise because the checks left too little */
  int64_t draft_passes;      /* passes of the engine's drafter network */
  int64_t draft_rows;        /* token rows of these; not in row_tokens */
} dgrt_stats;

/* ---- library: any thread ---- */
DGRT_API const char* dgrt_version(void);
DGRT_API int32_t dgrt_abi_version(void);
/* "DGRT_OK", "DGRT_INVALID_ARGUMENT", ...; "unknown status" for other numbers. Never NULL. */
DGRT_API const char* dgrt_status_name(dgrt_status status);
/* Text of the last failure on this thread in UTF-8, "" if none. Borrowed until the next failing call on this thread. */
DGRT_API const char* dgrt_last_error(void);
/* Handles that exist now, of all kinds together: 0 when everything has been destroyed. */
DGRT_API int64_t dgrt_live_handles(void);

/* ---- runtime ---- */
/* Pass sizeof(dgrt_runtime_options) as struct_size, here and in the other functions that take one. */
DGRT_API dgrt_status dgrt_runtime_options_init(dgrt_runtime_options* options, size_t struct_size) DGRT_MUST_USE;
/* Loads the engine package in folder `path` (UTF-8). options: NULL for the defaults. */
DGRT_API dgrt_status dgrt_runtime_create(const char* path, const dgrt_runtime_options* options,
                                         dgrt_runtime** runtime) DGRT_MUST_USE;
DGRT_API void dgrt_runtime_destroy(dgrt_runtime* runtime);
/* Set facts->struct_size before the call. */
DGRT_API dgrt_status dgrt_runtime_info(const dgrt_runtime* runtime, dgrt_runtime_facts* facts) DGRT_MUST_USE;
/* Set memory->struct_size before the call. */
DGRT_API dgrt_status dgrt_runtime_memory(const dgrt_runtime* runtime, dgrt_memory* memory) DGRT_MUST_USE;

/* ---- session ---- */
DGRT_API dgrt_status dgrt_session_options_init(const dgrt_runtime* runtime, dgrt_session_options* options,
                                               size_t struct_size) DGRT_MUST_USE;
/* options: NULL for the defaults of the package. */
DGRT_API dgrt_status dgrt_session_create(const dgrt_runtime* runtime, const dgrt_session_options* options,
                                         dgrt_session** session) DGRT_MUST_USE;
/* Not while another thread is inside a call on this session. */
DGRT_API void dgrt_session_destroy(dgrt_session* session);
/* Runs the prompt through the model; once per session. */
DGRT_API dgrt_status dgrt_session_prefill(dgrt_session* session, const int32_t* prompt, size_t num_tokens) DGRT_MUST_USE;
/* Refines and commits one canvas (CAUSAL: runs one pass). callbacks may be NULL. *tokens: what it emitted (possibly none),
 * borrowed until the next call on this session. Call until *finish_reason is not DGRT_FINISH_NONE. */
DGRT_API dgrt_status dgrt_session_next_canvas(dgrt_session* session, const dgrt_callbacks* callbacks,
                                              const int32_t** tokens, size_t* num_tokens,
                                              int32_t* finish_reason) DGRT_MUST_USE;
/* All tokens emitted so far, prompt excluded; borrowed until the next call on this session. */
DGRT_API dgrt_status dgrt_session_tokens(dgrt_session* session, const int32_t** tokens,
                                         size_t* num_tokens) DGRT_MUST_USE;
/* It costs one vocabulary head per canvas and a causal pass over the last canvas.
 * The causal pass's log-probability (nats) of each token emitted so far, given all before it; *num_tokens is 0 unless
 * dgrt_session_options.logprobs was set. Borrowed until the next call on this session. */
DGRT_API dgrt_status dgrt_session_logprobs(dgrt_session* session, const float** logprobs,
                                           size_t* num_tokens) DGRT_MUST_USE;
/* Any thread: the running or next call stops between two denoise steps and the session ends as
 * DGRT_FINISH_CANCELLED; a running prefill returns DGRT_CANCELLED. */
DGRT_API dgrt_status dgrt_session_cancel(dgrt_session* session) DGRT_MUST_USE;
/* Set stats->struct_size before the call. */
DGRT_API dgrt_status dgrt_session_stats(dgrt_session* session, dgrt_stats* stats) DGRT_MUST_USE;
/* EXACT only: starts the next canvas from these tokens instead of noise, once. num_tokens must be canvas_len. */
DGRT_API dgrt_status dgrt_session_set_canvas(dgrt_session* session, const int32_t* canvas,
                                             size_t num_tokens) DGRT_MUST_USE;
/* The argmax canvas of the last denoise step, [canvas_len]; borrowed until the next call on this session. */
DGRT_API dgrt_status dgrt_session_get_canvas(dgrt_session* session, const int32_t** canvas,
                                             size_t* num_tokens) DGRT_MUST_USE;

/* ---- many requests ---- */
typedef struct dgrt_scheduler_options {
  uint32_t struct_size;
  int32_t max_running; /* requests that hold KV memory at once */
  int32_t max_queued;  /* that wait beyond those; one more gets DGRT_QUEUE_FULL */
  int32_t reserved;    /* 0 */
} dgrt_scheduler_options;

typedef struct dgrt_scheduler_counts {
  uint32_t struct_size;
  int32_t reserved;
  int64_t queued; /* now */
  int64_t running;
  int64_t finished; /* so far: by a stop id, their length or the context */
  int64_t failed;
  int64_t cancelled;
  int64_t refused;
  int64_t planned_kv_bytes; /* what the running requests may come to take */
  int64_t passes;           /* of all requests and sessions of the runtime */
  int64_t narrow_passes;    /* of these, on one thread beside others */
  double busy_thread_ms;    /* threads x time of all passes */
} dgrt_scheduler_counts;

DGRT_API dgrt_status dgrt_scheduler_options_init(dgrt_scheduler_options* options, size_t struct_size) DGRT_MUST_USE;
/* options: NULL for the defaults. Keeps its runtime alive. */
DGRT_API dgrt_status dgrt_scheduler_create(const dgrt_runtime* runtime, const dgrt_scheduler_options* options,
                                           dgrt_scheduler** scheduler) DGRT_MUST_USE;
/* Cancels what is queued or running and waits until every on_done has returned; inside a callback of one of its requests it
 * does that in the background. */
DGRT_API void dgrt_scheduler_destroy(dgrt_scheduler* scheduler);
/* Queues a request. Everything that can be checked before it runs is checked here. A request has the tokens that it would
 * have alone; what happens to another one never touches it. session_options and callbacks may be NULL; both and the prompt
 * are copied. request: NULL if only the callbacks matter. */
DGRT_API dgrt_status dgrt_scheduler_submit(dgrt_scheduler* scheduler, const dgrt_session_options* session_options,
                                           const int32_t* prompt, size_t num_tokens, const dgrt_callbacks* callbacks,
                                           dgrt_request** request) DGRT_MUST_USE;
/* Set counts->struct_size before the call. */
DGRT_API dgrt_status dgrt_scheduler_stats(dgrt_scheduler* scheduler, dgrt_scheduler_counts* counts) DGRT_MUST_USE;
/* Forgets the request; it goes on, and its callbacks still come. */
DGRT_API void dgrt_request_destroy(dgrt_request* request);
/* At once in the queue, between two passes when it runs. */
DGRT_API dgrt_status dgrt_request_cancel(dgrt_request* request) DGRT_MUST_USE;
/* Waits at most timeout_ms (0: looks; negative or above 1e12: for ever) and writes 1 if the request is done, else 0. Not from a callback
 * of a request that this one may have to wait for. */
DGRT_API dgrt_status dgrt_request_wait(dgrt_request* request, double timeout_ms, int32_t* is_done) DGRT_MUST_USE;
/* What became of a request that is done: returns its status (DGRT_INVALID_ARGUMENT if it is not done), with the text in
 * dgrt_last_error. The outputs are written in either case once it is done: what was committed before a failure stays.
 * Borrowed until dgrt_request_destroy. */
DGRT_API dgrt_status dgrt_request_result(dgrt_request* request, const int32_t** tokens, size_t* num_tokens,
                                         int32_t* finish_reason) DGRT_MUST_USE;
/* As dgrt_session_logprobs, once it is done. */
DGRT_API dgrt_status dgrt_request_logprobs(dgrt_request* request, const float** logprobs,
                                           size_t* num_tokens) DGRT_MUST_USE;
/* Once it is done. Set stats->struct_size before the call; steps_per_canvas is borrowed until dgrt_request_destroy. */
DGRT_API dgrt_status dgrt_request_stats(dgrt_request* request, dgrt_stats* stats) DGRT_MUST_USE;

/* ---- convenience ---- */
/* Creates a session, prefills, runs all canvases and destroys it; the tokens arrive through callbacks->on_commit.
 * options and stats may be NULL. stats->steps_per_canvas is NULL here: it would outlive the session. */
DGRT_API dgrt_status dgrt_generate(const dgrt_runtime* runtime, const dgrt_session_options* options,
                                   const int32_t* prompt, size_t num_tokens, const dgrt_callbacks* callbacks,
                                   dgrt_stats* stats) DGRT_MUST_USE;

/* ---- text: needs a package folder and no runtime ---- */
/* What tokenizer.json says, with the same ids and texts as Hugging Face's `tokenizers`. Any thread, at any time. */
typedef struct dgrt_tokenizer dgrt_tokenizer;
/* Turns tokens that arrive in portions into text. One thread at a time; keeps its tokenizer alive. */
typedef struct dgrt_detokenizer dgrt_detokenizer;
/* How the model was taught to see a conversation. Any thread, at any time. */
typedef struct dgrt_chat_template dgrt_chat_template;

/* Whether decoding leaves out tokens such as "<|turn>". */
enum { DGRT_SPECIAL_TOKENS_SKIP = 0, DGRT_SPECIAL_TOKENS_KEEP = 1 };

/* Reads tokenizer.json in folder `path` (UTF-8). DGRT_UNSUPPORTED: none of the kinds that csrc/text/README.md lists. */
DGRT_API dgrt_status dgrt_tokenizer_create(const char* path, dgrt_tokenizer** tokenizer) DGRT_MUST_USE;
DGRT_API void dgrt_tokenizer_destroy(dgrt_tokenizer* tokenizer);
/* text: UTF-8, text_size bytes. Special tokens written in it become their ids; none are added, not even bos.
 * *tokens: borrowed until the next call of this function on this thread. */
DGRT_API dgrt_status dgrt_tokenizer_encode(const dgrt_tokenizer* tokenizer, const char* text, size_t text_size,
                                           const int32_t** tokens, size_t* num_tokens) DGRT_MUST_USE;
/* special_tokens: DGRT_SPECIAL_TOKENS_... Ids that no token has give no text, bytes that are not UTF-8 give U+FFFD.
 * *text: UTF-8, text_size bytes and a zero behind them; borrowed until the next call of this function or of
 * dgrt_chat_template_format or ..._render on this thread. */
DGRT_API dgrt_status dgrt_tokenizer_decode(const dgrt_tokenizer* tokenizer, const int32_t* tokens, size_t num_tokens,
                                           int32_t special_tokens, const char** text, size_t* text_size) DGRT_MUST_USE;

DGRT_API dgrt_status dgrt_detokenizer_create(const dgrt_tokenizer* tokenizer, int32_t special_tokens,
                                             dgrt_detokenizer** detokenizer) DGRT_MUST_USE;
/* Not while another thread is inside a call on this detokenizer. */
DGRT_API void dgrt_detokenizer_destroy(dgrt_detokenizer* detokenizer);
/* *text: what no later token can change (possibly nothing: half a character is held back), borrowed until the next call
 * on this detokenizer. All pieces and that of ..._finish, joined, are what dgrt_tokenizer_decode says of all tokens. */
DGRT_API dgrt_status dgrt_detokenizer_push(dgrt_detokenizer* detokenizer, const int32_t* tokens, size_t num_tokens,
                                           const char** text, size_t* text_size) DGRT_MUST_USE;
/* What was held back; the next push begins a new text. *text: as above. */
DGRT_API dgrt_status dgrt_detokenizer_finish(dgrt_detokenizer* detokenizer, const char** text,
                                             size_t* text_size) DGRT_MUST_USE;

/* Reads chat_template.jinja (or the template in tokenizer_config.json) and the names of special tokens in folder `path`
 * (UTF-8); chat_template.tool_use.jinja, if it is there, is for conversations with tools. The text that a template gives is that of transformers' apply_chat_template. DGRT_UNSUPPORTED: a construct
 * of Jinja that csrc/text/jinja/README.md does not list; DGRT_CONTRACT_MISMATCH: not a template. Errors name the line.
 * Templates are untrusted: time, memory and stack (256 KiB) of a rendering are bounded. */
DGRT_API dgrt_status dgrt_chat_template_create(const char* path, dgrt_chat_template** chat_template) DGRT_MUST_USE;
DGRT_API void dgrt_chat_template_destroy(dgrt_chat_template* chat_template);
/* The prompt's text, to be encoded as it is: all turns, then the opening of the model's. roles: "user", "assistant",
 * "system", ...; both arrays [num_messages] of zero-terminated UTF-8. DGRT_INVALID_ARGUMENT: the template refuses these
 * messages. *text: as that of dgrt_tokenizer_decode. */
DGRT_API dgrt_status dgrt_chat_template_format(const dgrt_chat_template* chat_template, const char* const* roles,
                                               const char* const* contents, size_t num_messages, const char** text,
                                               size_t* text_size) DGRT_MUST_USE;
/* The same for all that a conversation can hold. conversation: a JSON object (UTF-8, conversation_size bytes) with
 *   "messages": objects with "role", "content" (a text or a list of parts), "tool_calls", ...: what the template reads;
 *   "tools", "documents": lists of objects, if there are any;
 *   "add_generation_prompt": true opens the model's turn (the default here, as in transformers, is false);
 *   "continue_final_message": true leaves the last message open, so that the model goes on with it;
 *   any other name: a variable of the template, such as "enable_thinking".
 * Keys keep their order. *text: as above. */
DGRT_API dgrt_status dgrt_chat_template_render(const dgrt_chat_template* chat_template, const char* conversation,
                                               size_t conversation_size, const char** text,
                                               size_t* text_size) DGRT_MUST_USE;

/* ---- prefix cache: any thread ----
 * KV rows of prompts, kept for later prompts that begin with the same tokens (whole chunks of 512). It changes how much
 * of a prompt is prefilled, never a token. dgrt_runtime_options.prefix_cache_bytes turns it off or limits it; it is
 * also off by default for a model whose rows do not fill pages. */

/* Counters since the runtime was created, and what is held now; all zero while it is off. */
typedef struct dgrt_prefix_stats {
  uint32_t struct_size;
  int32_t reserved;
  int64_t lookups;         /* prompts */
  int64_t hits;            /* of them, those that found a prefix */
  int64_t prompt_tokens;   /* of all lookups */
  int64_t hit_tokens;      /* of them, those that were not prefilled */
  int64_t stored_chunks;
  int64_t evicted_chunks;
  int64_t evicted_windows; /* rows of sliding layers that went before their chunk did */
  int64_t num_chunks;      /* now */
  int64_t bytes;           /* now */
  int64_t limit_bytes;
  int64_t kv_sequence_bytes; /* now: KV that sessions have to themselves */
  int64_t kv_prefix_bytes;   /* now: KV of prefixes, cached or in use, each counted once */
  int64_t kv_peak_bytes;     /* of both together */
  int64_t kv_limit_bytes;    /* dgrt_runtime_options.kv_limit_bytes */
} dgrt_prefix_stats;

/* Set stats->struct_size before the call. */
DGRT_API dgrt_status dgrt_prefix_cache_stats(const dgrt_runtime* runtime, dgrt_prefix_stats* stats) DGRT_MUST_USE;
/* Forgets all prefixes; sessions keep what they use. */
DGRT_API dgrt_status dgrt_prefix_cache_clear(dgrt_runtime* runtime) DGRT_MUST_USE;
/* Writes all prefixes to the file `path`, which appears whole or not at all. It holds what was prompted. What is replaced
 * is a file that this function wrote, or an empty one: a device, pipe, folder or any other file is DGRT_INVALID_ARGUMENT,
 * no room for it DGRT_DEVICE_ERROR. A symbolic link stays one; mode and owner of what is replaced are kept. */
DGRT_API dgrt_status dgrt_prefix_cache_save(const dgrt_runtime* runtime, const char* path) DGRT_MUST_USE;
/* Adds what dgrt_prefix_cache_save wrote, as far as there is room; *num_chunks: how many. DGRT_CONTRACT_MISMATCH for a
 * file that is damaged or of another engine, machine or version; nothing has changed then. */
DGRT_API dgrt_status dgrt_prefix_cache_load(dgrt_runtime* runtime, const char* path, int64_t* num_chunks) DGRT_MUST_USE;

/* ---- another turn ---- */
/* After the session has ended with STOP or LENGTH: what it emitted and then these tokens become part of the prompt,
 * without prefilling what is there; dgrt_session_next_canvas goes on from there. Tokens, statistics, noise,
 * max_new_tokens and deadline begin anew. A failure leaves the session as it was, or, beyond 512 tokens and when it was
 * cancelled, possibly without a prompt. */
DGRT_API dgrt_status dgrt_session_extend(dgrt_session* session, const int32_t* tokens, size_t num_tokens) DGRT_MUST_USE;

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* DGRT_DGRT_H_ */
