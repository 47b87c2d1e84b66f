/* The smallest complete host in C: token ids in, token ids and statistics out.
 *
 *   generate ENGINE [--ort LIBRARY] [--threads N] [--seed N] [--max-new N] ID... | @FILE
 *
 * FILE holds ids separated by white space. Tokens go to stdout, statistics to stderr. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dgrt/dgrt.h"

struct arguments {
  const char* engine;
  const char* ort_library;
  int32_t threads;
  uint64_t seed;
  int64_t max_new;
  int32_t* prompt;
  size_t num_tokens;
  size_t capacity;
};

static int fail(const char* action, dgrt_status status) {
  fprintf(stderr, "%s: %s: %s\n", action, dgrt_status_name(status), dgrt_last_error());
  return 1;
}

static int add_token(struct arguments* arguments, const char* text) {
  char* end = NULL;
  errno = 0;
  const long value = strtol(text, &end, 10);
  if (errno != 0 || end == text || *end != '\0' || value < INT32_MIN || value > INT32_MAX) {
    fprintf(stderr, "not a token id: %s\n", text);
    return 0;
  }
  if (arguments->num_tokens == arguments->capacity) {
    const size_t capacity = arguments->capacity == 0 ? 256 : 2 * arguments->capacity;
    int32_t* grown = realloc(arguments->prompt, capacity * sizeof(int32_t));
    if (grown == NULL) return 0;
    arguments->prompt = grown;
    arguments->capacity = capacity;
  }
  arguments->prompt[arguments->num_tokens++] = (int32_t)value;
  return 1;
}

static int add_tokens_of_file(struct arguments* arguments, const char* path) {
  char word[32];
  int ok = 1;
  FILE* file = fopen(path, "r");
  if (file == NULL) {
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    return 0;
  }
  while (ok && fscanf(file, "%31s", word) == 1) ok = add_token(arguments, word);
  fclose(file);
  return ok;
}

static int parse(int argc, char** argv, struct arguments* arguments) {
  int i;
  if (argc < 2) return 0;
  arguments->engine = argv[1];
  arguments->max_new = -1;
  for (i = 2; i < argc; ++i) {
    const char* value = i + 1 < argc ? argv[i + 1] : NULL;
    if (argv[i][0] == '@') {
      if (!add_tokens_of_file(arguments, argv[i] + 1)) return 0;
    } else if (strncmp(argv[i], "--", 2) != 0) {
      if (!add_token(arguments, argv[i])) return 0;
    } else if (value == NULL) {
      return 0;
    } else {
      if (strcmp(argv[i], "--ort") == 0) {
        arguments->ort_library = value;
      } else if (strcmp(argv[i], "--threads") == 0) {
        arguments->threads = (int32_t)strtol(value, NULL, 10);
      } else if (strcmp(argv[i], "--seed") == 0) {
        arguments->seed = strtoull(value, NULL, 10);
      } else if (strcmp(argv[i], "--max-new") == 0) {
        arguments->max_new = strtoll(value, NULL, 10);
      } else {
        return 0;
      }
      ++i;
    }
  }
  return arguments->num_tokens > 0;
}

/* One session on a loaded runtime: the loop that every host has. */
static int run(const dgrt_runtime* runtime, const struct arguments* arguments) {
  dgrt_session_options options;
  dgrt_session* session = NULL;
  int32_t finish = DGRT_FINISH_NONE;
  dgrt_stats stats;
  dgrt_status status = dgrt_session_options_init(runtime, &options, sizeof(options));
  if (status != DGRT_OK) return fail("session options", status);
  options.seed = arguments->seed;
  options.max_new_tokens = arguments->max_new;
  status = dgrt_session_create(runtime, &options, &session);
  if (status != DGRT_OK) return fail("session", status);

  status = dgrt_session_prefill(session, arguments->prompt, arguments->num_tokens);
  while (status == DGRT_OK && finish == DGRT_FINISH_NONE) {
    const int32_t* tokens = NULL;
    size_t num_tokens = 0, i;
    status = dgrt_session_next_canvas(session, NULL, &tokens, &num_tokens, &finish);
    if (status != DGRT_OK) break;
    for (i = 0; i < num_tokens; ++i) printf("%" PRId32 "\n", tokens[i]);
  }
  if (status == DGRT_OK) {
    stats.struct_size = sizeof(stats);
    status = dgrt_session_stats(session, &stats);
  }
  if (status != DGRT_OK) {
    fail("generate", status);
  } else {
    fprintf(stderr, "%" PRId64 " tokens in %.1f ms, %" PRId64 " canvases, %" PRId64 " denoise steps, finish reason %d\n",
            stats.tokens, stats.total_ms, stats.canvases, stats.denoise_passes, (int)stats.finish_reason);
  }
  dgrt_session_destroy(session);
  return status == DGRT_OK ? 0 : 1;
}

int main(int argc, char** argv) {
  struct arguments arguments = {0};
  dgrt_runtime_options options;
  dgrt_runtime* runtime = NULL;
  dgrt_status status;
  int result;
  if (!parse(argc, argv, &arguments)) {
    fprintf(stderr, "usage: %s ENGINE [--ort LIBRARY] [--threads N] [--seed N] [--max-new N] ID... | @FILE\n", argv[0]);
    free(arguments.prompt);
    return 2;
  }
  status = dgrt_runtime_options_init(&options, sizeof(options));
  if (status == DGRT_OK) {
    options.threads = arguments.threads;
    options.ort_library = arguments.ort_library;
    status = dgrt_runtime_create(arguments.engine, &options, &runtime);
  }
  result = status == DGRT_OK ? run(runtime, &arguments) : fail("runtime", status);
  dgrt_runtime_destroy(runtime);
  free(arguments.prompt);
  if (dgrt_live_handles() != 0) {
    fprintf(stderr, "handles leaked: %" PRId64 "\n", dgrt_live_handles());
    return 1;
  }
  return result;
}
