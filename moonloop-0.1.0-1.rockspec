-- `luarocks make` in a checkout builds and installs moonloop as a rock.
rockspec_format = "3.0"
package = "moonloop"
version = "0.1.0-1"
source = {
  url = "git+file://.",
}
description = {
  summary = "An async executor for Lua 5.4: jobs on libuv loops, for any state on any thread",
  detailed = [[
Coroutines are jobs on libuv loops that have threads of their own; any Lua state on any thread
gives them work and gets a future back. With HTTP, TCP, pools of threads and of processes, and a
helper for busted.]],
  license = "MIT",
  labels = { "async", "coroutine", "threads", "http", "libuv" },
}
supported_platforms = { "linux", "macosx" }
dependencies = {
  "lua ~> 5.4",
}
build = {
  type = "cmake",
  variables = {
    CMAKE_BUILD_TYPE = "RelWithDebInfo",
    BUILD_TESTING = "OFF",
    CMAKE_INSTALL_PREFIX = "$(PREFIX)",
    CMAKE_INSTALL_LIBDIR = "clib", -- what is in lib would become Lua modules
    MOONLOOP_CMOD = "$(LIBDIR)",
  },
}
