/*
** bytecode.c: dumps, and how closures are made of them without loading each time.
**
** Lua has no call that clones a closure. But a function that returns a function
** gives a fresh closure, with fresh upvalues, whenever it is called. So the dump
** is spliced into the dump of such a function, the factory, which is compiled
** from text once:
**
**     local u1, u2 return function() return u1, u2 end
**                         |__________________________|
**                         replaced by the dump, whose upvalues then are u1 and u2
**
** The layout is that of Lua 5.4's dumps, 5.4.0 to 5.4.7. It is checked while it is
** read, by a self-test when the first state opens, and by looking at the first
** closure of each factory; where any of that fails, code is loaded each time.
*/
#include "bytecode.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>
#include "lml.h"

#define CACHE_COUNT 512               /* entries of one generation */
#define CACHE_BYTES ((size_t)8 << 20) /* bytes of dumps in one generation */
#define MOST_SPLICED 190              /* upvalues: a function has at most 200 locals */
#define MOST_NESTED 200               /* functions in functions: Lua's own limit */

/* ---- the layout of a dump ---- */

#define HEADER_SIZE (4 + 1 + 1 + 6 + 3 + sizeof(lua_Integer) + sizeof(lua_Number))
#define INSTRUCTION_SIZE 4
#define OP_SETUPVAL 10 /* UpValue[B] := R[A], B in bits 16 to 23 */

typedef struct reader {
  const unsigned char *p, *end;
  bool bad; /* it was not what it should be; all that is read then is 0 */
} reader;

/* What is of interest in one function of a dump. */
typedef struct layout {
  const unsigned char *upvalues; /* three bytes each: in the stack?, index, kind */
  size_t count;                  /* of upvalues */
  const unsigned char *inner;    /* the first function inside it */
  const unsigned char *inner_end;
  const unsigned char *end;
  bool assigns; /* it or a function inside it assigns to an upvalue of it */
} layout;

static const unsigned char *take(reader *r, size_t n) {
  if (r->bad || n > (size_t)(r->end - r->p)) {
    r->bad = true;
    return NULL;
  }
  r->p += n;
  return r->p - n;
}

static unsigned take_byte(reader *r) {
  const unsigned char *p = take(r, 1);
  return p ? *p : 0;
}

/* Seven bits a byte, high ones first; the last has its top bit set. */
static size_t take_size(reader *r) {
  size_t n = 0;
  for (;;) {
    unsigned byte = take_byte(r);
    if (r->bad || n > SIZE_MAX >> 8) {
      r->bad = true;
      return 0;
    }
    n = n << 7 | (byte & 0x7f);
    if (byte & 0x80) return n;
  }
}

/* A count of things that take at least `each` bytes. */
static size_t take_count(reader *r, size_t each) {
  size_t n = take_size(r);
  if (n <= (size_t)(r->end - r->p) / each) return n;
  r->bad = true;
  return 0;
}

static void skip_string(reader *r) {
  size_t n = take_size(r); /* 0: none, else its length + 1 */
  if (n) take(r, n - 1);
}

static void skip_constants(reader *r) {
  for (size_t n = take_count(r, 1); n && !r->bad; n--) {
    switch (take_byte(r)) {
    case LUA_TNIL:
    case LUA_TBOOLEAN:
    case LUA_TBOOLEAN | 16: break;
    case LUA_TNUMBER: take(r, sizeof(lua_Integer)); break;
    case LUA_TNUMBER | 16: take(r, sizeof(lua_Number)); break;
    case LUA_TSTRING:
    case LUA_TSTRING | 16: skip_string(r); break;
    default: r->bad = true;
    }
  }
}

static void skip_debug(reader *r) {
  take(r, take_count(r, 1)); /* lines of instructions */
  for (size_t n = take_count(r, 2); n && !r->bad; n--) {
    take_size(r);
    take_size(r);
  }
  for (size_t n = take_count(r, 3); n && !r->bad; n--) { /* locals */
    skip_string(r);
    take_size(r);
    take_size(r);
  }
  for (size_t n = take_count(r, 1); n && !r->bad; n--) skip_string(r); /* upvalues */
}

static bool assigns(const unsigned char *code, size_t instructions, const bool *ours) {
  for (; instructions; instructions--, code += INSTRUCTION_SIZE) {
    uint32_t i;
    memcpy(&i, code, sizeof i);
    if ((i & 0x7f) == OP_SETUPVAL && ours[i >> 16 & 0xff]) return true;
  }
  return false;
}

/* Reads one function. `ours` says which upvalues of the function around it are
** upvalues of the outermost too; NULL: this is the outermost. */
static void read_function(reader *r, layout *out, const bool *ours, int depth) {
  bool mine[256] = { false };
  skip_string(r); /* source */
  take_size(r);   /* first and last line */
  take_size(r);
  take(r, 3); /* parameters, is it vararg, stack size */
  size_t instructions = take_count(r, INSTRUCTION_SIZE);
  const unsigned char *code = take(r, instructions * INSTRUCTION_SIZE);
  skip_constants(r);
  size_t upvalues = take_count(r, 3);
  const unsigned char *described = take(r, upvalues * 3);
  if (r->bad || upvalues > 255 || depth > MOST_NESTED) {
    r->bad = true;
    return;
  }
  for (size_t i = 0; i < upvalues; i++)
    mine[i] = ours ? !described[3 * i] && ours[described[3 * i + 1]] : true;
  if (assigns(code, instructions, mine)) out->assigns = true;
  size_t functions = take_count(r, 1);
  const unsigned char *inner = r->p, *inner_end = r->p;
  for (size_t i = 0; i < functions && !r->bad; i++) {
    read_function(r, out, mine, depth + 1);
    if (i == 0) inner_end = r->p;
  }
  skip_debug(r);
  if (ours) return;
  out->upvalues = described;
  out->count = upvalues;
  out->inner = inner;
  out->inner_end = inner_end;
  out->end = r->p;
}

/* Reads the function at the reader. */
static bool read_layout(reader *r, layout *out) {
  memset(out, 0, sizeof *out);
  read_function(r, out, NULL, 0);
  return !r->bad;
}

/* A reader behind the header of a whole dump, which is bad if it is none. */
static reader read_header(const void *bytes, size_t size) {
  static const unsigned char expected[] = "\x1bLua\x54\0\x19\x93\r\n\x1a\n\x04";
  reader r = { bytes, (const unsigned char *)bytes + size, false };
  const unsigned char *p = take(&r, HEADER_SIZE + 1); /* and the count of upvalues */
  if (!p || memcmp(p, expected, sizeof expected - 1) != 0 || p[13] != sizeof(lua_Integer) ||
      p[14] != sizeof(lua_Number))
    r.bad = true;
  return r;
}

/* ---- factories ---- */

typedef struct dump {
  unsigned char *bytes; /* a userdata's memory */
  size_t size, room;
} dump;

static int measure(lua_State *L, const void *p, size_t n, void *user) {
  (void)L, (void)p;
  ((dump *)user)->room += n;
  return 0;
}

static int copy(lua_State *L, const void *p, size_t n, void *user) {
  dump *d = user;
  (void)L;
  if (n > d->room - d->size) return 1;
  memcpy(d->bytes + d->size, p, n);
  d->size += n;
  return 0;
}

/* Pushes the text of a function that makes closures of `upvalues` upvalues. */
static void push_text(lua_State *L, unsigned upvalues) {
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (int time = 0; time < 2; time++) {
    luaL_addstring(&b, time == 0 ? "local " : " return function() return ");
    for (unsigned i = 1; i <= upvalues; i++) {
      char name[16];
      snprintf(name, sizeof name, i < upvalues ? "u%u," : "u%u", i);
      luaL_addstring(&b, name);
    }
  }
  luaL_addstring(&b, " end");
  luaL_pushresult(&b);
}

/* Pushes a userdata that holds the dump of the factory's frame. */
static dump push_frame(lua_State *L, unsigned upvalues) {
  dump d = { NULL, 0, 0 };
  size_t size;
  push_text(L, upvalues); /* text */
  const char *text = lua_tolstring(L, -1, &size);
  if (luaL_loadbufferx(L, text, size, "=?", "t") != LUA_OK) lua_error(L);
  lua_remove(L, -2); /* function */
  lua_dump(L, measure, &d, 1);
  d.bytes = lua_newuserdatauv(L, d.room ? d.room : 1, 0); /* function bytes */
  lua_insert(L, -2);                                      /* bytes function */
  lua_dump(L, copy, &d, 1);
  lua_pop(L, 1); /* bytes */
  return d;
}

/* Whether the function on top has these upvalues, each a cell of its own. */
static bool has_upvalues(lua_State *L, unsigned count) {
  if (lua_type(L, -1) != LUA_TFUNCTION || lua_iscfunction(L, -1)) return false;
  for (unsigned i = 1; i <= count; i++) {
    void *id = lua_upvalueid(L, -1, (int)i);
    if (!id || (i > 1 && id == lua_upvalueid(L, -1, (int)i - 1))) return false;
  }
  return !lua_upvalueid(L, -1, (int)count + 1);
}

/* Pushes the factory of a dump, or pushes nothing and returns false. */
static bool push_factory(lua_State *L, const void *bytes, size_t size, unsigned upvalues) {
  int top = lua_gettop(L);
  layout outer, frame, function;
  reader r = read_header(bytes, size);
  const unsigned char *start = r.p;
  if (!read_layout(&r, &function) || r.p != r.end || function.count != upvalues) return false;

  dump d = push_frame(L, upvalues); /* frame */
  reader f = read_header(d.bytes, d.size);
  if (!read_layout(&f, &outer) || f.p != f.end) goto no;
  reader i = { outer.inner, outer.inner_end, f.bad };
  if (!read_layout(&i, &frame) || frame.end != outer.inner_end || frame.count != upvalues) goto no;

  luaL_Buffer b;
  luaL_buffinitsize(L, &b, d.size + size);
  luaL_addlstring(&b, (const char *)d.bytes, (size_t)(outer.inner - d.bytes));
  luaL_addlstring(&b, (const char *)start, (size_t)(function.upvalues - start));
  for (unsigned u = 0; u < upvalues; u++) { /* where it finds its upvalues: as in the frame */
    luaL_addchar(&b, (char)frame.upvalues[3 * u]);
    luaL_addchar(&b, (char)frame.upvalues[3 * u + 1]);
    luaL_addchar(&b, (char)function.upvalues[3 * u + 2]);
  }
  const unsigned char *rest = function.upvalues + (size_t)upvalues * 3;
  luaL_addlstring(&b, (const char *)rest, (size_t)(function.end - rest));
  luaL_addlstring(&b, (const char *)outer.inner_end, (size_t)(d.bytes + d.size - outer.inner_end));
  luaL_pushresult(&b); /* frame spliced */
  size_t length;
  const char *spliced = lua_tolstring(L, -1, &length);
  if (luaL_loadbufferx(L, spliced, length, "=?", "b") != LUA_OK) goto no;
  lua_replace(L, top + 1);
  lua_settop(L, top + 1); /* factory */
  lua_pushvalue(L, -1);
  lua_call(L, 0, 1); /* factory closure */
  if (!has_upvalues(L, upvalues)) goto no;
  lua_pop(L, 1); /* factory */
  return true;
no:
  lua_settop(L, top);
  return false;
}

/* Runs a closure of the factory on top with a value for each upvalue. */
static bool try_closure(lua_State *L, lua_Integer a, lua_Integer b) {
  lua_pushvalue(L, -1);
  lua_call(L, 0, 1); /* factory closure */
  lua_pushinteger(L, a);
  lua_setupvalue(L, -2, 1);
  lua_pushinteger(L, b);
  lua_setupvalue(L, -2, 2);
  for (int time = 1; time <= 2; time++) {
    lua_pushvalue(L, -1);
    lua_pushinteger(L, 5);
    lua_call(L, 1, 1); /* factory closure result */
    bool right = lua_tointeger(L, -1) == a + 5 * time + b;
    lua_pop(L, 1);
    if (!right) return false;
  }
  lua_pop(L, 1); /* factory */
  return true;
}

/* Splices a known function and tries two closures of it; looks for assignments
** where there are some and where there are none. */
static int self_test(lua_State *L) {
  static const char text[] =
    "local a, b = 1, 'x' return function(n) a = a + n return (function() return a + b end)() end";
  static const struct {
    const char *text;
    bool assigns;
  } chunks[] = {
    { "_ENV = {}", true },
    { "local function f() local function g() _ENV = nil end return g end", true },
    { "x = 1 local a local function f() a = print end", false },
  };
  if (luaL_loadbufferx(L, text, sizeof text - 1, "=?", "t") != LUA_OK) lua_error(L);
  lua_call(L, 0, 1); /* function */
  dump d = { NULL, 0, 0 };
  lua_dump(L, measure, &d, 0);
  d.bytes = lua_newuserdatauv(L, d.room, 0); /* function bytes */
  lua_pushvalue(L, -2);
  lua_dump(L, copy, &d, 0);
  bool right = push_factory(L, d.bytes, d.size, 2) && try_closure(L, 1, 2) && try_closure(L, 7, 9);
  for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
    layout out;
    dump c = { NULL, 0, 0 };
    if (luaL_loadstring(L, chunks[i].text) != LUA_OK) lua_error(L);
    lua_dump(L, measure, &c, 0);
    c.bytes = lua_newuserdatauv(L, c.room, 0);
    lua_pushvalue(L, -2);
    lua_dump(L, copy, &c, 0);
    reader r = read_header(c.bytes, c.size);
    right = right && read_layout(&r, &out) && out.assigns == chunks[i].assigns;
  }
  lua_pushboolean(L, right);
  return 1;
}

/* Whether dumps are what this file takes them for; the same in all states. */
static atomic_int understood; /* 0: not known yet, 1: yes, -1: no */

static void understand(lua_State *L) {
  if (atomic_load(&understood)) return;
  lua_pushcfunction(L, self_test);
  bool right = lua_pcall(L, 0, 1, 0) == LUA_OK && lua_toboolean(L, -1);
  lua_pop(L, 1);
  atomic_store(&understood, right ? 1 : -1);
}

/* ---- caches ---- */

static void cache_open(lua_State *L, lml_cache *cache) {
  lua_newtable(L);
  cache->young = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_newtable(L);
  cache->old = luaL_ref(L, LUA_REGISTRYINDEX);
  cache->count = 0;
  cache->bytes = 0;
}

/* Stores the value on top, which stays. */
static void cache_put(lua_State *L, lml_cache *cache, lua_Integer key, size_t size) {
  if (cache->count >= CACHE_COUNT || cache->bytes > CACHE_BYTES) {
    lua_newtable(L);
    lua_rawgeti(L, LUA_REGISTRYINDEX, cache->young);
    lua_rawseti(L, LUA_REGISTRYINDEX, cache->old);
    lua_rawseti(L, LUA_REGISTRYINDEX, cache->young);
    cache->count = 0;
    cache->bytes = 0;
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, cache->young); /* value young */
  lua_pushvalue(L, -2);
  lua_rawseti(L, -2, key);
  lua_pop(L, 1); /* value */
  cache->count++;
  cache->bytes += size;
}

/* Pushes the value and returns its type; nil: it is not there. */
static int cache_get(lua_State *L, lml_cache *cache, lua_Integer key, size_t size) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, cache->young);
  int type = lua_rawgeti(L, -1, key);
  lua_replace(L, -2);
  if (mli_likely(type != LUA_TNIL)) return type;
  lua_pop(L, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, cache->old);
  type = lua_rawgeti(L, -1, key);
  lua_replace(L, -2);
  if (type != LUA_TNIL) cache_put(L, cache, key, size);
  return type;
}

/* ---- the sending side ---- */

#define BOX "moonloop.code"

static void code_destroy(mli_object *object) { free(mli_container(object, lml_code, object)); }

const mli_type lml_code_type = { .name = "code", .destroy = code_destroy };

static int box_gc(lua_State *L) {
  lml_code **box = lua_touserdata(L, 1);
  if (*box) mli_release(*box);
  *box = NULL;
  return 0;
}

void lml_codes_open(lua_State *L, lml_codes *codes) {
  understand(L);
  if (luaL_newmetatable(L, BOX)) { /* mt */
    lua_pushcfunction(L, box_gc);
    lua_setfield(L, -2, "__gc");
  }
  lua_newtable(L); /* mt closures */
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "k");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  codes->closures = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pop(L, 1);
  cache_open(L, &codes->boxes);
  cache_open(L, &codes->loaded);
}

lml_code *lml_code_known(lua_State *L, lml_codes *codes, int index) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, codes->closures);
  lua_pushvalue(L, index);
  lua_rawget(L, -2);
  lml_code **box = lua_touserdata(L, -1);
  lua_pop(L, 2);
  return box ? *box : NULL;
}

/* Remembers the box on top for the closure at `index`; pops it. */
static void remember(lua_State *L, lml_codes *codes, int index) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, codes->closures); /* box closures */
  lua_pushvalue(L, index);
  lua_pushvalue(L, -3); /* box closures closure box */
  lua_rawset(L, -3);
  lua_pop(L, 2);
}

static uint64_t hash_bytes(const void *bytes, size_t size) {
  const unsigned char *p = bytes;
  uint64_t hash = size, word;
  for (; size >= sizeof word; p += sizeof word, size -= sizeof word) {
    memcpy(&word, p, sizeof word);
    hash = (hash ^ word) * UINT64_C(0x9E3779B97F4A7C15);
    hash ^= hash >> 32;
  }
  for (word = 0; size; size--) word = word << 8 | *p++;
  hash = (hash ^ word) * UINT64_C(0x9E3779B97F4A7C15);
  return hash ^ hash >> 29;
}

lml_code *lml_code_seen(lua_State *L, lml_codes *codes, int index, const void *bytes, size_t size) {
  lua_Integer key = (lua_Integer)hash_bytes(bytes, size);
  cache_get(L, &codes->boxes, key, size); /* box */
  lml_code **box = lua_touserdata(L, -1);
  if (!box || (*box)->size != size || memcmp((*box)->bytes, bytes, size) != 0) {
    lua_pop(L, 1);
    return NULL;
  }
  lml_code *code = *box;
  remember(L, codes, index);
  return code;
}

/* The code but for what its upvalues say. NULL: out of memory. */
static lml_code *code_make(const void *bytes, size_t size) {
  static atomic_uint_fast64_t last;
  lml_code *code = malloc(sizeof *code + size);
  if (!code) return NULL;
  mli_object_init(&code->object, &lml_code_type);
  code->id = atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1;
  code->hash = hash_bytes(bytes, size);
  code->size = size;
  memcpy(code->bytes, bytes, size);
  return code;
}

/* Whether the dump is understood, and what is in it. */
static bool look_into(const void *bytes, size_t size, layout *function) {
  reader r = read_header(bytes, size);
  return atomic_load(&understood) > 0 && read_layout(&r, function);
}

lml_code *lml_code_import(const void *bytes, size_t size, uint8_t upvalues, bool shared) {
  layout function;
  lml_code *code = code_make(bytes, size);
  if (!code) return NULL;
  code->upvalues = upvalues;
  code->shared = shared && upvalues <= 1;
  code->spliced = upvalues <= MOST_SPLICED && look_into(bytes, size, &function);
  return code;
}

lml_code *lml_code_new(lua_State *L, lml_codes *codes, int index, const void *bytes, size_t size) {
  lml_code **box = lua_newuserdatauv(L, sizeof *box, 0); /* box */
  *box = NULL;
  luaL_setmetatable(L, BOX);
  lml_code *code = code_make(bytes, size);
  if (!code) lml_raise(L, "memory", "out of memory");
  *box = code;
  int upvalues = 0;
  bool only_env = true;
  for (const char *name; (name = lua_getupvalue(L, index, upvalues + 1)); upvalues++) {
    if (strcmp(name, "_ENV") != 0) only_env = false;
    lua_pop(L, 1);
  }
  layout function;
  bool clear = look_into(bytes, size, &function);
  code->upvalues = (uint8_t)upvalues;
  code->shared = upvalues == 0 || (upvalues == 1 && only_env && clear && !function.assigns);
  code->spliced = clear && upvalues <= MOST_SPLICED;
  cache_put(L, &codes->boxes, (lua_Integer)code->hash, size);
  remember(L, codes, index);
  return code;
}

/* ---- the receiving side ---- */

static void load(lua_State *L, const lml_code *code) {
  if (luaL_loadbufferx(L, (const char *)code->bytes, code->size, "=?", "b") != LUA_OK) lua_error(L);
}

/* Pushes what the cache keeps for the code, after storing it there. */
static void load_once(lua_State *L, lml_codes *codes, const lml_code *code) {
  if (code->shared)
    load(L, code);
  else if (!code->spliced || !push_factory(L, code->bytes, code->size, code->upvalues))
    lua_pushboolean(L, 0);
  cache_put(L, &codes->loaded, (lua_Integer)code->id, code->size);
}

void lml_code_push(lua_State *L, lml_codes *codes, const lml_code *code) {
  int type = cache_get(L, &codes->loaded, (lua_Integer)code->id, code->size);
  if (mli_unlikely(type == LUA_TNIL)) {
    lua_pop(L, 1);
    load_once(L, codes, code);
  }
  if (code->shared) return;
  if (lua_isfunction(L, -1)) {
    lua_call(L, 0, 1);
  } else {
    lua_pop(L, 1);
    load(L, code);
  }
}
