--- Traces: what happened when, on which thread. They open in Perfetto and chrome://tracing.

local core = require "moonloop.core"
local check = require "moonloop.check"
local executors = require "moonloop.executors"
local misuse = check.misuse
local trace = {}

local MEMORY <const>, LEAST <const> = 64 << 20, 1 << 20

--- Begins to trace the whole process, and forgets an earlier trace.
-- @param options { memory = 64 MiB: bytes for events, of which the newest are kept }
-- @return true; false: it was on, and goes on
function trace.start(options)
  options = check.options("trace.start", options, { memory = true })
  local memory = check.count("trace.start: option 'memory'", options.memory, MEMORY)
  if memory < LEAST then
    misuse("trace.start: option 'memory': at least %d bytes, got %d", LEAST, memory)
  end
  return core.trace_start(memory)
end

--- Traces no more. What was traced can still be dumped.
-- @return whether it was on
function trace.stop() return core.trace_stop() end

--- Writes what was traced up to now as JSON. In a job a thread writes; others go on meanwhile.
-- @param path of the file
-- @return true and { events =, dropped = }, or nil and an error
function trace.dump(path)
  if type(path) ~= "string" then
    misuse("trace.dump: path expected, got %s", check.type_of(path))
  end
  if not core.trace_begun() then
    misuse "trace.dump: nothing was traced yet: call trace.start first"
  end
  local events, dropped
  if core.in_job() then
    events, dropped = executors.to_thread(core.trace_write, path)
  else
    events, dropped = core.trace_write(path)
  end
  if not events then return nil, dropped end
  return true, { events = events, dropped = dropped }
end

return trace
