/*
** host.h: what a C program wants of the states that run for it. Given by src/embed, kept
** by the executor; NULL functions stand for what moonloop does by itself.
*/
#ifndef LML_HOST_H
#define LML_HOST_H

#include <lua.h>
#include "core/executor.h"

typedef struct lml_host {
  lua_State *(*new_state)(void *user);
  void (*close_state)(lua_State *L, void *user);
  void *(*alloc)(void *user, void *block, size_t old_size, size_t new_size);
  size_t memory_limit; /* bytes; 0: none */
  void (*on_error)(const ml_report *report, void *user);
  uint64_t blocked_after; /* ns until a job that holds its loop is reported; 0: the process's */
  unsigned slice;         /* microseconds until others have their turn; 0: until it waits */
  void (*on_blocked)(const ml_blocked *blocked, void *user);
  void (*on_log)(const char *text, void *user);
  void *user;
} lml_host;

/* What the executor's maker wants; NULL: it was made in Lua. */
const lml_host *lml_host_of(const mli_executor *ex);

/* A line for people, to the executor's host or else stderr. `ex` may be NULL. Any thread. */
void lml_log(const mli_executor *ex, const char *text);

/* Makes an outset for a host's executor. NULL: no memory. Takes `init` over (NULL: none),
** also on failure. The strings are copied; NULL paths: Lua's own. */
struct lml_outset *lml_outset_new(const lml_host *host, const char *path, const char *cpath,
                                  mli_message *init);

/* ---- a state with an allocator of the host's, or a limit (budget.c) ---- */

/* lml_state_new for it. */
lua_State *lml_budget_state(const lml_host *host);
/* If L was made so, closes it and frees what is its. */
bool lml_budget_close(lua_State *L);

#endif
