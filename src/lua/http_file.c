/*
** http_file.c: files that are sent and downloaded, for the Lua part of http.
** What fails gives nil and an error with the system's code.
**
**   file, size, version = core.open_file(path, how)   "read", "write" (made, kept, locked),
*"folder"
**   file:read(offset, size) -> bytes, "" at the end
**   file:truncate(size)   file:sync()   file:close()
**   core.rename(from, to)   core.unlink(path)
**   core.is_terminal()             whether standard error is one
**   core.digest(name) -> digest, or nil: there is none of this name
**   digest:update(bytes)   digest:hex()
*/
#include "http_file.h"

#include <string.h>
#include <unistd.h>

#define FILE_NAME "moonloop.http.file"
#define DIGEST_NAME "moonloop.http.digest"

mli_file *lml_http_check_file(lua_State *L, int arg) {
  mli_file **box = luaL_checkudata(L, arg, FILE_NAME);
  if (!*box) luaL_argerror(L, arg, "the file is closed");
  return *box;
}

mli_digest *lml_http_check_digest(lua_State *L, int arg) {
  return *(mli_digest **)luaL_checkudata(L, arg, DIGEST_NAME);
}

/* ---- operations ---- */

static mli_file_op *ended(lua_KContext ctx) {
  return mli_container((mli_op *)ctx, mli_file_op, op);
}

/* Begins the operation that fills the box on top of the stack. */
static int await_file(lua_State *L, mli_op **box, mli_file_op *f, lua_KFunction done) {
  if (!f) return luaL_error(L, "not enough memory");
  *box = &f->op;
  return lml_await_op(L, *box, MLI_FOREVER, done);
}

static int done(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  if (ended(ctx)->op.status != ML_OK) return lml_fail_op(L, &ended(ctx)->op);
  lua_pushboolean(L, true);
  return 1;
}

static int opened(lua_State *L, int status, lua_KContext ctx) {
  mli_file_op *f = ended(ctx);
  (void)status;
  if (f->op.status != ML_OK) return lml_fail_op(L, &f->op);
  mli_file **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, FILE_NAME);
  lua_pushinteger(L, f->file->size);
  lua_pushinteger(L, f->file->version);
  *box = f->file;
  f->file = NULL;
  return 3;
}

static int l_open(lua_State *L) {
  static const char *const hows[] = { "read", "write", "folder", NULL };
  size_t size;
  const char *path = luaL_checklstring(L, 1, &size);
  mli_file_how how = (mli_file_how)luaL_checkoption(L, 2, NULL, hows);
  if (strlen(path) != size) return lml_misuse(L, "the path contains a NUL byte: %s", path);
  mli_loop *loop = lml_io_loop(L);
  mli_op **box = lml_op_box(L);
  return await_file(L, box, mli_file_open_new(loop, path, how), opened);
}

static int was_read(lua_State *L, int status, lua_KContext ctx) {
  mli_file_op *f = ended(ctx);
  (void)status;
  if (f->op.status != ML_OK) return lml_fail_op(L, &f->op);
  lua_pushlstring(L, f->bytes, f->size);
  return 1;
}

static int file_read(lua_State *L) {
  mli_file *file = lml_http_check_file(L, 1);
  lua_Integer offset = luaL_checkinteger(L, 2), size = luaL_checkinteger(L, 3);
  mli_loop *loop = lml_io_loop(L);
  mli_op **box = lml_op_box(L);
  return await_file(L, box, mli_file_read_new(loop, file, offset, (size_t)size), was_read);
}

static int file_truncate(lua_State *L) {
  mli_file *file = lml_http_check_file(L, 1);
  lua_Integer size = luaL_checkinteger(L, 2);
  mli_loop *loop = lml_io_loop(L);
  mli_op **box = lml_op_box(L);
  return await_file(L, box, mli_file_truncate_new(loop, file, size), done);
}

static int file_sync(lua_State *L) {
  mli_file *file = lml_http_check_file(L, 1);
  mli_loop *loop = lml_io_loop(L);
  mli_op **box = lml_op_box(L);
  return await_file(L, box, mli_file_sync_new(loop, file), done);
}

static int file_close(lua_State *L) {
  mli_file **box = luaL_checkudata(L, 1, FILE_NAME), *file = *box;
  *box = NULL;
  if (file) mli_release(file);
  return 0;
}

static int l_rename(lua_State *L) {
  const char *from = luaL_checkstring(L, 1), *to = luaL_checkstring(L, 2);
  mli_loop *loop = lml_io_loop(L);
  mli_op **box = lml_op_box(L);
  return await_file(L, box, mli_file_rename_new(loop, from, to), done);
}

static int l_unlink(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  mli_loop *loop = lml_io_loop(L);
  mli_op **box = lml_op_box(L);
  return await_file(L, box, mli_file_unlink_new(loop, path), done);
}

static int l_is_terminal(lua_State *L) {
  lua_pushboolean(L, isatty(STDERR_FILENO));
  return 1;
}

/* ---- checksums ---- */

static int l_digest(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  mli_digest **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, DIGEST_NAME);
  *box = mli_digest_new(name);
  return *box ? 1 : 0;
}

static int digest_update(lua_State *L) {
  size_t size;
  mli_digest *digest = lml_http_check_digest(L, 1);
  const char *bytes = luaL_checklstring(L, 2, &size);
  if (!mli_digest_update(digest, bytes, size)) return luaL_error(L, "the checksum failed");
  return 0;
}

static int digest_hex(lua_State *L) {
  char hex[MLI_DIGEST_HEX];
  if (!mli_digest_hex(lml_http_check_digest(L, 1), hex))
    return luaL_error(L, "the checksum failed");
  lua_pushstring(L, hex);
  return 1;
}

static int digest_gc(lua_State *L) {
  mli_digest **box = lua_touserdata(L, 1), *digest = *box;
  *box = NULL;
  if (digest) mli_digest_free(digest);
  return 0;
}

/* ---- tables ---- */

static void make_class(lua_State *L, const char *name, const luaL_Reg *methods,
                       const luaL_Reg *metamethods) {
  luaL_newmetatable(L, name);
  luaL_setfuncs(L, metamethods, 0);
  lua_newtable(L);
  luaL_setfuncs(L, methods, 0);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}

void lml_http_file_open(lua_State *L) {
  static const luaL_Reg functions[] = { { "open_file", l_open }, { "rename", l_rename },
                                        { "unlink", l_unlink },  { "is_terminal", l_is_terminal },
                                        { "digest", l_digest },  { NULL, NULL } };
  static const luaL_Reg file_methods[] = {
    { "read", file_read }, { "truncate", file_truncate },
    { "sync", file_sync }, { "close", file_close },
    { NULL, NULL },
  };
  static const luaL_Reg file_meta[] = { { "__gc", file_close },
                                        { "__close", file_close },
                                        { NULL, NULL } };
  static const luaL_Reg digest_methods[] = { { "update", digest_update },
                                             { "hex", digest_hex },
                                             { NULL, NULL } };
  static const luaL_Reg digest_meta[] = { { "__gc", digest_gc }, { NULL, NULL } };
  luaL_setfuncs(L, functions, 0);
  make_class(L, FILE_NAME, file_methods, file_meta);
  make_class(L, DIGEST_NAME, digest_methods, digest_meta);
}
