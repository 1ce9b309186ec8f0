/*
** cli.h: what the files of the moonloop program share. There is one program in a
** process, so what describes it is one static record.
*/
#ifndef CLI_H
#define CLI_H

#include <stdio.h>
#include "lua/state.h"

#define CLI_INTERRUPTED 130 /* the exit code after Ctrl-C, as a shell gives it */
#define CLI_TRACE "--trace" /* an option; its file follows, if not behind a `=` */

/* What the command line asks for. */
typedef struct cli_options {
  bool interactive, version, no_environment, help;
  bool executes; /* there is an -e */
  bool stats;
  const char *trace; /* the file; NULL: none */
  int script;        /* the script's index in argv; argc: there is none */
} cli_options;

typedef struct cli_program {
  int argc;
  char **argv;
  cli_options options;
  const char *name; /* begins messages; NULL in interactive mode */
  int code;         /* the exit code */
  lml_future *main; /* the main job's, while its loop runs; else NULL */
} cli_program;

extern cli_program cli;

/* ---- options.c ---- */

/* Reads argv into the options. False: it is wrong, and that was said. */
bool cli_read_options(void);
void cli_print_usage(FILE *to);
void cli_print_version(void);

/* ---- observe.c ---- */

/* Begins what --trace and --stats ask for; it is told as the program exits. False: it cannot
** be, and that was said. */
bool cli_observe(void);

/* ---- worker.c ---- */

/* Whether it was started as a child of a ProcessExecutor; then this is all it does. */
bool cli_is_worker(int argc, char **argv);
int cli_worker(void);

/* ---- report.c ---- */

/* "moonloop: message" on stderr. */
void cli_message(const char *message);
/* The message handler of chunks: makes the text of a report from the error, as lua's
** does. The cancel of the job itself stays as it is. */
int cli_message_handler(lua_State *L);
/* Prints what the handler left on top of the stack, but not the cancel that was ours. */
void cli_report(lua_State *L);

/* ---- interrupt.c ---- */

/* From here on Ctrl-C cancels the job of this future, once. The future stays where it is
** until the next call. */
void cli_interrupt_goes_to(lml_state *S, lml_future *u);
/* From here on it stops the wait for input, once. */
void cli_interrupt_stops_input(lml_state *S);
/* From here on it ends the program, as it does by itself. */
void cli_interrupt_ends_all(void);
/* Whether Ctrl-C came since one of the first two was last called. */
bool cli_interrupted(void);

/* ---- quit.c ---- */

/* From here on SIGQUIT shows the jobs of this state and of its executors; NULL: it ends
** the program, as it does by itself. */
void cli_quit_shows_jobs(lml_state *S);

/* ---- script.c, repl.c: steps of the main job ---- */

/* What the main job's stack begins with. */
enum { CLI_HANDLER = 1, CLI_FUTURE, CLI_FIXED = CLI_FUTURE };

/* The main job: LUA_INIT, the options, the script, the prompt. */
int cli_main_job(lua_State *L);
/* The prompt, until the input ends. */
int cli_repl(lua_State *L);
#define CLI_REPL "moonloop.repl" /* its Lua part: a module, and its place in the registry */
/* Pushes a line of stdin, without its end; nil: there is none. Blocks. */
void cli_read_line(lua_State *L);

/* ---- terminal.c ---- */

/* Waits until there is something to read on stdin, a terminal; then calls k as lml_await_op
** does, with true for status if the wait was stopped. */
int cli_await_input(lua_State *L, lua_KFunction k);
/* Stops that wait, or the next one. The loop's thread. */
void cli_stop_input(void);

/* ---- line_readline.c or line_plain.c: a line from the terminal ---- */

/* Shows the prompt. */
void cli_line_begin(lua_State *L, const char *prompt);
/* There is input. True: it ends the line, which is pushed; nil: there is no more. */
bool cli_line_read(lua_State *L);
/* Gives up what was typed. */
void cli_line_drop(void);

#endif
