/*
** processes.c: ProcessExecutor, the parent's side: an executor with one loop, on which
** core/processes.c runs; here tasks, results and errors become bytes and back.
**
** The loop's thread has a Lua state, in which errors are made and reported; no job of the
** user's runs there.
*/
#include "processes.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "core/system.h"
#include "crossing.h"
#include "worker.h"

static lml_process_options *options_of(const mli_executor *ex) {
  return ((lml_outset *)ex->user)->processes;
}

unsigned lml_processes_count(const mli_executor *ex) {
  return atomic_load(&options_of(ex)->children);
}

mli_seat *lml_processes_hold(mli_executor *ex, unsigned *number) {
  *number = atomic_fetch_add(&options_of(ex)->seats, 1);
  return mli_seat_new(ex);
}

/* ---- the program ---- */

static bool is_program(const char *path) {
  struct stat s;
  return stat(path, &s) == 0 && S_ISREG(s.st_mode) && access(path, X_OK) == 0;
}

/* The file that this code is in: the module, the library or the program. */
static bool own_file(char *out, size_t size) {
  Dl_info info;
  char own[4096], exe[4096];
  if (!dladdr((const void *)(uintptr_t)own_file, &info) || !info.dli_fname) return false;
  /* Of the program itself the loader knows what it was called as: no path, perhaps. */
  mli_process_program(exe, sizeof exe);
  if (!realpath(info.dli_fname, own) || !(strstr(own, ".so") || strstr(own, ".dylib")))
    snprintf(own, sizeof own, "%s", exe);
  return snprintf(out, size, "%s", own) < (int)size;
}

static bool beside(const char *file, const char *where, char *out, size_t size) {
  const char *slash = strrchr(file, '/');
  if (!slash) return false;
  int n = snprintf(out, size, "%.*s/%smoonloop", (int)(slash - file), file, where);
  return n < (int)size && is_program(out);
}

static bool on_path(char *out, size_t size) {
  const char *path = getenv("PATH");
  while (path && *path) {
    size_t n = strcspn(path, ":");
    int length = snprintf(out, size, "%.*s/moonloop", (int)n, path);
    if (n > 0 && length < (int)size && is_program(out)) return true;
    path += n + (path[n] == ':');
  }
  return false;
}

/* The program that children run: MOONLOOP_PROGRAM, else the one that came with this code,
** else the first on PATH. */
static void find_program(lua_State *L, char *out, size_t size) {
  char own[4096];
  const char *set = getenv("MOONLOOP_PROGRAM");
  if (set && *set) {
    if (snprintf(out, size, "%s", set) < (int)size && is_program(out)) return;
    lml_raise(L, "ENOENT", "ProcessExecutor: MOONLOOP_PROGRAM is '%s', which is no program", set);
  }
  if (own_file(own, sizeof own) &&
      (beside(own, "", out, size) ||             /* a build; the program itself */
       beside(own, "../bin/", out, size) ||      /* libmoonloop in lib */
       beside(own, "../../bin/", out, size) ||   /* ... in lib/x86_64-linux-gnu */
       beside(own, "../../../bin/", out, size))) /* moonloop.so in lib/lua/5.4 */
    return;
  if (on_path(out, size)) return;
  lml_raise(L, "ENOENT",
            "ProcessExecutor: the program 'moonloop' is neither beside this library "
            "nor on PATH: name it in MOONLOOP_PROGRAM");
}

/* ---- hooks ---- */

static void *hook_open(mli_processes *p) {
  lml_shipping *s = calloc(1, sizeof *s);
  if (s) atomic_fetch_add(&options_of(p->worker->executor)->children, 1);
  return s;
}

static void hook_close(mli_processes *p, void *user) {
  lml_shipping_fini(user);
  free(user);
  atomic_fetch_sub(&options_of(p->worker->executor)->children, 1);
}

static void hook_hello(mli_processes *p, void *user, mli_bytes *out) {
  const mli_executor *ex = p->worker->executor;
  const lml_outset *c = ex->user;
  mli_put_string(out, LML_PROCESSES_VERSION);
  mli_put_string(out, ex->name);
  mli_put_u64(out, c->processes->memory_limit);
  mli_put(out, &c->processes->cpu_limit, sizeof c->processes->cpu_limit);
  mli_put_string(out, c->path);
  mli_put_string(out, c->cpath);
  lml_ship_whole(user, c->preload, out);
  lml_ship_whole(user, c->init, out);
}

static void hook_job(mli_processes *p, void *user, mli_task *task, mli_bytes *out) {
  (void)p;
  mli_put_string(out, task->name);
  mli_put_u32(out, task->line);
  mli_put_string(out, task->chunk ? task->chunk->text : NULL);
  mli_put_u64(out, task->lane); /* 0: it is not traced */
  lml_ship_whole(user, task->context, out);
  lml_ship(user, task->payload, out);
}

static bool hook_ready(mli_processes *p, const mli_packet *packet, char **why) {
  mli_reader r = { packet->bytes, packet->bytes + packet->size, false };
  char *version = mli_get_string(&r);
  bool same = version && strcmp(version, LML_PROCESSES_VERSION) == 0;
  if (!same) {
    char text[512];
    snprintf(text, sizeof text, "is of another version: %s is %s, this is %s", p->o.program,
             version ? version : "unknown", LML_PROCESSES_VERSION);
    *why = strdup(text);
  }
  free(version);
  return same;
}

static bool hook_result(mli_processes *p, void *user, const mli_packet *packet, mli_verdict *out) {
  mli_reader r = { packet->bytes, packet->bytes + packet->size, false };
  (void)p;
  out->state = (mli_state)mli_get_u8(&r);
  out->status = (ml_status)mli_get_u8(&r);
  out->traceback = mli_get_string(&r);
  bool good = lml_unship_whole(user, &r, &out->outcome) && out->state >= MLI_FINISHED &&
              out->state <= MLI_STOPPED;
  if (good) return true;
  free(out->traceback);
  mli_message_free(out->outcome);
  return false;
}

typedef struct error_parts {
  const char *code, *text;
  const mli_child_end *end;
} error_parts;

static void set_integer(lua_State *L, const char *key, lua_Integer n) {
  lua_pushinteger(L, n);
  lua_setfield(L, -2, key);
}

static int push_error(lua_State *L) {
  const error_parts *e = lua_touserdata(L, 1);
  lml_error_push(L, e->code, "%s", e->text);
  if (!e->end) return 1;
  set_integer(L, "pid", e->end->pid);
  if (e->end->signal)
    set_integer(L, "signal", e->end->signal);
  else if (e->end->known)
    set_integer(L, "status", e->end->status);
  return 1;
}

static mli_message *hook_error(mli_processes *p, const char *code, const char *text,
                               const mli_child_end *end) {
  lml_state *S = p->worker->user;
  lua_State *L = S->from;
  error_parts e = { code, text, end };
  bool failed = true;
  lua_pushcfunction(L, push_error);
  lua_pushlightuserdata(L, &e);
  if (lua_pcall(L, 1, 1, 0) == LUA_OK) return lml_encode_outcome(L, 1, &failed);
  lua_pop(L, 1);
  return NULL;
}

/* One write for a line, so that those of several children do not mix. */
static void hook_line(mli_processes *p, pid_t pid, int stream, const char *text, size_t size) {
  char line[MLI_NAME_MAX + 32 + 8192 + 2];
  (void)stream;
  int n = snprintf(line, sizeof line, "%s[%d]: ", p->worker->executor->name, (int)pid);
  if (size > sizeof line - (size_t)n - 1) size = sizeof line - (size_t)n - 1;
  memcpy(line + n, text, size);
  line[(size_t)n + size] = '\n';
  atomic_load (&lml_report_write)(line, (size_t)n + size + 1);
}

static const mli_processes_hooks hooks = {
  .open = hook_open,
  .close = hook_close,
  .hello = hook_hello,
  .job = hook_job,
  .ready = hook_ready,
  .result = hook_result,
  .error = hook_error,
  .line = hook_line,
};

/* ---- the executor's class: all on its loop's thread ---- */

static mli_processes *processes_of(mli_worker *w) {
  lml_state *S = w->user;
  return S ? S->processes : NULL;
}

static void process_open(mli_worker *w) {
  lml_worker_open(w);
  lml_state *S = w->user;
  if (!S) return;
  S->processes = &options_of(w->executor)->processes;
  mli_processes_begin(S->processes, w);
}

static void process_close(mli_worker *w) {
  mli_processes *p = processes_of(w);
  if (p) mli_processes_end(p);
  lml_worker_close(w);
}

static void process_run(mli_worker *w, mli_task *task) {
  mli_processes *p = processes_of(w);
  if (p)
    mli_processes_run(p, task);
  else
    mli_task_settle(w, task, MLI_FAILED, NULL, NULL, ML_MEMORY);
}

static bool process_direct(mli_worker *w, mli_task *task) {
  return mli_processes_direct(&options_of(w->executor)->processes, task);
}

static void process_cancel(mli_worker *w, mli_task *task) {
  mli_processes *p = processes_of(w);
  if (p) mli_processes_cancel(p, task);
}

static bool process_turn(mli_worker *w) { return w->user && lml_turn(w->user); }

static bool process_idle(mli_worker *w) {
  mli_processes *p = processes_of(w);
  return !p || mli_processes_idle(p);
}

static void process_cancel_all(mli_worker *w) {
  mli_processes *p = processes_of(w);
  if (p) mli_processes_cancel_all(p);
}

static const mli_executor_class process_class = {
  .kind = "process",
  .far = true,
  .open = process_open,
  .close = process_close,
  .run = process_run,
  .cancel = process_cancel,
  .direct = process_direct,
  .turn = process_turn,
  .idle = process_idle,
  .cancel_all = process_cancel_all,
};

/* ---- jobs() ---- */

typedef struct job_list {
  lua_State *L;
  lua_Integer n;
} job_list;

static void push_task(void *user, mli_task *task, pid_t pid) {
  job_list *list = user;
  lua_State *L = list->L;
  if (mli_future_settled(&task->future)) return; /* cancelled in the queue */
  lua_createtable(L, 0, 4);
  lua_pushstring(L, task->name[0] ? task->name : "job");
  lua_setfield(L, -2, "name");
  lua_pushstring(L, pid ? "running" : "queued");
  lua_setfield(L, -2, "state");
  if (pid) set_integer(L, "pid", pid);
  if (task->line) {
    lua_pushfstring(L, "%s:%d", mli_task_chunk(task), (int)task->line);
    lua_setfield(L, -2, "submitted_at");
  }
  lua_rawseti(L, -2, ++list->n);
}

void lml_processes_push_jobs(lua_State *L, mli_processes *p) {
  job_list list = { L, (lua_Integer)lua_rawlen(L, -1) };
  mli_processes_each(p, push_task, &list);
}

/* ---- making them ---- */

static lua_Number number_option(lua_State *L, const char *key) {
  lua_getfield(L, 4, key);
  lua_Number n = lua_tonumber(L, -1);
  lua_pop(L, 1);
  return n;
}

/* process_executor(name, workers, max_pending, options, init...): the options are checked. */
static int l_process_executor(lua_State *L) {
  static char *const argv[] = { "moonloop", LML_WORKER_OPTION, NULL };
  static const char *const outputs[] = { "log", "inherit", "discard", NULL };
  lml_state *S = lml_upstate(L);
  mli_executor_options options = {
    .class = &process_class,
    .name = luaL_checkstring(L, 1),
    .loops = true,
    .size = 1, /* loop */
    .max_pending = (uint64_t)luaL_optinteger(L, 3, 0),
  };
  int n = lua_gettop(L) - 4;
  lml_outset *outset = lml_outset_push(L, 5, n > 0 ? n : 0, true);
  lml_process_options *o = outset->processes = calloc(1, sizeof *o);
  if (!o) return luaL_error(L, "not enough memory");
  find_program(L, o->program, sizeof o->program);
  o->memory_limit = (uint64_t)number_option(L, "memory_limit");
  o->cpu_limit = number_option(L, "cpu_limit");
  lua_getfield(L, 4, "output");
  mli_processes_options processes = {
    .hooks = &hooks,
    .program = o->program,
    .argv = argv,
    .size = (unsigned)luaL_checkinteger(L, 2),
    .max_jobs = (uint64_t)number_option(L, "max_jobs"),
    .grace = (uint64_t)(number_option(L, "grace") * 1e9),
    .output = (mli_output)luaL_checkoption(L, -1, "log", outputs),
  };
  lua_pop(L, 1);
  mli_processes_init(&o->processes, &processes);
  lml_executor_own(L, S, lml_executor_start(L, &options));
  return 1;
}

void lml_processes_open(lua_State *L) {
  static const luaL_Reg functions[] = { { "process_executor", l_process_executor },
                                        { NULL, NULL } };
  lml_setfuncs(L, functions);
  lua_pushinteger(L, (lua_Integer)uv_available_parallelism());
  lua_setfield(L, -2, "cores");
}
