--- Async generators: functions whose yields are items for whoever holds the handle.

local core = require "moonloop.core"
local check = require "moonloop.check"
local jobs = require "moonloop.jobs"
local lists = require "moonloop.lists"
local scopes = require "moonloop.scopes"
local misuse, CLEAN_UP = check.misuse, scopes.CLEAN_UP
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

-- Closing --------------------------------------------------------------------

local trace = core.message_handler

local function close_by(self, deadline)
  local ok, err = core.generator_close(self, math.max(0, deadline - core.now()))
  if not ok then error(err, 0) end
end

--- For who is being cancelled: waits all the same, as long as a clean-up may take.
local function close_shielded(self, deadline)
  local seconds = deadline and deadline - core.now() or CLEAN_UP
  return scopes.shield(core.generator_close, self, math.max(0, math.min(seconds, CLEAN_UP)))
end

local function go_on(self, ok, ...)
  if ok then return ... end
  local err = ...
  if core.is_cancelled(err) then return close_shielded(self) end
  error(err, 0)
end

--- Ends the body and waits for its clean-up. A cancel of the waiter is raised at its next
-- wait: here it only bounds this one, to 5 s.
---@param timeout number|nil seconds
---@return true|nil # nil: err has the code "timeout"; raises the error of the clean-up
---@return table|nil err
function generators.close(self, timeout)
  if core.cancelled() then return close_shielded(self, core.check_timeout(timeout)) end
  return go_on(self, xpcall(core.generator_close, trace, self, timeout))
end

--- Waits for at most 5 s, shielded; raises the error of the clean-up, or that it takes longer.
function generators.leave(self)
  core.disown(self)
  scopes.shield(close_by, self, core.now() + CLEAN_UP)
end

local function close_all(list, failed)
  local deadline, first = core.now() + CLEAN_UP, nil
  for _, generator in ipairs(list) do
    local ok, err = xpcall(close_by, trace, generator, deadline)
    if not ok then
      if failed or first then
        core.report_clean_up(generator, err)
      else
        first = { err }
      end
    end
  end
  if first then error(first[1], 0) end
end

--- Waits for the end of generators that a job or a block left open, 5 s for all. Raises the
-- first error of their clean-up and reports the others; all of them where the job failed.
function core.close_left(list, failed) scopes.shield(close_all, list, failed) end
core.on_left(core.close_left)

return generators
