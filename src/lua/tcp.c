/*
** tcp.c: TCP and unix sockets for Lua; lua/moonloop/tcp.lua is their front.
**
**   local core = require "moonloop.tcp.core"
**   sock = core.connect(host, port, path, nodelay, keepalive, timeout)
**   server = core.listen(host, port, path, nodelay, keepalive, timeout, backlog, reuseport)
**   server:accept([timeout])  server:address()  server.port  server:close()
**   sock:peer()  sock:address()  sock:nodelay(on)  sock:close()
**   core.socket, core.server: the tables of methods
*/
#include "tcp.h"
#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

/* ---- shared with tcp_io.c ---- */

mli_stream *lml_tcp_check(lua_State *L) {
  mli_object *object = lml_handle_test(L, 1, &mli_stream_type);
  if (!object) luaL_typeerror(L, 1, "tcp socket");
  return mli_container(object, mli_stream, socket.object);
}

void lml_tcp_lay_out(lua_State *L, uint64_t deadline, int mode) {
  lua_insert(L, 2);
  lua_settop(L, 2);
  lua_pushinteger(L, (lua_Integer)deadline);
  lua_insert(L, LML_TCP_DEADLINE);
  lua_pushinteger(L, mode);
  lua_insert(L, LML_TCP_MODE);
}

uint64_t lml_tcp_deadline(lua_State *L) { return (uint64_t)lua_tointeger(L, LML_TCP_DEADLINE); }

bool lml_tcp_at_once(lua_State *L) {
  lml_state *S = lml_state_of(L);
  if (S->current) return !lml_job_cancelled(S->current);
  return !(S->task && atomic_load(&S->task_cancelled));
}

int lml_tcp_fail_closed(lua_State *L) { return lml_fail(L, "closed", "the socket is closed"); }

int lml_tcp_fail(lua_State *L, const char *what, int err) {
  if (err == UV_EOF) return lml_fail(L, "closed", "%s: the peer ended the connection", what);
  if (err == UV_EBADF) return lml_tcp_fail_closed(L);
  return lml_fail(L, uv_err_name(err), "%s: %s", what, uv_strerror(err));
}

/* ---- connect and listen ---- */

static int dialled(lua_State *L, int status, lua_KContext ctx, const mli_type *type) {
  mli_op *op = (mli_op *)ctx;
  (void)status;
  if (op->status != ML_OK) return lml_fail_op(L, op);
  lml_handle *handle = lml_handle_new(L, type);
  handle->object = mli_dial_take(op);
  lml_op_drop(lua_touserdata(L, 1));
  return 1;
}

static int connected(lua_State *L, int status, lua_KContext ctx) {
  return dialled(L, status, ctx, &mli_stream_type);
}

static int listening(lua_State *L, int status, lua_KContext ctx) {
  return dialled(L, status, ctx, &mli_listener_type);
}

static uint64_t check_endpoint(lua_State *L, mli_endpoint *at) {
  memset(at, 0, sizeof *at);
  at->path = luaL_optlstring(L, 3, NULL, &at->path_size);
  if (!at->path) at->host = luaL_checkstring(L, 1);
  at->port = (int)luaL_optinteger(L, 2, 0);
  at->no_delay = lua_toboolean(L, 4);
  at->keep_alive = (int)luaL_optinteger(L, 5, 0);
  return lml_option_deadline(L, 6, "timeout");
}

/* The box stands first on the stack, over the arguments, which the new
** operation has copied. */
static int dial(lua_State *L, const mli_endpoint *at, uint64_t deadline,
                mli_op *(*make)(mli_loop *, const mli_endpoint *), lua_KFunction done) {
  mli_loop *loop = lml_io_loop(L);
  mli_op **box = lml_op_box(L);
  *box = make(loop, at);
  if (!*box) return luaL_error(L, "not enough memory");
  lua_replace(L, 1);
  return lml_await_op(L, *box, deadline, done);
}

static int l_connect(lua_State *L) {
  mli_endpoint at;
  lua_settop(L, 6);
  uint64_t deadline = check_endpoint(L, &at);
  return dial(L, &at, deadline, mli_connect_new, connected);
}

static int l_listen(lua_State *L) {
  mli_endpoint at;
  lua_settop(L, 8);
  uint64_t deadline = check_endpoint(L, &at);
  at.backlog = (int)luaL_optinteger(L, 7, 511);
  at.reuse_port = lua_toboolean(L, 8);
  return dial(L, &at, deadline, mli_listen_new, listening);
}

/* ---- accepting ---- */

static mli_listener *check_listener(lua_State *L) {
  mli_object *object = lml_handle_test(L, 1, &mli_listener_type);
  if (!object) luaL_typeerror(L, 1, "tcp server");
  return mli_container(object, mli_listener, socket.object);
}

static bool push_accepted(lua_State *L, mli_listener *l) {
  lml_handle *handle = lml_handle_new(L, &mli_stream_type);
  mli_stream *s = mli_listener_take(l);
  if (s)
    handle->object = &s->socket.object;
  else
    lua_pop(L, 1);
  return s != NULL;
}

static int accept_woken(lua_State *L, int status, lua_KContext ctx);

static int wait_to_accept(lua_State *L, mli_listener *l) {
  mli_op **box = lml_op_box(L);
  mli_accept *accept = mli_accept_new(l);
  if (!accept) return luaL_error(L, "not enough memory");
  *box = &accept->op;
  return lml_await_op(L, *box, lml_tcp_deadline(L), accept_woken);
}

static int accept_woken(lua_State *L, int status, lua_KContext ctx) {
  mli_op *op = (mli_op *)ctx;
  mli_listener *l = check_listener(L);
  (void)status;
  if (op->status != ML_OK) return lml_fail_op(L, op);
  lml_op_drop(lua_touserdata(L, LML_TCP_BOX));
  if (push_accepted(L, l)) return 1;
  lua_settop(L, LML_TCP_DATA); /* another one took it */
  return wait_to_accept(L, l);
}

/* server:accept([timeout]) */
static int l_accept(lua_State *L) {
  mli_listener *l = check_listener(L);
  uint64_t deadline = lml_check_deadline(L, 2);
  lua_pushnil(L);
  lml_tcp_lay_out(L, deadline, 0);
  if (mli_socket_closed(&l->socket)) return lml_tcp_fail_closed(L);
  if (lml_tcp_at_once(L) && push_accepted(L, l)) return 1;
  return wait_to_accept(L, l);
}

/* ---- closing, addresses, options ---- */

static mli_socket *check_socket(lua_State *L) {
  mli_object *object = lml_handle_test(L, 1, &mli_stream_type);
  if (!object) object = lml_handle_test(L, 1, &mli_listener_type);
  if (!object) luaL_typeerror(L, 1, "socket");
  return mli_container(object, mli_socket, object);
}

/* sock:close(), server:close(), __close */
static int l_close(lua_State *L) {
  mli_socket_close(check_socket(L));
  lua_pushboolean(L, true);
  return 1;
}

static int l_is_open(lua_State *L) {
  const lml_handle *handle = lua_touserdata(L, 1);
  lua_pushboolean(L, handle->object && !mli_socket_closed(check_socket(L)));
  return 1;
}

/* move(sock): a socket that nobody has used yet as one of the caller's loop; where that cannot
** be, itself. */
static int l_move(lua_State *L) {
  mli_stream *s = lml_tcp_check(L);
  lml_state *S = lml_state_of(L);
  lua_settop(L, 1);
  if (!S->loop || s->socket.loop == S->loop) return 1;
  int err;
  lml_handle *handle = lml_handle_new(L, &mli_stream_type);
  mli_stream *moved = mli_stream_move(s, S->loop, &err);
  if (moved)
    handle->object = &moved->socket.object;
  else
    lua_settop(L, 1);
  return 1;
}

/* Pushes host and port, or the path of a unix socket. */
static int push_address(lua_State *L, const struct sockaddr_storage *address, socklen_t size) {
  char host[INET6_ADDRSTRLEN];
  if (address->ss_family == AF_UNIX) {
    const struct sockaddr_un *un = (const struct sockaddr_un *)address;
    size_t header = offsetof(struct sockaddr_un, sun_path);
    size_t n = size > header ? size - header : 0;
    if (n > 0 && un->sun_path[0]) n = strnlen(un->sun_path, n);
    lua_pushlstring(L, un->sun_path, n);
    return 1;
  }
  if (uv_ip_name((const struct sockaddr *)address, host, sizeof host) < 0) host[0] = '\0';
  lua_pushstring(L, host);
  const struct sockaddr_in *in = (const struct sockaddr_in *)address;
  const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
  lua_pushinteger(L, ntohs(address->ss_family == AF_INET6 ? in6->sin6_port : in->sin_port));
  return 2;
}

/* sock:peer() */
static int l_peer(lua_State *L) {
  mli_stream *s = lml_tcp_check(L);
  return push_address(L, &s->peer, s->peer_size);
}

/* sock:address() */
static int l_address(lua_State *L) {
  struct sockaddr_storage address;
  socklen_t size;
  int err = mli_stream_address(lml_tcp_check(L), &address, &size);
  if (err) return lml_tcp_fail(L, "address", err);
  return push_address(L, &address, size);
}

/* server:address() */
static int l_server_address(lua_State *L) {
  mli_listener *l = check_listener(L);
  return push_address(L, &l->address, l->address_size);
}

/* sock:nodelay(on) */
static int l_nodelay(lua_State *L) {
  mli_stream *s = lml_tcp_check(L);
  luaL_checktype(L, 2, LUA_TBOOLEAN);
  int err = mli_stream_nodelay(s, lua_toboolean(L, 2));
  if (err) return lml_tcp_fail(L, "nodelay", err);
  lua_pushboolean(L, true);
  return 1;
}

static void push_description(lua_State *L, const char *what, mli_socket *socket,
                             const struct sockaddr_storage *address, socklen_t size) {
  if (mli_socket_closed(socket)) {
    lua_pushfstring(L, "%s (closed)", what);
    return;
  }
  if (push_address(L, address, size) == 1)
    lua_pushfstring(L, "%s (%s)", what, lua_tostring(L, -1));
  else
    lua_pushfstring(L, strchr(lua_tostring(L, -2), ':') ? "%s ([%s]:%s)" : "%s (%s:%s)", what,
                    lua_tostring(L, -2), lua_tostring(L, -1));
}

static int l_tostring(lua_State *L) {
  mli_stream *s = lml_tcp_check(L);
  push_description(L, "tcp socket", &s->socket, &s->peer, s->peer_size);
  return 1;
}

static int l_server_tostring(lua_State *L) {
  mli_listener *l = check_listener(L);
  push_description(L, "tcp server", &l->socket, &l->address, l->address_size);
  return 1;
}

/* server.port, and the methods in the upvalue. */
static int l_server_index(lua_State *L) {
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
  if (lua_type(L, 2) != LUA_TSTRING || strcmp(lua_tostring(L, 2), "port") != 0) return 0;
  return l_server_address(L) == 2 ? 1 : 0;
}

/* ---- tables ---- */

static const luaL_Reg functions[] = {
  { "connect", l_connect }, { "listen", l_listen }, { "move", l_move }, { NULL, NULL }
};

static const luaL_Reg socket_methods[] = { { "close", l_close },
                                           { "peer", l_peer },
                                           { "address", l_address },
                                           { "nodelay", l_nodelay },
                                           { NULL, NULL } };

static const luaL_Reg socket_meta[] = { { "__tostring", l_tostring },
                                        { "__close", l_close },
                                        { "__is_open", l_is_open },
                                        { "__gc", lml_handle_gc },
                                        { NULL, NULL } };

static const luaL_Reg server_methods[] = {
  { "accept", l_accept }, { "close", l_close }, { "address", l_server_address }, { NULL, NULL }
};

static const luaL_Reg server_meta[] = { { "__tostring", l_server_tostring },
                                        { "__close", l_close },
                                        { "__is_open", l_is_open },
                                        { "__gc", lml_handle_gc },
                                        { NULL, NULL } };

/* Declares a type; its methods, on top of the stack, become the module's `name`. */
static void declare(lua_State *L, const mli_type *type, const char *name, const luaL_Reg *meta,
                    lua_CFunction index) {
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, name); /* module, methods */
  lua_newtable(L);           /* module, methods, meta */
  lml_setfuncs(L, meta);
  lua_pushfstring(L, "tcp %s", name);
  lua_setfield(L, -2, "__name");
  lua_insert(L, -2);                        /* module, meta, methods */
  if (index) lua_pushcclosure(L, index, 1); /* module, meta, __index */
  lua_setfield(L, -2, "__index");
  lml_handle_declare(L, type);
  lua_pop(L, 1);
}

ML_API int luaopen_moonloop_tcp_core(lua_State *L);

int luaopen_moonloop_tcp_core(lua_State *L) {
  lua_newtable(L);
  lml_setfuncs(L, functions);
  lua_newtable(L);
  lml_setfuncs(L, socket_methods);
  lml_setfuncs(L, lml_tcp_io_methods);
  declare(L, &mli_stream_type, "socket", socket_meta, NULL);
  lua_newtable(L);
  lml_setfuncs(L, server_methods);
  declare(L, &mli_listener_type, "server", server_meta, l_server_index);
  return 1;
}
