/*
** bench.process: what a bench has to do below Lua.
**
**   process.pin(n)               the calling thread runs on CPU n only
**   process.cpus()               the CPUs the calling thread may run on
**   process.resident()           its resident memory in bytes, without what malloc keeps for later
**   process.descriptors()        how many it may have open
**   process.setenv(name, value)  before there are threads, and libraries that look
*/
#include <errno.h>
#include <lauxlib.h>
#include <limits.h>
#include <lua.h>
#include <malloc.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static int l_pin(lua_State *L) {
  lua_Integer n = luaL_checkinteger(L, 1);
  luaL_argcheck(L, n >= 0 && n < CPU_SETSIZE, 1, "no such CPU");
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET((size_t)n, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) {
    return luaL_error(L, "cannot pin to CPU %I: %s", n, strerror(errno));
  }
  return 0;
}

static int l_cpus(lua_State *L) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return luaL_error(L, "%s", strerror(errno));
  lua_createtable(L, CPU_COUNT(&set), 0); /* list */
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET((size_t)cpu, &set)) continue;
    lua_pushinteger(L, cpu);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
  }
  return 1;
}

static int l_resident(lua_State *L) {
  malloc_trim(0);
  FILE *file = fopen("/proc/self/statm", "r");
  if (!file) return luaL_error(L, "/proc/self/statm: %s", strerror(errno));
  long pages;
  int n = fscanf(file, "%*d %ld", &pages);
  fclose(file);
  if (n != 1) return luaL_error(L, "/proc/self/statm: cannot read it");
  lua_pushinteger(L, (lua_Integer)pages * sysconf(_SC_PAGESIZE));
  return 1;
}

static int l_descriptors(lua_State *L) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return luaL_error(L, "%s", strerror(errno));
  lua_pushinteger(L, limit.rlim_cur > INT_MAX ? INT_MAX : (lua_Integer)limit.rlim_cur);
  return 1;
}

static int l_setenv(lua_State *L) {
  if (setenv(luaL_checkstring(L, 1), luaL_checkstring(L, 2), 1) != 0) {
    return luaL_error(L, "%s", strerror(errno));
  }
  return 0;
}

__attribute__((visibility("default"))) int luaopen_bench_process(lua_State *L) {
  static const luaL_Reg functions[] = {
    { "pin", l_pin },           { "cpus", l_cpus },
    { "resident", l_resident }, { "descriptors", l_descriptors },
    { "setenv", l_setenv },     { NULL, NULL },
  };
  luaL_newlib(L, functions);
  return 1;
}
