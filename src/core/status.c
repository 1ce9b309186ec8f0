/* status.c: the names of ml_status, and the version. */
#include "base.h"

const char *ml_status_name(ml_status status) {
  static const char *const names[] = {
    [ML_OK] = "ok",
    [ML_FAILED] = "failed",
    [ML_TIMEOUT] = "timeout",
    [ML_CANCELLED] = "cancelled",
    [ML_JOB_CANCELLED] = "job_cancelled",
    [ML_CLOSED] = "closed",
    [ML_ABANDONED] = "abandoned",
    [ML_BUSY] = "busy",
    [ML_CROSSING] = "crossing",
    [ML_CRASHED] = "crashed",
    [ML_GROUP] = "group",
    [ML_MEMORY] = "memory",
    [ML_INTERRUPTED] = "interrupted",
    [ML_NIL_ERROR] = "nil_error",
    [ML_SYSTEM] = "system",
    [ML_MISUSE] = "misuse",
  };
  size_t n = sizeof names / sizeof *names;
  return (size_t)status < n && names[status] ? names[status] : "unknown";
}

const char *ml_version(void) { return ML_VERSION; }
