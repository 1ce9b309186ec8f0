/* A host that knows neither Lua nor moonloop: its plugin, a shared object that is linked with
** libmoonloop, is opened with RTLD_LOCAL, run, closed, and opened again. */
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  for (int i = 0; i < 3; i++) {
    void *plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (!plugin) return fprintf(stderr, "%s\n", dlerror()), 1;
    int (*run)(void) = (int (*)(void))dlsym(plugin, "plugin_run");
    if (!run || run() != 0) return 1;
    if (dlsym(RTLD_DEFAULT, "lua_newstate")) return fprintf(stderr, "Lua is global\n"), 1;
    dlclose(plugin);
    usleep(10000); /* what is gone now would be missed */
  }
  puts("three runs");
  return 0;
}
