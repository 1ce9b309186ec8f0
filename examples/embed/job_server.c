/* The web server of plugin_server.c without a thread for each connection: the same plugins run as
** jobs. One thread does the HTTP, one runs all the plugins and what they wait for.
**
**   cc job_server.c -o job_server $(pkg-config --cflags --libs moonloop lua5.4 libmicrohttpd)
**   UPSTREAM=http://127.0.0.1:8000 ./job_server 8080 plugins
**
** All plugins share the loop's Lua state, so its memory has no limit for each of them.
*/
#include <arpa/inet.h>
#include <lauxlib.h>
#include <lualib.h>
#include <microhttpd.h>
#include <moonloop.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WAIT_LIMIT_MS 5000
#define MOST_CONNECTIONS 4000
#define NAME_CHARACTERS "abcdefghijklmnopqrstuvwxyz0123456789_"

static ml_executor *executor;
static const char *folder;

/* What runs as a job: "plugins:call". */
static const char module[] = "local loaded = {}\n"
                             "return { call = function(path, query)\n"
                             "  local plugin = loaded[path] or assert(loadfile(path))()\n"
                             "  loaded[path] = plugin\n"
                             "  return plugin(query)\n"
                             "end }\n";

static lua_State *new_state(void *user) {
  lua_State *L = luaL_newstate();
  (void)user;
  if (!L) return NULL;
  luaL_openlibs(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  luaL_loadstring(L, module);
  lua_setfield(L, -2, "plugins");
  lua_settop(L, 0);
  return L;
}

/* ---- a request: belongs to the HTTP thread, but while its job runs to the loop's ---- */

typedef struct request {
  struct MHD_Connection *connection;
  unsigned status;
  struct MHD_Response *response;
} request;

static void respond(request *r, unsigned status, const char *body, size_t size) {
  r->status = status;
  r->response = MHD_create_response_from_buffer(size, (void *)body, MHD_RESPMEM_MUST_COPY);
}

static void refuse(request *r, unsigned status, const char *text) {
  respond(r, status, text, strlen(text));
}

/* On the loop's thread. */
static void on_done(ml_future *f, void *user) {
  request *r = user;
  ml_values *results = NULL;
  size_t size = 0;
  if (ml_future_peek(f) == ML_OK && ml_future_values(f, &results) == ML_OK) {
    const ml_value *status = ml_values_at(results, 1);
    const char *body = ml_value_string(ml_values_at(results, 0), &size);
    respond(r,
            ml_value_type(status) == ML_INTEGER ? (unsigned)ml_value_integer(status) : MHD_HTTP_OK,
            body ? body : "", size);
  } else {
    char line[1024];
    const char *error = ml_future_error(f);
    snprintf(line, sizeof line, "plugin '%s': %s\n", ml_future_name(f), error ? error : "ended");
    fputs(line, stderr);
    refuse(r, MHD_HTTP_INTERNAL_SERVER_ERROR, line);
  }
  ml_values_free(results);
  MHD_resume_connection(r->connection);
}

static enum MHD_Result add_field(void *user, enum MHD_ValueKind kind, const char *name,
                                 const char *value) {
  (void)kind;
  ml_values_key(user, name);
  ml_values_add_text(user, value ? value : "");
  return MHD_YES;
}

static void start(request *r, const char *plugin, const char *path) {
  ml_job_options options = ML_JOB_OPTIONS;
  options.name = plugin;
  options.timeout = WAIT_LIMIT_MS * UINT64_C(1000000);
  ml_values *arguments = ml_values_new();
  ml_values_add_text(arguments, path);
  ml_values_open_table(arguments);
  MHD_get_connection_values(r->connection, MHD_GET_ARGUMENT_KIND, add_field, arguments);
  ml_values_close_table(arguments);
  ml_future *f;
  if (ml_submit_call(executor, "plugins:call", arguments, &options, &f) != ML_OK) {
    refuse(r, MHD_HTTP_SERVICE_UNAVAILABLE, "no jobs are taken\n");
    return;
  }
  MHD_suspend_connection(r->connection); /* before on_done can resume it */
  ml_future_on_done(f, on_done, r);
  ml_future_release(f);
}

/* Called when the request is there; when all of it has come; and when it was resumed. */
static enum MHD_Result answer(void *user, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *body,
                              size_t *body_size, void **seen) {
  request *r = *seen;
  const char *plugin = url + 1;
  char path[512];
  (void)user, (void)version, (void)body, (void)body_size;
  if (!r) {
    if (!(r = *seen = calloc(1, sizeof *r))) return MHD_NO;
    r->connection = connection;
    return MHD_YES;
  }
  if (!r->response) {
    int n = snprintf(path, sizeof path, "%s/%s.lua", folder, plugin);
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 || !*plugin ||
        plugin[strspn(plugin, NAME_CHARACTERS)] || n >= (int)sizeof path || access(path, R_OK) != 0)
      refuse(r, MHD_HTTP_NOT_FOUND, "there is no such plugin\n");
    else
      start(r, plugin, path);
    if (!r->response) return MHD_YES; /* suspended */
  }
  return MHD_queue_response(connection, r->status, r->response);
}

static void on_completed(void *user, struct MHD_Connection *connection, void **seen,
                         enum MHD_RequestTerminationCode code) {
  request *r = *seen;
  (void)user, (void)connection, (void)code;
  if (r && r->response) MHD_destroy_response(r->response);
  free(r);
}

int main(int argc, char **argv) {
  if (argc != 3) return fprintf(stderr, "usage: job_server PORT FOLDER\n"), 2;
  folder = argv[2];
  struct sockaddr_in address = { .sin_family = AF_INET,
                                 .sin_port = htons((uint16_t)atoi(argv[1])),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGINT);
  sigaddset(&stop, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &stop, NULL);
  ml_executor_options options = ML_EXECUTOR_OPTIONS;
  options.new_state = new_state;
  options.slice = 5000000; /* ns: a plugin that computes lets the others go on */
  if (ml_executor_new(&executor, &options) != ML_OK) {
    fprintf(stderr, "job_server: %s\n", ml_last_error());
    return 1;
  }
  struct MHD_Daemon *daemon = MHD_start_daemon(
    MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL,
    answer, NULL, MHD_OPTION_SOCK_ADDR, &address, MHD_OPTION_CONNECTION_LIMIT, MOST_CONNECTIONS,
    MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL, MHD_OPTION_END);
  if (!daemon) return 1;
  printf("http://127.0.0.1:%d\n", MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT)->port);
  fflush(stdout);

  int signal;
  sigwait(&stop, &signal);
  if (ml_executor_shutdown(executor, true, ml_after_ms(15000)) != ML_OK) {
    fprintf(stderr, "job_server: %s\n", ml_last_error());
    return 1;
  }
  MHD_stop_daemon(daemon); /* no connection is suspended: all jobs have ended */
  ml_executor_release(executor);
  return 0;
}
