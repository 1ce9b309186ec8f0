/* text.c: counted strings. */
#include "text.h"

#include <stdlib.h>
#include <string.h>

static void text_destroy(mli_object *object) { free(mli_container(object, mli_text, object)); }

static const mli_type text_type = { "text", text_destroy, NULL };

mli_text *mli_text_new(const char *text) {
  size_t size = strlen(text) + 1;
  mli_text *t = malloc(sizeof *t + size);
  if (!t) return NULL;
  mli_object_init(&t->object, &text_type);
  memcpy(t->text, text, size);
  return t;
}
