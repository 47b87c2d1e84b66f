/* A host that loads libdgrt and forks children, which use exit() and return; run by test_fork.py:
 * `fork_host LIBDGRT ENGINE ORT STATE [OTHER]`. Each child gets a line "child ACTION, END: STATUS". */
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dgrt/dgrt.h"

static const char *library, *engine, *ort;
static const int32_t prompt[] = {2, 3, 4};

#define FUNCTIONS(X)                                                                                                  \
  X(dgrt_last_error) X(dgrt_runtime_options_init) X(dgrt_runtime_create) X(dgrt_runtime_destroy)                      \
  X(dgrt_session_options_init) X(dgrt_session_create) X(dgrt_session_destroy) X(dgrt_session_prefill)                 \
  X(dgrt_session_next_canvas) X(dgrt_session_tokens) X(dgrt_scheduler_create) X(dgrt_scheduler_destroy)               \
  X(dgrt_scheduler_submit) X(dgrt_request_wait) X(dgrt_request_destroy) X(dgrt_prefix_cache_clear) X(dgrt_session_extend) \
  X(dgrt_session_cancel) X(dgrt_generate)
#define DECLARE(f) static __typeof__(&f) p_##f;
FUNCTIONS(DECLARE)

static void* handle;
static dgrt_runtime* runtime;
static dgrt_session* session;
static dgrt_scheduler* scheduler;
static dgrt_request* request;

static void fail(const char* what) {
  printf("FAILED %s: %s\n", what, p_dgrt_last_error != NULL ? p_dgrt_last_error() : "");
  exit(70);
}
#define OK(call) do { if ((call) != DGRT_OK) fail(#call); } while (0)
#define REFUSED(call) \
  do { if ((call) != DGRT_INVALID_ARGUMENT || strstr(p_dgrt_last_error(), "fork()") == NULL) fail(#call); } while (0)

static void load(void) {
  handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (handle == NULL) fail(dlerror());
#define LOOK_UP(f) p_##f = (__typeof__(p_##f))dlsym(handle, #f); if (p_##f == NULL) fail(#f);
  __extension__ ({ FUNCTIONS(LOOK_UP) });
}

static void open_runtime(void) {
  dgrt_runtime_options options;
  OK(p_dgrt_runtime_options_init(&options, sizeof options));
  options.threads = 2;
  options.ort_library = ort;
  OK(p_dgrt_runtime_create(engine, &options, &runtime));
}

static void quick_options(dgrt_session_options* options) {
  OK(p_dgrt_session_options_init(runtime, options, sizeof *options));
  options->max_new_tokens = 8;
  options->max_denoising_steps = 2;
  options->num_stop_ids = 0;
}

static void generate(void) {
  dgrt_session_options options;
  const int32_t* tokens;
  size_t count;
  int32_t finish;
  quick_options(&options);
  OK(p_dgrt_session_create(runtime, &options, &session));
  OK(p_dgrt_session_prefill(session, prompt, 3));
  OK(p_dgrt_session_next_canvas(session, NULL, &tokens, &count, &finish));
  if (count != 8) fail("tokens");
}

static void submit(void) {
  dgrt_session_options options;
  int32_t done;
  quick_options(&options);
  OK(p_dgrt_scheduler_create(runtime, NULL, &scheduler));
  OK(p_dgrt_scheduler_submit(scheduler, &options, prompt, 3, NULL, &request));
  OK(p_dgrt_request_wait(request, -1, &done));
}

static void destroy(void) {
  p_dgrt_request_destroy(request);
  p_dgrt_scheduler_destroy(scheduler);
  p_dgrt_session_destroy(session);
  p_dgrt_runtime_destroy(runtime);
  request = NULL, scheduler = NULL, session = NULL, runtime = NULL;
}

static void use_old(void) {
  const int32_t* tokens;
  size_t count;
  int32_t number;
  dgrt_session* new_session;
  dgrt_scheduler* new_scheduler;
  if (runtime == NULL) return;
  REFUSED(p_dgrt_session_create(runtime, NULL, &new_session));
  REFUSED(p_dgrt_scheduler_create(runtime, NULL, &new_scheduler));
  REFUSED(p_dgrt_generate(runtime, NULL, prompt, 3, NULL, NULL));
  REFUSED(p_dgrt_prefix_cache_clear(runtime));
  if (session != NULL) {
    REFUSED(p_dgrt_session_prefill(session, prompt, 3));
    REFUSED(p_dgrt_session_extend(session, prompt, 3));
    REFUSED(p_dgrt_session_next_canvas(session, NULL, &tokens, &count, &number));
    OK(p_dgrt_session_cancel(session));
    OK(p_dgrt_session_tokens(session, &tokens, &count)); /* what is there can be read */
  }
  if (scheduler != NULL) {
    REFUSED(p_dgrt_scheduler_submit(scheduler, NULL, prompt, 3, NULL, NULL));
    REFUSED(p_dgrt_request_wait(request, -1, &number));
  }
}

static void act(const char* action) {
  if (strcmp(action, "use") == 0) use_old();
  if (strcmp(action, "destroy") == 0 && handle != NULL) destroy();
  if (strcmp(action, "open") == 0) {
    if (handle == NULL) load();
    open_runtime();
    generate();
    submit();
  }
  if (strcmp(action, "again") == 0) {
    int status = -1;
    const pid_t grandchild = fork();
    if (grandchild == 0) {
      act("open");
      exit(5);
    }
    waitpid(grandchild, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 5) fail("grandchild");
  }
}

static void say_before(void) { printf("handler registered before dgrt\n"); }
static void say_child(void) { printf("handler registered in the child\n"); }

int main(int argc, char** argv) {
  static const char* const actions[] = {"nothing", "use", "destroy", "open", "again"};
  static const char* const ends[] = {"exit 0", "exit 3", "return"};
  library = argv[1], engine = argv[2], ort = argv[3];
  setvbuf(stdout, NULL, _IOFBF, BUFSIZ);
  atexit(say_before);
  if (argc > 5 && dlopen(argv[5], RTLD_NOW | RTLD_LOCAL) == NULL) fail(dlerror());
  load();
  open_runtime();
  if (strcmp(argv[4], "generated") == 0) generate();
  if (strcmp(argv[4], "scheduler") == 0) submit();
  if (strcmp(argv[4], "destroyed") == 0 || strcmp(argv[4], "unloaded") == 0) generate(), destroy();
  if (strcmp(argv[4], "unloaded") == 0) dlclose(handle), handle = NULL;
  for (size_t a = 0; a < 5; ++a) {
    for (size_t e = 0; e < 3; ++e) {
      int status = -1;
      fflush(stdout);
      const pid_t child = fork();
      if (child == 0) {
        alarm(60);
        atexit(say_child);
        act(actions[a]);
        printf("not flushed\n");
        if (e == 2) return 4;
        exit(e == 0 ? 0 : 3);
      }
      waitpid(child, &status, 0);
      printf("child %s, %s: %d\n", actions[a], ends[e], WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
    }
  }
  if (handle != NULL) destroy();
  return 0;
}
