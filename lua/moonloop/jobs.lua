--- Jobs: what may be one, and running them.

local core = require "moonloop.core"
local check = require "moonloop.check"
local scopes = require "moonloop.scopes"
local misuse = check.misuse
local pack, unpack = table.pack, table.unpack
local jobs = {}

local Job = { __name = "moonloop.job" }

local open

-- What a callable value that is no function is called through: its own __call may be a C function,
-- which would not cross.
local function call(callable, ...) return callable(...) end

--- A job with its arguments and options.
-- @param spec { f, arg1, ..., name = string, timeout = seconds, n = length with f, for nils,
--   loop = which of an executor's loops, affinity = value: jobs of the same one share a loop,
--   preempt_ms = the time it may compute while others of its loop wait }
function jobs.job(spec)
  if type(spec) ~= "table" then misuse("job: table expected, got %s", type(spec)) end
  local n = spec.n or 0
  if math.type(n) ~= "integer" or n < 0 then
    misuse("job: option 'n': count expected, got %s", tostring(n))
  end
  for key, value in pairs(spec) do
    if math.type(key) == "integer" and key >= 1 then
      if not spec.n and key > n then n = key end
    elseif key == "name" then
      if type(value) ~= "string" then
        misuse("job: option 'name': string expected, got %s", type(value))
      end
    elseif key == "loop" then
      check.count("job: option 'loop'", value)
    elseif key ~= "timeout" and key ~= "n" and key ~= "affinity" and key ~= "preempt_ms" then
      misuse("job: unknown option '%s'", tostring(key))
    end
  end
  core.check_timeout(spec.timeout)
  core.loop_limits(nil, nil, spec.preempt_ms)
  open(spec[1])
  local job = { name = spec.name, timeout = spec.timeout, args = pack(unpack(spec, 1, n)),
                loop = spec.loop, affinity = spec.affinity }
  if spec.preempt_ms then
    local f, name, timeout, rest = open(unpack(job.args, 1, n))
    job.args = pack(jobs.sliced(spec.preempt_ms, f), unpack(rest, 1, rest.n))
    job.name = spec.name or name or type(f) == "string" and f or nil
    job.timeout = spec.timeout or timeout
  end
  return setmetatable(job, Job)
end

--- Takes a job argument apart. Also `jobs.open`.
-- @return function or "module:function", name, timeout, packed arguments
function open(...)
  local job = ...
  local kind = type(job)
  if kind == "function" then return job, nil, nil, pack(select(2, ...)) end
  if kind == "string" then
    if not job:find("^[^:]+:[^:]+$") then
      misuse('a job\'s name is "module:function", got "%s"', job)
    end
    return job, nil, nil, pack(select(2, ...))
  end
  if kind == "thread" then
    local f = core.coroutine_function(job)
    if not f then
      misuse "a coroutine that was started cannot be a job: pass its function, or a fresh one"
    end
    return f, nil, nil, pack(select(2, ...))
  end
  if getmetatable(job) == Job then
    local own = job.args
    local all = table.move(own, 2, own.n, 1, { n = math.max(own.n - 1, 0) })
    for i = 2, select("#", ...) do
      all.n = all.n + 1
      all[all.n] = (select(i, ...))
    end
    local f, name, timeout, args = open(own[1], unpack(all, 1, all.n))
    return f, job.name or name, job.timeout or timeout, args
  end
  if core.is_callable(job) then return call, nil, nil, pack(...) end
  misuse('job expected (a function, "module:function", a fresh coroutine or ml.job{...}), got %s',
    check.type_of(...))
end

--- The same number for equal strings and numbers, in every state.
local function hash(value)
  local n = 5381
  for i = 1, #value do n = (n * 33 ~ value:byte(i)) & 0x7fffffff end
  return n
end

--- Where a job goes that is submitted to an executor: the loop that its options name.
local function placed(executor, job)
  if getmetatable(job) ~= Job or not (job.loop or job.affinity ~= nil) then return executor end
  if not core.is_executor(executor) then
    misuse "submit: a job with the option 'loop' or 'affinity' is submitted to an executor"
  end
  if core.executor_kind(executor) ~= "async" then
    misuse "submit: options 'loop' and 'affinity' are for an AsyncExecutor; see executor:worker()"
  end
  local loops, loop = core.stats(executor).loops, job.loop
  if loop and loop > loops then
    misuse("submit: option 'loop': the executor has %d, got %d", loops, loop)
  end
  if not loop then
    local kind = math.type(job.affinity) or type(job.affinity)
    if kind ~= "string" and kind ~= "integer" then
      misuse("submit: option 'affinity': string or integer expected, got %s", kind)
    end
    loop = hash(tostring(job.affinity)) % loops + 1
  end
  return core.pin(executor, loop)
end

--- The function behind "module:function", in this state.
function jobs.resolve(f)
  if type(f) ~= "string" then return f end
  local found = core.resolve(f)
  if type(found) == "function" then return found end
  return function(...) return found(...) end
end

--- What `core.spawn` leaves to be taken apart: all but functions.
function jobs.spawn(...)
  local f, name, timeout, args = open(...)
  if not core.has_loop() then
    local executor = placed(core.default_executor(), (...))
    return core.submit_opened(executor, name, timeout, f, unpack(args, 1, args.n))
  end
  if getmetatable((...)) == Job and ((...).loop or (...).affinity ~= nil) then
    misuse "spawn: options 'loop' and 'affinity' are for submit: a spawned job stays on its loop"
  end
  return core.spawn_named(name, timeout, jobs.resolve(f), unpack(args, 1, args.n))
end

--- The same for `core.submit` and, where `try` is set, `core.try_submit`.
function jobs.submit(try, executor, ...)
  local f, name, timeout, args = open(...)
  local submit, target = core.submit_opened, placed(executor, (...))
  if try then submit = core.try_submit_opened end
  if timeout and core.executor_kind(target) == "thread" then
    name = name or type(f) == "string" and f or nil
    f, timeout = jobs.limited(timeout, f), nil
  end
  return submit(target, name, timeout, f, unpack(args, 1, args.n))
end
jobs.open = open

--- The body of a job with slices of its own. What it is made of crosses as upvalues, so that
-- `argument 1` in a refusal is the job's own.
function jobs.sliced(ms, f)
  return function(...)
    core.preempt(ms)
    return jobs.resolve(f)(...)
  end
end

--- The body of a job with a time limit, where no loop keeps it.
function jobs.limited(seconds, f)
  return function(...) return scopes.timeout(seconds, jobs.resolve(f), ...) end
end

--- Is it a job made by ml.job?
function jobs.is_job(value) return getmetatable(value) == Job end

--- Ends a call that is left early. A job is cancelled, and waited for; a function on a
-- thread runs on, if it has begun. The outcome is dropped.
local Call = {
  __close = function(self)
    local future = self[1]
    if future:done() then return end
    core.abandon(future, self.cancel)
    if self.cancel then scopes.shield(future.wait, future) end
  end,
}

--- Submits, and gives the results of the future that nobody else knows.
function jobs.call_on(executor, ...)
  core.check_wait "call"
  local cancel = core.executor_kind(executor) ~= "thread"
  local guard <close> = setmetatable({ core.submit(executor, ...), cancel = cancel }, Call)
  return guard[1]:result()
end

return jobs
