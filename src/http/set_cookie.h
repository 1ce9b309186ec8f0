/* set_cookie.h: reading the value of a Set-Cookie header, as RFC 6265 5.2 has it. */
#ifndef MLI_HTTP_SET_COOKIE_H
#define MLI_HTTP_SET_COOKIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct mli_http_span {
  const char *text; /* NULL: not there */
  size_t size;
} mli_http_span;

typedef struct mli_http_set_cookie {
  mli_http_span name, value, domain, path, same_site;
  bool secure, http_only;
  bool has_expires, has_max_age;
  int64_t expires; /* seconds since 1970 */
  int64_t max_age; /* seconds; 0 or less: it is over */
} mli_http_set_cookie;

/* Reads a header's value; the parts point into it. Of an attribute that comes
** twice the last counts; unknown ones are passed over. False: it is no cookie. */
bool mli_http_set_cookie_read(const char *text, size_t size, mli_http_set_cookie *cookie);

#endif
