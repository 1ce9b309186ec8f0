/* text.h: a counted, immutable string: names that outlive their state. */
#ifndef MLI_TEXT_H
#define MLI_TEXT_H

#include "object.h"

typedef struct mli_text {
  mli_object object;
  char text[];
} mli_text;

/* A copy, with one reference. NULL: out of memory. */
mli_text *mli_text_new(const char *text);

#endif
