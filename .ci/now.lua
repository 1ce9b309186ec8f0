-- The helper of our own suite: moonloop.busted, and the name of the spec that runs is kept in the
-- file MOONLOOP_TEST_NOW.
require "moonloop.busted"
local busted = require "busted"
local path = assert(os.getenv "MOONLOOP_TEST_NOW")

busted.subscribe({ "test", "start" }, function(element)
  local file <close> = assert(io.open(path, "w"))
  file:write(element.trace.short_src, ":", element.trace.currentline, ": ", element.name)
  return nil, true
end)
