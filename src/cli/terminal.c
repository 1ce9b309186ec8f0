/*
** terminal.c: waiting for stdin without stopping the loop.
**
** libuv makes what it polls non-blocking, and a terminal is shared with the shell and
** others: so it polls an epoll descriptor of ours, which has the terminal in it.
*/
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "cli/cli.h"

typedef struct input_op {
  mli_op op;
  uv_poll_t poll; /* while it is open it holds a reference */
  int epoll;
  bool aborted;
} input_op;

static mli_op *current; /* the wait that has begun, or NULL */
static bool stop;       /* the next one ends at once */

static void on_closed(uv_handle_t *handle) {
  input_op *input = handle->data;
  close(input->epoll);
  current = NULL;
  mli_op_end(&input->op, input->aborted ? ML_CANCELLED : ML_OK, NULL, NULL);
  mli_release(&input->op);
}

static void on_readable(uv_poll_t *poll, int status, int events) {
  (void)status, (void)events; /* of an error, reading tells */
  uv_close((uv_handle_t *)poll, on_closed);
}

/* An epoll descriptor with stdin in it, or a negative error. */
static int watch_stdin(void) {
  int fd = epoll_create1(EPOLL_CLOEXEC);
  if (fd < 0) return -errno;
  struct epoll_event event = { .events = EPOLLIN };
  if (epoll_ctl(fd, EPOLL_CTL_ADD, STDIN_FILENO, &event) == 0) return fd;
  int err = -errno;
  close(fd);
  return err;
}

static void start(mli_op *op) {
  input_op *input = mli_container(op, input_op, op);
  if (stop) {
    stop = false;
    mli_op_end(op, ML_CANCELLED, NULL, NULL);
    return;
  }
  input->epoll = watch_stdin();
  int err = input->epoll < 0 ? input->epoll
                             : uv_poll_init(&op->loop->uv, &input->poll, input->epoll);
  if (err) {
    if (input->epoll >= 0) close(input->epoll);
    mli_op_end_uv(op, err, "stdin");
    return;
  }
  current = op;
  input->poll.data = input;
  mli_object_retain(&op->object);
  if (uv_poll_start(&input->poll, UV_READABLE, on_readable) != 0)
    uv_close((uv_handle_t *)&input->poll, on_closed);
}

static void abort_input(mli_op *op) {
  input_op *input = mli_container(op, input_op, op);
  if (uv_is_closing((uv_handle_t *)&input->poll)) return;
  input->aborted = true;
  uv_close((uv_handle_t *)&input->poll, on_closed);
}

static void destroy(mli_object *object) {
  input_op *input = mli_container(object, input_op, op.object);
  mli_op_fini(&input->op);
  free(input);
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
  input_op *input = calloc(1, sizeof *input);
  if (!input) return luaL_error(L, "not enough memory");
  mli_op_init(&input->op, &input_type, &input_class, lml_io_loop(L));
  *box = &input->op;
  return lml_await_op(L, *box, MLI_FOREVER, ended);
}

void cli_stop_input(void) {
  if (current)
    mli_op_cancel(current);
  else
    stop = true;
}
