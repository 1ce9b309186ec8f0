/*
** http_way.c: the way to the server.
**
**   proxy = false                           not even that of the environment
**   proxy = "socks5h://127.0.0.1:1080"
**   proxy = { url, user, password, no_proxy, tls = { verify, ca } }
**   resolve = { ["host:port"] = "address" }
**   interface = "eth0"    unix_socket = "/run/x.sock"
*/
#include <arpa/inet.h>
#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include "http_options.h"

/* ---- proxy ---- */

/* The message shows nothing of the URL: it may hold a password. */
static void check_proxy_url(lua_State *L, const char *name, const char *text) {
  static const char *const schemes[] = { "http://",    "https://",  "socks4://",
                                         "socks4a://", "socks5://", "socks5h://" };
  bool known = false;
  for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
    known = known || strncasecmp(text, schemes[i], strlen(schemes[i])) == 0;
  if (!known)
    lml_misuse(L, "option '%s': a URL of http, https, socks4, socks4a, socks5 or socks5h expected",
               name);
  CURLU *url = lml_http_checked(L, curl_url());
  CURLUcode code = curl_url_set(url, CURLUPART_URL, text, CURLU_NON_SUPPORT_SCHEME);
  curl_url_cleanup(url);
  if (code) lml_misuse(L, "option '%s': this is no URL: %s", name, curl_url_strerror(code));
}

static void read_url(lua_State *L, mli_http *h, const char *name) {
  mli_http_extra *x = lml_http_extra(L, h);
  x->proxy = lml_http_string(L, h, name);
  check_proxy_url(L, name, x->proxy);
}
static void read_user(lua_State *L, mli_http *h, const char *name) {
  lml_http_extra(L, h)->proxy_user = lml_http_string(L, h, name);
}
static void read_password(lua_State *L, mli_http *h, const char *name) {
  lml_http_extra(L, h)->proxy_password = lml_http_string(L, h, name);
}
static void read_verify(lua_State *L, mli_http *h, const char *name) {
  lml_http_extra(L, h)->proxy_trust.any = !lml_http_boolean(L, name);
}
static void read_ca(lua_State *L, mli_http *h, const char *name) {
  lml_http_extra(L, h)->proxy_trust.ca = lml_http_string(L, h, name);
}

static void read_proxy_tls(lua_State *L, mli_http *h, const char *name) {
  static const lml_http_option options[] = { { "proxy.tls.ca", read_ca },
                                             { "proxy.tls.verify", read_verify } };
  lml_http_check_type(L, name, LUA_TTABLE);
  lml_http_read_options(L, h, options, 2, "proxy.tls.");
}

/* A list of hosts, or a text as in the environment. */
static void read_no_proxy(lua_State *L, mli_http *h, const char *name) {
  if (lua_type(L, -1) != LUA_TTABLE) {
    if (lua_type(L, -1) != LUA_TSTRING) lml_http_wrong_type(L, name, "string or list of hosts");
    lml_http_extra(L, h)->no_proxy = lml_http_string(L, h, name);
    return;
  }
  luaL_Buffer b;
  int list = lua_gettop(L);
  luaL_buffinit(L, &b);
  for (lua_Integer i = 1; lua_geti(L, list, i) != LUA_TNIL; i++) {
    lml_http_check_type(L, name, LUA_TSTRING);
    luaL_addvalue(&b);
    luaL_addchar(&b, ',');
  }
  lua_pop(L, 1);
  luaL_pushresult(&b);
  lml_http_extra(L, h)->no_proxy = lml_http_string(L, h, name);
  lua_pop(L, 1);
}

void lml_http_read_proxy(lua_State *L, mli_http *h, const char *name) {
  static const lml_http_option options[] = {
    { "proxy.no_proxy", read_no_proxy }, { "proxy.password", read_password },
    { "proxy.tls", read_proxy_tls },     { "proxy.url", read_url },
    { "proxy.user", read_user },
  };
  mli_http_extra *x = lml_http_extra(L, h);
  if (lua_isboolean(L, -1) && !lua_toboolean(L, -1)) {
    x->proxy = "";
    return;
  }
  if (lua_type(L, -1) == LUA_TSTRING) {
    read_url(L, h, name);
    return;
  }
  if (lua_type(L, -1) != LUA_TTABLE) lml_http_wrong_type(L, name, "URL, table or false");
  lml_http_read_options(L, h, options, sizeof options / sizeof *options, "proxy.");
  if ((x->proxy_user || x->proxy_password) && !(x->proxy && x->proxy_user && x->proxy_password))
    lml_misuse(L, "option 'proxy': 'url', 'user' and 'password' belong together");
  if (!x->proxy && !x->no_proxy) lml_misuse(L, "option 'proxy.url' is missing");
}

/* ---- resolve ---- */

/* One address and port of a server: "host:port" at `key`; "*" is any. */
static void add_way(lua_State *L, mli_http *h, const char *name, const char *key,
                    const char *address) {
  unsigned char bytes[16];
  const char *colon = strrchr(key, ':'), *port = colon ? colon + 1 : "";
  bool any_port = strcmp(port, "*") == 0;
  size_t host_size = colon ? (size_t)(colon - key) : 0;
  bool is_port = any_port || (*port && strspn(port, "0123456789") == strlen(port) &&
                              strlen(port) <= 5 && strtol(port, NULL, 10) <= 65535);
  if (!host_size || !is_port)
    lml_misuse(L, "option '%s': \"host:port\" expected for a name, got '%s'", name, key);
  bool v6 = inet_pton(AF_INET6, address, bytes) == 1;
  if (!v6 && inet_pton(AF_INET, address, bytes) != 1)
    lml_misuse(L, "option '%s': an IP address expected for '%s', got '%s'", name, key, address);
  bool any_host = host_size == 1 && *key == '*';
  const char *line = lua_pushfstring(
    L, "%s:%s:%s%s%s:", any_host ? "" : lua_pushlstring(L, key, host_size), any_port ? "" : port,
    v6 ? "[" : "", address, v6 ? "]" : "");
  struct curl_slist **at = &lml_http_extra(L, h)->connect_to;
  struct curl_slist *node = lml_http_checked(L, mli_http_alloc(h, sizeof *node));
  while (*at && (any_host || any_port)) at = &(*at)->next; /* the first that fits counts */
  node->data = lml_http_checked(L, mli_http_text(h, line, strlen(line)));
  node->next = *at;
  *at = node;
}

/* As a connection to another address rather than as an entry of libcurl's cache
** of names, which all requests of a loop share. */
void lml_http_read_resolve(lua_State *L, mli_http *h, const char *name) {
  lml_http_check_type(L, name, LUA_TTABLE);
  luaL_checkstack(L, 8, NULL);
  for (lua_pushnil(L); lua_next(L, -2);) {
    int top = lua_gettop(L);
    if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING)
      lml_misuse(L, "option '%s': { [\"host:port\"] = \"address\" } expected", name);
    add_way(L, h, name, lua_tostring(L, -2), lua_tostring(L, -1));
    lua_settop(L, top - 1);
  }
}

/* ---- sockets ---- */

void lml_http_read_interface(lua_State *L, mli_http *h, const char *name) {
  const char *s = lml_http_string(L, h, name);
  if (!*s) lml_misuse(L, "option '%s': the name or address of an interface expected", name);
  lml_http_extra(L, h)->interface = s;
}

void lml_http_read_unix_socket(lua_State *L, mli_http *h, const char *name) {
  const size_t most = sizeof((struct sockaddr_un *)NULL)->sun_path - 1;
  const char *s = lml_http_string(L, h, name);
  if (!*s || strlen(s) > most)
    lml_misuse(L, "option '%s': a path of 1 to %d bytes expected, got %d", name, (int)most,
               (int)strlen(s));
  lml_http_extra(L, h)->unix_socket = s;
}
