/* input.c: the buffer of a stream's input. */
#include "input.h"

#include <stdlib.h>
#include <string.h>

#define KEPT_CAPACITY 4096 /* an empty buffer of this size is kept */

/* Room for `size` more bytes at the end; false: out of memory. Moves the bytes
** down only if that frees as much as it moves. */
static bool reserve(mli_input *in, size_t size) {
  if (in->capacity - in->end >= size) return true;
  size_t have = mli_input_size(in);
  if (in->capacity - have >= size && in->start >= have) {
    memcpy(in->bytes, in->bytes + in->start, have);
  } else {
    size_t capacity = in->capacity < 512 ? 512 : in->capacity;
    do {
      if (capacity > SIZE_MAX / 2) return false;
      capacity *= 2;
    } while (capacity - have < size);
    char *bytes = malloc(capacity);
    if (!bytes) return false;
    if (have) memcpy(bytes, in->bytes + in->start, have);
    free(in->bytes);
    in->bytes = bytes;
    in->capacity = capacity;
  }
  in->start = 0;
  in->end = have;
  return true;
}

bool mli_input_append(mli_input *in, const char *data, size_t size) {
  if (!reserve(in, size)) return false;
  memcpy(in->bytes + in->end, data, size);
  in->end += size;
  return true;
}

size_t mli_input_take(mli_input *in, char *to, size_t size) {
  size_t have = mli_input_size(in);
  if (size > have) size = have;
  if (size == 0) return 0;
  memcpy(to, in->bytes + in->start, size);
  in->start += size;
  in->offset += size;
  if (size < have) return size;
  in->start = in->end = 0;
  if (in->capacity > KEPT_CAPACITY) mli_input_fini(in);
  return size;
}

size_t mli_input_find(const mli_input *in, const char *mark, size_t size, uint64_t *scanned) {
  size_t have = mli_input_size(in), from = 0;
  if (*scanned > in->offset) from = (size_t)(*scanned - in->offset);
  if (have < size || from > have - size) return 0;
  const char *begin = in->bytes + in->start;
  const char *at = memmem(begin + from, have - from, mark, size);
  if (at) return (size_t)(at - begin) + size;
  *scanned = in->offset + have - size + 1;
  return 0;
}

void mli_input_fini(mli_input *in) {
  free(in->bytes);
  in->bytes = NULL;
  in->start = in->end = in->capacity = 0;
}
