/* quiet.c: handles that leave the process's signals alone. */
#include "quiet.h"

#include <stdbool.h>

CURL *mli_http_easy_new(void) {
  CURL *easy = curl_easy_init();
  if (!easy || curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK) return easy;
  curl_easy_cleanup(easy);
  return NULL;
}

/* A multi handle closes connections the way the last handle added to it would: so one is
** added before any other, and then those of requests, which are as quiet. */
CURLM *mli_http_multi_new(void) {
  CURLM *multi = curl_multi_init();
  CURL *easy = mli_http_easy_new();
  bool quiet = multi && easy && curl_multi_add_handle(multi, easy) == CURLM_OK &&
               curl_multi_remove_handle(multi, easy) == CURLM_OK;
  curl_easy_cleanup(easy);
  if (quiet) return multi;
  curl_multi_cleanup(multi);
  return NULL;
}
