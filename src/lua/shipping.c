/* shipping.c: code between processes. */
#include "shipping.h"

#define MOST_CODES 4096
#define MOST_BYTES ((size_t)8 << 20)
#define FORGET UINT32_C(0x80000000) /* in the count of codes */

/* ---- maps ---- */

static lml_shipping_slot *slot_of(const lml_shipping_map *map, uint64_t id) {
  uint32_t mask = map->room - 1;
  uint32_t i = (uint32_t)(id * UINT64_C(0x9E3779B97F4A7C15) >> 32) & mask;
  while (map->slots[i].id && map->slots[i].id != id) i = (i + 1) & mask;
  return &map->slots[i];
}

static bool map_grow(lml_shipping_map *map) {
  lml_shipping_map grown = { .room = map->room ? map->room * 2 : 64, .count = map->count };
  grown.slots = calloc(grown.room, sizeof *grown.slots);
  if (!grown.slots) return false;
  for (uint32_t i = 0; i < map->room; i++)
    if (map->slots[i].id) *slot_of(&grown, map->slots[i].id) = map->slots[i];
  free(map->slots);
  grown.bytes = map->bytes;
  *map = grown;
  return true;
}

static lml_shipping_slot *map_find(const lml_shipping_map *map, uint64_t id) {
  if (map->room == 0) return NULL;
  lml_shipping_slot *slot = slot_of(map, id);
  return slot->id ? slot : NULL;
}

/* Takes over the reference. False: out of memory. */
static bool map_add(lml_shipping_map *map, uint64_t id, lml_code *code, size_t size) {
  if (map->count >= map->room / 2 && !map_grow(map)) return false;
  lml_shipping_slot *slot = slot_of(map, id);
  if (!slot->id) map->count++;
  if (slot->code) mli_release(slot->code);
  *slot = (lml_shipping_slot){ id, code };
  map->bytes += size;
  return true;
}

static void map_clear(lml_shipping_map *map) {
  for (uint32_t i = 0; i < map->room; i++)
    if (map->slots[i].code) mli_release(map->slots[i].code);
  free(map->slots);
  *map = (lml_shipping_map){ 0 };
}

void lml_shipping_fini(lml_shipping *s) {
  map_clear(&s->sent);
  map_clear(&s->came);
}

/* ---- messages ---- */

void lml_ship(lml_shipping *s, const mli_message *message, mli_bytes *out) {
  uint32_t count = message->count;
  bool forget = s->sent.count > MOST_CODES || s->sent.bytes > MOST_BYTES;
  if (forget) map_clear(&s->sent);
  mli_put_u32(out, count | (forget ? FORGET : 0));
  for (uint32_t i = 0; i < count; i++) {
    /* Nothing else is in a message that was made for another process. */
    const lml_code *code = mli_container(message->objects[i], lml_code, object);
    bool known = map_find(&s->sent, code->id) != NULL;
    mli_put_u64(out, code->id);
    mli_put_u8(out, !known);
    if (known) continue;
    if (!map_add(&s->sent, code->id, NULL, code->size)) out->failed = true;
    mli_put_u8(out, code->upvalues);
    mli_put_u8(out, code->shared);
    mli_put_u64(out, code->size);
    mli_put(out, code->bytes, code->size);
  }
  mli_put_u64(out, message->size);
}

void lml_ship_whole(lml_shipping *s, const mli_message *message, mli_bytes *out) {
  mli_put_u8(out, message != NULL);
  if (!message) return;
  lml_ship(s, message, out);
  mli_put(out, message->bytes, message->size);
}

/* The code that is next, borrowed from the map, or NULL. */
static lml_code *read_code(lml_shipping *s, mli_reader *r) {
  uint64_t id = mli_get_u64(r);
  if (!mli_get_u8(r)) {
    lml_shipping_slot *slot = r->bad ? NULL : map_find(&s->came, id);
    return slot ? slot->code : NULL;
  }
  uint8_t upvalues = mli_get_u8(r);
  bool shared = mli_get_u8(r);
  uint64_t size = mli_get_u64(r);
  const unsigned char *bytes = mli_get(r, (size_t)size);
  if (!bytes || id == 0) return NULL;
  lml_code *code = lml_code_import(bytes, (size_t)size, upvalues, shared);
  if (!code) return NULL;
  if (map_add(&s->came, id, code, (size_t)size)) return code;
  mli_release(code);
  return NULL;
}

mli_message *lml_unship(lml_shipping *s, mli_reader *r, bool view) {
  uint32_t count = mli_get_u32(r), n = 0;
  if (count & FORGET) map_clear(&s->came);
  count &= ~FORGET;
  if (r->bad || count > (size_t)(r->end - r->at)) return NULL; /* each takes a byte at least */
  mli_object **objects = calloc(count ? count : 1, sizeof *objects);
  while (objects && n < count) {
    lml_code *code = read_code(s, r);
    if (!code) break;
    mli_object_retain(&code->object);
    objects[n++] = &code->object;
  }
  mli_message *m = NULL;
  size_t size = (size_t)mli_get_u64(r);
  const unsigned char *bytes = mli_get(r, size);
  if (objects && n == count && bytes) {
    m = view ? mli_message_view(bytes, size, objects, count)
             : mli_message_new(bytes, size, objects, count);
  } else {
    for (uint32_t i = 0; i < n; i++) mli_object_release(objects[i]);
  }
  free(objects);
  return m;
}

bool lml_unship_whole(lml_shipping *s, mli_reader *r, mli_message **out) {
  *out = NULL;
  if (!mli_get_u8(r)) return !r->bad;
  *out = lml_unship(s, r, false);
  return *out != NULL;
}
