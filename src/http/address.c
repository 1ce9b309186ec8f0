/* address.c: the cache of parsed URLs: a slot per hash, the latest one stays. */
#include "address.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "lanes.h"

/* FNV-1a. */
static uint32_t hash_of(const char *text) {
  uint32_t hash = 2166136261u;
  for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 16777619u;
  return hash;
}

static const char *reason_of(CURLUcode code) {
  switch (code) {
  case CURLUE_OUT_OF_MEMORY: return NULL;
  case CURLUE_BAD_SCHEME:
  case CURLUE_UNSUPPORTED_SCHEME: return "it must begin with http:// or https://";
  case CURLUE_BAD_PORT_NUMBER: return "the port is no number from 0 to 65535";
  case CURLUE_NO_HOST: return "it names no host";
  default: return curl_url_strerror(code);
  }
}

static CURLUcode parse(CURLU *url, const char *text, bool *tls) {
  char *scheme = NULL;
  CURLUcode code = curl_url_set(url, CURLUPART_URL, text, CURLU_URLENCODE);
  if (!code) code = curl_url_get(url, CURLUPART_SCHEME, &scheme, 0);
  if (code) return code;
  *tls = strcmp(scheme, "https") == 0;
  if (!*tls && strcmp(scheme, "http") != 0) code = CURLUE_UNSUPPORTED_SCHEME;
  curl_free(scheme);
  return code;
}

mli_http_address *mli_http_address_get(mli_http_addresses *cache, const char *text,
                                       const char **why) {
  uint32_t hash = hash_of(text);
  mli_http_address **slot = &cache->slots[hash % MLI_HTTP_ADDRESSES], *a = *slot;
  if (a && a->hash == hash && strcmp(a->text, text) == 0) {
    a->refs++;
    return a;
  }
  size_t size = strlen(text) + 1;
  *why = NULL;
  a = malloc(sizeof *a + size);
  if (!a) return NULL;
  a->url = curl_url();
  CURLUcode code = a->url ? parse(a->url, text, &a->tls) : CURLUE_OUT_OF_MEMORY;
  if (code) {
    *why = reason_of(code);
    curl_url_cleanup(a->url);
    free(a);
    return NULL;
  }
  memcpy(a->text, text, size);
  a->site = NULL;
  a->hash = hash;
  a->refs = 2;
  if (*slot) mli_http_address_release(*slot);
  *slot = a;
  return a;
}

void mli_http_address_release(mli_http_address *address) {
  if (--address->refs) return;
  mli_http_site_release(address->site);
  curl_url_cleanup(address->url);
  free(address);
}

void mli_http_addresses_clear(mli_http_addresses *cache) {
  for (size_t i = 0; i < MLI_HTTP_ADDRESSES; i++)
    if (cache->slots[i]) {
      mli_http_address_release(cache->slots[i]);
      cache->slots[i] = NULL;
    }
}

/* ---- joining ---- */

static bool same_part(CURLU *a, CURLU *b, CURLUPart part) {
  char *x = NULL, *y = NULL;
  curl_url_get(a, part, &x, CURLU_DEFAULT_PORT);
  curl_url_get(b, part, &y, CURLU_DEFAULT_PORT);
  bool same = x && y && strcasecmp(x, y) == 0;
  curl_free(x);
  curl_free(y);
  return same;
}

char *mli_http_join(const char *base_text, const char *text, bool *same, const char **why) {
  char *joined = NULL;
  CURLU *base = curl_url(), *url = NULL;
  CURLUcode code = base ? curl_url_set(base, CURLUPART_URL, base_text, CURLU_URLENCODE)
                        : CURLUE_OUT_OF_MEMORY;
  if (!code && !(url = curl_url_dup(base))) code = CURLUE_OUT_OF_MEMORY;
  if (!code) code = curl_url_set(url, CURLUPART_URL, text, CURLU_URLENCODE);
  if (!code) code = curl_url_get(url, CURLUPART_URL, &joined, 0);
  *same = !code && same_part(base, url, CURLUPART_SCHEME) && same_part(base, url, CURLUPART_HOST) &&
          same_part(base, url, CURLUPART_PORT);
  if (code && !(*why = reason_of(code))) *why = "out of memory";
  curl_url_cleanup(url);
  curl_url_cleanup(base);
  return joined;
}
