/* stdin_epoll.c: waiting for stdin by epoll. */
#include "stdin.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

static void on_closed(uv_handle_t *handle) {
  cli_stdin *input = handle->data;
  close(input->epoll);
  input->ended(input);
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

int cli_stdin_wait(cli_stdin *input, uv_loop_t *uv, void (*ended)(cli_stdin *input)) {
  input->ended = ended;
  input->epoll = watch_stdin();
  int err = input->epoll < 0 ? input->epoll : uv_poll_init(uv, &input->poll, input->epoll);
  if (err) {
    if (input->epoll >= 0) close(input->epoll);
    return err;
  }
  input->poll.data = input;
  if (uv_poll_start(&input->poll, UV_READABLE, on_readable) != 0)
    uv_close((uv_handle_t *)&input->poll, on_closed);
  return 0;
}

void cli_stdin_stop(cli_stdin *input) {
  if (!uv_is_closing((uv_handle_t *)&input->poll)) uv_close((uv_handle_t *)&input->poll, on_closed);
}
