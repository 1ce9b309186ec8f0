/*
** exchange.c: requests whose owner takes part while they go on, for
** lua/moonloop/http/exchange.lua, which is that owner.
**
**   core.attend(f)                 f(x, options) is called for each such request
**   x:uploads() -> boolean         whether to put the request's body
**   x:upload(length, rewindable, type)   what is known of it; before begin
**   x:begin()
**   x:wait(events[, timeout])      -> those that are there; 0: timeout
**   x:take()                       -> what came of the body, may be ""
**   x:save(file, offset, version[, digest]) -> how many bytes were there and are in the file now,
*or
**                                     nil and an error; see F4 in core/file.h
**   x:put(text, from, rewinds)     -> the place after what was taken; nil: begin again
**   x:finish(rewinds)   x:rewinds()
**   x:response()                   -> response, or nil and an error
**   x:failure()                    -> nil, or nil and an error, of one that is done
**   x:progress()                   -> sent, to_send, received, to_receive; -1: not known
**   x:timings()   x:close()
**   x:hear()                       -> { kind, text, ... }: what was told since the last time
**   core.HEAD  core.INPUT  core.ROOM  core.DONE  core.DEBUG    events
*/
#include "http/exchange.h"
#include <stdlib.h>
#include <string.h>
#include "http.h"
#include "http/extra.h"
#include "http_file.h"
#include "state.h"
#include "sync.h"

#define EXCHANGE "moonloop.http.exchange"

static const char attend_key; /* registry: the function */

static mli_exchange *check(lua_State *L) {
  mli_exchange **box = luaL_checkudata(L, 1, EXCHANGE);
  if (!*box) luaL_argerror(L, 1, "an exchange that was not made");
  return *box;
}

/* ---- beginning ---- */

static int attended(lua_State *L, int status, lua_KContext base) {
  (void)status;
  return lua_gettop(L) - (int)base;
}

int lml_exchange_attend(lua_State *L, mli_op **box, int options) {
  int base = lua_gettop(L);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &attend_key);
  mli_exchange **x = lua_newuserdatauv(L, sizeof(mli_exchange *), 0);
  *x = NULL;
  luaL_setmetatable(L, EXCHANGE);
  lml_opened_note(L);
  mli_op *op = *box;
  *box = NULL;
  *x = mli_exchange_new(mli_container(op, mli_http, op));
  if (!*x) return luaL_error(L, "not enough memory");
  lua_pushvalue(L, options);
  lua_callk(L, 2, LUA_MULTRET, base, attended);
  return attended(L, LUA_OK, base);
}

static int l_attend(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &attend_key);
  return 0;
}

static int x_uploads(lua_State *L) {
  lua_pushboolean(L, check(L)->request->uploads);
  return 1;
}

/* What the header Content-Length says; -1: there is none. */
static int64_t told_length(lua_State *L, const mli_http *h) {
  char *end;
  const char *text = mli_http_header(h, "Content-Length");
  if (!text) return -1;
  long long n = strtoll(text, &end, 10);
  if (*end || end == text || n < 0)
    lml_misuse(L, "option 'headers': 'Content-Length' must be a number of bytes");
  return n;
}

static int x_upload(lua_State *L) {
  mli_exchange *x = check(L);
  mli_http *h = x->request;
  int64_t told = told_length(L, h);
  x->length = luaL_optinteger(L, 2, told);
  x->rewindable = lua_toboolean(L, 3);
  const char *type = luaL_optstring(L, 4, NULL);
  if (type && mli_http_header(h, "Content-Type"))
    lml_misuse(L, "option 'headers': 'Content-Type' is made by 'multipart'");
  if (type && !mli_http_add_header(h, "Content-Type", 12, type, strlen(type)))
    luaL_error(L, "not enough memory");
  if (told >= 0 && told != x->length)
    lml_misuse(L, "the header Content-Length says %I, and the body has %I bytes", (LUAI_UACINT)told,
               (LUAI_UACINT)x->length);
  if (x->length < 0 && !mli_http_header(h, "Transfer-Encoding") &&
      !mli_http_add_header(h, "Transfer-Encoding", 17, "chunked", 7))
    luaL_error(L, "not enough memory");
  lua_pushinteger(L, x->length);
  return 1;
}

static int x_begin(lua_State *L) {
  mli_exchange_begin(check(L));
  return 0;
}

/* ---- waiting ---- */

enum { SELF = 1, EVENTS, BOX };

static int waited(lua_State *L, int status, lua_KContext ctx) {
  mli_exchange_wait *wait = mli_container((mli_op *)ctx, mli_exchange_wait, op);
  (void)status;
  unsigned got = wait->got;
  if (wait->op.status == ML_CLOSED) /* the loop is gone, and what went on with it */
    got = mli_exchange_ready(wait->exchange) & wait->events;
  if (wait->op.status == ML_CLOSED && !got) got = MLI_EXCHANGE_DONE;
  lml_op_drop(lua_touserdata(L, BOX));
  lua_pushinteger(L, got);
  return 1;
}

static int x_wait(lua_State *L) {
  mli_exchange *x = check(L);
  unsigned events = (unsigned)luaL_checkinteger(L, EVENTS);
  uint64_t deadline = lml_check_deadline(L, 3);
  unsigned got = mli_exchange_ready(x) & events;
  lua_settop(L, EVENTS);
  if (got && !lml_may_be_cancelled(lml_state_of(L))) {
    lua_pushinteger(L, got);
    return 1;
  }
  lml_check_wait(L, lml_state_of(L), "http request");
  mli_op **box = lml_op_box(L);
  mli_exchange_wait *wait;
  ml_status status = mli_exchange_wait_new(x, events, &wait);
  if (status == ML_MISUSE) return lml_misuse(L, "another job waits for this response");
  if (status != ML_OK) return luaL_error(L, "not enough memory");
  *box = &wait->op;
  return lml_await_op(L, *box, deadline, waited);
}

/* ---- bodies ---- */

static int x_take(lua_State *L) {
  mli_exchange *x = check(L);
  mli_exchange_take(x);
  lua_pushlstring(L, x->taken.bytes ? x->taken.bytes : "", x->taken.size);
  return 1;
}

static int saved(lua_State *L, int status, lua_KContext ctx) {
  mli_exchange *x = check(L);
  mli_file_op *f = mli_container((mli_op *)ctx, mli_file_op, op);
  (void)status;
  if (f->op.status != ML_OK) return lml_fail_op(L, &f->op);
  lua_pushinteger(L, (lua_Integer)f->size);
  mli_buffer_free(&x->taken);
  x->taken = (mli_buffer){ f->bytes, 0, f->room };
  f->bytes = NULL;
  return 1;
}

/* From the exchange to the file without a way through Lua. */
static int x_save(lua_State *L) {
  mli_exchange *x = check(L);
  mli_file *file = lml_http_check_file(L, 2);
  lua_Integer offset = luaL_checkinteger(L, 3);
  int64_t version = luaL_checkinteger(L, 4);
  mli_digest *digest = lua_isnoneornil(L, 5) ? NULL : lml_http_check_digest(L, 5);
  lml_check_wait(L, lml_state_of(L), "write");
  mli_loop *loop = lml_io_loop(L);
  mli_op **box = lml_op_box(L);
  mli_exchange_take(x);
  mli_buffer *b = &x->taken;
  if (b->size == 0) {
    lua_pushinteger(L, 0);
    return 1;
  }
  if (digest && !mli_digest_update(digest, b->bytes, b->size))
    return luaL_error(L, "the checksum failed");
  mli_file_op *f = mli_file_write_new(loop, file, offset, b->bytes, b->size, b->room, version);
  if (!f) return luaL_error(L, "not enough memory");
  *b = (mli_buffer){ NULL, 0, 0 };
  *box = &f->op;
  return lml_await_op(L, *box, MLI_FOREVER, saved);
}

static int x_put(lua_State *L) {
  size_t size, took;
  mli_exchange *x = check(L);
  const char *text = luaL_checklstring(L, 2, &size);
  size_t from = (size_t)luaL_checkinteger(L, 3) - 1;
  luaL_argcheck(L, from <= size, 3, "beyond the end");
  switch (mli_exchange_put(x, text + from, size - from, (unsigned)luaL_checkinteger(L, 4), &took)) {
  case ML_OK: lua_pushinteger(L, (lua_Integer)(from + took) + 1); return 1;
  case ML_MEMORY: return luaL_error(L, "not enough memory");
  default: return 0;
  }
}

static int x_finish(lua_State *L) {
  mli_exchange_finish(check(L), (unsigned)luaL_checkinteger(L, 2));
  return 0;
}

static int x_rewinds(lua_State *L) {
  lua_pushinteger(L, mli_exchange_rewinds(check(L)));
  return 1;
}

/* ---- what became of it ---- */

static int x_response(lua_State *L) {
  mli_exchange *x = check(L);
  unsigned ready = mli_exchange_ready(x);
  if (!(ready & MLI_EXCHANGE_HEAD)) return luaL_error(L, "the response is not there yet");
  /* One that streams and fails after its head is a response; reading it says so. */
  if ((ready & MLI_EXCHANGE_DONE) && x->request->op.status != ML_OK && !x->request->collected)
    return lml_http_push_failure(L, x->request);
  return lml_http_push_response(L, x->request);
}

static int x_failure(lua_State *L) {
  mli_exchange *x = check(L);
  lua_pushnil(L);
  if (!(mli_exchange_ready(x) & MLI_EXCHANGE_DONE) || x->request->op.status == ML_OK) return 1;
  return lml_http_push_failure(L, x->request);
}

static int x_hear(lua_State *L) {
  static const char *const kinds[] = { [MLI_DEBUG_INFO] = "info",
                                       [MLI_DEBUG_REQUEST] = "request",
                                       [MLI_DEBUG_RESPONSE] = "response",
                                       [MLI_DEBUG_SENT] = "sent",
                                       [MLI_DEBUG_RECEIVED] = "received" };
  mli_exchange *x = check(L);
  mli_exchange_word word;
  lua_Integer n = 0;
  lua_newtable(L);
  mli_exchange_hear(x);
  for (size_t at = 0; at < x->heard.size; at += sizeof word + word.size) {
    memcpy(&word, x->heard.bytes + at, sizeof word);
    lua_pushstring(L, kinds[word.kind]);
    lua_rawseti(L, -2, ++n);
    lua_pushlstring(L, x->heard.bytes + at + sizeof word, word.size);
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

static int x_progress(lua_State *L) {
  mli_exchange_progress p = mli_exchange_progress_get(check(L));
  lua_pushinteger(L, p.sent);
  lua_pushinteger(L, p.to_send);
  lua_pushinteger(L, p.received);
  lua_pushinteger(L, p.to_receive);
  return 4;
}

/* x:timings(): of one that is done: when it ended counts. */
static int x_timings(lua_State *L) {
  const mli_http *h = check(L)->request;
  mli_http_times times = h->times;
  if (mli_exchange_ready(check(L)) & MLI_EXCHANGE_DONE) times.total = h->took;
  lml_http_push_times(L, &times);
  return 1;
}

static int x_close(lua_State *L) {
  mli_exchange_close(check(L));
  return 0;
}

static int x_is_open(lua_State *L) {
  mli_exchange *x = *(mli_exchange **)lua_touserdata(L, 1);
  lua_pushboolean(L, x && x->begun && !(mli_exchange_ready(x) & MLI_EXCHANGE_DONE));
  return 1;
}

static int x_gc(lua_State *L) {
  mli_exchange **box = lua_touserdata(L, 1), *x = *box;
  *box = NULL;
  if (!x) return 0;
  mli_exchange_close(x);
  mli_release(x);
  return 0;
}

void lml_exchange_open(lua_State *L) {
  static const luaL_Reg methods[] = {
    { "uploads", x_uploads }, { "upload", x_upload },
    { "begin", x_begin },     { "save", x_save },
    { "wait", x_wait },       { "take", x_take },
    { "put", x_put },         { "finish", x_finish },
    { "rewinds", x_rewinds }, { "response", x_response },
    { "failure", x_failure }, { "progress", x_progress },
    { "timings", x_timings }, { "hear", x_hear },
    { "close", x_close },     { NULL, NULL },
  };
  static const luaL_Reg metamethods[] = {
    { "__gc", x_gc }, { "__close", x_close }, { "__is_open", x_is_open }, { NULL, NULL }
  };
  static const struct {
    const char *name;
    int value;
  } events[] = { { "HEAD", MLI_EXCHANGE_HEAD },
                 { "INPUT", MLI_EXCHANGE_INPUT },
                 { "ROOM", MLI_EXCHANGE_ROOM },
                 { "DONE", MLI_EXCHANGE_DONE },
                 { "DEBUG", MLI_EXCHANGE_DEBUG } };
  for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
    lua_pushinteger(L, events[i].value);
    lua_setfield(L, -2, events[i].name);
  }
  lua_pushcfunction(L, l_attend);
  lua_setfield(L, -2, "attend");
  luaL_newmetatable(L, EXCHANGE);
  luaL_setfuncs(L, metamethods, 0);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pushliteral(L, "http response that streams");
  lua_setfield(L, -2, "__name");
  lua_pop(L, 1);
}
