/* failure.c: what libcurl says went wrong, as the codes and messages of docs/http.md. */
#define CURL_DISABLE_DEPRECATION
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/bytes.h"
#include "engine.h"
#include "extra.h"

/* "GET http://host/path: " and the formatted text, from malloc; NULL: out of memory. */
__attribute__((format(printf, 2, 3))) static char *describe(const mli_http *h, const char *format,
                                                            ...) {
  char url[512], *text = NULL, *message = NULL;
  mli_http_masked(h->url, url, sizeof url);
  va_list args;
  va_start(args, format);
  if (vasprintf(&text, format, args) < 0) text = NULL;
  va_end(args);
  if (text && asprintf(&message, "%s %s: %s", h->method, url, text) < 0) message = NULL;
  free(text);
  return message;
}

/* ---- which code ---- */

static bool has_proxy(const mli_http *h) {
  if (h->extra && h->extra->proxy) return *h->extra->proxy != 0;
  return mli_http_features_get()->env_proxy;
}

/* Whether the connection that failed was one to the proxy: libcurl's text names
** host and port, and they are not those of the URL. */
static bool was_to_proxy(const mli_http *h) {
  char *host = NULL, *port = NULL, to[512];
  bool found = true;
  CURLU *url = has_proxy(h) && h->detail ? curl_url() : NULL;
  if (!url) return false;
  if (!curl_url_set(url, CURLUPART_URL, h->final, 0) &&
      !curl_url_get(url, CURLUPART_HOST, &host, 0) &&
      !curl_url_get(url, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT)) {
    snprintf(to, sizeof to, "to %s port %s ", host, port);
    found = strstr(h->detail, to) != NULL;
  }
  curl_free(host);
  curl_free(port);
  curl_url_cleanup(url);
  return !found;
}

static const char *connect_code(const mli_http *h, long os_errno) {
  if (h->connect_code >= 300 || was_to_proxy(h)) return "proxy";
  return os_errno == ECONNREFUSED ? "refused" : "connect";
}

/* A handshake with an https proxy comes before its answer to CONNECT, or there is none. */
static const char *tls_code(const mli_http *h) {
  const char *proxy = h->extra ? h->extra->proxy : NULL;
  return proxy && strncmp(proxy, "https:", 6) == 0 && !h->connect_code ? "proxy" : "tls";
}

/* libcurl has it since 8.6. */
#define TOO_LARGE ((CURLcode)100)

/* What newer libcurls have several codes for. */
static bool is_bad_key(const mli_http *h) {
  return h->detail && (strstr(h->detail, "private key") || strstr(h->detail, "client certificate"));
}

static const char *code_of(CURLcode code, const mli_http *h, long os_errno) {
  switch (code) {
  case CURLE_COULDNT_RESOLVE_HOST: return "resolve";
  case CURLE_COULDNT_RESOLVE_PROXY:
  case CURLE_PROXY: return "proxy";
  case CURLE_COULDNT_CONNECT: return connect_code(h, os_errno);
  case CURLE_INTERFACE_FAILED: return "interface";
  case CURLE_OPERATION_TIMEDOUT: return h->broken == MLI_HTTP_STALLED ? "stall" : "timeout";
  case CURLE_SSL_CONNECT_ERROR:
  case CURLE_SSL_ENGINE_NOTFOUND:
  case CURLE_SSL_ENGINE_SETFAILED:
  case CURLE_SSL_CERTPROBLEM:
  case CURLE_SSL_CIPHER:
  case CURLE_PEER_FAILED_VERIFICATION:
  case CURLE_USE_SSL_FAILED:
  case CURLE_SSL_ENGINE_INITFAILED:
  case CURLE_SSL_CACERT_BADFILE:
  case CURLE_SSL_SHUTDOWN_FAILED:
  case CURLE_SSL_CRL_BADFILE:
  case CURLE_SSL_ISSUER_ERROR:
  case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
  case CURLE_SSL_INVALIDCERTSTATUS:
  case CURLE_SSL_CLIENTCERT: return tls_code(h);
  case CURLE_TOO_MANY_REDIRECTS: return "redirects";
  case CURLE_SEND_FAIL_REWIND: return "body";
  case CURLE_UNSUPPORTED_PROTOCOL: /* of what came, or of where a redirect leads to */
    return h->detail && strncmp(h->detail, "Protocol \"", 10) == 0 ? "redirects" : "protocol";
  case CURLE_URL_MALFORMAT: return h->status / 100 == 3 ? "redirects" : "url";
  case CURLE_GOT_NOTHING:
  case CURLE_SEND_ERROR:
  case CURLE_PARTIAL_FILE: return "closed";
  case CURLE_RECV_ERROR: /* libcurl says so of malformed chunks too */
    if (h->connect_code >= 300) return "proxy";
    return h->detail && strstr(h->detail, "chunk") ? "protocol" : "closed";
  case CURLE_FILESIZE_EXCEEDED: return "too_large";
  case CURLE_WRITE_ERROR:
    if (h->broken == MLI_HTTP_BIG_BODY || h->broken == MLI_HTTP_BIG_HEAD) return "too_large";
    return h->broken == MLI_HTTP_NO_MEMORY ? "memory" : "protocol";
  case CURLE_OUT_OF_MEMORY: return "memory";
  case CURLE_NOT_BUILT_IN:
  case CURLE_UNKNOWN_OPTION: return "unsupported";
  default: return is_bad_key(h) ? tls_code(h) : "protocol";
  }
}

/* ---- what it was doing ---- */

typedef struct phase {
  const char *name, *text;
} phase;

static phase phase_of(const mli_http *h, bool tls) {
  if (h->head_done && !h->leads_on) return (phase){ "body", "while receiving the body" };
  if (h->head && !h->head_done) return (phase){ "headers", "while receiving the headers" };
  if (h->ready && !h->sent) return (phase){ "send", "while sending the request" };
  if (h->ready) return (phase){ "wait", "while waiting for the response" };
  /* libcurl counts the connect as over when the handshake is. */
  bool way_stands = h->dialed && (h->connect_code / 100 == 2 || !has_proxy(h));
  if (tls && (way_stands || strstr(h->detail, "SSL")))
    return (phase){ "tls", "in the TLS handshake" };
  if (h->times.resolve > 0) return (phase){ "connect", "while waiting for a connection" };
  return (phase){ "resolve", "while resolving the host name" };
}

/* Headers beyond libcurl's own bounds: those before 8.6 say that they have no memory for one
** that is too long, and speak of a receive error when all are. */
static bool head_is_too_large(const mli_http *h, CURLcode code) {
  if ((h->head_done && !h->leads_on) || h->times.first_byte <= 0) return false;
  return code == TOO_LARGE || code == CURLE_OUT_OF_MEMORY ||
         (h->detail && strstr(h->detail, "Too large response headers"));
}

/* ---- ending ---- */

/* Takes "user:password@" out of the URLs that libcurl's words may hold. */
static void scrub(char *text) {
  for (char *p = text; (p = strstr(p, "://"));) {
    p += 3;
    size_t authority = strcspn(p, "/?# \t'\"");
    const char *at = mli_last_byte(p, '@', authority);
    if (at) memmove(p, at + 1, strlen(at + 1) + 1);
  }
}

static bool is(const char *a, const char *b) { return strcmp(a, b) == 0; }

static char *message_of(const mli_http *h, const char *code, const char *when, int os_errno) {
  const char *path = h->extra ? h->extra->unix_socket : NULL;
  if (is(code, "memory")) return describe(h, "out of memory");
  if (is(code, "timeout")) return describe(h, "timed out after %.3g s %s", h->took, when);
  if (path && (is(code, "refused") || is(code, "connect")))
    return describe(h, "cannot connect to the socket %s: %s", path, uv_strerror(-os_errno));
  if (is(code, "refused")) return describe(h, "connection refused");
  if (is(code, "stall"))
    return describe(h, "stalled %s: fewer than %llu bytes in %.3g s", when,
                    (unsigned long long)h->extra->stall_bytes, (double)h->extra->stall_time / 1e3);
  if (h->broken == MLI_HTTP_BIG_BODY)
    return describe(h, "the body is larger than max_body, %llu bytes",
                    (unsigned long long)h->max_body);
  if (h->broken == MLI_HTTP_BIG_HEAD)
    return describe(h, "the headers of the response are too large");
  if (h->broken == MLI_HTTP_FOLDED)
    return describe(h, "the response begins with a line that continues no header");
  if (h->broken == MLI_HTTP_POSING)
    return describe(h, "the response says to be HTTP/2, for which nobody asked");
  if (is(code, "closed")) return describe(h, "the connection was closed %s: %s", when, h->detail);
  if (is(code, "body"))
    return describe(h, "the body would have to be sent once more, and cannot be");
  if (is(code, "proxy")) return describe(h, "the proxy failed: %s", h->detail);
  return describe(h, "failed %s: %s", when, h->detail);
}

void mli_http_fail(mli_http *h, CURLcode curl_code, char *detail, long os_errno, bool tls) {
  if (detail) scrub(detail);
  h->detail = detail && *detail ? detail : curl_easy_strerror(curl_code);
  if (head_is_too_large(h, curl_code)) {
    h->broken = MLI_HTTP_BIG_HEAD;
    curl_code = CURLE_WRITE_ERROR;
  }
  phase p = phase_of(h, tls);
  h->phase = p.name;
  if (h->extra && h->extra->bad_file) {
    char *what = describe(h, "option '%s': %s", h->extra->bad_option, h->extra->bad_file);
    mli_op_end_uv(&h->op, -h->extra->bad_errno, what ? what : h->extra->bad_file);
    free(what);
    return;
  }
  const char *code = code_of(curl_code, h, os_errno);
  ml_status status = is(code, "timeout") ? ML_TIMEOUT : is(code, "memory") ? ML_MEMORY : ML_SYSTEM;
  mli_op_end(&h->op, status, code, message_of(h, code, p.text, (int)os_errno));
}

void mli_http_refuse(mli_http *h, ml_status status, const char *code, const char *why) {
  mli_op_end(&h->op, status, code, describe(h, "%s", why));
}
