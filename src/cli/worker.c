/* worker.c: the program as a child of a ProcessExecutor. */
#include <string.h>
#include "cli/cli.h"
#include "lua/processes.h"

bool cli_is_worker(int argc, char **argv) {
  return argc == 2 && strcmp(argv[1], LML_WORKER_OPTION) == 0;
}

int cli_worker(void) { return lml_worker_main(MLI_CHILD_SOCKET); }
