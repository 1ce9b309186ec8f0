/* child.c: starting, signalling and reaping a child process. */
#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>
#include "system.h"

#define ABOVE 10 /* where descriptors lie that are to become 0 to 3 of the child */

/* Moves a descriptor out of the way of those that the child gets. */
static int lift(int *fd) {
  int lifted = fcntl(*fd, F_DUPFD_CLOEXEC, ABOVE);
  if (lifted < 0) return errno;
  close(*fd);
  *fd = lifted;
  return 0;
}

static void close_all(int *fds, int n) {
  for (int i = 0; i < n; i++)
    if (fds[i] >= 0) close(fds[i]);
}

/* The descriptors: ours first, then the child's, of the socket and two pipes. */
enum { OUR_SOCKET, OUR_OUT, OUR_ERR, ITS_SOCKET, ITS_OUT, ITS_ERR, DESCRIPTORS };

static int open_pipes(int *fds, bool capture) {
  int pair[2], err;
  if (mli_socket_pair(pair) != 0) return errno;
  fds[OUR_SOCKET] = pair[0];
  fds[ITS_SOCKET] = pair[1];
  for (int i = 0; capture && i < 2; i++) {
    if (mli_pipe(pair) != 0) return errno;
    fds[OUR_OUT + i] = pair[0];
    fds[ITS_OUT + i] = pair[1];
  }
  for (int i = ITS_SOCKET; i < DESCRIPTORS; i++)
    if (fds[i] >= 0 && (err = lift(&fds[i])) != 0) return err;
  for (int i = OUR_SOCKET; i <= OUR_ERR; i++)
    if (fds[i] >= 0 && fcntl(fds[i], F_SETFL, O_NONBLOCK) != 0) return errno;
  return 0;
}

static int add_actions(posix_spawn_file_actions_t *actions, const int *fds, mli_output output) {
  int err = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);
  if (!err) err = posix_spawn_file_actions_adddup2(actions, fds[ITS_SOCKET], MLI_CHILD_SOCKET);
  for (int i = 0; i < 2 && !err; i++) {
    if (output == MLI_OUTPUT_LOG)
      err = posix_spawn_file_actions_adddup2(actions, fds[ITS_OUT + i], 1 + i);
    else if (output == MLI_OUTPUT_DISCARD)
      err = posix_spawn_file_actions_addopen(actions, 1 + i, "/dev/null", O_WRONLY, 0);
  }
  return err;
}

static int set_attributes(posix_spawnattr_t *attributes) {
  sigset_t all, none;
  sigfillset(&all);
  sigemptyset(&none);
  int err = posix_spawnattr_setsigdefault(attributes, &all);
  if (!err) err = posix_spawnattr_setsigmask(attributes, &none);
  if (!err) err = posix_spawnattr_setpgroup(attributes, 0);
  if (!err)
    err = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK |
                                                 POSIX_SPAWN_SETPGROUP);
  return err;
}

static int spawn(pid_t *pid, const char *program, char *const *argv, const int *fds,
                 mli_output output) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  int err = posix_spawn_file_actions_init(&actions);
  if (err) return err;
  err = posix_spawnattr_init(&attributes);
  if (!err) {
    err = add_actions(&actions, fds, output);
    if (!err) err = set_attributes(&attributes);
    if (!err)
      err = posix_spawn(pid, program, &actions, &attributes, argv, mli_process_environment());
    posix_spawnattr_destroy(&attributes);
  }
  posix_spawn_file_actions_destroy(&actions);
  return err;
}

int mli_child_start(mli_child_pipes *out, const char *program, char *const *argv,
                    mli_output output) {
  int fds[DESCRIPTORS] = { -1, -1, -1, -1, -1, -1 };
  int err = open_pipes(fds, output == MLI_OUTPUT_LOG);
  if (!err) err = spawn(&out->pid, program, argv, fds, output);
  close_all(fds + ITS_SOCKET, DESCRIPTORS - ITS_SOCKET);
  if (err) {
    close_all(fds, ITS_SOCKET);
    return err;
  }
  out->socket = fds[OUR_SOCKET];
  out->output[0] = fds[OUR_OUT];
  out->output[1] = fds[OUR_ERR];
  out->ended = mli_process_fd(out->pid);
  if (out->ended < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM)) {
    mli_child_end end;
    err = errno;
    mli_child_signal(out->pid, SIGKILL);
    mli_child_reap(out->pid, true, &end);
    close_all(fds, ITS_SOCKET);
    return err;
  }
  return 0;
}

void mli_child_signal(pid_t pid, int number) {
  if (kill(-pid, number) != 0) kill(pid, number);
}

bool mli_child_reap(pid_t pid, bool block, mli_child_end *end) {
  int status;
  pid_t got;
  do got = waitpid(pid, &status, block ? 0 : WNOHANG);
  while (got < 0 && errno == EINTR);
  if (got == 0) return false;
  *end = (mli_child_end){ .pid = pid, .known = got == pid };
  if (got != pid) return true; /* ECHILD: the host waits for all children, or ignores them */
  if (WIFSIGNALED(status))
    end->signal = WTERMSIG(status);
  else
    end->status = WEXITSTATUS(status);
  return true;
}
