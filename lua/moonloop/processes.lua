--- ProcessExecutor: child processes for what may crash, or must be killed.

local core = require "moonloop.core"
local check = require "moonloop.check"
local executors = require "moonloop.executors"
local misuse = check.misuse

local processes = {}

local KNOWN = {
  name = true, workers = true, init = true, max_pending = true, memory_limit = true,
  cpu_limit = true, max_jobs = true, output = true, grace = true,
}
local OUTPUTS = { log = true, inherit = true, discard = true }

local function seconds(name, value, default, above)
  if value == nil then return default end
  if type(value) ~= "number" or value ~= value or value < 0 or (above and value <= 0) then
    misuse("ProcessExecutor: option '%s': %s number of seconds expected, got %s", name,
      above and "positive" or "non-negative", tostring(value))
  end
  return math.min(value, 1e9)
end

--- Child processes, each with a Lua state, for functions that may crash or must be killed.
---@param options table? `workers` (as many as there are cores), `name`, `init` (a job, first in
--- each child), `max_pending`; `memory_limit`: bytes of a child's address space; `cpu_limit`:
--- seconds of processor time for each job; `max_jobs`: after which a child is replaced;
--- `output`: what becomes of what children print: "log" (line by line to stderr), "inherit" or
--- "discard"; `grace`: seconds between asking a child to end and killing it (2)
---@return userdata # the executor
function processes.ProcessExecutor(options)
  local what = "ProcessExecutor"
  local o, max_pending, init = executors.options(what, options, KNOWN)
  local workers = check.count(what .. ": option 'workers'", o.workers, core.cores,
    check.MOST_WORKERS)
  local output = o.output == nil and "log" or o.output
  if not OUTPUTS[output] then
    misuse("ProcessExecutor: option 'output': \"log\", \"inherit\" or \"discard\" expected, got %s",
      tostring(output))
  end
  return core.process_executor(o.name or "process", workers, max_pending, {
    memory_limit = check.count(what .. ": option 'memory_limit'", o.memory_limit, nil),
    max_jobs = check.count(what .. ": option 'max_jobs'", o.max_jobs, nil),
    cpu_limit = seconds("cpu_limit", o.cpu_limit, nil, true),
    grace = seconds("grace", o.grace, 2),
    output = output,
  }, table.unpack(init, 1, init.n))
end

return processes
