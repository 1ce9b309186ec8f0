/*
** address.h: parsed URLs, kept for the next request to the same one. Parsing is
** a sixth of what a small request costs.
** Thread: each cache belongs to one.
*/
#ifndef MLI_HTTP_ADDRESS_H
#define MLI_HTTP_ADDRESS_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct mli_http_address {
  CURLU *url;
  struct mli_http_site *site; /* of lanes.h, or NULL */
  unsigned refs;              /* requests that have begun, and the cache */
  uint32_t hash;
  bool tls;
  char text[];
} mli_http_address;

#define MLI_HTTP_ADDRESSES 128

/* Zeroed memory is an empty cache. */
typedef struct mli_http_addresses {
  mli_http_address *slots[MLI_HTTP_ADDRESSES];
} mli_http_addresses;

/* The parsed URL, with a reference for the caller. NULL with *why set to a
** static text: it is no URL for us; or to NULL: out of memory. */
mli_http_address *mli_http_address_get(mli_http_addresses *cache, const char *text,
                                       const char **why);
void mli_http_address_release(mli_http_address *address);
void mli_http_addresses_clear(mli_http_addresses *cache);

/* The URL that `text` means at `base`, by RFC 3986, to be freed with curl_free, and
** whether its scheme, host and port are those of `base`. NULL with *why set to a static
** text: one of the two is no URL. Thread: any. */
char *mli_http_join(const char *base, const char *text, bool *same, const char **why);

#endif
