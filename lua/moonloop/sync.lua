--- What is written in Lua of the primitives that jobs and threads share: they are made in src/lua.

local core = require "moonloop.core"
local scopes = require "moonloop.scopes"
local sync = {}

--- Holds the lock again, whatever ended the wait, and goes on with that.
local function wake_up(condition, ok, ...)
  scopes.shield(core.lock_again, condition)
  if ok then return ... end
  error((...), 0)
end

--- Lets the condition's lock go, waits to be notified, and acquires it again.
-- @return true, or nil and an error with code "timeout"
function sync.wait(condition, timeout)
  core.check_held(condition)
  core.check_timeout(timeout)
  return wake_up(condition,
    xpcall(core.condition_sleep, core.message_handler, condition, timeout))
end

return sync
