/*
** bench.easy: blocking HTTP as any program gets it from libcurl's easy
** interface; moonloop is measured against it.
**
**   local client = easy.new{ ca = file or nil, capath = folder or nil }
**   local status, body = client:get(url)     raises if there is no answer
**   client:close()
**
** A client keeps its connection alive from one get to the next, as libcurl
** does by itself. It belongs to one thread.
*/
#include <curl/curl.h>
#include <lauxlib.h>
#include <lua.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define CLIENT "bench.easy.client"

typedef struct client {
  CURL *curl;
  char *body; /* owned; kept for the next answer */
  size_t size, room;
} client;

static client *check_client(lua_State *L) {
  client *c = luaL_checkudata(L, 1, CLIENT);
  luaL_argcheck(L, c->curl != NULL, 1, "the client is closed");
  return c;
}

static size_t gather(char *data, size_t one, size_t n, void *user) {
  client *c = user;
  size_t size = one * n;
  if (c->room - c->size < size) {
    size_t room = (c->size + size) * 2;
    char *body = realloc(c->body, room);
    if (body == NULL) return 0; /* ends the transfer */
    c->body = body;
    c->room = room;
  }
  memcpy(c->body + c->size, data, size);
  c->size += size;
  return size;
}

static int fail(lua_State *L, CURLcode code) {
  return luaL_error(L, "%s", curl_easy_strerror(code));
}

/* A client with the default options, except for where the trusted certificates are. */
static int l_new(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  lua_getfield(L, 1, "ca");     /* options ca */
  lua_getfield(L, 1, "capath"); /* options ca capath */
  const char *ca = luaL_optstring(L, 2, NULL), *capath = luaL_optstring(L, 3, NULL);
  client *c = lua_newuserdatauv(L, sizeof *c, 0); /* options ca capath client */
  memset(c, 0, sizeof *c);
  luaL_setmetatable(L, CLIENT);
  if ((c->curl = curl_easy_init()) == NULL) return fail(L, CURLE_FAILED_INIT);
  CURLcode code = curl_easy_setopt(c->curl, CURLOPT_NOSIGNAL, 1L);
  if (!code) code = curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, gather);
  if (!code) code = curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, c);
  if (!code && ca != NULL) code = curl_easy_setopt(c->curl, CURLOPT_CAINFO, ca);
  if (!code && capath != NULL) code = curl_easy_setopt(c->curl, CURLOPT_CAPATH, capath);
  return code ? fail(L, code) : 1;
}

static int l_get(lua_State *L) {
  client *c = check_client(L);
  c->size = 0;
  CURLcode code = curl_easy_setopt(c->curl, CURLOPT_URL, luaL_checkstring(L, 2));
  if (!code) code = curl_easy_perform(c->curl);
  long status = 0;
  if (!code) code = curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
  if (code) return fail(L, code);
  lua_pushinteger(L, status);
  lua_pushlstring(L, c->size ? c->body : "", c->size);
  return 2;
}

static int l_close(lua_State *L) {
  client *c = luaL_checkudata(L, 1, CLIENT);
  curl_easy_cleanup(c->curl); /* NULL is fine */
  free(c->body);
  memset(c, 0, sizeof *c);
  return 0;
}

static void global_init(void) { curl_global_init(CURL_GLOBAL_ALL); }

__attribute__((visibility("default"))) int luaopen_bench_easy(lua_State *L) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  static const luaL_Reg methods[] = { { "get", l_get }, { "close", l_close }, { NULL, NULL } };
  pthread_once(&once, global_init);
  luaL_newmetatable(L, CLIENT); /* mt */
  lua_pushcfunction(L, l_close);
  lua_setfield(L, -2, "__gc");
  luaL_newlib(L, methods); /* mt methods */
  lua_setfield(L, -2, "__index");
  lua_createtable(L, 0, 1); /* mt module */
  lua_pushcfunction(L, l_new);
  lua_setfield(L, -2, "new");
  return 1;
}
