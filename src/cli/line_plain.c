/* line_plain.c: a line from the terminal as the system edits it. */
#include <stdio.h>
#include "cli/cli.h"

void cli_line_begin(lua_State *L, const char *prompt) {
  (void)L;
  fputs(prompt, stdout);
  fflush(stdout);
}

bool cli_line_read(lua_State *L) {
  cli_read_line(L);
  return true;
}

void cli_line_drop(void) {
  putchar('\n');
  fflush(stdout);
}
