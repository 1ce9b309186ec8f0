/*
** line_readline.c: a line from the terminal with GNU readline: keys, history, completion.
**
** Readline is asked for one key at a time, so that the loop runs between them. What a job's
** report says meanwhile goes above the line: its thread wipes the line, and the loop's thread,
** the only one that calls readline, shows it again.
*/
#include <readline/history.h>
#include <readline/readline.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli/cli.h"

#define HISTORY_LINES 1000

static lua_State *state; /* whose words are completed, while a line is read */
static mli_loop *loop;   /* the main thread's */
static char *line;       /* what readline gave last; ours to free */
static bool complete;    /* it gave a line, or the end of the input */
static atomic_bool editing;

/* ---- history ---- */

static char *history_file; /* NULL: none is kept */

static void open_history(void) {
  const char *name = getenv("MOONLOOP_HISTORY"), *home = getenv("HOME");
  if (cli.options.no_environment || (name && !*name) || (!name && !home)) return;
  size_t size = name ? strlen(name) + 1 : strlen(home) + sizeof "/.moonloop_history";
  history_file = malloc(size);
  if (!history_file) return;
  snprintf(history_file, size, "%s%s", name ? name : home, name ? "" : "/.moonloop_history");
  read_history(history_file); /* there may be none yet */
  stifle_history(HISTORY_LINES);
}

static void remember(const char *text) {
  HIST_ENTRY *last = history_length > 0 ? history_get(history_base + history_length - 1) : NULL;
  if (!*text || (last && strcmp(last->line, text) == 0)) return;
  add_history(text);
  if (!history_file || append_history(1, history_file) == 0) return;
  write_history(history_file); /* the first of all; a file that cannot be written is let be */
}

/* ---- completion ---- */

/* The list of words that the text at 1, as a light string, can become. */
static int push_words(lua_State *L) {
  lua_getfield(L, LUA_REGISTRYINDEX, CLI_REPL);
  lua_getfield(L, -1, "complete");
  lua_pushstring(L, lua_touserdata(L, 1));
  lua_call(L, 1, 1);
  lua_setfield(L, LUA_REGISTRYINDEX, "moonloop.words");
  return 0;
}

/* Readline asks for one word after the other, and frees them. */
static char *next_word(const char *text, int again) {
  static lua_Integer at;
  lua_State *L = state;
  int top = lua_gettop(L);
  char *word = NULL;
  if (!lua_checkstack(L, LUA_MINSTACK)) return NULL;
  if (!again) {
    at = 0;
    lua_pushcfunction(L, push_words);
    lua_pushlightuserdata(L, (void *)text);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
      lua_settop(L, top);
      return NULL;
    }
  }
  lua_getfield(L, LUA_REGISTRYINDEX, "moonloop.words");
  if (lua_rawgeti(L, -1, ++at) == LUA_TSTRING) word = strdup(lua_tostring(L, -1));
  lua_settop(L, top);
  return word;
}

static char **words(const char *text, int start, int end) {
  (void)start, (void)end;
  rl_attempted_completion_over = 1; /* no names of files */
  rl_completion_append_character = '\0';
  return rl_completion_matches(text, next_word);
}

/* ---- reports while a line is typed ---- */

static mli_node node;
static atomic_bool posted;

static void show_again(mli_node *n, mli_loop *here) {
  (void)n, (void)here;
  atomic_store(&posted, false);
  if (!editing) return;
  rl_on_new_line();
  rl_redisplay();
}

static void write_above(const char *text, size_t size) {
  if (!editing) {
    fwrite(text, 1, size, stderr);
    return;
  }
  fputs("\r\033[K", stderr);
  fwrite(text, 1, size, stderr);
  if (atomic_exchange(&posted, true)) return;
  node.run = show_again;
  if (!mli_loop_post(loop, &node)) atomic_store(&posted, false);
}

/* ---- lines ---- */

static void on_line(char *text) {
  rl_callback_handler_remove(); /* the terminal is the chunk's */
  editing = false;
  line = text;
  complete = true;
}

static void set_up(void) {
  static bool done;
  if (done) return;
  done = true;
  rl_readline_name = "moonloop";
  rl_catch_signals = 0; /* they are for interrupt.c */
  rl_attempted_completion_function = words;
  rl_completer_word_break_characters = " \t\n\"\\'><=;,+-*/%^~#{}()[]&|";
  open_history();
  atomic_store(&lml_report_write, write_above);
}

void cli_line_begin(lua_State *L, const char *prompt) {
  set_up();
  free(line);
  line = NULL;
  state = L;
  loop = lml_state_of(L)->loop;
  complete = false;
  rl_callback_handler_install(prompt, on_line);
  editing = true;
}

bool cli_line_read(lua_State *L) {
  rl_callback_read_char();
  if (!complete) return false;
  lua_pushstring(L, line); /* nil if there is none */
  if (line) remember(line);
  free(line);
  line = NULL;
  return true;
}

void cli_line_drop(void) {
  fputs("^C", rl_outstream);
  rl_free_line_state();
  rl_callback_sigcleanup();
  rl_callback_handler_remove();
  editing = false;
  fputs("\n", rl_outstream);
  fflush(rl_outstream);
}
