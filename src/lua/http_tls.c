/*
** http_tls.c: whom to trust, and what to show.
**
**   tls = { verify, ca, cert, key, key_password, pinned, min_version }
*/
#include <string.h>
#include "http_options.h"

static void read_verify(lua_State *L, mli_http *h, const char *name) {
  lml_http_extra(L, h)->trust.any = !lml_http_boolean(L, name);
}
static void read_ca(lua_State *L, mli_http *h, const char *name) {
  lml_http_extra(L, h)->trust.ca = lml_http_string(L, h, name);
}
static void read_cert(lua_State *L, mli_http *h, const char *name) {
  lml_http_extra(L, h)->cert = lml_http_string(L, h, name);
}
static void read_key(lua_State *L, mli_http *h, const char *name) {
  lml_http_extra(L, h)->key = lml_http_string(L, h, name);
}
static void read_key_password(lua_State *L, mli_http *h, const char *name) {
  lml_http_extra(L, h)->key_password = lml_http_string(L, h, name);
}

/* A hash, or several that are joined by ";". A path, which libcurl would take
** too, is most likely a hash that somebody forgot to name as one. */
static void read_pinned(lua_State *L, mli_http *h, const char *name) {
  const char *pinned = lml_http_string(L, h, name);
  for (const char *p = pinned; p; p = strchr(p, ';')) {
    if (*p == ';') p++;
    if (strncmp(p, "sha256//", 8) != 0 || strcspn(p + 8, ";") != 44)
      lml_misuse(L, "option '%s': \"sha256//\" and 44 characters of base64 expected, got '%s'",
                 name, pinned);
  }
  lml_http_extra(L, h)->pinned = pinned;
}

static void read_min_version(lua_State *L, mli_http *h, const char *name) {
  static const char *const versions[] = {
    [MLI_TLS_1_0] = "1.0", [MLI_TLS_1_1] = "1.1", [MLI_TLS_1_2] = "1.2", [MLI_TLS_1_3] = "1.3"
  };
  lml_http_check_type(L, name, LUA_TSTRING);
  const char *s = lua_tostring(L, -1);
  for (unsigned v = MLI_TLS_1_0; v <= MLI_TLS_1_3; v++) {
    if (strcmp(s, versions[v]) != 0) continue;
    lml_http_extra(L, h)->tls_version = v;
    return;
  }
  lml_misuse(L, "option '%s': '1.0', '1.1', '1.2' or '1.3' expected, got '%s'", name, s);
}

void lml_http_read_tls(lua_State *L, mli_http *h, const char *name) {
  static const lml_http_option options[] = {
    { "tls.ca", read_ca },
    { "tls.cert", read_cert },
    { "tls.key", read_key },
    { "tls.key_password", read_key_password },
    { "tls.min_version", read_min_version },
    { "tls.pinned", read_pinned },
    { "tls.verify", read_verify },
  };
  lml_http_check_type(L, name, LUA_TTABLE);
  lml_http_read_options(L, h, options, sizeof options / sizeof *options, "tls.");
  if (h->extra && h->extra->key && !h->extra->cert)
    lml_misuse(L, "option 'tls.key' needs 'tls.cert'");
}
