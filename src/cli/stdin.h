/*
** stdin.h: one wait for stdin on a loop. libuv makes what it polls non-blocking, and a
** terminal is shared with the shell and others: so stdin_epoll.c has libuv poll an epoll
** descriptor of ours, which has the terminal in it; on systems without, stdin_thread.c has
** one of libuv's threads wait. CMake builds one of the two. Thread: the loop's only.
*/
#ifndef CLI_STDIN_H
#define CLI_STDIN_H

#include <stdbool.h>
#include <uv.h>

typedef struct cli_stdin cli_stdin;
struct cli_stdin {
  void (*ended)(cli_stdin *input); /* once: it is readable or has ended, or the wait was stopped */
  union {
    struct {
      uv_poll_t poll;
      int epoll;
    };
    struct {
      uv_work_t work;
      int stop[2]; /* a pipe */
    };
  };
};

/* Begins the wait: 0, or an error of libuv, and then `ended` is not called. */
int cli_stdin_wait(cli_stdin *input, uv_loop_t *uv, void (*ended)(cli_stdin *input));
/* It ends soon. Again, before it has ended: nothing more. */
void cli_stdin_stop(cli_stdin *input);

#endif
