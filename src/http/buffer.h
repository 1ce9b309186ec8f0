/*
** buffer.h: memory for large bodies, used again. A body comes and goes, and the
** C library gives memory of that size back to the system each time: page by
** page that costs more than receiving the body.
** Thread: any.
*/
#ifndef MLI_HTTP_BUFFER_H
#define MLI_HTTP_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

typedef struct mli_buffer {
  char *bytes;
  size_t size, room;
} mli_buffer;

/* Makes room for `extra` more bytes. False: out of memory, nothing changed. */
bool mli_buffer_reserve(mli_buffer *b, size_t extra);
bool mli_buffer_append(mli_buffer *b, const char *data, size_t size);
void mli_buffer_free(mli_buffer *b);

#endif
