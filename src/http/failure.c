/* failure.c: what libcurl says went wrong, as the codes and messages of docs/http.md. */
#include "engine.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static const char *code_of(CURLcode code, const mli_http *h, long os_errno) {
  switch (code) {
  case CURLE_COULDNT_RESOLVE_HOST:
  case CURLE_COULDNT_RESOLVE_PROXY: return "resolve";
  case CURLE_COULDNT_CONNECT: return os_errno == ECONNREFUSED ? "refused" : "connect";
  case CURLE_PROXY: return "connect";
  case CURLE_OPERATION_TIMEDOUT: return "timeout";
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
  case CURLE_SSL_CLIENTCERT: return "tls";
  case CURLE_TOO_MANY_REDIRECTS: return "redirects";
  case CURLE_UNSUPPORTED_PROTOCOL: /* of what came, or of where a redirect leads to */
    return h->detail && strncmp(h->detail, "Protocol \"", 10) == 0 ? "redirects" : "protocol";
  case CURLE_URL_MALFORMAT: return h->status / 100 == 3 ? "redirects" : "url";
  case CURLE_GOT_NOTHING:
  case CURLE_SEND_ERROR:
  case CURLE_PARTIAL_FILE: return "closed";
  case CURLE_RECV_ERROR: /* libcurl 7.88 says so of malformed chunks too */
    return h->detail && strstr(h->detail, "chunked-encoding") ? "protocol" : "closed";
  case CURLE_FILESIZE_EXCEEDED: return "too_large";
  case CURLE_WRITE_ERROR:
    if (h->broken == MLI_HTTP_BIG_BODY || h->broken == MLI_HTTP_BIG_HEAD) return "too_large";
    return h->broken == MLI_HTTP_NO_MEMORY ? "memory" : "protocol";
  case CURLE_OUT_OF_MEMORY: return "memory";
  default: return "protocol";
  }
}

/* What it was doing when it failed. */
static const char *phase_of(const mli_http *h, bool tls) {
  if (h->head_done && !h->leads_on) return "receiving the body";
  if (h->head && !h->head_done) return "receiving the headers";
  if (h->times.tls > 0 || (h->times.connect > 0 && !tls)) return "waiting for the response";
  /* libcurl 7.88 counts the connect as over when the handshake is. */
  if (h->times.connect > 0 || (tls && h->detail && strstr(h->detail, "SSL")))
    return "in the TLS handshake";
  if (h->times.resolve > 0) return "waiting for a connection";
  return "resolving the host name";
}

/* Headers beyond libcurl's own bounds: it says that it has no memory for one that is
** too long, and speaks of a receive error when all are. */
static bool head_is_too_large(const mli_http *h, CURLcode code) {
  if (h->head_done || h->times.first_byte <= 0) return false;
  return code == CURLE_OUT_OF_MEMORY ||
         (h->detail && strstr(h->detail, "Too large response headers"));
}

void mli_http_fail(mli_http *h, CURLcode curl_code, long os_errno, bool tls) {
  if (head_is_too_large(h, curl_code)) {
    h->broken = MLI_HTTP_BIG_HEAD;
    curl_code = CURLE_WRITE_ERROR;
  }
  const char *phase = phase_of(h, tls);
  const char *code = code_of(curl_code, h, os_errno);
  const char *detail = h->detail && *h->detail ? h->detail : curl_easy_strerror(curl_code);
  ml_status status = ML_SYSTEM;
  char *message;
  if (strcmp(code, "timeout") == 0) {
    status = ML_TIMEOUT;
    message = describe(h, "timed out after %.3g s %s%s", h->took, *phase == 'i' ? "" : "while ",
                       phase);
  } else if (strcmp(code, "memory") == 0) {
    status = ML_MEMORY;
    message = describe(h, "out of memory");
  } else if (h->broken == MLI_HTTP_BIG_BODY) {
    message = describe(h, "the body is larger than max_body, %llu bytes",
                       (unsigned long long)h->max_body);
  } else if (h->broken == MLI_HTTP_BIG_HEAD) {
    message = describe(h, "the headers of the response are too large");
  } else if (strcmp(code, "refused") == 0) {
    message = describe(h, "connection refused");
  } else if (strcmp(code, "closed") == 0) {
    message = describe(h, "the connection was closed while %s: %s", phase, detail);
  } else {
    message = describe(h, "%s", detail);
  }
  mli_op_end(&h->op, status, code, message);
}

void mli_http_refuse(mli_http *h, ml_status status, const char *code, const char *why) {
  mli_op_end(&h->op, status, code, describe(h, "%s", why));
}
