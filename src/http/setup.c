/* setup.c: what few requests ask for (extra.h), set on a libcurl handle. */
#define CURL_DISABLE_DEPRECATION
#include "extra.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "engine.h"
#include "trust.h"

mli_http_extra *mli_http_extra_get(mli_http *h) {
  if (h->extra) return h->extra;
  h->extra = mli_http_alloc(h, sizeof *h->extra);
  if (h->extra) memset(h->extra, 0, sizeof *h->extra);
  return h->extra;
}

#define SET(option, value)                                                                         \
  do {                                                                                             \
    CURLcode code_ = curl_easy_setopt(curl, (option), (value));                                    \
    if (code_ != CURLE_OK) return code_;                                                           \
  } while (0)

/* libcurl reads these files itself and says little of what is wrong with one. */
static CURLcode check_file(mli_http_extra *x, const char *option, const char *path) {
  if (!path || access(path, R_OK) == 0) return CURLE_OK;
  x->bad_option = option;
  x->bad_file = path;
  x->bad_errno = errno;
  return CURLE_READ_ERROR;
}

static bool is_directory(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static CURLcode set_auth(CURL *curl, mli_http_extra *x) {
  switch (x->auth) {
  case MLI_HTTP_NO_AUTH: break;
  case MLI_HTTP_BASIC:
  case MLI_HTTP_DIGEST:
    SET(CURLOPT_HTTPAUTH, (long)(x->auth == MLI_HTTP_BASIC ? CURLAUTH_BASIC : CURLAUTH_DIGEST));
    SET(CURLOPT_USERNAME, x->user);
    SET(CURLOPT_PASSWORD, x->password);
    break;
  case MLI_HTTP_BEARER:
    SET(CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
    SET(CURLOPT_XOAUTH2_BEARER, x->token);
    break;
  }
  if (!x->netrc) return CURLE_OK;
  CURLcode code = check_file(x, "auth.netrc", x->netrc_file);
  if (code != CURLE_OK) return code;
  SET(CURLOPT_NETRC, (long)CURL_NETRC_OPTIONAL); /* what the URL names goes before */
  if (x->netrc_file) SET(CURLOPT_NETRC_FILE, x->netrc_file);
  return CURLE_OK;
}

/* Our store goes before any other setting of trust, for server and proxy alike.
** Without it, libcurl reads certificates itself. */
static CURLcode drop_store(CURL *curl) {
  const char *file, *dir;
  if (!mli_http_features_get()->own_trust) return CURLE_OK;
  mli_trust_source(&file, &dir);
  SET(CURLOPT_SSL_CTX_FUNCTION, NULL);
  SET(CURLOPT_CAINFO, file);
  SET(CURLOPT_CAPATH, dir);
  return CURLE_OK;
}

static CURLcode set_proxy_tls(CURL *curl, mli_http_extra *x) {
  const mli_http_trust *t = &x->proxy_trust;
  if (strncmp(x->proxy, "https:", 6) != 0) return CURLE_OK;
  CURLcode code = check_file(x, "proxy.tls.ca", t->ca);
  if (code == CURLE_OK && (t->ca || t->any)) code = drop_store(curl);
  if (code != CURLE_OK) return code;
  if (t->ca) {
    SET(CURLOPT_PROXY_CAINFO, is_directory(t->ca) ? NULL : t->ca);
    SET(CURLOPT_PROXY_CAPATH, is_directory(t->ca) ? t->ca : NULL);
  }
  if (t->any) {
    SET(CURLOPT_PROXY_SSL_VERIFYPEER, 0L);
    SET(CURLOPT_PROXY_SSL_VERIFYHOST, 0L);
  }
  return CURLE_OK;
}

static CURLcode set_way(CURL *curl, mli_http_extra *x) {
  if (x->unix_socket) {
    SET(CURLOPT_UNIX_SOCKET_PATH, x->unix_socket);
    if (!x->proxy) SET(CURLOPT_PROXY, "");
  }
  if (x->connect_to) SET(CURLOPT_CONNECT_TO, x->connect_to);
  if (x->interface) SET(CURLOPT_INTERFACE, x->interface);
  if (x->no_proxy) SET(CURLOPT_NOPROXY, x->no_proxy);
  if (!x->proxy) return CURLE_OK;
  SET(CURLOPT_PROXY, x->proxy);
  if (x->proxy_user) {
    SET(CURLOPT_PROXYUSERNAME, x->proxy_user);
    SET(CURLOPT_PROXYPASSWORD, x->proxy_password);
  }
  return set_proxy_tls(curl, x);
}

static CURLcode set_trust(CURL *curl, mli_http_extra *x) {
  const mli_http_trust *t = &x->trust;
  if (t->any) {
    SET(CURLOPT_SSL_VERIFYPEER, 0L);
    SET(CURLOPT_SSL_VERIFYHOST, 0L);
  }
  CURLcode code = check_file(x, "tls.ca", t->ca);
  if (code == CURLE_OK && (t->any || t->ca)) code = drop_store(curl);
  if (code != CURLE_OK || !(t->any || t->ca)) return code;
  /* libcurl keeps this itself: it is part of what tells connections apart. */
  bool dir = t->ca && is_directory(t->ca);
  SET(CURLOPT_CAINFO, dir ? NULL : t->ca);
  SET(CURLOPT_CAPATH, dir ? t->ca : NULL);
  return CURLE_OK;
}

static CURLcode set_tls(CURL *curl, mli_http_extra *x) {
  static const long versions[] = {
    [MLI_TLS_DEFAULT] = CURL_SSLVERSION_DEFAULT, [MLI_TLS_1_0] = CURL_SSLVERSION_TLSv1_0,
    [MLI_TLS_1_1] = CURL_SSLVERSION_TLSv1_1,     [MLI_TLS_1_2] = CURL_SSLVERSION_TLSv1_2,
    [MLI_TLS_1_3] = CURL_SSLVERSION_TLSv1_3,
  };
  CURLcode code = set_trust(curl, x);
  if (code == CURLE_OK) code = check_file(x, "tls.cert", x->cert);
  if (code == CURLE_OK) code = check_file(x, "tls.key", x->key);
  if (code != CURLE_OK) return code;
  if (x->cert) SET(CURLOPT_SSLCERT, x->cert);
  if (x->key) SET(CURLOPT_SSLKEY, x->key);
  if (x->key_password) SET(CURLOPT_KEYPASSWD, x->key_password);
  if (x->pinned) SET(CURLOPT_PINNEDPUBLICKEY, x->pinned);
  if (x->tls_version) SET(CURLOPT_SSLVERSION, versions[x->tls_version]);
  return CURLE_OK;
}

CURLcode mli_http_set_extra(mli_http_easy *easy) {
  CURL *curl = easy->curl;
  mli_http_extra *x = easy->request->extra;
  CURLcode code = set_auth(curl, x);
  if (code == CURLE_OK) code = set_way(curl, x);
  if (code == CURLE_OK) code = set_tls(curl, x);
  if (code != CURLE_OK) return code;
  if (x->debug || mli_http_features_get()->debug) code = mli_http_set_debug(easy);
  if (code != CURLE_OK) return code;
  if (x->expect) SET(CURLOPT_EXPECT_100_TIMEOUT_MS, (long)x->expect);
  return CURLE_OK;
}
