/*
** mask.h: what people may see of a request: texts without their secrets. Masked
** are passwords in URLs, values in queries whose names sound like a secret
** ("token", "api_key", ...), credentials and cookies in headers.
** Thread: any. False: out of memory.
*/
#ifndef MLI_HTTP_MASK_H
#define MLI_HTTP_MASK_H

#include "buffer.h"

/* Whether a field or parameter of this name most likely holds a secret. */
bool mli_mask_is_secret(const char *name, size_t size);

/* Adds to `out` the text with the passwords of its URLs, and the values of such
** parameters ("a=1&token=x", or behind "?"), as "***". */
bool mli_mask_text(mli_buffer *out, const char *text, size_t size);

/* A line of a head: "Name: value", or a request's or status line. */
bool mli_mask_line(mli_buffer *out, const char *line, size_t size);

#endif
