--- Executors, and the functions that use the default ones.

local core = require "moonloop.core"
local check = require "moonloop.check"
local generators = require "moonloop.generator"
local jobs = require "moonloop.jobs"
local lists = require "moonloop.lists"
local scopes = require "moonloop.scopes"
local workers = require "moonloop.workers"
local misuse = check.misuse
local pack, unpack = table.pack, table.unpack
local executors = {}

local Executor = {}

--- Submits a job; waits while max_pending jobs are unsettled.
-- @return future; raises with code "closed" after shutdown
Executor.submit = core.submit

--- The same without waiting.
-- @return future, or nil and an error with code "busy"
Executor.try_submit = core.try_submit

Executor.generator = generators.on

--- A worker, or a loop, to be held: calls through it run in one Lua state.
-- @return worker: call submit try_submit close, and `<close>`
Executor.worker = workers.of

--- Calls f on the executor, waits, and returns its results.
function Executor:sync_to_async(...)
  return jobs.call_on(check.executor("sync_to_async", self), ...)
end

--- One call per item; an iterator over their results, in order.
-- @param list a list, or an iterator function
-- @param options { window = 16 calls ahead, timeout = seconds for all }
function Executor:map(job, list, options)
  check.executor("map", self)
  options = check.options("map", options, { window = true, timeout = true })
  local window = check.count("map: option 'window'", options.window, 16)
  local deadline = core.check_timeout(options.timeout)
  local source = lists.source_of("map", list)
  jobs.open(job)
  local running, first, last, more = {}, 1, 0, true
  local function fill()
    while more and last - first + 1 < window do
      local item = source()
      if not item then
        more = false
        return
      end
      running[last + 1] = core.submit(self, job, unpack(item, 1, item.n))
      last = last + 1
    end
  end
  local it
  local function step()
    if first > last then return nil end
    local future = running[first]
    local ok, err = future:wait(deadline and math.max(0, deadline - core.now()))
    if not ok then
      local settled = future:done()
      it:close()
      if settled then return future:result() end
      error(err, 0)
    end
    running[first] = nil
    first = first + 1
    fill()
    return future:result()
  end
  fill()
  local a, b, c, d = lists.iteration(step, running)
  it = a
  return a, b, c, d
end

--- How long a loop may take to answer, and what holds it to say more, in seconds.
local ANSWER <const>, MORE <const> = 0.1, 0.2
local LOOKS <const> = 20 -- at a pool, in the time of an answer

--- A job's name, what it waits for or where it runs, and where it was submitted.
local function held_by(job)
  local facts = {}
  local line = job.runs_at
    or job.state == "running" and job.traceback and job.traceback:match "([^%s]+:%d+):"
  if line then facts[1] = "runs at " .. line end
  if job.inside then facts[1] = ("is inside one C call: " .. job.inside):gsub(": $", "") end
  if job.waits_for then
    facts[1] = "waits for " .. job.waits_for .. (line and " at " .. line or "")
  end
  if job.submitted_at then facts[#facts + 1] = "submitted at " .. job.submitted_at end
  return #facts > 0 and ("%s (%s)"):format(job.name, table.concat(facts, ", ")) or job.name
end

--- Has the threads of a pool note where they are. A line that called into C is known at a second
-- look; inside a C function that computes there is none.
local function locate(pool)
  local began = core.real_now()
  for _ = 1, LOOKS do
    if core.look(pool, began) then return end
    core.sleep(ANSWER / LOOKS)
  end
end

--- The names of jobs, for a message.
local function names_of(left)
  local names = {}
  for i, job in ipairs(left) do
    names[i] = held_by(job)
    if i == 10 and #left > 10 then
      names[11] = ("and %d more"):format(#left - 10)
      break
    end
  end
  return table.concat(names, ", ")
end

--- No more submits; then waits for what was submitted.
-- @param options { wait = true, cancel = false, timeout = seconds }
-- @return true, or nil and an error that names the jobs that did not stop
function Executor:shutdown(options)
  check.executor("shutdown", self)
  options = check.options("shutdown", options, { wait = true, cancel = true, timeout = true })
  core.check_timeout(options.timeout)
  local wait = options.wait ~= false
  if wait and core.is_own(self) then
    misuse("shutdown: one of the executor's own jobs cannot wait for its end; use wait = false")
  end
  local ended = core.shutdown(self, options.cancel)
  if not wait then return true end
  if not ended:wait(options.timeout) then
    local left = self:jobs()
    local who = #left > 0 and names_of(left) or "its loop does not answer"
    local text = ("executor '%s' did not stop: %s"):format(core.executor_name(self), who)
    return nil, core.error_value("timeout", text, { jobs = left })
  end
  core.join(self)
  return true
end

--- Counts: submitted queued running parked finished failed cancelled loops workers.
function Executor:stats() return core.stats(check.executor("stats", self)) end

--- What runs, waits and is queued now.
-- @return list of { name, state, waits_for, since, parent, submitted_at, traceback }; of what runs
--   on a thread of a pool runs_at, or inside: the C call
function Executor:jobs()
  check.executor("jobs", self)
  if core.executor_kind(self) == "thread" then
    locate(self)
    return core.ask_jobs(self)
  end
  local all = {}
  for i, answer in ipairs(core.ask_jobs(self)) do
    local ok, list = answer:wait(ANSWER)
    if not ok then -- it is held up: what holds it may say more
      local either = { answer, core.ask_running(self, i) }
      for _ = 1, 2 do
        local settled = lists.wait(either, { timeout = MORE, return_when = "first" })
        ok, list = (settled[1] or answer):wait(0)
        if settled[1] then break end
        core.look(self)
      end
    end
    if not ok then list = { core.spot(self, i) } end -- it is inside one C call
    table.move(list, 1, #list, #all + 1, all)
  end
  return all
end

local executor_meta = core.executor_metatable
function executor_meta.__index(self, key)
  if key == "name" then return core.executor_name(self) end
  return Executor[key]
end
--- Leaving the block of a `<close>` executor ends it and waits; where a cancel leaves it,
-- the executor's jobs are cancelled too.
function executor_meta.__close(self, err)
  scopes.shield(Executor.shutdown, self, core.is_cancelled(err) and { cancel = true } or nil)
end

--- Checks the options all executors share; returns name, max_pending, init...
local function executor_options(what, options, known)
  options = check.options(what, options, known)
  if options.name ~= nil and type(options.name) ~= "string" then
    misuse("%s: option 'name': string expected, got %s", what, type(options.name))
  end
  local init = pack()
  if options.init ~= nil then
    local kind = type(options.init)
    local job = kind == "string" or kind == "thread" or jobs.is_job(options.init)
    if not job and not core.is_callable(options.init) then
      misuse("%s: option 'init': job expected, got %s", what, kind)
    end
    local f, _, timeout, args = jobs.open(options.init)
    if timeout then f = jobs.limited(timeout, f) end
    init = pack(f, unpack(args, 1, args.n))
  end
  return options, check.count(what .. ": option 'max_pending'", options.max_pending, 0), init
end

executors.options = executor_options

--- Loop threads for jobs.
-- @param options { name = string, loops = 1, init = job, max_pending = number,
--   blocked_ms = 100 until a job that holds its loop is reported (0: never),
--   preempt_ms = the time a job may compute while others wait (0: until it waits) }
function executors.AsyncExecutor(options)
  local o, max_pending, init = executor_options("AsyncExecutor", options, { name = true,
    loops = true, init = true, max_pending = true, blocked_ms = true, preempt_ms = true })
  local loops = check.count("AsyncExecutor: option 'loops'", o.loops, 1,
    check.MOST_WORKERS)
  core.loop_limits(nil, o.blocked_ms, o.preempt_ms)
  local ex = core.executor("async", o.name or "loop", { size = loops, max_pending = max_pending },
    unpack(init, 1, init.n))
  core.loop_limits(ex, o.blocked_ms, o.preempt_ms)
  return ex
end

--- Worker threads, each with a Lua state, for functions that block or compute.
-- Workers are started as they are needed; a worker without work for `idle_timeout` ends. A
-- worker's state is made anew, and `init` run again, after `max_jobs` jobs, or when it keeps
-- more than `max_memory` bytes.
-- @param options { name = string, workers = min(32, cores + 4), init = job, max_pending = number,
--   idle_timeout = 10 seconds, max_jobs = number, max_memory = bytes }
function executors.ThreadExecutor(options)
  local what = "ThreadExecutor"
  local o, max_pending, init = executor_options(what, options, {
    name = true, workers = true, init = true, max_pending = true,
    idle_timeout = true, max_jobs = true, max_memory = true,
  })
  core.check_timeout(o.idle_timeout, "idle_timeout")
  return core.executor("thread", o.name or "pool", {
    size = check.count(what .. ": option 'workers'", o.workers, core.default_workers,
      check.MOST_WORKERS),
    max_pending = max_pending,
    idle_timeout = o.idle_timeout and o.idle_timeout + 0.0,
    max_jobs = check.count(what .. ": option 'max_jobs'", o.max_jobs),
    max_memory = check.count(what .. ": option 'max_memory'", o.max_memory),
  }, unpack(init, 1, init.n))
end

--- The counts of the default executor.
function executors.stats() return core.default_executor():stats() end

--- The jobs of this state's loop, else of the default executor.
function executors.jobs()
  if core.has_loop() then return core.own_jobs() end
  return core.default_executor():jobs()
end

-- The default executors ------------------------------------------------------

--- Submits a job to the default executor. `run_async` is the same.
-- @return future
function executors.run_async_job(...)
  return core.submit(core.default_executor(), ...)
end
executors.run_async = executors.run_async_job

--- A plain function that runs the job on the default executor and waits.
function executors.async_to_sync(job)
  jobs.open(job)
  return function(...)
    return jobs.call_on(core.default_executor(), job, ...)
  end
end

--- The process-wide default executor; made on first use.
function executors.get_event_loop() return core.default_executor() end

--- Sets the default executor for all states; nil unsets it.
-- @return the one before, or nil
function executors.set_event_loop(executor)
  if executor ~= nil then check.executor("set_event_loop", executor) end
  return core.set_default(executor)
end

--- Runs `f` on a worker thread of the default pool, waits, returns its results.
function executors.to_thread(...)
  return jobs.call_on(core.default_pool(), ...)
end

--- A function that runs blocking `f` on a worker thread and waits.
-- @param options { executor = where to run it: the default pool }
function executors.sync_to_async(f, options)
  options = check.options("sync_to_async", options, { executor = true })
  local executor = options.executor
  if executor ~= nil then check.executor("sync_to_async: option 'executor'", executor) end
  jobs.open(f)
  return function(...)
    return jobs.call_on(executor or core.default_pool(), f, ...)
  end
end

--- The default pool for what computes: a worker for each core. `to_thread` and the like have a
-- pool of their own, so that those that block do not hold up those that compute.
function executors.cpu_executor() return core.default_cpu() end

--- Runs `f` on a worker thread of that pool, waits, returns its results.
function executors.cpu(...)
  return jobs.call_on(core.default_cpu(), ...)
end

--- Submits to an executor; nil: the default thread pool.
-- @return future
function executors.run_in_executor(executor, ...)
  if executor ~= nil then check.executor("run_in_executor", executor) end
  return core.submit(executor or core.default_pool(), ...)
end

return executors
