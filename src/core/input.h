/*
** input.h: the buffer of a stream's input: bytes come at its end and go from its
** front. Whoever has it locks it. Zeroed memory is an empty buffer.
*/
#ifndef MLI_INPUT_H
#define MLI_INPUT_H

#include "base.h"

typedef struct mli_input {
  char *bytes;
  size_t start, end, capacity;
  uint64_t offset; /* where in the stream `start` is */
} mli_input;

static inline size_t mli_input_size(const mli_input *in) { return in->end - in->start; }

/* A copy of the bytes at the end; false: out of memory. */
bool mli_input_append(mli_input *in, const char *data, size_t size);
/* Moves up to `size` bytes out of it; returns how many. */
size_t mli_input_take(mli_input *in, char *to, size_t size);
/* How many bytes there are up to the mark and with it; 0: no mark. Looks only
** from the place `*scanned` of the stream on, and moves that place. */
size_t mli_input_find(const mli_input *in, const char *mark, size_t size, uint64_t *scanned);
void mli_input_fini(mli_input *in);

#endif
