/*
** shipping.h: messages on their way to another process: their bytes as they are, and the
** code that they refer to as bytes too. Each code is sent once over a connection; both
** sides number it, and forget all of it at the same packet when it has become much.
*/
#ifndef LML_SHIPPING_H
#define LML_SHIPPING_H

#include "bytecode.h"
#include "core/bytes.h"
#include "core/message.h"

typedef struct lml_shipping_slot {
  uint64_t id;    /* 0: free */
  lml_code *code; /* of what came; a reference */
} lml_shipping_slot;

typedef struct lml_shipping_map {
  lml_shipping_slot *slots; /* open addressing; a power of two */
  uint32_t count, room;
  size_t bytes; /* of code */
} lml_shipping_map;

/* One end of a connection. All zero: nothing was sent. */
typedef struct lml_shipping {
  lml_shipping_map sent, came;
} lml_shipping;

void lml_shipping_fini(lml_shipping *s);

/* Writes the code of a message and how many bytes it has; those are to follow. */
void lml_ship(lml_shipping *s, const mli_message *message, mli_bytes *out);
/* Reads all of it. `view`: the message shows the bytes where they are, which must outlive
** it; else it has a copy. NULL: it makes no sense, or there is no memory. */
mli_message *lml_unship(lml_shipping *s, mli_reader *r, bool view);
/* The same for a message that may be NULL, its bytes included. False: as above. */
void lml_ship_whole(lml_shipping *s, const mli_message *message, mli_bytes *out);
bool lml_unship_whole(lml_shipping *s, mli_reader *r, mli_message **out);

#endif
