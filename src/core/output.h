/* output.h: what a child prints, line by line. Thread: the loop's. */
#ifndef MLI_OUTPUT_H
#define MLI_OUTPUT_H

#include "bytes.h"

#define MLI_LINE_MAX 8192 /* a longer line comes in pieces */

typedef void (*mli_line_hook)(void *user, const char *text, size_t size);

/* Reads what is in the pipe, at most a few buffers full of it, and calls `line` for what is
** complete of it. False: the pipe has ended; what was left came as a line too. */
bool mli_output_read(int fd, mli_bytes *partial, mli_line_hook line, void *user);

#endif
