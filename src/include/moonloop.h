/*
** moonloop.h: the C API of moonloop, an async executor for Lua 5.4.
**
** This is the only installed header. Every name in it starts with `ml_` or
** `ML_`; every type is opaque. Each function says who owns what afterwards,
** which threads may call it, and whether it blocks.
**
** SPDX-License-Identifier: MIT
*/
#ifndef MOONLOOP_H
#define MOONLOOP_H

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

/* The Lua spelling of a status ("timeout"), a static string.
** Thread: any. Blocks: no. */
ML_API const char *ml_status_name(ml_status status);

/* The version of the library that is running, as "major.minor.patch".
** Thread: any. Blocks: no. */
ML_API const char *ml_version(void);

#ifdef __cplusplus
}
#endif

#endif
