/*
** crossing_decode.c: bytes to values, as crossing_encode.c wrote them. A message may come from
*another process:
** nothing in it is believed.
*/
#include "encoder.h"

typedef struct decoder {
  lua_State *L;
  lml_crossing *c;
  const mli_message *message;
  const unsigned char *p, *end;
  int numbers;         /* stack index of a table: number -> value; 0: not needed */
  int metatables;      /* of a list: table, metatable, ...; 0: not needed */
  lua_Integer pending; /* how long that is */
  uint32_t numbered;
  uint32_t depth;
} decoder;

static void damaged(decoder *d) { lml_raise(d->L, "crossing", "a damaged message"); }

static inline const unsigned char *get(decoder *d, size_t n) {
  if (mli_unlikely(n > (size_t)(d->end - d->p))) damaged(d);
  d->p += n;
  return d->p - n;
}

static inline unsigned get_byte(decoder *d) { return *get(d, 1); }

static inline uint32_t get_count(decoder *d) {
  uint32_t n;
  memcpy(&n, get(d, sizeof n), sizeof n);
  return n;
}

static inline uint64_t get_word(decoder *d) {
  uint64_t n;
  memcpy(&n, get(d, sizeof n), sizeof n);
  return n;
}

/* The count of things that take at least one byte each. */
static uint32_t get_bounded(decoder *d) {
  uint32_t n = get_count(d);
  if (n > (size_t)(d->end - d->p)) damaged(d);
  return n;
}

static mli_object *get_object(decoder *d) {
  uint32_t index = get_count(d);
  if (index >= d->message->count) damaged(d);
  return d->message->objects[index];
}

/* A string of the message itself. */
static const char *get_bytes(decoder *d, unsigned tag, size_t *length) {
  if (tag == STRING) {
    *length = get_byte(d);
  } else {
    uint64_t n = tag == LONG ? get_word(d) : UINT64_MAX;
    if (n > (size_t)(d->end - d->p)) damaged(d);
    *length = (size_t)n;
  }
  return (const char *)get(d, *length);
}

/* Gives the value on top the next number. */
static void note(decoder *d) {
  d->numbered++;
  if (mli_likely(!d->numbers)) return;
  lua_pushvalue(d->L, -1);
  lua_rawseti(d->L, d->numbers, d->numbered);
}

/* Pushes the value with a number of this message. */
static int get_known(decoder *d) {
  uint32_t n = get_count(d);
  if (!d->numbers) damaged(d);
  int type = lua_rawgeti(d->L, d->numbers, n);
  if (type == LUA_TNIL) damaged(d);
  return type;
}

/* Sets the metatables of what was built since `pending` was `from`: what is in
** the metatables is there by now, so that `__gc` is seen. */
static void set_metatables(decoder *d, lua_Integer from) {
  lua_State *L = d->L;
  for (lua_Integer i = from; i < d->pending; i += 2) {
    lua_rawgeti(L, d->metatables, i + 1);
    lua_rawgeti(L, d->metatables, i + 2);
    lua_setmetatable(L, -2);
    lua_pop(L, 1);
  }
  d->pending = from;
}

static void get_value(decoder *d);

/* A value has its byte read already if it is a tag that callers look at. */
static void get_tagged(decoder *d, unsigned tag);

static void get_table(decoder *d, bool instance) {
  lua_State *L = d->L;
  uint32_t items = get_count(d), pairs = get_count(d);
  size_t left = (size_t)(d->end - d->p);
  if (items > left || pairs > left / 2 || items > INT32_MAX || pairs > INT32_MAX) damaged(d);
  lua_createtable(L, (int)items, (int)pairs);
  note(d);
  int t = lua_gettop(L);
  for (uint32_t i = 1; i <= items; i++) {
    get_value(d);
    if (lua_isnil(L, -1))
      lua_pop(L, 1);
    else
      lua_rawseti(L, t, i);
  }
  for (uint32_t i = 0; i < pairs; i++) {
    get_value(d);
    get_value(d);
    lua_rawset(L, t);
  }
  if (!instance) return;
  get_value(d);
  if (!d->metatables || !lua_istable(L, -1)) damaged(d);
  lua_pushvalue(L, t);
  lua_rawseti(L, d->metatables, ++d->pending);
  lua_rawseti(L, d->metatables, ++d->pending);
}

static lml_code *get_code(decoder *d) {
  mli_object *object = get_object(d);
  if (object->type != &lml_code_type) damaged(d);
  return mli_container(object, lml_code, object);
}

static void get_closure(decoder *d) {
  lua_State *L = d->L;
  lml_code *code = get_code(d);
  unsigned count = get_byte(d);
  if (code->shared || count != code->upvalues) damaged(d);
  lml_code_push(L, &d->c->codes, code); /* closure */
  note(d);
  int closure = lua_gettop(L);
  for (unsigned i = 1; i <= count; i++) {
    unsigned tag = get_byte(d);
    if (tag == CELL) {
      int type = get_known(d); /* closure owner */
      unsigned part = get_byte(d);
      if (type != LUA_TFUNCTION || lua_iscfunction(L, -1) || !lua_upvalueid(L, -1, (int)part))
        damaged(d);
      lua_upvaluejoin(L, closure, (int)i, -1, (int)part);
      lua_pop(L, 1);
    } else {
      get_tagged(d, tag); /* closure value */
      lua_setupvalue(L, closure, (int)i);
    }
  }
}

static void get_named(decoder *d, bool field) {
  size_t module_length, field_length = 0;
  const char *module = get_bytes(d, get_byte(d), &module_length);
  const char *name = field ? get_bytes(d, get_byte(d), &field_length) : NULL;
  lml_names_push(d->L, module, module_length, name, field_length);
  note(d);
}

/* Pushes "module:function" as a function; it may lie deeper: "module:a.b". */
static void push_maker(lua_State *L, const char *name, size_t length) {
  const char *colon = memchr(name, ':', length), *end = name + length;
  if (!colon) colon = end;
  lml_names_push(L, name, (size_t)(colon - name), NULL, 0);
  for (const char *part = colon, *next; part < end; part = next) {
    part++;
    next = memchr(part, '.', (size_t)(end - part));
    if (!next) next = end;
    int type = lua_type(L, -1);
    if (type == LUA_TTABLE || type == LUA_TUSERDATA) {
      lua_pushlstring(L, part, (size_t)(next - part));
      lua_gettable(L, -2);
    } else {
      lua_pushnil(L);
    }
    lua_remove(L, -2);
  }
  if (lua_isnil(L, -1)) {
    lua_pushlstring(L, name, length);
    lml_raise(L, "crossing", "there is no '%s' here", lua_tostring(L, -1));
  }
}

static void get_made(decoder *d) {
  lua_State *L = d->L;
  size_t length;
  const char *name = get_bytes(d, get_byte(d), &length);
  uint32_t count = get_bounded(d);
  if (count > INT32_MAX) damaged(d);
  luaL_checkstack(L, (int)count + LUA_MINSTACK, "too many arguments of a userdata");
  lua_Integer pending = d->pending;
  push_maker(L, name, length); /* maker */
  for (uint32_t i = 0; i < count; i++) get_value(d);
  set_metatables(d, pending);
  lua_call(L, (int)count, 1); /* value */
  if (lua_isnil(L, -1)) {
    lua_pushlstring(L, name, length);
    lml_raise(L, "crossing", "'%s' did not return a value", lua_tostring(L, -1));
  }
  note(d);
}

static void get_nested(decoder *d, unsigned tag) {
  if (++d->depth > MOST_LEVELS + 2) damaged(d);
  luaL_checkstack(d->L, LUA_MINSTACK, "too many levels of nesting");
  switch (tag) {
  case TABLE: get_table(d, false); break;
  case INSTANCE: get_table(d, true); break;
  case CLOSURE: get_closure(d); break;
  case MADE: get_made(d); break;
  default: damaged(d);
  }
  d->depth--;
}

static void get_tagged(decoder *d, unsigned tag) {
  lua_State *L = d->L;
  switch (tag) {
  case NIL: lua_pushnil(L); break;
  case FALSE: lua_pushboolean(L, 0); break;
  case TRUE: lua_pushboolean(L, 1); break;
  case INTEGER: lua_pushinteger(L, (lua_Integer)get_word(d)); break;
  case FLOAT: {
    lua_Number n;
    memcpy(&n, get(d, sizeof n), sizeof n);
    lua_pushnumber(L, n);
    break;
  }
  case POINTER: lua_pushlightuserdata(L, (void *)(uintptr_t)get_word(d)); break;
  case STRING:
  case LONG: {
    size_t length;
    const char *bytes = get_bytes(d, tag, &length);
    lua_pushlstring(L, bytes, length);
    if (tag == LONG) note(d);
    break;
  }
  case KNOWN: get_known(d); break;
  case MODULE: get_named(d, false); break;
  case FIELD: get_named(d, true); break;
  case GLOBALS: lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS); break;
  case SHARED: {
    lml_code *code = get_code(d);
    if (!code->shared) damaged(d);
    lml_code_push(L, &d->c->codes, code);
    break;
  }
  case HANDLE: lml_handle_push(L, get_object(d)); break;
  case ERRORS: luaL_getmetatable(L, LML_ERROR); break;
  default: get_nested(d, tag);
  }
}

static void get_value(decoder *d) { get_tagged(d, get_byte(d)); }

int lml_decode(lua_State *L, const mli_message *message) {
  decoder d = { .L = L,
                .c = lml_crossing_of(L),
                .message = message,
                .p = message->bytes,
                .end = message->bytes + message->size };
  unsigned flags = get_byte(&d);
  uint32_t count = get_bounded(&d);
  if (count > INT32_MAX - 2 * LUA_MINSTACK) damaged(&d);
  if (!lua_checkstack(L, (int)count + LUA_MINSTACK)) luaL_error(L, "too many values to receive");
  int top = lua_gettop(L);
  if (flags & NEEDS_NUMBERS) {
    lua_createtable(L, 8, 0); /* numbers */
    d.numbers = lua_gettop(L);
  }
  if (flags & NEEDS_METATABLES) {
    lua_createtable(L, 8, 0); /* metatables */
    d.metatables = lua_gettop(L);
  }
  int first = lua_gettop(L) + 1;
  for (uint32_t i = 0; i < count; i++) get_value(&d);
  if (d.p != d.end) damaged(&d);
  if (flags) {
    set_metatables(&d, 0);
    lua_rotate(L, top + 1, top + 1 - first);
    lua_settop(L, top + (int)count);
  }
  return (int)count;
}
