/* A C library made awaitable: Redis commands as Lua functions that wait, by hiredis.
**
**   cc awaitable.c -o awaitable $(pkg-config --cflags --libs moonloop lua5.4 hiredis libuv)
**   ./awaitable 127.0.0.1 6379 awaitable.lua
**
**   local redis = require "redis"
**   local text, err = redis.get("key")       any command: redis.lpush("list", 1, 2, 3)
**
** In a job a command parks the job, on another thread it blocks that thread. Each loop has a
** connection of its own, on which commands are sent as they come and answered in that order.
*/
#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <lauxlib.h>
#include <lualib.h>
#include <moonloop.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#define PATIENCE_MS 5000

static const char *host;
static int port;

/* ---- on the loop: its connection, watched by libuv (hiredis has an adapter for that, which
** overlooks errors of the socket) ---- */

typedef struct wire {
  redisAsyncContext *redis; /* NULL: it has ended */
  uv_poll_t poll;
  int events;
  struct wire **place; /* what the loop keeps: the wire that it has, or NULL */
} wire;

static const char place_key;

static void on_poll(uv_poll_t *poll, int status, int events) {
  wire *w = poll->data;
  if (status < 0 || events & UV_READABLE) redisAsyncHandleRead(w->redis); /* it finds the error */
  if (w->redis && events & UV_WRITABLE) redisAsyncHandleWrite(w->redis);
}

static void watch(wire *w, int events) {
  w->events = events;
  if (events)
    uv_poll_start(&w->poll, events, on_poll);
  else
    uv_poll_stop(&w->poll);
}

static void add_read(void *w) { watch(w, ((wire *)w)->events | UV_READABLE); }
static void del_read(void *w) { watch(w, ((wire *)w)->events & ~UV_READABLE); }
static void add_write(void *w) { watch(w, ((wire *)w)->events | UV_WRITABLE); }
static void del_write(void *w) { watch(w, ((wire *)w)->events & ~UV_WRITABLE); }

static void on_closed(uv_handle_t *poll) { free(poll->data); }

/* hiredis frees the context, for whatever reason: the next command connects again. */
static void cleanup(void *user) {
  wire *w = user;
  w->redis = NULL;
  *w->place = NULL;
  uv_close((uv_handle_t *)&w->poll, on_closed);
}

static wire *connect_wire(struct uv_loop_s *loop, wire **place) {
  wire *w = calloc(1, sizeof *w);
  redisAsyncContext *redis = redisAsyncConnect(host, port);
  if (!w || !redis || redis->err || uv_poll_init(loop, &w->poll, redis->c.fd) != 0) {
    if (redis) redisAsyncFree(redis);
    free(w);
    return NULL;
  }
  w->redis = redis;
  w->poll.data = w;
  w->place = place;
  redis->ev.data = w;
  redis->ev.addRead = add_read;
  redis->ev.delRead = del_read;
  redis->ev.addWrite = add_write;
  redis->ev.delWrite = del_write;
  redis->ev.cleanup = cleanup;
  return *place = w;
}

/* The loop ends: so do the commands that wait, without an answer. */
static void end_place(void *value) {
  wire **place = value;
  if (*place) redisAsyncFree((*place)->redis);
  free(place);
}

/* The loop's connection; NULL: there is none to be had. */
static redisAsyncContext *connection(struct uv_loop_s *loop) {
  wire **place = ml_loop_kept(loop, &place_key);
  if (!place) {
    if (!(place = calloc(1, sizeof *place))) return NULL;
    if (ml_loop_keep(loop, &place_key, place, end_place) != ML_OK) return free(place), NULL;
  }
  wire *w = *place ? *place : connect_wire(loop, place);
  return w ? w->redis : NULL;
}

/* ---- on the loop: a command ---- */

typedef struct command {
  char *text; /* as it is sent */
  int size;
} command;

static void add_reply(ml_values *values, const redisReply *reply) {
  switch (reply->type) {
  case REDIS_REPLY_INTEGER: ml_values_add_integer(values, reply->integer); break;
  case REDIS_REPLY_NIL: ml_values_add_nil(values); break;
  case REDIS_REPLY_ARRAY:
    ml_values_open_table(values);
    for (size_t i = 0; i < reply->elements; i++) add_reply(values, reply->element[i]);
    ml_values_close_table(values);
    break;
  default: ml_values_add_string(values, reply->str, (size_t)reply->len);
  }
}

static void on_reply(redisAsyncContext *redis, void *answer, void *user) {
  ml_op *op = user;
  const redisReply *reply = answer;
  ml_values *values;
  if (!reply) {
    ml_op_fail(op, "redis", redis->err ? redis->errstr : "the connection was closed");
  } else if (reply->type == REDIS_REPLY_ERROR) {
    ml_op_fail(op, "redis", reply->str);
  } else if ((values = ml_values_new())) {
    add_reply(values, reply);
    ml_op_complete(op, values);
  } else {
    ml_op_fail(op, "memory", NULL);
  }
  ml_op_release(op);
}

static void begin(ml_op *op, struct uv_loop_s *loop, void *user) {
  command *c = user;
  redisAsyncContext *redis = connection(loop);
  ml_op_retain(op); /* on_reply's */
  if (redis &&
      redisAsyncFormattedCommand(redis, on_reply, op, c->text, (size_t)c->size) == REDIS_OK)
    return;
  ml_op_fail(op, "redis", "no connection");
  ml_op_release(op);
}

static void free_command(void *user) {
  command *c = user;
  if (c->text) redisFreeCommand(c->text);
  free(c);
}

/* A command that was sent cannot be taken back: without `cancel` its answer is dropped. */
static const ml_op_class command_class = { ML_OP_CLASS, .name = "redis", .begin = begin,
                                           .free = free_command };

/* ---- in Lua ---- */

/* redis.NAME(arguments...) -> answer, or nil, err */
static int l_command(lua_State *L) {
  int argc = lua_gettop(L) + 1;
  const char **argv = lua_newuserdatauv(L, (size_t)argc * sizeof *argv, 0);
  size_t *sizes = lua_newuserdatauv(L, (size_t)argc * sizeof *sizes, 0);
  argv[0] = lua_tolstring(L, lua_upvalueindex(1), &sizes[0]);
  for (int i = 1; i < argc; i++) argv[i] = luaL_checklstring(L, i, &sizes[i]);
  command *c = calloc(1, sizeof *c);
  if (!c || (c->size = redisFormatCommandArgv(&c->text, argc, argv, sizes)) < 0) {
    free(c);
    return luaL_error(L, "not enough memory");
  }
  ml_op *op = ml_op_new(L, &command_class, c); /* `c` is the operation's from here on */
  return ml_await(L, op, ml_after_ms(PATIENCE_MS));
}

static int l_index(lua_State *L) {
  luaL_checkstring(L, 2);
  lua_pushcclosure(L, l_command, 1);
  return 1;
}

static int open_redis(lua_State *L) {
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, l_index);
  lua_setfield(L, -2, "__index");
  lua_setmetatable(L, -2);
  return 1;
}

/* ---- the program ---- */

/* A state where `require "redis"` works: of a loop of the executor, or the program's own. */
static lua_State *new_state(void *user) {
  lua_State *L = luaL_newstate();
  (void)user;
  if (!L) return NULL;
  luaL_openlibs(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, open_redis);
  lua_setfield(L, -2, "redis");
  lua_settop(L, 0);
  return L;
}

int main(int argc, char **argv) {
  ml_executor *ex = NULL;
  ml_executor_options options = ML_EXECUTOR_OPTIONS;
  if (argc != 4) return fprintf(stderr, "usage: awaitable HOST PORT SCRIPT\n"), 2;
  host = argv[1];
  port = atoi(argv[2]);
  options.new_state = new_state;
  lua_State *L = new_state(NULL);
  if (!L || ml_executor_new(&ex, &options) != ML_OK || ml_open(L, ex) != ML_OK) {
    fprintf(stderr, "awaitable: %s\n", ml_last_error());
    return 1;
  }
  int failed = luaL_dofile(L, argv[3]);
  if (failed) fprintf(stderr, "awaitable: %s\n", luaL_tolstring(L, -1, NULL)); /* a table, often */
  lua_close(L);
  ml_status status = ml_executor_shutdown(ex, true, ml_after_ms(5000));
  if (status != ML_OK) fprintf(stderr, "awaitable: %s\n", ml_last_error());
  ml_executor_release(ex);
  return failed || status != ML_OK;
}
