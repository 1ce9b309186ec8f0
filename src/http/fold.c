/*
** fold.c: keeps libcurl before 8.1.1 from memory that it has freed. There a line that
** continues a header, where a response begins with one, is added to the last header of
** the handle's transfer before; which is gone. Handles are used again all the same, as
** new ones cost a fifth of a request: from a status line to the first header libcurl
** shows us each line before it takes it, and one that continues nothing is spoiled, so
** that it stands for itself, and refused as it arrives.
**
** What a proxy answers to CONNECT comes without our seeing it: requests that may have
** one get a new handle, and so do those with a debug function of their own.
*/
#include "engine.h"

#include <strings.h>

static int before_line(CURL *curl, curl_infotype what, char *line, size_t size, void *user) {
  mli_http_easy *easy = user;
  (void)curl;
  if (what != CURLINFO_HEADER_IN || !easy->unsure || !easy->request || size == 0) return 0;
  if (*line == ' ' || *line == '\t') {
    *line = '?';
    easy->request->broken = MLI_HTTP_FOLDED;
  }
  return 0;
}

bool mli_http_reusable(const mli_http *h) {
  const mli_http_features *has = mli_http_features_get();
  return has->reuses || (!h->extra && !has->env_proxy && !has->debug);
}

CURLcode mli_http_watch_folds(mli_http_easy *easy) {
  easy->unsure = easy->used && !mli_http_features_get()->reuses;
  easy->used = true;
  if (!easy->unsure) return CURLE_OK;
  CURLcode code = curl_easy_setopt(easy->curl, CURLOPT_DEBUGFUNCTION, before_line);
  if (code == CURLE_OK) code = curl_easy_setopt(easy->curl, CURLOPT_DEBUGDATA, easy);
  if (code == CURLE_OK) code = curl_easy_setopt(easy->curl, CURLOPT_VERBOSE, 0L);
  return code;
}

void mli_http_after_line(mli_http_easy *easy, const char *line, size_t size) {
  bool status = size >= 5 && strncasecmp(line, "HTTP/", 5) == 0;
  if (!status && (*line == '\r' || *line == '\n')) return; /* the end of a head without any */
  easy->unsure = status;
  curl_easy_setopt(easy->curl, CURLOPT_VERBOSE, status ? 1L : 0L);
}
