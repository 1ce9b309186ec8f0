/*
** embedded.c: the chunks of embedded modules. Each loop and worker has a state of its
** own and loads them: to compile all takes 3 ms, to load what the first state made of
** them 0.5. So the first keeps its dump, as long as the process lives.
*/
#include "embedded.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

typedef struct lml_dump {
  size_t size, room;
  char bytes[];
} dump;

static int grow(lua_State *L, const void *bytes, size_t size, void *user) {
  dump **d = user, *grown = *d;
  size_t used = grown ? grown->size : 0, room = grown ? grown->room : 0;
  (void)L;
  if (room - used < size) {
    while (room - used < size) room = room ? room * 2 : 4096;
    grown = realloc(grown, sizeof *grown + room);
    if (!grown) return 1;
    grown->room = room;
    *d = grown;
  }
  memcpy(grown->bytes + used, bytes, size);
  grown->size = used + size;
  return 0;
}

/* Keeps the dump of the function on top, unless another thread was first. */
static void keep(lua_State *L, struct lml_embedded *e) {
  dump *d = NULL, *none = NULL;
  if (lua_dump(L, grow, &d, 0) != 0 || !atomic_compare_exchange_strong(&e->dump, &none, d)) free(d);
}

void lml_embedded_load(lua_State *L, struct lml_embedded *e) {
  lua_pushfstring(L, "@moonloop/%s.lua", strcmp(e->name, "moonloop") == 0 ? "init" : e->name + 9);
  const char *name = lua_tostring(L, -1); /* name */
  const dump *d = atomic_load(&e->dump);
  if (d) {
    if (luaL_loadbufferx(L, d->bytes, d->size, name, "b") == LUA_OK) { /* name chunk */
      lua_remove(L, -2);
      return;
    }
    lua_pop(L, 1); /* made by another build of Lua in this process */
  }
  if (luaL_loadbufferx(L, e->source, e->size, name, "t") != LUA_OK) lua_error(L);
  if (!d) keep(L, e);
  lua_remove(L, -2); /* chunk */
}
