/*
** observe.c: --trace FILE and --stats: begun before anything runs, and told as the program
** exits, however it does: at the end of main, by os.exit, or by exit() in some C library.
*/
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "cli/cli.h"
#include "core/stats.h"

static FILE *trace;
static uint64_t began;

/* ---- the summary ---- */

/* "12.3 us", in 9 columns behind a gap. */
static void print_time(uint64_t ns) {
  static const char *const units[] = { "ns", "us", "ms", "s" };
  double n = (double)ns;
  unsigned unit = 0;
  while (unit < 3 && n >= 999.5) {
    n /= 1000;
    unit++;
  }
  fprintf(stderr, "  %6.*f %2s", unit == 0 || n >= 99.95 ? 0 : n >= 9.995 ? 1 : 2, n, units[unit]);
}

static void print_row(const char *title, mli_histogram *h) {
  unsigned long long count = atomic_load(&h->count);
  if (count == 0) return;
  fprintf(stderr, "%-22s %9llu", title, count);
  print_time(mli_histogram_at(h, 0.5));
  print_time(mli_histogram_at(h, 0.9));
  print_time(mli_histogram_at(h, 0.99));
  print_time(atomic_load(&h->most));
  print_time(atomic_load(&h->sum));
  fputc('\n', stderr);
}

static void print_loop(void *user, const mli_stats_loop *loop) {
  (void)user;
  double part = loop->lived ? 100 * (double)loop->busy / (double)loop->lived : 0;
  fprintf(stderr, "loop %-17s %8.1f %% busy", loop->name, part < 100 ? part : 100);
  print_time(loop->busy);
  fputs("  of", stderr);
  print_time(loop->lived);
  if (loop->count > 1) fprintf(stderr, "  (%u loops)", loop->count);
  fputc('\n', stderr);
}

static void print_longest(void) {
  mli_stats_run run = mli_stats_longest();
  if (run.took == 0) return;
  fputs("longest run           ", stderr);
  print_time(run.took);
  if (run.name[0])
    fprintf(stderr, "  job '%s'", run.name);
  else
    fprintf(stderr, "  job %u", run.number);
  if (run.line) fprintf(stderr, ", submitted at %s:%u", run.chunk, run.line);
  fputc('\n', stderr);
}

static void print_http(mli_stats *s) {
  unsigned long long requests = atomic_load(&s->requests), reused = atomic_load(&s->reused),
                     made = atomic_load(&s->connections);
  if (requests == 0) return;
  double part = reused + made ? 100.0 * (double)reused / (double)(reused + made) : 0;
  fprintf(stderr,
          "HTTP                   %9llu requests, %.1f %% on an open connection; %llu made\n",
          requests, part, made);
}

static void print_summary(void) {
  mli_stats *s = &mli_stats_all;
  unsigned long long cycles = atomic_load(&s->cycles), blocked = atomic_load(&s->blocked);
  fflush(stdout);
  fprintf(stderr, "%-22s %9s  %9s  %9s  %9s  %9s  %9s\n", "moonloop --stats", "count", "p50", "p90",
          "p99", "longest", "sum");
  print_row("queue delay", &s->queued);
  print_row("runs of jobs", &s->runs);
  print_row("functions on threads", &s->tasks);
  print_row("GC steps at rest", &s->steps);
  fprintf(stderr, "jobs                   %9llu finished, %llu failed, %llu cancelled\n",
          atomic_load(&s->settled[0]), atomic_load(&s->settled[1]), atomic_load(&s->settled[2]));
  print_longest();
  fprintf(stderr, "runs over the limit    %9llu\n", blocked);
  mli_stats_loops(print_loop, NULL);
  fprintf(stderr, "GC cycles              %9llu\n", cycles);
  print_http(s);
  fputs("the program           ", stderr);
  print_time(mli_now() - began);
  fputc('\n', stderr);
}

/* ---- beginning and end ---- */

static void write_trace(void) {
  mli_trace_written written;
  mli_trace_stop();
  int err = mli_trace_write(trace, &written);
  if (fclose(trace) != 0 && !err) err = errno;
  if (err)
    fprintf(stderr, "%s: cannot write %s: %s\n", cli.name ? cli.name : "moonloop",
            cli.options.trace, strerror(err));
  else if (written.dropped)
    fprintf(stderr, "%s: the trace has the newest %llu events; %llu older ones are lost\n",
            cli.name ? cli.name : "moonloop", (unsigned long long)written.events,
            (unsigned long long)written.dropped);
}

static void finish(void) {
  if (trace) write_trace();
  if (cli.options.stats) print_summary();
}

bool cli_observe(void) {
  const char *path = cli.options.trace;
  if (!path && !cli.options.stats) return true;
  if (path && !(trace = fopen(path, "we"))) {
    fprintf(stderr, "%s: cannot write %s: %s\n", cli.name, path, strerror(errno));
    return false;
  }
  began = mli_now();
  if (trace) mli_trace_start(MLI_TRACE_MEMORY);
  if (cli.options.stats) atomic_fetch_or(&mli_observed, MLI_OBSERVE_STATS);
  if (atexit(finish) == 0) return true;
  cli_message("not enough memory");
  return false;
}
