/* A web server with a thread for each connection and plugins in Lua. Each thread has a Lua
** state to itself while it answers a request; all that the plugins wait for is done by one
** loop, over connections that they share.
**
**   cc plugin_server.c -o plugin_server \
**      $(pkg-config --cflags --libs moonloop lua5.4 libmicrohttpd) -pthread
**   UPSTREAM=http://127.0.0.1:8000 ./plugin_server 8080 plugins &
**   curl http://127.0.0.1:8080/report?name=you      # runs plugins/report.lua
**
** A plugin returns a function: it gets the request's query as a table and returns the body,
** and the status unless that is 200. It may compute for CPU_LIMIT, wait for WAIT_LIMIT, and
** its state may have MEMORY_LIMIT. What fails is answered with 500 and named on stderr. These
** limits are for mistakes; code that nobody trusts belongs into other processes.
**
** With --blocking the states are without moonloop, to compare: bench/embed has the figures.
*/
#include <arpa/inet.h>
#include <lauxlib.h>
#include <lualib.h>
#include <microhttpd.h>
#include <moonloop.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CPU_LIMIT_MS 200
#define WAIT_LIMIT_S 5
#define MEMORY_LIMIT (16u << 20) /* bytes of each state */
#define MOST_CONNECTIONS 4000    /* a thread each */
#define MOST_FIELDS 32           /* of a query */
#define NAME_CHARACTERS "abcdefghijklmnopqrstuvwxyz0123456789_"

/* A Lua state. It belongs to the thread that took it, and to nobody while it is idle. */
typedef struct plugin_state {
  lua_State *L;
  size_t memory;
  uint64_t cpu_deadline; /* in the CPU time of its thread */
  int raised;            /* times that it was passed */
  struct plugin_state *next;
} plugin_state;

static ml_executor *executor; /* NULL: --blocking */
static const char *folder;
static plugin_state *idle; /* under the lock */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- limits ---- */

static void *limited_alloc(void *ud, void *block, size_t old_size, size_t size) {
  plugin_state *s = ud;
  size_t old = block ? old_size : 0;
  if (size > old && s->memory + (size - old) > MEMORY_LIMIT) return NULL;
  void *p = size ? realloc(block, size) : (free(block), NULL);
  if (p || !size) s->memory += size - old;
  return p;
}

static uint64_t cpu_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Such a hook makes Lua code take twice as long. It raises when the time is over, and again each
** thousand instructions, so that what cleans up has a chance; in the end at each, so that no
** pcall holds it off. Coroutines inherit it. */
static void on_count(lua_State *L, lua_Debug *ar) {
  void *ud;
  lua_getallocf(L, &ud);
  plugin_state *s = ud;
  if (cpu_ms() < s->cpu_deadline) return;
  lua_sethook(L, on_count, LUA_MASKCOUNT, ++s->raised < 100 ? 1000 : 1);
  lua_getinfo(L, "Sl", ar);
  lua_pushfstring(L, "%s:%d: computes for more than %d ms", ar->short_src, ar->currentline,
                  CPU_LIMIT_MS);
  lua_error(L);
}

/* ---- states ---- */

static int open_libraries(lua_State *L) {
  luaL_openlibs(L);
  return 0;
}

static void close_state(plugin_state *s) {
  if (s->L) lua_close(s->L);
  free(s);
}

static plugin_state *open_state(void) {
  plugin_state *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  s->L = lua_newstate(limited_alloc, s);
  if (s->L) {
    lua_pushcfunction(s->L, open_libraries);
    if (lua_pcall(s->L, 0, 0, 0) == LUA_OK && (!executor || ml_open(s->L, executor) == ML_OK)) {
      lua_settop(s->L, 0);
      lua_gc(s->L, LUA_GCINC, 110, 200, 13); /* garbage of a thousand states adds up */
      return s;
    }
  }
  close_state(s);
  return NULL;
}

static plugin_state *take_state(void) {
  pthread_mutex_lock(&lock);
  plugin_state *s = idle;
  if (s) idle = s->next;
  pthread_mutex_unlock(&lock);
  if (!s && !(s = open_state())) return NULL;
  s->cpu_deadline = cpu_ms() + CPU_LIMIT_MS;
  s->raised = 0;
  lua_sethook(s->L, on_count, LUA_MASKCOUNT, 10000);
  return s;
}

static void give_back(plugin_state *s) {
  pthread_mutex_lock(&lock);
  s->next = idle;
  idle = s;
  pthread_mutex_unlock(&lock);
}

/* ---- a request ---- */

typedef struct request {
  const char *plugin;
  char path[512];
  struct {
    const char *name, *value;
  } fields[MOST_FIELDS];
  int count;
  unsigned status;
  struct MHD_Response *response;
} request;

/* Nothing of Lua in here: its errors would jump over libmicrohttpd. */
static enum MHD_Result add_field(void *user, enum MHD_ValueKind kind, const char *name,
                                 const char *value) {
  request *r = user;
  (void)kind;
  if (r->count == MOST_FIELDS) return MHD_NO;
  r->fields[r->count].name = name;
  r->fields[r->count++].value = value ? value : "";
  return MHD_YES;
}

/* Pushes the plugin's function. Its file is run once in each state. */
static void push_plugin(lua_State *L, const request *r) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, "plugins");
  if (lua_getfield(L, -1, r->plugin) != LUA_TFUNCTION) {
    if (luaL_loadfile(L, r->path) != LUA_OK) lua_error(L);
    lua_call(L, 0, 1);
    if (!lua_isfunction(L, -1)) luaL_error(L, "%s returned no function", r->path);
    lua_pushvalue(L, -1);
    lua_setfield(L, -4, r->plugin);
  }
}

/* All that may raise: finds the plugin, calls it and makes its answer the response. */
static int run_plugin(lua_State *L) {
  request *r = lua_touserdata(L, 1);
  push_plugin(L, r);
  int plugin = lua_gettop(L);
  if (executor) { /* ml.timeout(WAIT_LIMIT_S, plugin, query), not plugin(query) */
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_getfield(L, -1, "moonloop");
    lua_getfield(L, -1, "timeout");
    lua_pushinteger(L, WAIT_LIMIT_S);
    lua_pushvalue(L, plugin);
  }
  lua_createtable(L, 0, r->count);
  for (int i = 0; i < r->count; i++) {
    lua_pushstring(L, r->fields[i].value);
    lua_setfield(L, -2, r->fields[i].name);
  }
  lua_call(L, executor ? 3 : 1, 2);
  size_t size;
  if (!lua_isnil(L, -1)) r->status = (unsigned)lua_tointeger(L, -1);
  const char *body = luaL_tolstring(L, -2, &size);
  r->response = MHD_create_response_from_buffer(size, (void *)body, MHD_RESPMEM_MUST_COPY);
  return 0;
}

/* Of an error, which may be any value. */
static int to_text(lua_State *L) {
  luaL_tolstring(L, 1, NULL);
  return 1;
}

static void refuse(request *r, unsigned status, const char *text) {
  char line[1024];
  int n = snprintf(line, sizeof line, "plugin '%s': %s\n", r->plugin, text);
  if (n >= (int)sizeof line) n = sizeof line - 1;
  if (status == MHD_HTTP_INTERNAL_SERVER_ERROR) fputs(line, stderr);
  r->status = status;
  r->response = MHD_create_response_from_buffer((size_t)n, line, MHD_RESPMEM_MUST_COPY);
}

static void run(request *r) {
  plugin_state *s = take_state();
  if (!s) {
    refuse(r, MHD_HTTP_SERVICE_UNAVAILABLE, "there is no Lua state for it");
    return;
  }
  lua_pushcfunction(s->L, to_text);
  lua_pushcfunction(s->L, run_plugin);
  lua_pushlightuserdata(s->L, r);
  int failed = lua_pcall(s->L, 1, 0, 1);
  if (failed) refuse(r, MHD_HTTP_INTERNAL_SERVER_ERROR, lua_tostring(s->L, -1));
  lua_settop(s->L, 0);
  if (failed > LUA_ERRRUN || s->raised) /* who knows in what condition it is */
    close_state(s);
  else
    give_back(s);
}

/* On the connection's thread. */
static enum MHD_Result answer(void *user, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *body,
                              size_t *body_size, void **seen) {
  request r = { .plugin = url + 1, .status = MHD_HTTP_OK };
  (void)user, (void)version, (void)body, (void)body_size;
  if (!*seen) { /* called again when all of the request is there: then it may be answered */
    *seen = connection;
    return MHD_YES;
  }
  int n = snprintf(r.path, sizeof r.path, "%s/%s.lua", folder, r.plugin);
  if (strcmp(method, MHD_HTTP_METHOD_GET) != 0) {
    refuse(&r, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET");
  } else if (!*r.plugin || r.plugin[strspn(r.plugin, NAME_CHARACTERS)] || n >= (int)sizeof r.path ||
             access(r.path, R_OK) != 0) {
    refuse(&r, MHD_HTTP_NOT_FOUND, "there is none");
  } else {
    MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, add_field, &r);
    run(&r);
  }
  enum MHD_Result result = MHD_NO;
  if (r.response) {
    result = MHD_queue_response(connection, r.status, r.response);
    MHD_destroy_response(r.response);
  }
  return result;
}

int main(int argc, char **argv) {
  bool blocking = argc > 1 && strcmp(argv[1], "--blocking") == 0;
  if (argc != (blocking ? 4 : 3)) {
    fprintf(stderr, "usage: plugin_server [--blocking] PORT FOLDER\n");
    return 2;
  }
  folder = argv[argc - 1];
  struct sockaddr_in address = { .sin_family = AF_INET,
                                 .sin_port = htons((uint16_t)atoi(argv[argc - 2])),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
  sigset_t stop; /* of all threads, before there are others */
  sigemptyset(&stop);
  sigaddset(&stop, SIGINT);
  sigaddset(&stop, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &stop, NULL);

  ml_executor_options options = ML_EXECUTOR_OPTIONS; /* of the loop, where plugins may spawn jobs */
  options.memory_limit = 4 * MEMORY_LIMIT;
  options.blocked_after = (uint64_t)CPU_LIMIT_MS * 1000000; /* named on stderr */
  options.slice = 5000000;                                  /* ns: then the others go on */
  if (!blocking && ml_executor_new(&executor, &options) != ML_OK) {
    fprintf(stderr, "plugin_server: %s\n", ml_last_error());
    return 1;
  }
  struct MHD_Daemon *daemon = MHD_start_daemon(
    MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL |
      MHD_USE_ERROR_LOG,
    0, NULL, NULL, answer, NULL, MHD_OPTION_SOCK_ADDR, &address, MHD_OPTION_CONNECTION_LIMIT,
    MOST_CONNECTIONS, MHD_OPTION_END);
  if (!daemon) return 1;
  printf("http://127.0.0.1:%d\n", MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT)->port);
  fflush(stdout);

  int signal;
  sigwait(&stop, &signal);
  ml_status status = ML_OK; /* the waits of all threads end; a job in an endless loop has 10 s */
  if (executor) status = ml_executor_shutdown(executor, true, ml_after_ms(15000));
  if (status != ML_OK) fprintf(stderr, "plugin_server: %s\n", ml_last_error());
  MHD_stop_daemon(daemon); /* joins its threads */
  for (plugin_state *s; (s = idle);) {
    idle = s->next;
    close_state(s);
  }
  ml_executor_release(executor);
  return status == ML_OK ? 0 : 1;
}
