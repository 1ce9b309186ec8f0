/*
** opened.c: what a state opened and has not closed, with the lines that did: for checks
** after a test. A state that does not ask for it notes nothing.
**
**   core.track_opened()           from now on, note what is opened
**   core.opened_mark() -> mark
**   core.opened_since(mark) -> list of { what = text, where = "file:line", handle = it }
**
** What holds a descriptor or a thread has a metamethod `__is_open`; whatever makes one
** calls lml_opened_note. Jobs need no note: each knows where it was spawned.
*/
#include "state.h"

static const char noted_key; /* registry: handle -> { number, "file:line" }, weak keys */

static bool push_noted(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &noted_key) == LUA_TTABLE) return true;
  lua_pop(L, 1);
  return false;
}

void lml_opened_note(lua_State *L) {
  char chunk[LUA_IDSIZE];
  uint32_t line;
  lml_state *S = lml_state_of(L);
  if (!S->tracks_opened) return;
  luaL_checkstack(L, 6, NULL);
  if (!push_noted(L)) return;
  lua_pushvalue(L, -2);
  lua_createtable(L, 2, 0);
  lua_pushinteger(L, ++S->opened);
  lua_rawseti(L, -2, 1);
  lml_where(L, 0, chunk, sizeof chunk, &line);
  lua_pushfstring(L, "%s:%d", line ? chunk : "?", (int)line);
  lua_rawseti(L, -2, 2);
  lua_rawset(L, -3);
  lua_pop(L, 1);
}

static int l_track(lua_State *L) {
  lml_upstate(L)->tracks_opened = true;
  if (push_noted(L)) return 0;
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "k");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &noted_key);
  return 0;
}

/* A mark is two numbers in one: of jobs, below 2^32, and of handles. */
static int l_mark(lua_State *L) {
  const lml_state *S = lml_upstate(L);
  lua_pushinteger(L, (lua_Integer)((uint64_t)S->opened << 32 | S->next_id));
  return 1;
}

/* Pops `what` and `where` and the handle below them into a new entry of the list below. */
static void add(lua_State *L, lua_Integer *n) { /* list, handle, what, where */
  lua_createtable(L, 0, 3);
  lua_insert(L, -4);
  lua_setfield(L, -4, "where");
  lua_setfield(L, -3, "what");
  lua_setfield(L, -2, "handle");
  lua_rawseti(L, -2, ++*n);
}

static void add_jobs(lua_State *L, const lml_state *S, uint32_t since, lua_Integer *n) {
  char title[MLI_NAME_MAX + 8];
  for (lml_job *job = S->jobs; job; job = job->next) {
    if (job->id <= since || job->task || job == S->current) continue;
    lml_job_push_future(L, job);
    lml_job_title(job, title, sizeof title);
    if (job->await.parked)
      lua_pushfstring(L, "%s, which waits for %s", title, job->await.what);
    else
      lua_pushstring(L, title);
    lua_pushfstring(L, "%s:%d", job->place.line ? lml_chunk_name(job->S, job->place.chunk) : "?",
                    (int)job->place.line);
    add(L, n);
  }
}

/* Stack: list, table of notes, handle, note. */
static void add_handle(lua_State *L, uint32_t since, lua_Integer *n) {
  int note = lua_gettop(L), handle = note - 1;
  lua_rawgeti(L, note, 1);
  bool later = lua_tointeger(L, -1) > (lua_Integer)since;
  lua_pop(L, 1);
  if (!later || luaL_getmetafield(L, handle, "__is_open") == LUA_TNIL) return;
  lua_pushvalue(L, handle);
  lua_call(L, 1, 1);
  bool open = lua_toboolean(L, -1);
  lua_pop(L, 1);
  if (!open) return;
  lua_pushvalue(L, 1);
  lua_pushvalue(L, handle);
  luaL_tolstring(L, handle, NULL);
  lua_rawgeti(L, note, 2);
  add(L, n);
  lua_pop(L, 1);
}

static int l_since(lua_State *L) {
  lml_state *S = lml_upstate(L);
  uint64_t mark = (uint64_t)luaL_checkinteger(L, 1);
  lua_Integer n = 0;
  lua_settop(L, 0);
  lua_newtable(L);
  add_jobs(L, S, (uint32_t)mark, &n);
  if (!push_noted(L)) return 1;
  for (lua_pushnil(L); lua_next(L, 2); lua_settop(L, 3)) add_handle(L, (uint32_t)(mark >> 32), &n);
  lua_settop(L, 1);
  return 1;
}

void lml_opened_open(lua_State *L) {
  static const luaL_Reg functions[] = { { "track_opened", l_track },
                                        { "opened_mark", l_mark },
                                        { "opened_since", l_since },
                                        { NULL, NULL } };
  lml_setfuncs(L, functions);
}
