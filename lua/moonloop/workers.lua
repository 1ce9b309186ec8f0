--- One worker of an executor, held: calls that need the same Lua state.
--
--   local worker <close> = pool:worker()
--   worker:call(open, "data.db")      -- a global there holds the connection
--   local rows = worker:call(query, "select ...")

local core = require "moonloop.core"
local check = require "moonloop.check"
local jobs = require "moonloop.jobs"

local Worker = {}

--- Submits a job to this worker. They run in the order of their submits.
---@return userdata future raises with code "closed" after the executor's shutdown
Worker.submit = core.submit

--- The same without waiting.
---@return userdata? future
---@return table? err code "busy" or "closed"
Worker.try_submit = core.try_submit

--- Calls f there, waits, and returns its results.
function Worker:call(...) return jobs.call_on(self, ...) end

--- Lets the worker go. What was submitted is still done.
function Worker:close() core.pin_release(self) end

local meta = core.pin_metatable
function meta.__index(self, key)
  if key == "executor" then return (core.pin_executor(self)) end
  if key == "index" then return (select(2, core.pin_executor(self))) end
  return Worker[key]
end
meta.__close = Worker.close

local workers = {}

--- Chooses the worker with the least to do and keeps it until it is closed. A child process is
--- chosen with the first call; when it ends, all that follow fail with code "crashed".
---@param executor userdata
---@return userdata worker raises with code "closed" after the executor's shutdown
function workers.of(executor)
  return core.pin(check.executor("worker", executor))
end

return workers
