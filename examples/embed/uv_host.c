/* A program with a libuv loop of its own: moonloop's jobs run on it as guests, in the one
** thread there is.
**
**   cc uv_host.c -o uv_host $(pkg-config --cflags --libs moonloop lua5.4 libuv) && ./uv_host
*/
#include <lauxlib.h>
#include <lualib.h>
#include <moonloop.h>
#include <stdio.h>
#include <uv.h>

static int ticks;

/* The host's own work goes on meanwhile. */
static void on_tick(uv_timer_t *timer) {
  if (++ticks == 5) uv_close((uv_handle_t *)timer, NULL);
}

/* Called on this same thread, by the loop. */
static void on_done(ml_future *f, void *user) {
  ml_values *results = NULL;
  if (ml_future_values(f, &results) == ML_OK)
    printf("the job says: %s\n", ml_value_string(ml_values_at(results, 0), NULL));
  else
    printf("the job failed: %s\n", ml_future_error(f));
  ml_values_free(results);
  ml_executor_shutdown(user, false, 0); /* its jobs end, then uv_run does */
}

int main(void) {
  uv_loop_t *loop = uv_default_loop();
  ml_executor *ex;
  ml_future *f;
  ml_executor_options options = ML_EXECUTOR_OPTIONS;
  options.uv_loop = loop;
  if (ml_executor_new(&ex, &options) != ML_OK) return puts(ml_last_error()), 1;

  uv_timer_t timer;
  uv_timer_init(loop, &timer);
  uv_timer_start(&timer, on_tick, 1, 1);

  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  if (luaL_loadstring(L,
                      "local ml = require 'moonloop'\n"
                      "ml.map({ 1, 2, 3 }, function(i) ml.sleep(i / 100) end)\n"
                      "return 'three sleeps in ' .. (coroutine.isyieldable() and 'a job' or '?')"))
    return 1;
  if (ml_submit(ex, L, 0, NULL, &f) != ML_OK) return puts(ml_last_error()), 1;
  ml_future_on_done(f, on_done, ex);
  ml_future_release(f);
  lua_close(L);

  uv_run(loop, UV_RUN_DEFAULT);
  printf("the host ticked %d times\n", ticks);
  ml_executor_release(ex);
  return uv_loop_close(loop) == 0 ? 0 : 1;
}
