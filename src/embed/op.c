/*
** op.c: C functions that wait: an operation of the core whose beginning, cancelling and end
** are the C program's.
**
**   OPEN --[ml_op_complete, ml_op_fail]--> CLAIMED --> DONE   the end is on its way to the loop
**     \____[a cancel without hook, the loop's end]--> SHUT  what is completed later is dropped
**
** P1  OPEN is left once; who leaves it ends the core's operation, on the loop.
** P2  The core holds a reference of the handle: either may be let go of first.
** P3  An operation that is begun is in its loop's list, so that the loop's end ends it.
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "embed.h"

enum { OPEN, CLAIMED, DONE, SHUT };

struct ml_op {
  mle_handle handle;
  mli_op core;
  ml_op_class class; /* [I] */
  mli_op_class core_class;
  void *user;        /* [I] */
  atomic_uint state; /* [A] */
  atomic_bool awaited;
  mli_node end_node;
  ml_values *results;  /* of who left OPEN; read once ended */
  bool failed;         /* likewise, with code and message */
  char code[32];       /* likewise */
  char *message;       /* likewise */
  ml_op *next, **link; /* [L] in the list */
};

static ml_op *op_of(mli_op *core) { return mli_container(core, ml_op, core); }

/* ---- counting ---- */

ml_op *ml_op_retain(ml_op *op) {
  if (op && mle_check(op, MLE_OP, "ml_op_retain")) mle_retain(op);
  return op;
}

void ml_op_release(ml_op *op) {
  if (!op || !mle_check(op, MLE_OP, "ml_op_release") || !mle_release(op)) return;
  if (op->class.free) op->class.free(op->user);
  ml_values_free(op->results);
  free(op->message);
  mle_free(op);
}

static void core_destroy(mli_object *object) {
  mli_op *core = mli_container(object, mli_op, object);
  mli_op_fini(core);
  ml_op_release(op_of(core));
}

static const mli_type op_type = { "op", core_destroy, NULL };

/* ---- on the loop ---- */

static const char list_key; /* the loop's service with what has begun and not ended */

typedef struct op_list {
  mli_service service;
  ml_op *first;
} op_list;

static void unlist(ml_op *op) {
  if (!op->link) return;
  *op->link = op->next;
  if (op->next) op->next->link = op->link;
  op->link = NULL;
}

static void end(ml_op *op) {
  unlist(op);
  if (!op->failed) {
    mli_op_end(&op->core, ML_OK, NULL, NULL);
    return;
  }
  ml_status status = strcmp(op->code, "cancelled") == 0 ? ML_CANCELLED : ML_FAILED;
  char *message = op->message;
  op->message = NULL;
  mli_op_end(&op->core, status, op->code, message);
}

/* Ends it for a reason of ours, unless it is completed. */
static bool shut(ml_op *op, const char *code) {
  unsigned open = OPEN;
  if (!atomic_compare_exchange_strong(&op->state, &open, SHUT)) return false;
  op->failed = true;
  strcpy(op->code, code);
  return true;
}

/* The loop ends: nothing is delivered on it any more. */
static void close_list(mli_service *service, mli_loop *loop) {
  op_list *list = mli_container(service, op_list, service);
  (void)loop;
  while (list->first) {
    ml_op *op = list->first;
    if (op->class.cancel && atomic_load(&op->state) == OPEN) op->class.cancel(op, op->user);
    if (list->first != op) continue; /* the hook completed it */
    shut(op, "closed");
    unlist(op);
    mli_op_end(&op->core, ML_CLOSED, "closed", NULL);
  }
  free(list);
}

static bool enlist(ml_op *op) {
  mli_loop *loop = op->core.loop;
  mli_service *service = mli_loop_service(loop, &list_key);
  op_list *list = service ? mli_container(service, op_list, service) : calloc(1, sizeof *list);
  if (!list) return false;
  if (!service) {
    list->service.key = &list_key;
    list->service.close = close_list;
    mli_loop_add_service(loop, &list->service);
  }
  op->next = list->first;
  op->link = &list->first;
  if (op->next) op->next->link = &op->next;
  list->first = op;
  return true;
}

static void start(mli_op *core) {
  ml_op *op = op_of(core);
  if (atomic_load(&op->state) == DONE) { /* before it began */
    end(op);
  } else if (!enlist(op)) {
    if (shut(op, "memory")) end(op);
  } else if (atomic_load(&op->state) == OPEN) {
    op->class.begin(op, &core->loop->uv, op->user);
  }
}

static void on_abort(mli_op *core) {
  ml_op *op = op_of(core);
  if (op->class.cancel)
    op->class.cancel(op, op->user);
  else if (shut(op, "cancelled"))
    end(op);
}

/* ---- completing: any thread ---- */

static void on_end(mli_node *node, mli_loop *loop) {
  ml_op *op = mli_container(node, ml_op, end_node);
  (void)loop;
  if (op->core.begun && !op->core.ended) end(op); /* else its start sees to it */
  mli_release(&op->core);
}

/* The operation was left OPEN -> DONE by this thread. */
static void deliver(ml_op *op) {
  mli_loop *loop = op->core.loop;
  if (mli_loop_self() == loop) {
    if (op->core.begun && !op->core.ended) end(op);
    return;
  }
  mli_object_retain(&op->core.object);
  op->end_node.run = on_end;
  if (!mli_loop_post(loop, &op->end_node)) mli_release(&op->core); /* its end ends it */
}

/* Makes the caller the one that completes it. */
static ml_status claim(ml_op *op, const char *function) {
  unsigned state = OPEN;
  if (!mle_check(op, MLE_OP, function)) return ML_MISUSE;
  if (atomic_compare_exchange_strong(&op->state, &state, CLAIMED)) return ML_OK;
  return state == SHUT ? mle_fail(ML_CLOSED, "%s: nobody waits for it any more", function)
                       : mle_fail(ML_MISUSE, "%s: it was completed before", function);
}

ml_status ml_op_complete(ml_op *op, ml_values *results) {
  ml_status bad = results ? ml_values_status(results) : ML_OK;
  if (bad != ML_OK) {
    ml_values_free(results);
    ml_status status = ml_op_fail(op, ml_status_name(bad), ml_last_error());
    return status == ML_OK ? bad : status;
  }
  ml_status status = claim(op, "ml_op_complete");
  if (status != ML_OK) {
    ml_values_free(results);
    return status;
  }
  op->results = results;
  atomic_store(&op->state, DONE);
  deliver(op);
  return ML_OK;
}

ml_status ml_op_fail(ml_op *op, const char *code, const char *message) {
  ml_status status = claim(op, "ml_op_fail");
  if (status != ML_OK) return status;
  op->failed = true;
  snprintf(op->code, sizeof op->code, "%s", code ? code : "failed");
  op->message = message ? strdup(message) : NULL;
  atomic_store(&op->state, DONE);
  deliver(op);
  return ML_OK;
}

/* ---- Lua: making one, waiting for it ---- */

static int push_box(lua_State *L) {
  lml_op_box(L);
  return 1;
}

static int find_loop(lua_State *L) {
  mli_loop **out = lua_touserdata(L, 1);
  *out = lml_io_loop(L);
  return 0;
}

/* Pushes a box and gives its place, and a loop; else pushes an error value. */
static bool prepare(lua_State *L, mli_op ***box, mli_loop **loop) {
  if (!lua_checkstack(L, 4)) {
    lua_pushnil(L); /* there is room for one */
    return false;
  }
  lua_pushcfunction(L, find_loop);
  lua_pushlightuserdata(L, loop);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) return false;
  lua_pushcfunction(L, push_box);
  if (lua_pcall(L, 0, 1, 0) != LUA_OK) return false;
  *box = lua_touserdata(L, -1);
  return true;
}

static const mli_op_class core_class = { "operation", start, on_abort };

/* Of this ABI or an older one. */
static bool is_class(const ml_op_class *class) {
  return class && class->size >= MLE_SIZE_TO(ml_op_class, free) && class->size <= sizeof *class;
}

ml_op *ml_op_new(lua_State *L, const ml_op_class *class, void *user) {
  mli_op **box;
  mli_loop *loop;
  bool fits = is_class(class) && class->begin;
  ml_op *op = fits && prepare(L, &box, &loop) ? calloc(1, sizeof *op) : NULL;
  if (!op) {
    if (is_class(class) && class->free) class->free(user);
    if (!fits) luaL_error(L, "ml_op_new: a class with its size and `begin` expected");
    if (lua_isuserdata(L, -1)) luaL_error(L, "not enough memory");
    lua_error(L);
    return NULL;
  }
  mle_init(&op->handle, MLE_OP); /* the core's reference */
  memcpy(&op->class, class, class->size);
  op->user = user;
  op->core_class = core_class;
  if (class->name) op->core_class.name = class->name;
  mli_op_init(&op->core, &op_type, &op->core_class, loop);
  *box = &op->core;
  return op;
}

static void push_value(lua_State *L, const ml_value *value) {
  size_t size;
  const char *bytes;
  luaL_checkstack(L, 4, "too many levels of tables");
  switch (ml_value_type(value)) {
  case ML_BOOLEAN: lua_pushboolean(L, ml_value_boolean(value)); break;
  case ML_INTEGER: lua_pushinteger(L, ml_value_integer(value)); break;
  case ML_NUMBER: lua_pushnumber(L, ml_value_number(value)); break;
  case ML_STRING:
    bytes = ml_value_string(value, &size);
    lua_pushlstring(L, bytes, size);
    break;
  case ML_POINTER: lua_pushlightuserdata(L, ml_value_pointer(value)); break;
  case ML_TABLE: {
    lua_newtable(L);
    const ml_value *key, *item;
    for (size_t i = 0; (item = ml_value_item(value, i)); i++) {
      push_value(L, item);
      lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    for (size_t i = 0; (item = ml_value_pair(value, i, &key)); i++) {
      push_value(L, key);
      push_value(L, item);
      lua_rawset(L, -3);
    }
    break;
  }
  default: lua_pushnil(L); break;
  }
}

static int awaited(lua_State *L, int status, lua_KContext ctx) {
  mli_op *core = (mli_op *)ctx;
  ml_op *op = op_of(core);
  (void)status;
  if (core->status != ML_OK) return lml_fail_op(L, core);
  if (op->class.push) return op->class.push(op, L, op->user);
  size_t n = ml_values_count(op->results);
  luaL_checkstack(L, (int)n, "too many results");
  for (size_t i = 0; i < n; i++) push_value(L, ml_values_at(op->results, i));
  return (int)n;
}

int ml_await(lua_State *L, ml_op *op, uint64_t deadline) {
  if (!mle_check(op, MLE_OP, "ml_await")) return luaL_error(L, "%s", ml_last_error());
  if (atomic_exchange(&op->awaited, true))
    return luaL_error(L, "ml_await: this operation was waited for before");
  return lml_await_op(L, &op->core, mli_clock_of(deadline), awaited);
}
