/*
** clock.c: the clock of moonloop.testing: stops the time that programs see, for the whole
** process. See core/clock.h.
**
**   local clock = clock_open(jumps)   -- raises if one is open, and says where it was made
**   clock:advance(seconds)            -- waits until all that is due by then has run
**   clock:now()                       -- seconds since it was made
**   clock:close()
**   is_clock(value)
*/
#include <stdio.h>
#include "state.h"

#define CLOCK "moonloop.testing.clock"

typedef struct test_clock {
  bool open;
  uint64_t began;
} test_clock;

static mli_lock place_lock;
static char place[LUA_IDSIZE + 16]; /* of the open one */

static test_clock *check_clock(lua_State *L) { return luaL_checkudata(L, 1, CLOCK); }

static test_clock *check_open(lua_State *L, const char *method) {
  test_clock *c = check_clock(L);
  if (!c->open) lml_misuse(L, "%s: the clock was closed", method);
  return c;
}

static void note_place(lua_State *L) {
  char chunk[LUA_IDSIZE];
  uint32_t line;
  lml_where(L, 0, chunk, sizeof chunk, &line);
  mli_lock_acquire(&place_lock);
  snprintf(place, sizeof place, "%s:%u", line ? chunk : "?", (unsigned)line);
  mli_lock_release(&place_lock);
}

static int l_open(lua_State *L) {
  test_clock *c = lua_newuserdatauv(L, sizeof *c, 0);
  *c = (test_clock){ .open = false };
  luaL_setmetatable(L, CLOCK);
  ml_status status = mli_clock_stop(lua_toboolean(L, 1));
  if (status == ML_MEMORY) return luaL_error(L, "not enough memory");
  if (status != ML_OK) {
    char other[sizeof place];
    mli_lock_acquire(&place_lock);
    snprintf(other, sizeof other, "%s", place);
    mli_lock_release(&place_lock);
    return lml_misuse(L, "clock: there is one already, for the whole process, made at %s", other);
  }
  c->open = true;
  c->began = mli_time();
  note_place(L);
  lml_opened_note(L);
  return 1;
}

static int l_is_clock(lua_State *L) {
  lua_pushboolean(L, luaL_testudata(L, 1, CLOCK) != NULL);
  return 1;
}

static int c_close(lua_State *L) {
  test_clock *c = check_clock(L);
  if (c->open) mli_clock_go_on();
  c->open = false;
  return 0;
}

static int c_now(lua_State *L) {
  test_clock *c = check_open(L, "now");
  lua_pushnumber(L, (lua_Number)(mli_time() - c->began) / 1e9);
  return 1;
}

static void give_up(lml_await *a) {
  if (mli_clock_give_up(&a->waker)) lml_await_wake(a, true);
}

static int advanced(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  lml_await_end(L, lml_upstate(L));
  return 0;
}

static int c_advance(lua_State *L) {
  lml_state *S = lml_upstate(L);
  check_open(L, "advance");
  luaL_checknumber(L, 2);
  uint64_t until = lml_check_deadline(L, 2);
  if (until == 0) until = mli_time();
  lml_await *a = lml_await_begin(L, S, "clock");
  a->abort = give_up;
  a->waker.wake = lml_await_woken;
  if (!mli_clock_advance(until, &a->waker)) {
    atomic_store(&a->woken, true);
    lml_await_end(L, S);
    return lml_misuse(L, "advance: the clock is being advanced by somebody else");
  }
  return lml_await_park(L, S, a, MLI_FOREVER, advanced, 0);
}

static int c_is_open(lua_State *L) {
  lua_pushboolean(L, check_clock(L)->open);
  return 1;
}

static int c_tostring(lua_State *L) {
  test_clock *c = check_clock(L);
  if (!c->open)
    lua_pushliteral(L, "test clock (closed)");
  else
    lua_pushfstring(L, "test clock (at %f s)", (lua_Number)(mli_time() - c->began) / 1e9);
  return 1;
}

void lml_clock_open(lua_State *L) {
  static const luaL_Reg functions[] = { { "clock_open", l_open },
                                        { "is_clock", l_is_clock },
                                        { NULL, NULL } };
  static const luaL_Reg methods[] = {
    { "advance", c_advance }, { "now", c_now }, { "close", c_close }, { NULL, NULL }
  };
  static const luaL_Reg metamethods[] = { { "__gc", c_close },
                                          { "__close", c_close },
                                          { "__is_open", c_is_open },
                                          { "__tostring", c_tostring },
                                          { NULL, NULL } };
  lml_setfuncs(L, functions);
  if (luaL_newmetatable(L, CLOCK)) {
    lml_setfuncs(L, metamethods);
    lua_newtable(L);
    lml_setfuncs(L, methods);
    lua_setfield(L, -2, "__index");
  }
  lua_pop(L, 1);
}
