-- A helper for busted: keeps the name of the spec that runs in the file MOONLOOP_TEST_NOW.
local busted = require "busted"
local path = assert(os.getenv "MOONLOOP_TEST_NOW")

busted.subscribe({ "test", "start" }, function(element)
  local file <close> = assert(io.open(path, "w"))
  file:write(element.trace.short_src, ":", element.trace.currentline, ": ", element.name)
  return nil, true
end)
