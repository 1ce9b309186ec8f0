/*
** tcp_io.c: reading from sockets and writing to them.
**
**   sock:read([n][, timeout])  sock:read_all([max][, timeout])  sock:read_line([timeout])
**   sock:lines()  sock:write(data[, timeout])  sock:shutdown([timeout])
**   read_until(sock, mark, max, keep, timeout)    tcp.lua makes the method of it
*/
#include <stdint.h>
#include "tcp.h"

#define LINE_MAX_SIZE ((size_t)1024 * 1024)

static int misuse(lua_State *L, const char *what) {
  return luaL_error(L, "another %s waits on this socket", what);
}

/* Raises unless the operation was made. */
static void check_made(lua_State *L, ml_status status, const char *what) {
  if (status == ML_MISUSE) misuse(L, what);
  if (status != ML_OK) luaL_error(L, "not enough memory");
}

/* ---- reading ---- */

enum read_mode {
  KEEP,     /* the bytes as they are */
  STRIP,    /* without the mark */
  LINE,     /* without the end of the line; the last may have none */
  NEXT_LINE /* the same, for an iterator */
};

static size_t stripped(const char *bytes, size_t size, const mli_want *want, int mode) {
  if (mode == STRIP) return size - want->mark_size;
  if (mode < LINE || size == 0 || bytes[size - 1] != '\n') return size;
  return size > 1 && bytes[size - 2] == '\r' ? size - 2 : size - 1;
}

/* Takes and pushes `size` bytes. */
static void push_taken(lua_State *L, mli_stream *s, size_t size, const mli_want *want, int mode) {
  char few[2048];
  if (size <= sizeof few) {
    size = mli_stream_take(s, few, size);
    lua_pushlstring(L, few, stripped(few, size, want, mode));
    return;
  }
  luaL_Buffer buffer;
  char *bytes = luaL_buffinitsize(L, &buffer, size);
  size = mli_stream_take(s, bytes, size);
  luaL_pushresultsize(&buffer, stripped(bytes, size, want, mode));
}

/* No more will come. What came is the last line, all there is, or a part of what
** was wanted. */
static int end_of_input(lua_State *L, mli_stream *s, const mli_want *want, int mode, size_t size,
                        int ended) {
  bool regular = ended == UV_EOF;
  if (regular && (want->kind == MLI_WANT_ALL || (mode >= LINE && size > 0))) {
    push_taken(L, s, size, want, KEEP);
    return 1;
  }
  if (regular && mode == NEXT_LINE) return 0;
  lml_tcp_fail(L, "read", ended);
  if (size > 0) {
    push_taken(L, s, size, want, KEEP);
    lua_setfield(L, -2, "partial");
  }
  return mode == NEXT_LINE ? lua_error(L) : 2;
}

/* The results of a read, or -1: it has to wait. */
static int read_now(lua_State *L, mli_stream *s, mli_want *want, int mode) {
  size_t size;
  int ended;
  switch (mli_stream_peek(s, want, &size, &ended)) {
  case MLI_READY: push_taken(L, s, size, want, mode); return 1;
  case MLI_AT_END: return end_of_input(L, s, want, mode, size, ended);
  case MLI_TOO_LARGE:
    lml_fail(L, "too_large", "read: more than %I bytes came", (LUAI_UACINT)want->n);
    break;
  case MLI_SHUT: lml_tcp_fail_closed(L); break;
  case MLI_TAKEN: return misuse(L, "read");
  default: return -1;
  }
  return mode == NEXT_LINE ? lua_error(L) : 2;
}

static int read_woken(lua_State *L, int status, lua_KContext ctx);

static int wait_to_read(lua_State *L, mli_stream *s, const mli_want *want) {
  mli_read *read;
  mli_op **box = lml_op_box(L);
  check_made(L, mli_read_new(s, want, &read), "read");
  *box = &read->op;
  return lml_await_op(L, *box, lml_tcp_deadline(L), read_woken);
}

static int read_woken(lua_State *L, int status, lua_KContext ctx) {
  mli_read *read = mli_container((mli_op *)ctx, mli_read, op);
  mli_stream *s = lml_tcp_check(L);
  int mode = (int)lua_tointeger(L, LML_TCP_MODE);
  (void)status;
  if (read->op.status != ML_OK) {
    lml_fail_op(L, &read->op);
    return mode == NEXT_LINE ? lua_error(L) : 2;
  }
  int results = read_now(L, s, &read->want, mode);
  if (results >= 0) {
    lml_op_drop(lua_touserdata(L, LML_TCP_BOX));
    return results;
  }
  /* Someone else took what had come. */
  mli_want want = read->want;
  want.mark = lua_tostring(L, LML_TCP_DATA);
  lml_op_drop(lua_touserdata(L, LML_TCP_BOX));
  lua_settop(L, LML_TCP_DATA);
  return wait_to_read(L, s, &want);
}

/* Reads; the mark, or nil, is on top of the stack. */
static int read_wanted(lua_State *L, mli_stream *s, mli_want *want, uint64_t deadline, int mode) {
  lml_tcp_lay_out(L, deadline, mode);
  if (lml_tcp_at_once(L)) {
    int results = read_now(L, s, want, mode);
    if (results >= 0) return results;
  }
  return wait_to_read(L, s, want);
}

static size_t check_size(lua_State *L, int arg, lua_Integer least, size_t none) {
  if (lua_isnoneornil(L, arg)) return none;
  lua_Integer n = luaL_checkinteger(L, arg);
  luaL_argcheck(L, n >= least, arg, least ? "not positive" : "negative");
  return (size_t)n;
}

/* sock:read([n][, timeout]) */
static int l_read(lua_State *L) {
  mli_stream *s = lml_tcp_check(L);
  bool some = lua_isnoneornil(L, 2);
  mli_want want = { .kind = some ? MLI_WANT_SOME : MLI_WANT_EXACTLY, .n = check_size(L, 2, 0, 0) };
  uint64_t deadline = lml_check_deadline(L, 3);
  lua_pushnil(L);
  return read_wanted(L, s, &want, deadline, KEEP);
}

/* sock:read_all([max][, timeout]) */
static int l_read_all(lua_State *L) {
  mli_stream *s = lml_tcp_check(L);
  mli_want want = { .kind = MLI_WANT_ALL, .n = check_size(L, 2, 0, SIZE_MAX) };
  uint64_t deadline = lml_check_deadline(L, 3);
  lua_pushnil(L);
  return read_wanted(L, s, &want, deadline, KEEP);
}

/* read_until(sock, mark, max, keep, timeout) */
static int l_read_until(lua_State *L) {
  mli_stream *s = lml_tcp_check(L);
  mli_want want = { .kind = MLI_WANT_UNTIL, .n = check_size(L, 3, 1, LINE_MAX_SIZE) };
  want.mark = luaL_checklstring(L, 2, &want.mark_size);
  luaL_argcheck(L, want.mark_size > 0, 2, "empty");
  uint64_t deadline = lml_option_deadline(L, 5, "timeout");
  int mode = lua_toboolean(L, 4) ? KEEP : STRIP;
  lua_pushvalue(L, 2);
  return read_wanted(L, s, &want, deadline, mode);
}

static int read_a_line(lua_State *L, int mode) {
  mli_stream *s = lml_tcp_check(L);
  uint64_t deadline = mode == LINE ? lml_check_deadline(L, 2) : MLI_FOREVER;
  mli_want want = { .kind = MLI_WANT_UNTIL, .n = LINE_MAX_SIZE, .mark_size = 1 };
  want.mark = lua_pushliteral(L, "\n");
  return read_wanted(L, s, &want, deadline, mode);
}

/* sock:read_line([timeout]) */
static int l_read_line(lua_State *L) { return read_a_line(L, LINE); }

static int next_line(lua_State *L) { return read_a_line(L, NEXT_LINE); }

/* for line in sock:lines() do */
static int l_lines(lua_State *L) {
  lml_tcp_check(L);
  lua_settop(L, 1);
  lua_pushcfunction(L, next_line);
  lua_insert(L, 1);
  return 2;
}

/* ---- writing ---- */

/* Adds to the error on top how much went out. */
static int with_sent(lua_State *L, size_t sent) {
  lua_pushinteger(L, (lua_Integer)sent);
  lua_setfield(L, -2, "sent");
  return 2;
}

static int written(lua_State *L, int status, lua_KContext ctx) {
  mli_write *write = mli_container((mli_op *)ctx, mli_write, op);
  (void)status;
  if (write->op.status != ML_OK) {
    lml_fail_op(L, &write->op);
    with_sent(L, write->sent);
    /* Who timed out is told how much went out, and may go on from there. */
    if (write->op.status == ML_TIMEOUT) mli_stream_uncut(write->stream);
    return 2;
  }
  lml_op_drop(lua_touserdata(L, LML_TCP_BOX));
  lua_pushboolean(L, true);
  return 1;
}

/* Pushes the data of argument 2: a string, or a list of strings as one. */
static void push_data(lua_State *L) {
  if (!lua_istable(L, 2)) {
    luaL_checkstring(L, 2);
    lua_pushvalue(L, 2);
    return;
  }
  luaL_Buffer buffer;
  lua_Integer n = luaL_len(L, 2);
  luaL_buffinit(L, &buffer);
  for (lua_Integer i = 1; i <= n; i++) {
    if (lua_geti(L, 2, i) != LUA_TSTRING && lua_type(L, -1) != LUA_TNUMBER)
      luaL_error(L, "bad argument #1 to 'write' (string expected at [%I], got %s)", (LUAI_UACINT)i,
                 luaL_typename(L, -1));
    luaL_addvalue(&buffer);
  }
  luaL_pushresult(&buffer);
}

/* sock:write(data[, timeout]) */
static int l_write(lua_State *L) {
  mli_stream *s = lml_tcp_check(L);
  uint64_t deadline = lml_check_deadline(L, 3);
  push_data(L);
  lml_tcp_lay_out(L, deadline, 0);
  size_t size, sent = 0;
  const char *data = lua_tolstring(L, LML_TCP_DATA, &size);
  int err = 0;
  ml_status status = ML_BUSY;
  if (lml_tcp_at_once(L)) status = mli_stream_write_now(s, data, size, &sent, &err);
  if (status == ML_OK) {
    lua_pushboolean(L, true);
    return 1;
  }
  if (status == ML_CLOSED || status == ML_SYSTEM) {
    if (status == ML_CLOSED)
      lml_tcp_fail_closed(L);
    else
      lml_tcp_fail(L, "write", err);
    return with_sent(L, sent);
  }
  mli_write *write = NULL;
  mli_op **box = lml_op_box(L);
  if (status == ML_BUSY) status = mli_write_new(s, data, size, sent, &write);
  check_made(L, status, "write");
  *box = &write->op;
  return lml_await_op(L, *box, deadline, written);
}

static int shut_down(lua_State *L, int status, lua_KContext ctx) {
  mli_op *op = (mli_op *)ctx;
  (void)status;
  if (op->status != ML_OK) return lml_fail_op(L, op);
  lml_op_drop(lua_touserdata(L, LML_TCP_BOX));
  lua_pushboolean(L, true);
  return 1;
}

/* sock:shutdown([timeout]) */
static int l_shutdown(lua_State *L) {
  mli_stream *s = lml_tcp_check(L);
  uint64_t deadline = lml_check_deadline(L, 2);
  lua_pushnil(L);
  lml_tcp_lay_out(L, deadline, 0);
  mli_write *write;
  mli_op **box = lml_op_box(L);
  check_made(L, mli_shutdown_new(s, &write), "write");
  *box = &write->op;
  return lml_await_op(L, *box, deadline, shut_down);
}

const luaL_Reg lml_tcp_io_methods[] = { { "read", l_read },
                                        { "read_all", l_read_all },
                                        { "read_until", l_read_until },
                                        { "read_line", l_read_line },
                                        { "lines", l_lines },
                                        { "write", l_write },
                                        { "shutdown", l_shutdown },
                                        { NULL, NULL } };
