/* embed.h: what the tests of moonloop.h share. */
#ifndef EMBED_H
#define EMBED_H

#include <moonloop.h>
#include <string.h>
#include "check.h"

#define PATIENCE ml_after_ms(20000)

static inline bool says(const char *text, const char *part) {
  bool found = text && strstr(text, part);
  if (!found) printf("  \"%s\" does not say \"%s\"\n", text ? text : "(NULL)", part);
  return found;
}

#endif
