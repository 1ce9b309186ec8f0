/* terminal.c: the operation that waits for stdin. */
#include <stdlib.h>
#include "cli/cli.h"
#include "cli/stdin.h"

typedef struct input_op {
  mli_op op;
  cli_stdin input; /* while it waits it holds a reference */
  bool aborted;
} input_op;

static mli_op *current; /* the wait that has begun, or NULL */
static bool stop;       /* the next one ends at once */

static void on_ended(cli_stdin *input) {
  input_op *i = mli_container(input, input_op, input);
  current = NULL;
  mli_op_end(&i->op, i->aborted ? ML_CANCELLED : ML_OK, NULL, NULL);
  mli_release(&i->op);
}

static void start(mli_op *op) {
  input_op *i = mli_container(op, input_op, op);
  if (stop) {
    stop = false;
    mli_op_end(op, ML_CANCELLED, NULL, NULL);
    return;
  }
  int err = cli_stdin_wait(&i->input, &op->loop->uv, on_ended);
  if (err) {
    mli_op_end_uv(op, err, "stdin");
    return;
  }
  current = op;
  mli_object_retain(&op->object);
}

static void abort_input(mli_op *op) {
  input_op *i = mli_container(op, input_op, op);
  i->aborted = true;
  cli_stdin_stop(&i->input);
}

static void destroy(mli_object *object) {
  input_op *i = mli_container(object, input_op, op.object);
  mli_op_fini(&i->op);
  free(i);
}

static const mli_type input_type = { .name = "input", .destroy = destroy };
static const mli_op_class input_class = { "input", start, abort_input };

static int ended(lua_State *L, int status, lua_KContext ctx) {
  mli_op **box = lua_touserdata(L, -1);
  bool stopped = (*box)->status == ML_CANCELLED;
  lua_KFunction k = (lua_KFunction)lua_touserdata(L, -2);
  (void)status, (void)ctx;
  lml_op_drop(box);
  lua_pop(L, 2);
  return k(L, stopped, 0);
}

int cli_await_input(lua_State *L, lua_KFunction k) {
  lua_pushlightuserdata(L, (void *)k);
  mli_op **box = lml_op_box(L);
  input_op *i = calloc(1, sizeof *i);
  if (!i) return luaL_error(L, "not enough memory");
  mli_op_init(&i->op, &input_type, &input_class, lml_io_loop(L));
  *box = &i->op;
  return lml_await_op(L, *box, MLI_FOREVER, ended);
}

void cli_stop_input(void) {
  if (current)
    mli_op_cancel(current);
  else
    stop = true;
}
