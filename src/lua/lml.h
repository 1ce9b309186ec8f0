/*
** lml.h: what the binding files share: the per-state record, errors, handles,
** and waiting. A lua_State belongs to one thread at a time, and so does all
** that is declared here unless it says otherwise.
*/
#ifndef LML_H
#define LML_H

#include <lauxlib.h>
#include <lua.h>
#include "core/future.h"
#include "core/op.h"

#if LUA_VERSION_NUM != 504
#error "moonloop is for Lua 5.4"
#endif

typedef struct lml_state lml_state;

/* The record of this state; raises if moonloop was never opened in it. Fast
** where the function was registered with `lml_setfuncs`: its first upvalue. */
lml_state *lml_state_of(lua_State *L);
#define lml_upstate(L) ((lml_state *)lua_touserdata((L), lua_upvalueindex(1)))
/* luaL_setfuncs with the state record as the first upvalue of each function. */
void lml_setfuncs(lua_State *L, const luaL_Reg *functions);

/* ---- errors (error.c) ---- */

#define LML_ERROR "moonloop.error" /* the metatable of error values, in the registry */

/* Pushes an error value: a table with `code` and `message`, and a __tostring
** that gives the message. The format is that of lua_pushfstring. */
void lml_error_push(lua_State *L, const char *code, const char *format, ...);
/* Pushes nil and an error value; returns 2. */
int lml_fail(lua_State *L, const char *code, const char *format, ...);
/* Raises an error value. */
int lml_raise(lua_State *L, const char *code, const char *format, ...);
/* Pushes nil and the error of an ended operation; returns 2. */
int lml_fail_op(lua_State *L, const mli_op *op);

/* Raises a plain error at the line outside of moonloop that called: misuse. */
int lml_misuse(lua_State *L, const char *format, ...);

/* As luaL_argerror and luaL_typeerror. Where it was a function of lua/moonloop that passed the
** argument on, the error has the line that called that, and no number: it may be another. */
int lml_argerror(lua_State *L, int arg, const char *what);
int lml_typeerror(lua_State *L, int arg, const char *expected);

/* ---- arguments (error.c) ---- */

/* The argument as a message shows it. */
const char *lml_show(lua_State *L, int arg);
/* A whole number at `arg`, `least` or more; else misuse: "Semaphore: number of permits: ..." */
uint64_t lml_check_whole(lua_State *L, int arg, lua_Integer least, const char *what);
/* Raises unless the argument is a function or has a metamethod `__call`. */
void lml_check_callable(lua_State *L, int arg);
/* The optional timeout at `arg`, in seconds, as an absolute deadline: nil or
** none is MLI_FOREVER, 0 has passed. Raises for another type, NaN, negative. */
uint64_t lml_check_deadline(lua_State *L, int arg);
/* The same for a number on top of the stack that came from an option. */
uint64_t lml_option_deadline(lua_State *L, int index, const char *option);
/* A number of seconds that was checked, in ns: nil or none is MLI_FOREVER. */
uint64_t lml_option_span(lua_State *L, int index);

/* ---- handles (handle.c): userdata that refer to counted objects ---- */

/* A handle's memory begins with this. */
typedef struct lml_handle {
  mli_object *object; /* holds a reference; NULL once closed or not made yet */
} lml_handle;

/* Declares in this state that objects of `type` are shown as userdata with the
** metatable on top of the stack (left there). Handles of declared types cross
** states by reference, and one object has at most one handle in a state once it
** has crossed, so that `==` and table keys work. */
void lml_handle_declare(lua_State *L, const mli_type *type);
/* Pushes a new, empty handle of a declared type: set its object at once. */
lml_handle *lml_handle_new(lua_State *L, const mli_type *type);
/* Pushes the handle of `object` in this state, making it if need be, and takes
** a reference of its own. */
void lml_handle_push(lua_State *L, mli_object *object);
/* The object of the handle at `index` or NULL: another type. Borrowed. */
mli_object *lml_handle_test(lua_State *L, int index, const mli_type *type);
/* Raises unless the argument is a handle of the type: "future expected, got nil". */
mli_object *lml_handle_check(lua_State *L, int arg, const mli_type *type);

/* Metamethods of a handle that owns nothing but its reference, which may be gone before, and
** of one that stands for its object. */
int lml_handle_gc(lua_State *L);
int lml_handle_eq(lua_State *L);
/* For crossing: if the value at `index` is a handle, a new reference to what
** crosses for it; NULL if it is none of ours. Takes care of local futures. */
mli_object *lml_handle_export(lua_State *L, int index);

/* ---- waiting (await.c) ---- */

/* The loop on which I/O that is begun here runs: the running job's, else one of
** the default executor's (which is made on first use; may raise). Borrowed. */
mli_loop *lml_io_loop(lua_State *L);

/* Pushes a box that owns an operation: fill it at once, release it with
** lml_op_drop or leave it to the collector. */
mli_op **lml_op_box(lua_State *L);
void lml_op_drop(mli_op **box);

/* Begins `op` and waits for its end, in a job by yielding, elsewhere by blocking
** the thread (raises on a loop's thread outside a job, and where Lua cannot
** yield, before anything is begun). `op` is owned by a box on this function's
** stack. When it has ended, calls `done(L, LUA_YIELD, (lua_KContext)op)` with the
** stack as it is now, and returns what that returns: write
** `return lml_await_op(L, op, deadline, done);`. A timeout of the wait or the
** operation's own failure is in op->status and op->code; the cancelling of the
** waiter, and Ctrl-C, raise and `done` is not called. */
int lml_await_op(lua_State *L, mli_op *op, uint64_t deadline, lua_KFunction done);

#endif
