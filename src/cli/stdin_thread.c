/* stdin_thread.c: waiting for stdin by select, which knows terminals everywhere. */
#include "stdin.h"

#include <errno.h>
#include <sys/select.h>
#include <unistd.h>
#include "core/system.h"

static void wait_for_it(uv_work_t *work) {
  const cli_stdin *input = work->data;
  fd_set set;
  int n;
  do {
    FD_ZERO(&set);
    FD_SET(STDIN_FILENO, &set);
    FD_SET(input->stop[0], &set);
    n = select(input->stop[0] + 1, &set, NULL, NULL, NULL);
  } while (n < 0 && errno == EINTR); /* of another error, reading tells */
}

static void on_done(uv_work_t *work, int status) {
  cli_stdin *input = work->data;
  (void)status;
  close(input->stop[0]);
  close(input->stop[1]);
  input->ended(input);
}

int cli_stdin_wait(cli_stdin *input, uv_loop_t *uv, void (*ended)(cli_stdin *input)) {
  input->ended = ended;
  if (mli_pipe(input->stop) != 0) return -errno;
  input->work.data = input;
  int err = input->stop[0] < FD_SETSIZE ? uv_queue_work(uv, &input->work, wait_for_it, on_done)
                                        : UV_EMFILE;
  if (err) {
    close(input->stop[0]);
    close(input->stop[1]);
  }
  return err;
}

void cli_stdin_stop(cli_stdin *input) {
  ssize_t r;
  do r = write(input->stop[1], "", 1);
  while (r < 0 && errno == EINTR);
}
