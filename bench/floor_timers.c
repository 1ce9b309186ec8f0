/*
** floor_timers: what do many sleeps cost at the least? A wheel with a slot for each
** millisecond, and one Lua coroutine for each sleep, resumed as it expires. No jobs,
** no futures, no other I/O, no sleep longer than the wheel.
**
** usage: floor_timers [N [MAX_MS]]                   The floor of timers.lua
** The script below is what timers.lua runs as well.
*/
#include <errno.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>

static const char script[] =
  "local N, MAX_MS, spawn, sleep, now, wait_all = ...\n"
  "local random, late, woken = math.random, {}, 0\n"
  "local function job()\n"
  "  local seconds = random(0, MAX_MS) / 1000\n"
  "  local due = now() + seconds\n"
  "  sleep(seconds)\n"
  "  woken = woken + 1\n"
  "  late[woken] = now() - due\n"
  "end\n"
  "math.randomseed(1)\n"
  "local start = os.clock()\n"
  "for _ = 1, N do spawn(job) end\n"
  "wait_all()\n"
  "local us = (os.clock() - start) * 1e6 / N\n"
  "assert(woken == N)\n"
  "table.sort(late)\n"
  "assert(late[1] >= 0)\n"
  "print(('bench=floor_timers n=%d max_ms=%d cpu_us=%.3f late_ms=%.3f late_p99_ms=%.3f'):format(\n"
  "  N, MAX_MS, us, late[N // 2] * 1000, late[N * 99 // 100] * 1000))\n";

typedef struct sleeper {
  struct sleeper *next;
  lua_State *co;
  int ref;
} sleeper;

static sleeper **wheel; /* by millisecond, modulo `slots` */
static sleeper *free_list;
static uint64_t slots, reached; /* reached: the last millisecond whose slot was emptied */
static size_t sleeping;
static sleeper *current;

static uint64_t now_ns(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int l_now(lua_State *L) {
  lua_pushnumber(L, (lua_Number)now_ns() / 1e9);
  return 1;
}

/* sleep(seconds): never early. */
static int l_sleep(lua_State *L) {
  uint64_t due = now_ns() + (uint64_t)(luaL_checknumber(L, 1) * 1e9);
  uint64_t at = (due + 999999) / 1000000;
  if (at <= reached) at = reached + 1;
  if (at - reached >= slots) return luaL_error(L, "too long");
  sleeper **slot = &wheel[at % slots];
  current->next = *slot;
  *slot = current;
  sleeping++;
  return lua_yield(L, 0);
}

static void resume(lua_State *L, sleeper *s, int nargs) {
  int nresults;
  current = s;
  int status = lua_resume(s->co, L, nargs, &nresults);
  if (status == LUA_YIELD) return;
  if (status != LUA_OK) luaL_error(L, "%s", lua_tostring(s->co, -1));
  luaL_unref(L, LUA_REGISTRYINDEX, s->ref);
  s->next = free_list;
  free_list = s;
}

static int l_spawn(lua_State *L) {
  sleeper *s = free_list;
  if (s)
    free_list = s->next;
  else if (!(s = malloc(sizeof *s)))
    return luaL_error(L, "not enough memory");
  s->co = lua_newthread(L);
  s->ref = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushvalue(L, 1);
  lua_xmove(L, s->co, 1);
  resume(L, s, 0);
  return 0;
}

/* The first millisecond after `reached` whose slot holds a sleeper. */
static uint64_t next_due(void) {
  uint64_t at = reached + 1;
  while (!wheel[at % slots]) at++;
  return at;
}

static int l_wait_all(lua_State *L) {
  int poll = epoll_create1(EPOLL_CLOEXEC);
  if (poll < 0) return luaL_error(L, "epoll_create1 failed");
  while (sleeping > 0) {
    struct epoll_event event;
    uint64_t due = next_due(), now = now_ns();
    if (due * 1000000 > now) {
      int ms = (int)((due * 1000000 - now + 999999) / 1000000);
      if (epoll_wait(poll, &event, 1, ms) < 0 && errno != EINTR)
        return luaL_error(L, "epoll_wait failed");
      now = now_ns();
    }
    for (; reached < now / 1000000 && sleeping > 0;) {
      sleeper *s = wheel[++reached % slots];
      wheel[reached % slots] = NULL;
      for (sleeper *next; s; s = next) {
        next = s->next;
        sleeping--;
        resume(L, s, 0);
      }
    }
  }
  return 0;
}

int main(int argc, char **argv) {
  lua_Integer n = argc > 1 ? strtol(argv[1], NULL, 10) : 100000;
  lua_Integer max = argc > 2 ? strtol(argv[2], NULL, 10) : 1000;
  if (n <= 0 || max <= 0) {
    fprintf(stderr, "usage: %s [N [MAX_MS]]\n", argv[0]);
    return 2;
  }
  /* The wheel goes round only while jobs are spawned: they may take a minute. */
  slots = (uint64_t)max + 60000;
  wheel = calloc(slots, sizeof *wheel);
  lua_State *L = luaL_newstate();
  if (!wheel || !L) {
    fprintf(stderr, "not enough memory\n");
    return 1;
  }
  luaL_openlibs(L);
  reached = now_ns() / 1000000;
  int status = luaL_loadstring(L, script);
  if (status == LUA_OK) {
    lua_pushinteger(L, n);
    lua_pushinteger(L, max);
    lua_pushcfunction(L, l_spawn);
    lua_pushcfunction(L, l_sleep);
    lua_pushcfunction(L, l_now);
    lua_pushcfunction(L, l_wait_all);
    status = lua_pcall(L, 6, 0, 0);
  }
  if (status != LUA_OK) fprintf(stderr, "%s\n", lua_tostring(L, -1));
  lua_close(L);
  while (free_list) {
    sleeper *s = free_list;
    free_list = s->next;
    free(s);
  }
  free(wheel);
  return status == LUA_OK ? 0 : 1;
}
