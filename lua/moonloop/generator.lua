--- Async generators: functions whose yields are items for whoever holds the handle.

local core = require "moonloop.core"
local check = require "moonloop.check"
local jobs = require "moonloop.jobs"
local lists = require "moonloop.lists"
local scopes = require "moonloop.scopes"
local misuse = check.misuse
local generators = {}

local OPTIONS <const> = { prefetch = true, name = true, timeout = true, n = true }

--- An async generator on `executor`; also Executor:generator. What its function passes to
-- coroutine.yield in its own coroutine is an item, and it may wait between items.
---@param executor userdata
---@param spec table { f, arg1, ..., prefetch = 0 items kept ready; name, timeout, n as in ml.job }
---@return userdata # next send throw close, <close>, and callable, for `for`
function generators.on(executor, spec)
  check.executor("generator", executor)
  if core.executor_kind(executor) ~= "async" then
    local name = core.executor_name(executor)
    misuse("generator: executor '%s' has no loop: use an AsyncExecutor", name)
  end
  if type(spec) ~= "table" then misuse("generator: table expected, got %s", type(spec)) end
  local job = {}
  for key, value in pairs(spec) do
    if math.type(key) ~= "integer" and not OPTIONS[key] then
      misuse("generator: unknown option '%s'", tostring(key))
    end
    job[key] = value
  end
  job.prefetch = nil
  local prefetch = spec.prefetch or 0
  if math.type(prefetch) ~= "integer" or prefetch < 0 then
    misuse("generator: option 'prefetch': count expected, got %s", tostring(prefetch))
  end
  local f, name, timeout, args = jobs.open(jobs.job(job))
  local generator, feed = core.generator(prefetch)
  args[args.n + 1] = feed
  local future = core.submit_opened(executor, name, timeout, f, table.unpack(args, 1, args.n + 1))
  core.attach(generator, future)
  return generator
end

--- An async generator on the default executor.
---@param spec table as for Executor:generator
---@return userdata
function generators.generator(spec) return generators.on(core.default_executor(), spec) end

--- The same handle from a function and its arguments, for a generic `for`.
function generators.agen_to_gen(...)
  local generator = generators.generator{ n = select("#", ...), ... }
  if lists.closes_loops then return generator, nil, nil, generator end
  return generator
end

function core.generator_metatable.__close(self) scopes.shield(self.close, self) end

return generators
