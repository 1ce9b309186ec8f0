/*
** moonloop.h: the C API of moonloop, an async executor for Lua 5.4.
**
** This is the only installed header. Every name in it starts with `ml_` or
** `ML_`; every type is opaque. Each function says who owns what afterwards,
** which threads may call it, and whether it blocks.
**
**   ml_executor *ex;                                    // n loops, each a thread and a Lua state
**   ml_executor_options o = ML_EXECUTOR_OPTIONS;
**   if (ml_executor_new(&ex, &o) != ML_OK) die(ml_last_error());
**
**   ml_open(L, ex);                                     // a plugin's state: its waits use `ex`
**
**   ml_future *f;                                       // or work for a loop from C
**   ml_values *args = ml_values_new();
**   ml_values_add_text(args, "http://127.0.0.1/");
**   if (ml_submit_call(ex, "fetcher:fetch", args, NULL, &f) != ML_OK) die(ml_last_error());
**   if (ml_future_wait(f, ml_after_ms(1000)) != ML_OK) puts(ml_future_error(f));
**   ml_future_release(f);
**
**   ml_executor_shutdown(ex, true, ml_after_ms(5000));
**   ml_executor_release(ex);
**
** Rules for all of it:
**
** - A function that can fail returns ml_status; ML_OK is 0. What it gives leaves through
**   its last parameters, which are left alone if it fails. `ml_last_error()` has the words.
** - ML_MISUSE, from any of them: NULL where an object must be; an object of another kind; one
**   whose last reference was released. (The latter is seen in builds with asserts, and said on
**   stderr; in others it is undefined, as for any freed memory.)
** - Counted objects begin with one reference, the caller's. The one who retains releases.
** - Strings that are passed in are copied. What is passed to a callback is borrowed: it is
**   valid until the callback returns.
** - "Thread: any" means any at any time, also several at once. A lua_State is used by one
**   thread at a time, as always in Lua; the state of an executor's thread by that thread only.
** - The Lua errors of what a function does with a state are caught: nothing here raises,
**   except ml_op_new and ml_await, which say so.
** - Callbacks run with no lock held and may call anything here. One that runs on a loop's
**   thread holds up that loop while it runs, and must not wait (ML_BUSY).
** - No function here exits or aborts. Signals are left alone, but for one real-time signal
**   that nobody uses, taken at need by executors with `blocked_after` or `slice`, and by Lua
**   code that asks for such things. Threads of ours block all others. exit() is possible at
**   any time: nothing is waited for.
**
** SPDX-License-Identifier: MIT
*/
#ifndef MOONLOOP_H
#define MOONLOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ML_VERSION_MAJOR 0
#define ML_VERSION_MINOR 1
#define ML_VERSION_PATCH 0
#define ML_VERSION "0.1.0"

#if defined(__GNUC__)
#define ML_API __attribute__((visibility("default")))
#else
#define ML_API
#endif

/* How a call ended. The same list is `err.code` in Lua: `ml_status_name`
** gives the Lua spelling. */
typedef enum ml_status {
  ML_OK = 0,
  ML_FAILED,        /* a job raised: the error is a value in its future */
  ML_TIMEOUT,       /* "timeout": a deadline passed; nothing else changed */
  ML_CANCELLED,     /* "cancelled": the caller's own job or scope was cancelled */
  ML_JOB_CANCELLED, /* "job_cancelled": the job that was asked was cancelled */
  ML_CLOSED,        /* "closed": the executor, socket or channel has ended */
  ML_ABANDONED,     /* "abandoned": whoever had to settle it is gone */
  ML_BUSY,          /* "busy": it would have to wait */
  ML_CROSSING,      /* "crossing": a value that cannot cross states */
  ML_CRASHED,       /* "crashed": a child process died */
  ML_GROUP,         /* "group": several jobs of a group failed */
  ML_MEMORY,        /* "memory": out of memory */
  ML_INTERRUPTED,   /* "interrupted": a signal ended the wait */
  ML_NIL_ERROR,     /* "nil_error": error(nil) */
  ML_SYSTEM,        /* the operating system's: the name is in the detail */
  ML_MISUSE         /* "misuse": wrong thread or wrong argument */
} ml_status;

/* ---- versions ---- */

/* Changes when a program has to be compiled anew. */
#define ML_ABI 0

/* The Lua spelling of a status ("timeout"), a static string.
** Thread: any. Blocks: no. */
ML_API const char *ml_status_name(ml_status status);

/* The version of the library that is running, as "major.minor.patch".
** Thread: any. Blocks: no. */
ML_API const char *ml_version(void);

/* ML_ABI of the library that is running. The program fits it if that is the header's ML_ABI.
** Structs that begin with their `size` may be those of an older header; one of a newer header
** is ML_MISUSE.
** Thread: any. Blocks: no. */
ML_API unsigned ml_abi(void);

/* What was wrong in the last call of this thread that did not return ML_OK; "" at first.
** Valid until this thread's next failure. Thread: any. Blocks: no. */
ML_API const char *ml_last_error(void);

/* ---- time: nanoseconds of a monotonic clock; a deadline is absolute ---- */

#define ML_FOREVER UINT64_MAX

/* The time, and the deadline that is so far away: ML_FOREVER if that cannot be counted.
** Thread: any. Blocks: no. */
ML_API uint64_t ml_now(void);
ML_API uint64_t ml_after_ms(uint64_t milliseconds);

/* ---- types ---- */

struct lua_State; /* Lua's struct lua_State */
struct uv_loop_s; /* libuv's uv_loop_t */

typedef struct ml_executor ml_executor; /* takes jobs, gives futures; counted */
typedef struct ml_future ml_future;     /* one outcome; counted */
typedef struct ml_values ml_values;     /* a list of values: arguments, results */
typedef struct ml_value ml_value;       /* one of them */

/* ---- values: what goes into a job and comes out of it, in C ---- */

typedef enum ml_type {
  ML_NONE, /* there is no such value */
  ML_NIL,
  ML_BOOLEAN,
  ML_INTEGER,
  ML_NUMBER, /* a float */
  ML_STRING,
  ML_TABLE,
  ML_POINTER, /* a light userdata */
  ML_OTHER    /* what C cannot read: a function, a handle, a module's own table */
} ml_type;

/* An empty list, or NULL: out of memory. It is the caller's until it is handed over to a
** function that says so, and then must not be touched. It is used by one thread at a time.
** Thread: any. Blocks: no. */
ML_API ml_values *ml_values_new(void);
/* Frees it and all that points into it. NULL is allowed. Thread: any. Blocks: no. */
ML_API void ml_values_free(ml_values *values);

/* Add a value: to the list, or to the innermost table that is open. Strings are copied.
** A failure (memory, a key outside of a table) is kept: it comes from ml_values_status and
** from whatever takes the list. Thread: any. Blocks: no. */
ML_API void ml_values_add_nil(ml_values *values);
ML_API void ml_values_add_boolean(ml_values *values, bool boolean);
ML_API void ml_values_add_integer(ml_values *values, int64_t integer);
ML_API void ml_values_add_number(ml_values *values, double number);
ML_API void ml_values_add_string(ml_values *values, const char *bytes, size_t size);
ML_API void ml_values_add_text(ml_values *values, const char *text); /* ends at its NUL */
ML_API void ml_values_add_pointer(ml_values *values, void *pointer);
/* What is added from here to ml_values_close_table goes into a new table: under the key
** named just before it, or else as its next item, from 1. */
ML_API void ml_values_open_table(ml_values *values);
ML_API void ml_values_close_table(ml_values *values);
ML_API void ml_values_key(ml_values *values, const char *text);
ML_API void ml_values_key_integer(ml_values *values, int64_t key);
/* ML_OK; ML_MEMORY or ML_MISUSE: a call before this one failed, or a table is open;
** ML_CROSSING: it came from a future, with values that C cannot give on.
** Thread: that of the list. Blocks: no. */
ML_API ml_status ml_values_status(const ml_values *values);

/* Look at values. What they return points into the list: it is valid until the list
** is added to, handed over or freed. Indexes are from 0. NULL is a value of type ML_NONE.
** Thread: any that has the list. Blocks: no. */
ML_API size_t ml_values_count(const ml_values *values);
ML_API const ml_value *ml_values_at(const ml_values *values, size_t index); /* NULL: none */
ML_API ml_type ml_value_type(const ml_value *value);
ML_API bool ml_value_boolean(const ml_value *value); /* as Lua sees it: nil and false are false */
ML_API int64_t ml_value_integer(const ml_value *value); /* also of a whole float; else 0 */
ML_API double ml_value_number(const ml_value *value);   /* also of an integer; else 0 */
/* The bytes, with a NUL behind them; NULL: it is no string. `size` may be NULL. */
ML_API const char *ml_value_string(const ml_value *value, size_t *size);
ML_API void *ml_value_pointer(const ml_value *value); /* NULL: it is no pointer */
/* Of a table: the items of its list, and the other pairs, in no order. */
ML_API size_t ml_value_length(const ml_value *value);
ML_API const ml_value *ml_value_item(const ml_value *value, size_t index);
ML_API const ml_value *ml_value_field(const ml_value *value, const char *key);
ML_API size_t ml_value_pairs(const ml_value *value);
ML_API const ml_value *ml_value_pair(const ml_value *value, size_t index, const ml_value **key);

/* A struct of zeros with its size, in C and in C++: for ML_EXECUTOR_OPTIONS and the like. */
#ifdef __cplusplus
#define ML_SIZED(type)                                                                             \
  ([] {                                                                                            \
    type sized_ = type();                                                                          \
    sized_.size = sizeof sized_;                                                                   \
    return sized_;                                                                                 \
  }())
#else
#define ML_SIZED(type)                                                                             \
  { .size = sizeof(type) }
#endif

/* ---- executors ---- */

/* An error that nobody asked for. */
typedef struct ml_report {
  size_t size;           /* of this struct, as the library has it */
  const char *kind;      /* "job", "callback", ... */
  const char *name;      /* of the job, or NULL */
  const char *error;     /* as text */
  const char *traceback; /* or NULL */
  const char *submitted; /* "file.lua:12", or NULL */
} ml_report;

/* A job that holds its loop, so that the others there have no turn. */
typedef struct ml_blocked {
  size_t size;           /* of this struct, as the library has it */
  const char *name;      /* of the job; NULL: none, or a callback, or it is not known */
  const char *submitted; /* "file.lua:12", or NULL */
  uint64_t time;         /* nanoseconds so far */
  const char *inside;    /* the C function in which it is, as far as known; NULL: in Lua */
  const char *traceback; /* where it is; NULL: inside a C function nobody can look */
} ml_blocked;

/* Start with ML_EXECUTOR_OPTIONS, then set what you want otherwise. The struct is copied;
** what `user` points to is needed until the executor has ended and its futures are
** released. */
typedef struct ml_executor_options {
  size_t size;          /* sizeof(ml_executor_options) */
  const char *name;     /* for people, and for its threads; NULL: "host" */
  unsigned loops;       /* threads with a loop and a Lua state each; 0: 1 */
  unsigned workers;     /* not 0: up to so many threads for blocking functions instead */
  uint64_t max_pending; /* unsettled jobs; a submit over it is ML_BUSY. 0: no bound */
  const char *path;     /* package.path and package.cpath of its states; NULL: Lua's own */
  const char *cpath;
  const char *init; /* "module:function", runs first in each state; NULL: none */
  /* One loop without a thread of its own: the thread that makes it runs it too. Either as a
  ** guest of this libuv loop, which that thread runs, and which it keeps going until it is
  ** shut down: the loop stays the caller's, and is needed until then; or else, `driven`, in
  ** steps: see ml_executor_step. */
  struct uv_loop_s *uv_loop;
  bool driven;
  /* Its states. `new_state` makes one, with the libraries and functions that it shall have,
  ** on the thread that will use it; NULL from it, and the state's jobs fail with ML_MEMORY.
  ** `close_state` ends it; NULL: lua_close. `path` and `cpath` are not used then, and the
  ** memory is the state's own business. */
  struct lua_State *(*new_state)(void *user);
  void (*close_state)(struct lua_State *L, void *user);
  /* Without these: what a state may use at most, in bytes; Lua raises "not enough memory"
  ** in the job that asks for more. 0: no limit. */
  size_t memory_limit;
  /* Memory of the states: as lua_Alloc, called on the thread of the state. NULL: our own. */
  void *(*alloc)(void *user, void *block, size_t old_size, size_t new_size);
  /* Errors that nobody asked for, in its states and in states opened for it. On the thread
  ** where it is noticed. NULL: they are printed on stderr. */
  void (*on_error)(const ml_report *report, void *user);
  /* A job that holds its loop for more than `blocked_after` nanoseconds is told to
  ** `on_blocked`, once, on the loop's thread. One that is inside a C function is told on a
  ** thread of ours, where nothing may wait either, and again when that returns. NULL: it is
  ** printed on stderr. 0: nobody looks, unless MOONLOOP_BLOCKED_MS is in the environment. */
  uint64_t blocked_after;
  void (*on_blocked)(const ml_blocked *blocked, void *user);
  /* Nanoseconds after which a job that computes lets the others of its loop go on; 0: it
  ** does when it waits, and not before. */
  uint64_t slice;
  /* What else there is to say: a state that cannot start, jobs that do not stop. Any thread.
  ** NULL: it is printed on stderr. */
  void (*on_log)(const char *text, void *user);
  void *user; /* for all of these */
} ml_executor_options;

#define ML_EXECUTOR_OPTIONS ML_SIZED(ml_executor_options)

/* Makes an executor, with a reference for the caller, and starts its loops. `options` NULL:
** all as it comes. ML_MISUSE: an option, or options of a newer header; ML_MEMORY; ML_SYSTEM:
** no thread or descriptor. What is wrong with a state, `init` too, shows in its jobs.
** Thread: any; a driven one's or guest's is the thread that will run it. Blocks: no. */
ML_API ml_status ml_executor_new(ml_executor **out, const ml_executor_options *options);

/* For a loop of the host's own, with poll() or the like. Wait until the descriptor is
** readable or the timeout (in ms; -1: none) is over, then step: that runs what is ready,
** and does not wait. Ask for the timeout anew before each wait. The descriptor is the
** executor's: do not close it.
** ML_CLOSED: it was shut down and has ended, there is nothing to step any more; ML_BUSY: it
** is being stepped, by a caller of this one; ML_MISUSE: it is not driven.
** Thread: the one that made it (ML_MISUSE elsewhere). Blocks: no. */
ML_API int ml_executor_fd(ml_executor *executor); /* -1: it is not driven, or has ended */
ML_API int ml_executor_timeout(ml_executor *executor);
ML_API ml_status ml_executor_step(ml_executor *executor);

/* Counted. The last release of an executor that is not shut down lets it finish its jobs,
** then it ends by itself; nothing waits for that. One that is driven in steps is shut down
** with cancel and stepped to its end, for nobody steps it any more: here, or in what steps it
** if that is our caller. NULL is allowed.
** Thread: any; of a driven one, the thread that made it. Blocks: no; a driven one, until its
** jobs have ended. */
ML_API ml_executor *ml_executor_retain(ml_executor *executor);
ML_API void ml_executor_release(ml_executor *executor);

/* No more submits, from here on: ML_CLOSED. Waits until its jobs have ended (with `cancel`,
** as they are cancelled) and its threads are gone. ML_TIMEOUT: the deadline passed first,
** ml_last_error names the jobs that are left, as many as fit, and where they are; call it
** again, or leave it at that.
** A deadline of 0 asks and does not wait. ML_BUSY: this thread is the executor's own or runs
** a loop, so nothing was waited for; ML_MEMORY. The thread that drives an
** executor steps it meanwhile; a guest then closes its handles on the host's libuv loop,
** which has to run once more for that.
** Thread: any. Blocks: until the deadline. */
ML_API ml_status ml_executor_shutdown(ml_executor *executor, bool cancel, uint64_t deadline);

typedef struct ml_stats {
  size_t size; /* sizeof(ml_stats) */
  uint64_t submitted, queued, running, parked, finished, failed, cancelled;
  uint64_t blocked; /* times that a job held its loop for longer than blocked_after */
  unsigned threads;
} ml_stats;

/* Fills what `stats->size` has room for; set that first (ML_MISUSE). Counts are a moment's.
** Thread: any. Blocks: no. */
ML_API ml_status ml_executor_stats(ml_executor *executor, ml_stats *stats);

/* ---- jobs ---- */

typedef struct ml_job_options {
  size_t size;      /* sizeof(ml_job_options) */
  const char *name; /* for messages: say which plugin it is; NULL: as in Lua */
  uint64_t timeout; /* nanoseconds from its start, after which it is cancelled; 0: none */
} ml_job_options;

#define ML_JOB_OPTIONS ML_SIZED(ml_job_options)

/* Submit a job. `out`, unless it is NULL, gets a reference of its future, for the caller.
** `options` may be NULL, and are copied. ML_CLOSED: the executor is shut down; ML_BUSY: it
** has max_pending jobs; ML_SYSTEM: no thread for it; ML_MEMORY; ML_MISUSE: no such function
** or options can be. Thread: any. Blocks: no. */

/* The function, or "module:function", and its `nargs` arguments on top of L, which are
** popped, also on failure. They cross: code and data are copied. ML_CROSSING: one cannot.
** Opens moonloop in L if need be (see ml_open), for the process's default executor.
** Thread: that of L. */
ML_API ml_status ml_submit(ml_executor *executor, struct lua_State *L, int nargs,
                           const ml_job_options *options, ml_future **out);

/* "module:function" ("module:a.b"), required in the executor's state, with the arguments.
** NULL: none. Takes `arguments` over, also on failure. That the module or the function is
** not there is the job's error. */
ML_API ml_status ml_submit_call(ml_executor *executor, const char *function, ml_values *arguments,
                                const ml_job_options *options, ml_future **out);

/* A C function for the thread of a loop, which it must not hold up: to use that loop's
** libuv, for one. It adds its results to a list that is borrowed. ML_OK: the future has
** them; another status: the future fails with that, and with the first result, if it is a
** string, as the message. `user` is the caller's: the function may never be called, if the
** future is cancelled (ML_JOB_CANCELLED) or the executor is shut down first (ML_CLOSED).
** Not for executors with `workers` (ML_MISUSE). Counts as no job. */
typedef ml_status (*ml_loop_function)(struct uv_loop_s *loop, ml_values *results, void *user);
ML_API ml_status ml_submit_c(ml_executor *executor, ml_loop_function function, void *user,
                             ml_future **out);

/* ---- futures ---- */

/* Counted. To release it does not cancel the job. A failed future that nobody asked is
** reported as its last reference goes: to `on_error`, on this thread.
** NULL is allowed. Thread: any. Blocks: no. */
ML_API ml_future *ml_future_retain(ml_future *future);
ML_API void ml_future_release(ml_future *future);

/* How it stands: ML_BUSY: not settled; ML_OK: it has values; ML_FAILED: the job raised;
** ML_JOB_CANCELLED; or what kept the job from running: ML_CLOSED, ML_MEMORY, ...
** Thread: any. Blocks: no. */
ML_API ml_status ml_future_peek(ml_future *future);

/* Waits until it is settled, then as ml_future_peek. ML_TIMEOUT: the deadline came first,
** the job goes on. ML_BUSY: this thread runs a loop and the future is not settled;
** ML_MEMORY. The thread that drives the future's executor steps it meanwhile. Signals do not
** end the wait.
** Thread: any. Blocks: until the deadline. */
ML_API ml_status ml_future_wait(ml_future *future, uint64_t deadline);

/* Asks its job to stop: the job sees an error at its wait, and settles the future. One that
** has not begun never does. ML_CLOSED: it was settled already; ML_MEMORY. `reason` is for
** people; NULL: none. Thread: any. Blocks: no. */
ML_API ml_status ml_future_cancel(ml_future *future, const char *reason);

/* Calls `done` once, when it is settled: on the thread that settles it (a loop's, often);
** or at once, if it is settled now. The future is kept until then, and passed on borrowed:
** to keep it longer, retain it. ML_MEMORY: it will not be called.
** Thread: any. Blocks: no. */
ML_API ml_status ml_future_on_done(ml_future *future, void (*done)(ml_future *future, void *user),
                                   void *user);

/* The values of a settled future, for C, or of one that did not finish the error value; and
** its status, as ml_future_peek. They are the caller's: ml_values_free. ML_BUSY, ML_MISUSE,
** or ML_MEMORY with `*out` as it was: there is no list. Thread: any. Blocks: no. */
ML_API ml_status ml_future_values(ml_future *future, ml_values **out);

/* Pushes the values of a settled future on L and gives their number, and ML_OK; of one that
** did not finish the error value, its status and 1. `count` may be NULL. ML_BUSY: nothing was
** pushed, it is not settled. ML_CROSSING, ML_MEMORY with `*count` 1: the error value says what
** cannot be rebuilt in L; it was pushed. ML_MISUSE, as ml_open: nothing was pushed.
** Thread: that of L. Blocks: no. */
ML_API ml_status ml_future_push(ml_future *future, struct lua_State *L, int *count);

/* Pushes the future itself, as Lua code knows it: f:result(), f:cancel(), ... The caller's
** reference stays the caller's. ML_MEMORY, ML_MISUSE, as ml_open: nothing was pushed.
** Thread: that of L. Blocks: no. */
ML_API ml_status ml_future_push_handle(ml_future *future, struct lua_State *L);
/* The future at `index`, with a reference for the caller. ML_MISUSE: it is none; ML_MEMORY.
** Thread: that of L. Blocks: no. */
ML_API ml_status ml_future_from(struct lua_State *L, int index, ml_future **out);

/* Of a settled future that did not finish: the error as text, its code ("timeout",
** "ECONNREFUSED"; "failed" for an error without one), and the traceback of the job and of
** who submitted it. NULL: there is none. Valid as long as the caller's reference.
** Thread: any. Blocks: no. */
ML_API const char *ml_future_error(ml_future *future);
ML_API const char *ml_future_code(ml_future *future);
ML_API const char *ml_future_traceback(ml_future *future);
/* The job's name, or "". Valid as long as the caller's reference.
** Thread: any. Blocks: no. */
ML_API const char *ml_future_name(ml_future *future);

/* ---- Lua states of the host ---- */

/* Opens moonloop in L and pushes the module: `require "moonloop"` gives it there. What L
** waits for runs on the executor, which is its event loop; the state keeps it alive. NULL:
** the process's default executor, as for any other state. Again: another executor.
** ML_MISUSE: an executor with `workers`; a state without Lua's base, package, coroutine,
** table, string and math libraries, or of an executor's thread, or in which another copy of
** moonloop (moonloop.so, say) is open; ML_MEMORY. On failure nothing is pushed.
** Thread: that of L. Blocks: no. */
ML_API ml_status ml_open(struct lua_State *L, ml_executor *executor);

/* ---- operations: C functions that wait ---- */

/*
** A lua_CFunction that waits, in jobs by parking the job, elsewhere by blocking the thread:
**
**   static int l_get(lua_State *L) {
**     request *r = request_new(luaL_checkstring(L, 1));
**     ml_op *op = ml_op_new(L, &get_class, r);       // `r` is the operation's from here on
**     return ml_await(L, op, ml_after_ms(1000));     // returns what it was completed with
**   }
*/
typedef struct ml_op ml_op; /* counted */

typedef struct ml_op_class {
  size_t size;      /* sizeof(ml_op_class) */
  const char *name; /* static: what a job waits for, in messages: "redis get" */
  /* Starts it, on the thread of `loop`, and returns soon. Whoever completes it later holds a
  ** reference meanwhile: ml_op_retain. It may be completed in here already. */
  void (*begin)(ml_op *op, struct uv_loop_s *loop, void *user);
  /* Nobody waits any more: the waiter was cancelled, or its deadline has passed. On the
  ** loop's thread, once. Have it completed soon: until then the waiter is kept; with
  ** ml_op_fail(op, "cancelled", NULL) if there is nothing to give. NULL: the waiter goes on at
  ** once, and what is completed later is dropped. */
  void (*cancel)(ml_op *op, void *user);
  /* Pushes the results of ml_op_complete(op, NULL) on L, on L's thread, and returns how many;
  ** may raise. NULL: the list given to ml_op_complete is pushed. */
  int (*push)(ml_op *op, struct lua_State *L, void *user);
  /* Frees `user`, after the last reference. Any thread. NULL: nothing to do. */
  void (*free)(void *user);
} ml_op_class;

/* Its first field. In C++ before C++20 write `ml_op_class kind = ML_SIZED(ml_op_class);`. */
#define ML_OP_CLASS .size = sizeof(ml_op_class)

/* An operation for the loop where the caller of L waits: its job's own, else one of its
** state's event loop. It belongs to a value that is pushed on L: leave that there until
** ml_await. `kind` is copied; `user` is the operation's from here on, also on failure.
** Raises a Lua error on failure. Thread: that of L. Blocks: no. */
ML_API ml_op *ml_op_new(struct lua_State *L, const ml_op_class *kind, void *user);

/* For who completes it. NULL is allowed. Thread: any. Blocks: no. */
ML_API ml_op *ml_op_retain(ml_op *op);
ML_API void ml_op_release(ml_op *op);

/* Begins the operation and waits for its end or the deadline; write `return ml_await(...)`.
** Returns in Lua: its results; or nil and an error value with its code and message, "timeout",
** or "closed" if the loop ends first. Raises where nothing can wait, and when the waiter is
** cancelled. Once for each operation. Thread: that of L. */
ML_API int ml_await(struct lua_State *L, ml_op *op, uint64_t deadline);

/* It is done. Takes `results` over, also on failure; NULL: none. A list that is not whole (see
** ml_values_status) fails it with that status, which is returned. ML_MISUSE: it was completed
** before; ML_CLOSED: nobody waits for it any more. Thread: any. Blocks: no. */
ML_API ml_status ml_op_complete(ml_op *op, ml_values *results);
/* It failed: the waiter gets nil and an error value with this code (31 bytes of it; NULL:
** "failed") and message (NULL: the operation's name and the code). Else as ml_op_complete. */
ML_API ml_status ml_op_fail(ml_op *op, const char *code, const char *message);

/* Keeps a value with a loop, under the address of something static: the connection that a C
** library's operations share there, for one. `end` is called once with it, on the loop's
** thread, when the loop ends: it closes what the library has open on the loop (uv_close), for
** the end waits for all of that. NULL: nothing to do. ML_MISUSE: there is one under this key.
** Thread: the loop's: in `begin` and `cancel`, in an ml_loop_function, in what libuv calls
** (ML_MISUSE elsewhere). Blocks: no. */
ML_API ml_status ml_loop_keep(struct uv_loop_s *loop, const void *key, void *value,
                              void (*end)(void *value));
/* That value; NULL: there is none. Thread: the loop's. Blocks: no. */
ML_API void *ml_loop_kept(struct uv_loop_s *loop, const void *key);

#ifdef __cplusplus
}
#endif

#endif
