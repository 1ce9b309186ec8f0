/*
** outset.c: what each new state of an executor begins with: the package paths and
** preloads of the state that made the executor, and the init job.
*/
#include <stdlib.h>
#include <string.h>
#include "crossing.h"
#include "worker.h"

void lml_outset_free(void *user) {
  lml_outset *c = user;
  free(c->path);
  free(c->cpath);
  mli_message_free(c->init);
  mli_message_free(c->preload);
  free(c->processes);
  free(c);
}

/* ---- from a host ---- */

lml_outset *lml_outset_new(const lml_host *host, const char *path, const char *cpath,
                           mli_message *init) {
  lml_outset *c = calloc(1, sizeof *c);
  if (!c) {
    mli_message_free(init);
    return NULL;
  }
  c->init = init;
  c->hosted = *host;
  c->host = &c->hosted;
  if ((path && !(c->path = strdup(path))) || (cpath && !(c->cpath = strdup(cpath)))) {
    lml_outset_free(c);
    return NULL;
  }
  return c;
}

const lml_host *lml_host_of(const mli_executor *ex) { return ((const lml_outset *)ex->user)->host; }

/* ---- from the maker ---- */

/* Copies of package.path and what crosses of package.preload. */
static void copy_paths(lua_State *L, lml_outset *c) {
  lua_getglobal(L, "package");
  const char *path = NULL, *cpath = NULL;
  if (lua_istable(L, -1)) {
    lua_getfield(L, -1, "path");
    lua_getfield(L, -2, "cpath");
    path = lua_tostring(L, -2);
    cpath = lua_tostring(L, -1);
    lua_pop(L, 2);
  }
  c->path = strdup(path ? path : "");
  c->cpath = strdup(cpath ? cpath : "");
  lua_pop(L, 1);
  if (!c->path || !c->cpath) luaL_error(L, "not enough memory");
}

static int encode_one(lua_State *L) {
  mli_message **out = lua_touserdata(L, 2);
  *out = lml_encode(L, 1, 1, (lml_cargo)lua_tointeger(L, 3));
  return 0;
}

/* What crosses of package.preload: functions as code; C functions, which stay in
** the process, by address; for the rest the reason, to be raised where it is asked for. */
static void pack_preload(lua_State *L, lml_outset *c, bool far) {
  lml_cargo cargo = far ? LML_ARGUMENTS | LML_FAR : LML_ARGUMENTS;
  lua_newtable(L);
  int table = lua_gettop(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  for (lua_pushnil(L); lua_next(L, table + 1); lua_settop(L, table + 2)) {
    if (lua_type(L, table + 2) != LUA_TSTRING) continue;
    if (strncmp(lua_tostring(L, table + 2), "moonloop", 8) == 0) continue;
    lua_pushvalue(L, table + 2);
    if (!far && lua_iscfunction(L, table + 3) && !lua_getupvalue(L, table + 3, 1)) {
      lua_pushlightuserdata(L, (void *)lua_tocfunction(L, table + 3));
    } else {
      mli_message *out = NULL;
      lua_settop(L, table + 4);
      lua_pushcfunction(L, encode_one);
      lua_pushvalue(L, table + 3);
      lua_pushlightuserdata(L, &out);
      lua_pushinteger(L, cargo);
      if (lua_pcall(L, 3, 0, 0) == LUA_OK) {
        lua_pushvalue(L, table + 3);
      } else {
        luaL_tolstring(L, -1, NULL);
        lua_remove(L, -2);
      }
      mli_message_free(out);
    }
    lua_rawset(L, table);
  }
  lua_settop(L, table);
  c->preload = lml_encode(L, table, 1, cargo);
  lua_pop(L, 1);
}

typedef struct outset_box {
  lml_outset *c;
} outset_box;

static int outset_box_gc(lua_State *L) {
  outset_box *box = lua_touserdata(L, 1);
  if (box->c) lml_outset_free(box->c);
  box->c = NULL;
  return 0;
}

static outset_box *push_box(lua_State *L) {
  outset_box *box = lua_newuserdatauv(L, sizeof *box, 0);
  box->c = NULL;
  if (luaL_newmetatable(L, "moonloop.outset")) {
    lua_pushcfunction(L, outset_box_gc);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  box->c = calloc(1, sizeof *box->c);
  if (!box->c) luaL_error(L, "not enough memory");
  return box;
}

lml_outset *lml_outset_push(lua_State *L, int init, int n, bool far) {
  outset_box *box = push_box(L);
  copy_paths(L, box->c);
  pack_preload(L, box->c, far);
  if (n > 0) box->c->init = lml_encode(L, init, n, far ? LML_JOB | LML_FAR : LML_JOB);
  return box->c;
}

lml_outset *lml_outset_take(lua_State *L, int index) {
  outset_box *box = lua_touserdata(L, index);
  lml_outset *c = box->c;
  box->c = NULL;
  return c;
}

/* ---- into a new state ---- */

/* package.preload of the maker's state, as a table of what crosses of it. */
static int refuse_preload(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(1));
  return lua_error(L);
}

int lml_outset_install_preload(lua_State *L) {
  const lml_outset *c = lua_touserdata(L, 1);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_settop(L, 2);
  if (!c->preload || lml_decode(L, c->preload) < 1) return 0;
  for (lua_pushnil(L); lua_next(L, 3);) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    if (lua_islightuserdata(L, -1)) { /* a C function of this process */
      lua_CFunction f = (lua_CFunction)lua_touserdata(L, -1);
      lua_pop(L, 1);
      lua_pushcfunction(L, f);
    } else if (lua_type(L, -1) == LUA_TSTRING) {
      lua_pushcclosure(L, refuse_preload, 1);
    }
    lua_rawset(L, 2);
  }
  return 0;
}
