/* message.c: bytes and references in one allocation. */
#include "message.h"

#include <stdlib.h>
#include <string.h>

static mli_message *message_new(size_t room, mli_object *const *objects, uint32_t count) {
  size_t array = count * sizeof *objects;
  mli_message *m = malloc(sizeof *m + array + room);
  if (!m) {
    for (uint32_t i = 0; i < count; i++) mli_object_release(objects[i]);
    return NULL;
  }
  m->objects = (mli_object **)(void *)(m + 1);
  m->count = count;
  if (count) memcpy(m->objects, objects, array);
  m->bytes = (unsigned char *)(m + 1) + array;
  m->adopted = false;
  return m;
}

mli_message *mli_message_new(const void *bytes, size_t size, mli_object *const *objects,
                             uint32_t count) {
  mli_message *m = message_new(size, objects, count);
  if (!m) return NULL;
  m->size = size;
  if (size) memcpy((unsigned char *)m->bytes, bytes, size);
  return m;
}

mli_message *mli_message_adopt(unsigned char *bytes, size_t size, mli_object *const *objects,
                               uint32_t count) {
  mli_message *m = message_new(0, objects, count);
  if (!m) {
    free(bytes);
    return NULL;
  }
  m->bytes = bytes;
  m->size = size;
  m->adopted = true;
  return m;
}

mli_message *mli_message_view(const void *bytes, size_t size, mli_object *const *objects,
                              uint32_t count) {
  mli_message *m = message_new(0, objects, count);
  if (!m) return NULL;
  m->bytes = bytes;
  m->size = size;
  return m;
}

mli_message *mli_message_copy(const mli_message *m) {
  for (uint32_t i = 0; i < m->count; i++) mli_object_retain(m->objects[i]);
  return mli_message_new(m->bytes, m->size, m->objects, m->count);
}

void mli_message_free(mli_message *m) {
  if (!m) return;
  for (uint32_t i = 0; i < m->count; i++) mli_object_release(m->objects[i]);
  if (m->adopted) free((unsigned char *)m->bytes);
  free(m);
}
