/*
** crossing_encode.c: values to bytes. See docs/crossing.md for what crosses, and format.h for how
*it
** is written.
*/
#include "encoder.h"

#define AS_TEXT_(x) #x
#define AS_TEXT(x) AS_TEXT_(x)
#define ADOPTED (64 * 1024) /* bytes from which a message takes the memory over */

/* Scratches are taken and given back in pairs: a `__moonloop` that sends while
** its state is sending gets one of its own. */
static lml_scratch *take_scratch(lua_State *L, lml_crossing *c) {
  lml_scratch *s = c->idle;
  if (mli_likely(s != NULL)) {
    c->idle = s->next;
  } else {
    s = calloc(1, sizeof *s);
    if (!s) lml_raise(L, "memory", "out of memory");
  }
  return s;
}

static void give_back(lml_crossing *c, lml_scratch *s) {
  lml_scratch_reset(s);
  if (c->closed) {
    lml_scratch_free(s);
  } else {
    s->next = c->idle;
    c->idle = s;
  }
}

static void no_memory(encoder *e) { lml_raise(e->L, "memory", "out of memory"); }

/* Adds a step; makes room for the stack that one level needs. */
static lml_step *enter(encoder *e, enum kind kind, int index) {
  if (mli_unlikely(e->depth > MOST_LEVELS))
    lml_refuse(e, "a value nested deeper than " AS_TEXT(MOST_LEVELS) " levels", NULL);
  if (mli_unlikely(!lml_scratch_expect_steps(e->s, e->depth + 1))) no_memory(e);
  if (!lua_checkstack(e->L, LUA_MINSTACK)) luaL_error(e->L, "too many levels of nesting");
  lml_step *step = &e->s->path[e->depth++];
  *step = (lml_step){ (uint8_t)kind, index, NULL };
  return step;
}

/* ---- values ---- */

static unsigned char *take(encoder *e, size_t n) {
  unsigned char *p = lml_scratch_take(e->s, n);
  if (mli_unlikely(!p)) no_memory(e);
  return p;
}

static void put_tag(encoder *e, enum tag tag) { *take(e, 1) = (unsigned char)tag; }

static void put_tagged(encoder *e, enum tag tag, uint32_t n) {
  unsigned char *p = take(e, 1 + sizeof n);
  *p = (unsigned char)tag;
  memcpy(p + 1, &n, sizeof n);
}

/* Writes a tag and eight bytes; false: no memory. */
static inline bool write_word(lml_scratch *s, enum tag tag, const void *word) {
  unsigned char *p = lml_scratch_take(s, 9);
  if (mli_unlikely(!p)) return false;
  *p = (unsigned char)tag;
  memcpy(p + 1, word, 8);
  return true;
}

static inline bool write_short(lml_scratch *s, const char *bytes, size_t length) {
  unsigned char *p = lml_scratch_take(s, 2 + length);
  if (mli_unlikely(!p)) return false;
  p[0] = STRING;
  p[1] = (unsigned char)length;
  memcpy(p + 2, bytes, length);
  return true;
}

/* Writes a value that is nothing but itself. False: it is none, or no memory. */
static inline bool write_plain(lml_scratch *s, lua_State *L, int i) {
  switch (lua_type(L, i)) {
  case LUA_TNUMBER:
    if (lua_isinteger(L, i)) {
      lua_Integer n = lua_tointeger(L, i);
      return write_word(s, INTEGER, &n);
    } else {
      lua_Number n = lua_tonumber(L, i);
      return write_word(s, FLOAT, &n);
    }
  case LUA_TSTRING: {
    size_t length;
    const char *bytes = lua_tolstring(L, i, &length);
    return length <= 255 && write_short(s, bytes, length);
  }
  case LUA_TLIGHTUSERDATA: {
    uint64_t p = (uintptr_t)lua_touserdata(L, i);
    return (p == 0 || !s->far) && write_word(s, POINTER, &p);
  }
  case LUA_TNIL:
  case LUA_TBOOLEAN: {
    unsigned char *p = lml_scratch_take(s, 1);
    if (p) *p = lua_isnil(L, i) ? NIL : lua_toboolean(L, i) ? TRUE : FALSE;
    return p != NULL;
  }
  default: return false;
  }
}

/* Writes a closure that crossed before and is the same for all messages. */
static bool write_shared(encoder *e, int i) {
  lml_code *code = lml_code_known(e->L, &e->c->codes, i);
  if (!code || !code->shared || !lml_scratch_expect_object(e->s)) return false;
  unsigned char *p = lml_scratch_take(e->s, 5);
  if (!p) return false;
  *p = SHARED;
  memcpy(p + 1, &e->s->count, 4);
  mli_object_retain(&code->object);
  e->s->objects[e->s->count++] = &code->object;
  return true;
}

static void put_value(encoder *e, int i);

/* Gives the value at this address the next number. */
static void number(encoder *e, const void *key) {
  if (!lml_scratch_add(e->s, key, ++e->numbered)) no_memory(e);
}

#define UNFINISHED UINT32_MAX /* the number of a userdata while its arguments are put */

/* Writes the number of a value that this message has already. */
static bool put_known(encoder *e, const void *key) {
  const lml_met *m = lml_scratch_find(e->s, key);
  if (!m) return false;
  if (m->number == UNFINISHED)
    lml_refuse(e, "a userdata whose __moonloop leads back to itself", NULL);
  e->flags |= NEEDS_NUMBERS;
  put_tagged(e, KNOWN, m->number);
  return true;
}

/* The index in this message of an object that crosses by reference. Takes the
** caller's reference; room for it must have been made. */
static uint32_t object_index(encoder *e, mli_object *object) {
  lml_scratch *s = e->s;
  const lml_met *m = lml_scratch_find(s, object);
  if (m) {
    mli_object_release(object);
    return m->number;
  }
  s->objects[s->count] = object;
  if (!lml_scratch_add(s, object, s->count++)) no_memory(e);
  return s->count - 1;
}

static void put_bytes(encoder *e, const char *bytes, size_t length) {
  if (length <= 255) {
    if (!write_short(e->s, bytes, length)) no_memory(e);
    return;
  }
  uint64_t n = length;
  unsigned char *p = length < SIZE_MAX - 9 ? take(e, 9 + length) : NULL;
  if (!p) no_memory(e);
  *p = LONG;
  memcpy(p + 1, &n, 8);
  memcpy(p + 9, bytes, length);
}

static void put_string(encoder *e, int i) {
  size_t length;
  const char *bytes = lua_tolstring(e->L, i, &length);
  if (length > 255) {
    if (put_known(e, bytes)) return;
    number(e, bytes);
  }
  put_bytes(e, bytes, length);
}

static void put_name(encoder *e, int i) {
  size_t length;
  const char *bytes = lua_tolstring(e->L, i, &length);
  put_bytes(e, bytes, length);
}

/* Puts the value by name if a module holds it. `sure`: look at the modules again
** before saying no. */
static bool put_named(encoder *e, int i, bool sure) {
  lua_State *L = e->L;
  lml_names *names = &e->c->names;
  lml_named found = lml_names_find(L, names, i);
  if (found != LML_NAMED && !e->rebuilt) {
    if (found == LML_MISNAMED || (found == LML_UNNAMED && sure)) {
      lml_names_rebuild(L, names);
      e->rebuilt = true;
    } else if (!e->refreshed) {
      e->refreshed = true;
      e->rebuilt = lml_names_refresh(L, names);
    }
    if (e->rebuilt) found = lml_names_find(L, names, i);
  }
  if (mli_likely(found != LML_NAMED)) return false;
  number(e, lua_topointer(L, i));
  put_tag(e, lua_isnil(L, -1) ? MODULE : FIELD);
  put_name(e, lua_gettop(L) - 1);
  if (!lua_isnil(L, -1)) put_name(e, lua_gettop(L));
  lua_pop(L, 2);
  return true;
}

/* Puts a key and its value. */
static void put_pair(encoder *e, int key, uint32_t step) {
  if (!write_plain(e->s, e->L, key)) {
    e->s->path[step].kind = IN_KEY;
    put_value(e, key);
    e->s->path[step].kind = KEY;
  }
  if (!write_plain(e->s, e->L, key + 1)) put_value(e, key + 1);
}

/* Whether nils may stand for what is missing below `key` in the list of the
** table at `t`, which keeps its length then. */
static bool is_gap(lua_State *L, int t, lua_Unsigned key, lua_Unsigned items, lua_Unsigned filled) {
  return key > items && key <= 2 * filled + 8 && key <= lua_rawlen(L, t);
}

/* Puts what is in the table at `t`, in one walk: items as long as the keys come
** as a list, pairs from then on. The counts are filled in at the end. */
static void put_contents(encoder *e, int t) {
  lua_State *L = e->L;
  uint32_t items = 0, filled = 0, pairs = 0, step = e->depth;
  size_t counts = e->s->size;
  take(e, TABLE_SIZE);
  lua_pushnil(L);
  int key = lua_gettop(L);
  enter(e, KEY, key);
  while (lua_next(L, t)) { /* key value */
    lua_Unsigned n;
    if (pairs == 0 && lua_isinteger(L, key) &&
        ((n = (lua_Unsigned)lua_tointeger(L, key)) == (lua_Unsigned)items + 1 ||
         is_gap(L, t, n, items, filled))) {
      for (items++; items < n; items++) put_tag(e, NIL);
      filled++;
      if (!write_plain(e->s, L, key + 1)) put_value(e, key + 1);
    } else {
      put_pair(e, key, step);
      pairs++;
    }
    lua_pop(L, 1);
  }
  e->depth--;
  memcpy(e->s->bytes + counts, &items, 4);
  memcpy(e->s->bytes + counts + 4, &pairs, 4);
}

static void put_metatable(encoder *e, int mt);

/* Puts the table at `t` as a copy. */
static void put_copy(encoder *e, int t) {
  lua_State *L = e->L;
  number(e, lua_topointer(L, t));
  if (mli_likely(!lua_getmetatable(L, t))) {
    put_tag(e, TABLE);
    put_contents(e, t);
    return;
  }
  put_tag(e, INSTANCE); /* mt */
  put_contents(e, t);
  e->flags |= NEEDS_METATABLES;
  put_metatable(e, lua_gettop(L));
  lua_pop(L, 1);
}

static void put_table(encoder *e, int t) {
  const void *p = lua_topointer(e->L, t);
  if (put_known(e, p)) return;
  if (p == e->globals)
    put_tag(e, GLOBALS);
  else if (p == e->errors)
    put_tag(e, ERRORS);
  else if (!put_named(e, t, false))
    put_copy(e, t);
}

static void put_metatable(encoder *e, int mt) {
  const void *p = lua_topointer(e->L, mt);
  if (p == e->errors)
    put_tag(e, ERRORS);
  else if (p == e->globals)
    put_tag(e, GLOBALS);
  else if (!put_known(e, p) && !put_named(e, mt, true)) {
    lml_names_deny(e->L, &e->c->names, mt);
    enter(e, METATABLE, 0);
    put_copy(e, mt);
    e->depth--;
  }
}

static void put_upvalues(encoder *e, int f, unsigned count) {
  lua_State *L = e->L;
  uint32_t closure = e->numbered, step = e->depth;
  enter(e, UPVALUE, 0);
  for (unsigned i = 1; i <= count; i++) {
    const char *name = lua_getupvalue(L, f, (int)i); /* value */
    if (strcmp(name, "_ENV") == 0) {
      put_tag(e, GLOBALS);
    } else {
      const void *cell = lua_upvalueid(L, f, (int)i);
      lml_met *m = lml_scratch_find(e->s, cell);
      if (m) {
        uint32_t owner = m->number, part = m->part;
        e->flags |= NEEDS_NUMBERS;
        put_tagged(e, CELL, owner);
        *take(e, 1) = (unsigned char)part;
      } else {
        m = lml_scratch_add(e->s, cell, closure);
        if (!m) no_memory(e);
        m->part = i;
        e->s->path[step].index = (int)i;
        e->s->path[step].name = name;
        put_value(e, lua_gettop(L));
      }
    }
    lua_pop(L, 1);
  }
  e->depth--;
}

static int to_scratch(lua_State *L, const void *p, size_t n, void *user) {
  (void)L;
  unsigned char *space = lml_scratch_take(user, n);
  if (space) memcpy(space, p, n);
  return space == NULL;
}

/* The code of a closure that did not cross before, or NULL: it was put by name. */
static lml_code *new_code(encoder *e, int f) {
  lua_State *L = e->L;
  lml_scratch *s = e->s;
  size_t mark = s->size;
  lua_pushvalue(L, f);
  if (lua_dump(L, to_scratch, s, 0) != 0) no_memory(e);
  lua_pop(L, 1);
  size_t size = s->size - mark; /* of the dump, which stays readable behind the end */
  s->size = mark;
  lml_code *code = lml_code_seen(L, &e->c->codes, f, s->bytes + mark, size);
  if (code) return code;
  if (put_named(e, f, true)) return NULL; /* a field that its module got lately */
  return lml_code_new(L, &e->c->codes, f, s->bytes + mark, size);
}

static void put_function(encoder *e, int f) {
  lua_State *L = e->L;
  const void *p = lua_topointer(L, f);
  if (put_known(e, p)) return;
  lml_code *code = lml_code_known(L, &e->c->codes, f);
  if (!code) {
    if (lua_iscfunction(L, f)) {
      if (!put_named(e, f, true)) lml_refuse(e, "a C function that no loaded module holds", NULL);
      return;
    }
    if (put_named(e, f, false) || !(code = new_code(e, f))) return;
  }
  if (!lml_scratch_expect_object(e->s)) no_memory(e);
  mli_object_retain(&code->object);
  uint32_t index = object_index(e, &code->object);
  put_tagged(e, code->shared ? SHARED : CLOSURE, index);
  if (code->shared) return;
  number(e, p);
  *take(e, 1) = code->upvalues;
  put_upvalues(e, f, code->upvalues);
}

/* Keeps a value alive until the message is done: no other may get its address. */
static void anchor(encoder *e, int i) {
  lua_State *L = e->L;
  if (lua_isnil(L, e->anchors)) {
    lua_newtable(L);
    lua_replace(L, e->anchors);
  }
  lua_pushvalue(L, i);
  lua_rawseti(L, e->anchors, (lua_Integer)lua_rawlen(L, e->anchors) + 1);
}

/* Puts what the metamethod on top, `__moonloop`, says of the userdata at `u`. */
static void put_made(encoder *e, int u) {
  lua_State *L = e->L;
  const void *p = lua_topointer(L, u);
  int maker = lua_gettop(L);
  if (!lml_scratch_add(e->s, p, UNFINISHED)) no_memory(e);
  lua_pushvalue(L, u);
  lua_call(L, 1, LUA_MULTRET); /* name arguments... */
  int last = lua_gettop(L);
  const char *name = last >= maker && lua_type(L, maker) == LUA_TSTRING ? lua_tostring(L, maker)
                                                                        : "";
  const char *colon = strchr(name, ':');
  if (!colon || colon == name || colon[1] == '\0')
    lml_refuse(e, "a userdata whose __moonloop does not return \"module:function\"", NULL);
  put_tag(e, MADE);
  put_name(e, maker);
  uint32_t count = (uint32_t)(last - maker), step = e->depth;
  memcpy(take(e, 4), &count, 4);
  enter(e, ARGUMENT, 0);
  for (int i = maker + 1; i <= last; i++) {
    e->s->path[step].index = i - maker;
    anchor(e, i);
    put_value(e, i);
  }
  e->depth--;
  lml_scratch_find(e->s, p)->number = ++e->numbered;
  lua_settop(L, maker);
}

static void put_userdata(encoder *e, int u) {
  lua_State *L = e->L;
  if (put_known(e, lua_topointer(L, u))) return;
  if (!lml_scratch_expect_object(e->s)) no_memory(e);
  mli_object *object = lml_handle_export(L, u);
  if (object && e->s->far) {
    const char *name = (object->type->as ? object->type->as : object->type)->name;
    mli_object_release(object);
    lml_refuse(e, "a handle (%s)", name);
  }
  if (object) {
    put_tagged(e, HANDLE, object_index(e, object));
    return;
  }
  if (put_named(e, u, false)) return;
  if (luaL_getmetafield(L, u, "__moonloop") != LUA_TNIL) { /* maker */
    put_made(e, u);
    lua_pop(L, 1);
    return;
  }
  if (put_named(e, u, true)) return;
  if (luaL_testudata(L, u, LUA_FILEHANDLE)) lml_refuse(e, "an open file (a userdata)", NULL);
  if (luaL_getmetafield(L, u, "__name") == LUA_TSTRING)
    lml_refuse(e, "a userdata (%s)", lua_tostring(L, -1));
  lml_refuse(e, "a userdata", NULL);
}

static void put_value(encoder *e, int i) {
  if (write_plain(e->s, e->L, i)) return;
  switch (lua_type(e->L, i)) {
  case LUA_TSTRING: put_string(e, i); break;
  case LUA_TTABLE: put_table(e, i); break;
  case LUA_TFUNCTION: put_function(e, i); break;
  case LUA_TUSERDATA: put_userdata(e, i); break;
  case LUA_TTHREAD: lml_refuse(e, "a coroutine", NULL); break;
  case LUA_TLIGHTUSERDATA:
    if (e->s->far && lua_touserdata(e->L, i)) lml_refuse(e, "a light userdata", NULL);
    no_memory(e);
    break;
  default: no_memory(e);
  }
}

/* Runs protected: puts the values from index 2 up. */
static int put_rest(lua_State *L) {
  encoder *e = lua_touserdata(L, 1);
  int last = lua_gettop(L);
  lua_pushnil(L);
  e->anchors = last + 1;
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  e->globals = lua_topointer(L, -1);
  luaL_getmetatable(L, LML_ERROR);
  e->errors = lua_topointer(L, -1);
  lua_pop(L, 2);
  enter(e, ROOT, 0);
  for (int i = 2; i <= last; i++) {
    e->s->path[0].index = e->done++;
    put_value(e, i);
  }
  return 0;
}

/* ---- the message ---- */

/* Makes it of what is in the scratch; NULL: no memory. */
static mli_message *finish(encoder *e, uint32_t count) {
  lml_scratch *s = e->s;
  s->bytes[0] = e->flags;
  memcpy(s->bytes + 1, &count, 4);
  uint32_t objects = s->count;
  s->count = 0; /* the message has them now */
  if (mli_likely(s->size < ADOPTED)) return mli_message_new(s->bytes, s->size, s->objects, objects);
  unsigned char *bytes = s->bytes;
  if (s->room - s->size > s->size / 8 && (bytes = realloc(s->bytes, s->size)) == NULL)
    bytes = s->bytes;
  s->bytes = NULL;
  s->room = 0;
  return mli_message_adopt(bytes, s->size, s->objects, objects);
}

mli_message *lml_encode(lua_State *L, int first, int n, lml_cargo cargo) {
  lml_crossing *c = lml_crossing_of(L);
  if (!lua_checkstack(L, 4)) luaL_error(L, "no room to send values");
  encoder e = { .L = L, .c = c, .s = take_scratch(L, c), .cargo = cargo & (LML_FAR - 1) };
  e.s->far = (cargo & LML_FAR) != 0;
  if (!lml_scratch_take(e.s, HEADER_SIZE)) {
    give_back(c, e.s);
    no_memory(&e);
  }
  first = lua_absindex(L, first);
  /* What can raise runs protected, so that the scratch always comes back. What
  ** most messages consist of cannot. */
  while (e.done < n && (write_plain(e.s, L, first + e.done) ||
                        (lua_isfunction(L, first + e.done) && write_shared(&e, first + e.done))))
    e.done++;
  if (e.done < n) {
    bool room = lua_checkstack(L, n - e.done + 2);
    if (room) {
      lua_pushcfunction(L, put_rest);
      lua_pushlightuserdata(L, &e);
      for (int i = e.done; i < n; i++) lua_pushvalue(L, first + i);
    }
    if (!room || lua_pcall(L, n - e.done + 1, 0, 0) != LUA_OK) {
      give_back(c, e.s);
      if (!room) luaL_error(L, "too many values to send");
      lua_error(L);
    }
  }
  mli_message *message = finish(&e, (uint32_t)n);
  give_back(c, e.s);
  if (!message) no_memory(&e);
  return message;
}

static int encode_protected(lua_State *L) {
  mli_message **out = lua_touserdata(L, 1);
  int n = lua_gettop(L) - 2;
  *out = lml_encode(L, 3, n, (lml_cargo)lua_tointeger(L, 2));
  return 0;
}

static mli_message *encode_outcome(lua_State *L, int n, bool *failed, int far) {
  mli_message *out = NULL;
  for (int tries = 0; tries < 3; tries++) {
    lua_pushcfunction(L, encode_protected);
    lua_pushlightuserdata(L, &out);
    lua_pushinteger(L, (*failed ? LML_ERROR_VALUE : LML_RESULTS) | far);
    lua_rotate(L, -n - 3, 3);
    if (lua_pcall(L, n + 2, 0, 0) == LUA_OK) return out;
    *failed = true;
    n = 1;
  }
  lua_pop(L, 1);
  return NULL;
}

mli_message *lml_encode_outcome(lua_State *L, int n, bool *failed) {
  return encode_outcome(L, n, failed, 0);
}

mli_message *lml_encode_far_outcome(lua_State *L, int n, bool *failed) {
  return encode_outcome(L, n, failed, LML_FAR);
}
