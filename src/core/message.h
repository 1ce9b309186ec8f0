/*
** message.h: a value on its way between two Lua states. The core sees bytes,
** and the counted objects that the bytes refer to by index; what the bytes
** mean is the business of src/lua (see crossing.h).
*/
#ifndef MLI_MESSAGE_H
#define MLI_MESSAGE_H

#include "object.h"

/* Immutable once made, and owned by one holder. */
typedef struct mli_message {
  size_t size;
  const unsigned char *bytes;
  mli_object **objects; /* each holds a reference */
  uint32_t count;       /* of objects */
  bool adopted;         /* `bytes` is an allocation of its own */
} mli_message;

/* A message with a copy of the bytes. The references in `objects` (the array
** itself is copied) pass to the message, also on failure. NULL: out of memory.
** Thread: any. Blocks: no. */
mli_message *mli_message_new(const void *bytes, size_t size, mli_object *const *objects,
                             uint32_t count);
/* The same without a copy: takes over `bytes` (from malloc), also on failure. */
mli_message *mli_message_adopt(unsigned char *bytes, size_t size, mli_object *const *objects,
                               uint32_t count);
/* The same over bytes that stay the caller's and outlive it. */
mli_message *mli_message_view(const void *bytes, size_t size, mli_object *const *objects,
                              uint32_t count);
/* Another message with the same contents. NULL: out of memory. */
mli_message *mli_message_copy(const mli_message *message);
/* Frees it and releases its objects. NULL is allowed. */
void mli_message_free(mli_message *message);

#endif
