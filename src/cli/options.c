/* options.c: the command line, as `lua` reads it. */
#include <stdio.h>
#include <string.h>
#include "cli/cli.h"
#include "http/request.h"

static const char usage[] =
  "usage: %s [options] [script [args]]\n"
  "Runs a Lua script as a job: what takes time may be waited for at its top level.\n"
  "Available options are:\n"
  "  -e stat   execute string 'stat'\n"
  "  -i        enter interactive mode after executing 'script'\n"
  "  -l mod    require library 'mod' into global 'mod'\n"
  "  -l g=mod  require library 'mod' into global 'g'\n"
  "  -v        show version information\n"
  "  -E        ignore environment variables\n"
  "  -W        turn warnings on\n"
  "  --trace file  write what happened when, for Perfetto or chrome://tracing\n"
  "  --stats   show how busy it was, on stderr, at the end\n"
  "  --        stop handling options\n"
  "  -         stop handling options and execute stdin\n"
  "  --version  show version information, like -v\n"
  "  --help    show this text\n";

void cli_print_usage(FILE *to) {
  fprintf(to, usage, cli.name);
  fflush(to);
}

void cli_print_version(void) {
  printf("moonloop %s  (%s, libuv %s, libcurl %s)\n", ml_version(), LUA_RELEASE,
         uv_version_string(), mli_http_library());
  fflush(stdout);
}

static bool bad_option(const char *option) {
  const char *format = "%s: unrecognized option '%s'\n";
  if (option[1] == 'e' || option[1] == 'l' || strcmp(option, CLI_TRACE) == 0)
    format = "%s: '%s' needs argument\n";
  fprintf(stderr, format, cli.name, option);
  cli_print_usage(stderr);
  return false;
}

/* An option of one letter; moves `*i` over its argument. */
static bool read_option(int *i) {
  const char *option = cli.argv[*i];
  cli_options *o = &cli.options;
  switch (option[1]) {
  case 'E': o->no_environment = true; break;
  case 'i': o->interactive = o->version = true; break;
  case 'v': o->version = true; break;
  case 'W': break; /* its turn comes with those of -e and -l */
  case 'e':
  case 'l':
    if (option[1] == 'e') o->executes = true;
    if (option[2] != '\0') return true;
    ++*i;
    return (*i < cli.argc && cli.argv[*i][0] != '-') || bad_option(option);
  default: return bad_option(option);
  }
  return option[2] == '\0' || bad_option(option);
}

static bool is_trace(const char *option) {
  size_t size = strlen(CLI_TRACE);
  return strncmp(option, CLI_TRACE, size) == 0 && (!option[size] || option[size] == '=');
}

/* Its file follows, or stands behind a `=`. */
static bool read_trace(int *i) {
  const char *option = cli.argv[*i];
  if (option[strlen(CLI_TRACE)] == '=') {
    cli.options.trace = option + strlen(CLI_TRACE) + 1;
    return true;
  }
  if (++*i == cli.argc) return bad_option(option);
  cli.options.trace = cli.argv[*i];
  return true;
}

bool cli_read_options(void) {
  int i = 1;
  for (; i < cli.argc && cli.argv[i][0] == '-' && cli.argv[i][1] != '\0'; i++) {
    const char *option = cli.argv[i];
    if (strcmp(option, "--") == 0) {
      i++;
      break;
    }
    if (strcmp(option, "--help") == 0) {
      cli.options.help = true;
      return true;
    }
    if (strcmp(option, "--version") == 0)
      cli.options.version = true;
    else if (strcmp(option, "--stats") == 0)
      cli.options.stats = true;
    else if (is_trace(option) ? !read_trace(&i) : !read_option(&i))
      return false;
  }
  cli.options.script = i;
  return true;
}
