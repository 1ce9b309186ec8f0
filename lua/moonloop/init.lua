--- moonloop: an async executor for Lua 5.4.
--
-- The front door: checks arguments and puts together what src/lua makes. Every
-- function here works in a job and in a sync state alike unless it says otherwise.

local core = ...
local ml = { version = "0.1.0" }

for _, name in ipairs { "spawn", "sleep", "checkpoint", "now", "poll", "in_job", "current_job", "promise",
                        "on_error", "is_cancelled", "is_timeout" } do
  ml[name] = core[name]
end

local pack, unpack = table.pack, table.unpack

--- Raises a plain error at the user's line.
local function misuse(message, ...) core.misuse(message:format(...)) end

local function type_of(...) return select("#", ...) == 0 and "no value" or type((...)) end

--- Refuses options that are not in `known`, by name.
local function check_options(what, options, known)
  if options == nil then return {} end
  if type(options) ~= "table" then misuse("%s: table of options expected, got %s", what, type(options)) end
  for key in pairs(options) do
    if not known[key] then misuse("%s: unknown option '%s'", what, tostring(key)) end
  end
  return options
end

local function check_count(what, value, default)
  if value == nil then return default end
  if math.type(value) ~= "integer" or value < 1 then
    misuse("%s: positive integer expected, got %s", what, tostring(value))
  end
  return value
end

-- Jobs ----------------------------------------------------------------------

local Job = { __name = "moonloop.job" }

local open_job

--- A job with its arguments and options.
-- @param spec { f, arg1, ..., name = string, timeout = seconds, n = length of the list, f included }
function ml.job(spec)
  if type(spec) ~= "table" then misuse("job: table expected, got %s", type(spec)) end
  local n = spec.n or 0
  if math.type(n) ~= "integer" or n < 0 then
    misuse("job: option 'n': count expected, got %s", tostring(n))
  end
  for key, value in pairs(spec) do
    if math.type(key) == "integer" and key >= 1 then
      if not spec.n and key > n then n = key end
    elseif key == "name" then
      if type(value) ~= "string" then misuse("job: option 'name': string expected, got %s", type(value)) end
    elseif key ~= "timeout" and key ~= "n" then
      misuse("job: unknown option '%s'", tostring(key))
    end
  end
  core.check_timeout(spec.timeout)
  open_job(spec[1])
  return setmetatable({ name = spec.name, timeout = spec.timeout, args = pack(unpack(spec, 1, n)) }, Job)
end

--- Takes a job argument apart.
-- @return function or "module:function", name, timeout, packed arguments
function open_job(...)
  local job = ...
  local kind = type(job)
  if kind == "function" then return job, nil, nil, pack(select(2, ...)) end
  if kind == "string" then
    if not job:find("^[^:]+:[^:]+$") then misuse('a job\'s name is "module:function", got "%s"', job) end
    return job, nil, nil, pack(select(2, ...))
  end
  if kind == "thread" then
    local f = core.coroutine_function(job)
    if not f then misuse("a coroutine that was started cannot be a job: pass its function, or a fresh one") end
    return f, nil, nil, pack(select(2, ...))
  end
  local meta = getmetatable(job)
  if meta == Job then
    local own = job.args
    local all = table.move(own, 2, own.n, 1, { n = math.max(own.n - 1, 0) })
    for i = 2, select("#", ...) do
      all.n = all.n + 1
      all[all.n] = (select(i, ...))
    end
    local f, name, timeout, args = open_job(own[1], unpack(all, 1, all.n))
    return f, job.name or name, job.timeout or timeout, args
  end
  if type(meta) == "table" and type(meta.__call) == "function" then
    return meta.__call, nil, nil, pack(...)
  end
  misuse('job expected (a function, "module:function", a fresh coroutine or ml.job{...}), got %s', type_of(...))
end

--- The function behind "module:function", in this state.
local function resolve(f)
  if type(f) ~= "string" then return f end
  local module, path = f:match("^([^:]+):([^:]+)$")
  local value = require(module)
  for field in path:gmatch("[^.]+") do value = value[field] end
  if type(value) ~= "function" then misuse('job "%s": function expected, got %s', f, type(value)) end
  return value
end

--- What `core.spawn` and `core.submit` leave to be taken apart.
core.spawn_other(function(...)
  local f, name, timeout, args = open_job(...)
  if not core.has_loop() then
    return core.submit_opened(core.default_executor(), name, timeout, f, unpack(args, 1, args.n))
  end
  return core.spawn_named(name, timeout, resolve(f), unpack(args, 1, args.n))
end)
core.submit_other(function(try, executor, ...)
  local f, name, timeout, args = open_job(...)
  local submit = try and core.try_submit_opened or core.submit_opened
  return submit(executor, name, timeout, f, unpack(args, 1, args.n))
end)
ml.create_task = ml.spawn

local submit = core.submit

--- Drops the outcome of a future that is still going as its block is left. A job is
-- cancelled; a function on a thread runs on, if it has begun.
local Abandon = {
  __close = function(self)
    local future = self[1]
    if not future:done() then core.abandon(future, self.cancel) end
  end,
}

--- Submits, and gives the results of the future that nobody else knows.
local function call_on(executor, ...)
  local cancel = core.executor_kind(executor) == "async"
  local guard <close> = setmetatable({ submit(executor, ...), cancel = cancel }, Abandon)
  return guard[1]:result()
end

local function check_executor(what, value)
  if not core.is_executor(value) then misuse("%s: executor expected, got %s", what, type(value)) end
  return value
end

-- The default executor ------------------------------------------------------

--- Submits a job to the default executor. `run_async` is the same.
-- @return future
function ml.run_async_job(...)
  return submit(core.default_executor(), ...)
end
ml.run_async = ml.run_async_job

--- A plain function that runs the job on the default executor and waits.
function ml.async_to_sync(job)
  open_job(job)
  return function(...)
    return call_on(core.default_executor(), job, ...)
  end
end

--- The process-wide default executor; made on first use.
function ml.get_event_loop() return core.default_executor() end

--- Sets the default executor for all states; nil unsets it.
-- @return the one before, or nil
function ml.set_event_loop(executor)
  if executor ~= nil then check_executor("set_event_loop", executor) end
  return core.set_default(executor)
end

--- Runs `f` on a worker thread of the default pool, waits, returns its results.
function ml.to_thread(...)
  return call_on(core.default_pool(), ...)
end

--- A function that runs blocking `f` on a worker thread and waits.
function ml.sync_to_async(f)
  open_job(f)
  return function(...)
    return call_on(core.default_pool(), f, ...)
  end
end

--- Submits to an executor; nil: the default thread pool.
-- @return future
function ml.run_in_executor(executor, ...)
  if executor ~= nil then check_executor("run_in_executor", executor) end
  return submit(executor or core.default_pool(), ...)
end

-- Scopes --------------------------------------------------------------------

local trace = core.message_handler

--- Leaves a scope after its body; absorbs the scope's own cancel.
-- @return the body's values, or nil and the error of the cancel or the deadline
local function leave(scope, ok, ...)
  core.scope_pop(scope)
  if ok then return ... end
  local err = ...
  local own, timed_out = core.scope_absorbs(scope, err)
  if not own then error(err, 0) end
  if timed_out then return nil, core.error_value("timeout", "the deadline of the scope passed") end
  return nil, err
end

--- Runs f(scope): `scope:cancel([reason])`, `scope.cancelled`, `scope:set_deadline(time)`.
-- A cancel of the scope is raised at the waits in it and absorbed here.
-- @param options { timeout = seconds }
-- @return f's values, or nil and the error of the cancel or the deadline
function ml.scope(f, options)
  options = check_options("scope", options, { timeout = true })
  local scope = core.scope_push(false, options.timeout)
  return leave(scope, xpcall(f, trace, scope))
end

--- Runs f(...) where a cancel from outside does not reach.
function ml.shield(f, ...)
  return leave(core.scope_push(true), xpcall(f, trace, ...))
end

--- Runs f(...) for at most `seconds`.
-- @return f's values, or nil and an error with code "timeout", after f's clean-up
function ml.move_on_after(seconds, f, ...)
  return leave(core.scope_push(false, seconds), xpcall(f, trace, ...))
end

local function leave_timeout(scope, seconds, ok, ...)
  core.scope_pop(scope)
  if ok then return ... end
  local err = ...
  if core.scope_absorbs(scope, err) then
    err = core.error_value("timeout", ("timeout after %g s"):format(seconds))
  end
  error(err, 0)
end

--- Runs f(...) for at most `seconds`; raises an error with code "timeout" after f's clean-up.
function ml.timeout(seconds, f, ...)
  return leave_timeout(core.scope_push(false, seconds), seconds, xpcall(f, trace, ...))
end
ml.wait_for = ml.timeout

local CLEAN_UP = 5 -- seconds that a clean-up may take

local Deferred = {
  __close = function(self, err)
    ml.shield(ml.timeout, CLEAN_UP, self[1], err)
  end,
}

--- For a <close> variable: runs f(err) as the block is left, shielded, for at most 5 s.
function ml.defer(f) return setmetatable({ f }, Deferred) end

-- Lists ---------------------------------------------------------------------

local function check_list(what, list)
  if type(list) ~= "table" then misuse("%s: list expected, got %s", what, type(list)) end
  return list
end

--- Futures of a list, as a list; jobs are started if `start` is given.
local function futures_of(what, list, start)
  local futures = {}
  for i = 1, #list do
    local item = list[i]
    if core.is_future(item) then
      futures[i] = item
    elseif start then
      futures[i] = start(item)
    else
      misuse("%s: item %d: future expected, got %s", what, i, type(item))
    end
  end
  return futures
end

--- A waitset of the futures, each once; also index in the set -> index in the list.
local function set_of(futures)
  local set, seen, where = core.waitset(), {}, {}
  for i = 1, #futures do
    local future = futures[i]
    if not seen[future] then
      seen[future] = true
      where[set:add(future)] = i
    end
  end
  return set, where
end

local function wait_all(futures)
  local set, where = set_of(futures)
  set:wait(#where)
end

--- Cancels what is left of a list of futures as the block is left, and waits for it.
local Stop = {
  __close = function(self)
    local futures, any = self[1], false
    for _, future in pairs(futures) do
      if not future:done() then
        future:cancel()
        any = true
      end
    end
    if not any then return end
    ml.shield(function()
      local set, n = core.waitset(), 0
      for _, future in pairs(futures) do
        if not future:done() then
          set:add(future)
          n = n + 1
        end
      end
      set:wait(n)
    end)
  end,
}

local function stop_at_exit(futures) return setmetatable({ futures }, Stop) end

--- Runs jobs on the default executor, or takes futures; returns when all are settled.
-- @return their futures, in order; raises for none of them
function ml.complete_async_jobs(...)
  local futures = { ... }
  for i = 1, select("#", ...) do
    local item = futures[i]
    if not core.is_future(item) then
      futures[i] = submit(core.default_executor(), item)
    end
  end
  wait_all(futures)
  return unpack(futures)
end

--- Waits for all; the first failure cancels the rest and is raised.
-- @param list futures and jobs; with return_errors = true nothing is raised
-- @return the first values in order; with return_errors also the errors, by index
function ml.gather(list)
  check_list("gather", list)
  local futures = futures_of("gather", list, ml.spawn)
  local set, where = set_of(futures)
  local guard <close> = stop_at_exit(futures) -- luacheck: ignore guard
  local results, errors = {}, {}
  if list.return_errors then
    set:wait(#where)
    for i = 1, #futures do
      local ok, value = futures[i]:wait()
      if ok then results[i] = value else errors[i] = value end
    end
    return results, errors
  end
  set:wait(#where, true)
  for _ = 1, #where do
    local index, future = set:next(0)
    if index and future:exception() ~= nil then return future:result() end
  end
  for i = 1, #futures do results[i] = (futures[i]:result()) end
  return results, errors
end

local WHEN = { all = true, first = true, first_error = true }

--- Waits for futures, without raising their errors or cancelling them.
-- @param options { timeout = seconds, return_when = "all" | "first" | "first_error" }
-- @return list of the settled ones, list of the others
function ml.wait(list, options)
  check_list("wait", list)
  options = check_options("wait", options, { timeout = true, return_when = true })
  local when = options.return_when or "all"
  if not WHEN[when] then
    misuse("wait: option 'return_when': \"all\", \"first\" or \"first_error\" expected, got %s", tostring(when))
  end
  core.check_timeout(options.timeout)
  local futures = futures_of("wait", list)
  local set, where = set_of(futures)
  set:wait(when == "first" and 1 or #where, when == "first_error", options.timeout)
  local done, pending = {}, {}
  for _, i in ipairs(where) do
    local future = futures[i]
    local to = future:done() and done or pending
    to[#to + 1] = future
  end
  return done, pending
end

--- Iterates over futures as they settle.
-- @param timeout seconds for all; past it the iterator raises
function ml.as_completed(list, timeout)
  check_list("as_completed", list)
  local deadline = core.check_timeout(timeout)
  local set, where = set_of(futures_of("as_completed", list))
  local left = #where
  return function()
    if left == 0 then return nil end
    local index, future = set:next(deadline and math.max(0, deadline - core.now()))
    if not index then
      error(core.error_value("timeout", ("%d of %d unfinished"):format(left, #where)), 2)
    end
    left = left - 1
    return future
  end
end

--- A function that gives the items of a list or an iterator, one a call: their
-- number and values, packed; nil at the end.
local function source_of(what, list)
  if type(list) == "table" and not (getmetatable(list) and getmetatable(list).__call) then
    local i, n = 0, #list
    return function()
      if i >= n then return nil end
      i = i + 1
      return pack(list[i])
    end
  end
  if type(list) == "table" or type(list) == "function" or type(list) == "userdata" then
    return function()
      local item = pack(list())
      if item[1] ~= nil then return item end
    end
  end
  misuse("%s: list or iterator expected, got %s", what, type(list))
end

--- Runs f over the items in jobs of this loop, at most `limit` at once; calls
-- take(index, item, future) for each as it ends.
local function fan_out(source, f, limit, running, set, take)
  local indices, items, count, active, more = {}, {}, 0, 0, true
  return function()
    while true do
      while more and active < limit do
        local item = source()
        if not item then
          more = false
          break
        end
        count, active = count + 1, active + 1
        local future = ml.spawn(f, unpack(item, 1, item.n))
        running[count] = future
        local entry = set:add(future)
        indices[entry], items[entry] = count, item[1]
      end
      if active == 0 then return nil end
      local entry, future = set:next()
      active = active - 1
      local index, item = indices[entry], items[entry]
      indices[entry], items[entry], running[index] = nil, nil, nil
      if take then
        take(index, future)
      else
        return item, future
      end
    end
  end
end

--- Calls f(item) for each item in jobs, at most `limit` at once.
-- @return results, errors: first values and errors by index; raises none of them
function ml.map(list, f, options)
  options = check_options("map", options, { limit = true })
  local limit = check_count("map: option 'limit'", options.limit, math.huge)
  local source = source_of("map", list)
  if type(f) ~= "function" and type(f) ~= "string" then
    misuse("map: function expected, got %s", type(f))
  end
  local running, results, errors = {}, {}, {}
  local guard <close> = stop_at_exit(running) -- luacheck: ignore guard
  fan_out(source, f, limit, running, core.waitset(), function(index, future)
    local ok, value = future:wait()
    if ok then results[index] = value else errors[index] = value end
  end)()
  return results, errors
end

--- Early exit from an iteration: explicit close, `<close>`, the collector.
local Iteration = {}
Iteration.__index = Iteration
Iteration.__name = "moonloop.iteration"
function Iteration:__call() return self.step() end
function Iteration:close()
  local stop = self.stop
  self.step = function() return nil end
  self.stop = nil
  if stop then stop() end
end
Iteration.__close = Iteration.close
function Iteration:__gc()
  for _, future in pairs(self.running) do
    core.abandon(future, true)
  end
end

-- Lua before 5.4.5 corrupts the stack where a loop with a closing value is left by
-- `break` and its body made a closure of a loop variable: there it has none.
local closes_loops = pcall(load [[
  local function check(n)
    local closed = 0
    local handle = setmetatable({}, { __close = function() closed = closed + 1 end })
    for i = 1, n do
      for k in (function() return 1 end), nil, nil, handle do
        local function keep() return i, k end
        keep()
        break
      end
    end
    assert(closed == n)
  end
  check(3)
]])

--- An iterator for `for`, which also can be held in a <close> variable.
local function iteration(step, running)
  local it = setmetatable({ step = step, running = running }, Iteration)
  it.stop = function()
    local guard <close> = stop_at_exit(running) -- luacheck: ignore guard
  end
  if closes_loops then return it, nil, nil, it end
  return it
end

--- Calls f(item) for each item in jobs, at most `limit` at once, and iterates over
-- the item and f's returns as they finish. Raises f's error at its turn.
function ml.each(list, f, options)
  options = check_options("each", options, { limit = true })
  local limit = check_count("each: option 'limit'", options.limit, math.huge)
  local source = source_of("each", list)
  local running = {}
  local next_one = fan_out(source, f, limit, running, core.waitset())
  local it
  local function step()
    local item, future = next_one()
    if not future then return nil end
    if future:exception() ~= nil then
      it:close()
      return future:result()
    end
    return item, future:result()
  end
  local a, b, c, d = iteration(step, running)
  it = a
  return a, b, c, d
end

-- Executors -----------------------------------------------------------------

local Executor = {}

--- Submits a job; waits while max_pending jobs are unsettled.
-- @return future; raises with code "closed" after shutdown
Executor.submit = core.submit

--- The same without waiting.
-- @return future, or nil and an error with code "busy"
Executor.try_submit = core.try_submit

--- Calls f on the executor, waits, and returns its results.
function Executor:sync_to_async(...)
  return call_on(check_executor("sync_to_async", self), ...)
end

--- One call per item; an iterator over their results, in order.
-- @param list a list, or an iterator function
-- @param options { window = 16 calls ahead, timeout = seconds for all }
function Executor:map(job, list, options)
  check_executor("map", self)
  options = check_options("map", options, { window = true, timeout = true })
  local window = check_count("map: option 'window'", options.window, 16)
  local deadline = core.check_timeout(options.timeout)
  local source = source_of("map", list)
  open_job(job)
  local running, first, last, more = {}, 1, 0, true
  local function fill()
    while more and last - first + 1 < window do
      local item = source()
      if not item then
        more = false
        return
      end
      running[last + 1] = submit(self, job, unpack(item, 1, item.n))
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
  local a, b, c, d = iteration(step, running)
  it = a
  return a, b, c, d
end

--- The names of jobs, for a message.
local function names_of(jobs)
  local names = {}
  for i, job in ipairs(jobs) do
    names[i] = job.waits_for and ("%s (waits for %s)"):format(job.name, job.waits_for) or job.name
    if i == 10 and #jobs > 10 then
      names[11] = ("and %d more"):format(#jobs - 10)
      break
    end
  end
  return table.concat(names, ", ")
end

--- No more submits; then waits for what was submitted.
-- @param options { wait = true, cancel = false, timeout = seconds }
-- @return true, or nil and an error that names the jobs that did not stop
function Executor:shutdown(options)
  check_executor("shutdown", self)
  options = check_options("shutdown", options, { wait = true, cancel = true, timeout = true })
  core.check_timeout(options.timeout)
  local wait = options.wait ~= false
  if wait and core.is_own(self) then
    misuse("shutdown: one of the executor's own jobs cannot wait for its end; use wait = false")
  end
  local ended = core.shutdown(self, options.cancel)
  if not wait then return true end
  if not ended:wait(options.timeout) then
    local jobs = self:jobs()
    return nil, core.error_value("timeout", ("executor '%s' did not stop: %s"):format(core.executor_name(self),
      #jobs > 0 and names_of(jobs) or "its loop does not answer"), { jobs = jobs })
  end
  core.join(self)
  return true
end

--- Counts: submitted queued running parked finished failed cancelled loops workers.
function Executor:stats() return core.stats(check_executor("stats", self)) end

--- What runs, waits and is queued now.
-- @return list of { name, state, waits_for, since, parent, submitted_at, traceback }
function Executor:jobs()
  check_executor("jobs", self)
  local answers = core.ask_jobs(self)
  if core.executor_kind(self) == "thread" then return answers end
  local jobs = {}
  for _, answer in ipairs(answers) do
    local ok, list = answer:wait(1)
    if ok then table.move(list, 1, #list, #jobs + 1, jobs) end
  end
  return jobs
end

local executor_meta = core.executor_metatable
function executor_meta.__index(self, key)
  if key == "name" then return core.executor_name(self) end
  return Executor[key]
end
function executor_meta.__close(self) self:shutdown() end
executor_meta.__metatable = false

--- Checks the options all executors share; returns name, max_pending, init...
local function executor_options(what, options, known)
  options = check_options(what, options, known)
  if options.name ~= nil and type(options.name) ~= "string" then
    misuse("%s: option 'name': string expected, got %s", what, type(options.name))
  end
  local init = pack()
  if options.init ~= nil then
    local kind = type(options.init)
    if kind ~= "function" and kind ~= "string" and kind ~= "thread" and getmetatable(options.init) ~= Job then
      misuse("%s: option 'init': job expected, got %s", what, kind)
    end
    local f, _, _, args = open_job(options.init)
    init = pack(f, unpack(args, 1, args.n))
  end
  return options, check_count(what .. ": option 'max_pending'", options.max_pending, 0), init
end

--- Loop threads for jobs.
-- @param options { name = string, loops = 1, init = job, max_pending = number }
function ml.AsyncExecutor(options)
  local o, max_pending, init = executor_options("AsyncExecutor", options,
    { name = true, loops = true, init = true, max_pending = true })
  local loops = check_count("AsyncExecutor: option 'loops'", o.loops, 1)
  return core.executor("async", o.name or "loop", loops, max_pending, unpack(init, 1, init.n))
end

--- Worker threads, each with a Lua state, for functions that block or compute.
-- @param options { name = string, workers = min(32, cores + 4), init = job, max_pending = number }
function ml.ThreadExecutor(options)
  local o, max_pending, init = executor_options("ThreadExecutor", options,
    { name = true, workers = true, init = true, max_pending = true })
  local workers = check_count("ThreadExecutor: option 'workers'", o.workers, core.default_workers)
  return core.executor("thread", o.name or "pool", workers, max_pending, unpack(init, 1, init.n))
end

--- The counts of the default executor.
function ml.stats() return core.default_executor():stats() end

--- The jobs of this state's loop, else of the default executor.
function ml.jobs()
  if core.has_loop() then return core.own_jobs() end
  return core.default_executor():jobs()
end

-- Running -------------------------------------------------------------------

--- Cancels the jobs that belong to a run, and waits for them.
local Run = {
  __close = function(self)
    if not self.main:done() then self.main:cancel() end
    ml.shield(function()
      repeat
        local left = core.jobs_of(self.id)
        for _, future in ipairs(left) do future:cancel() end
        wait_all(left)
      until #left == 0
    end)
  end,
}

--- Runs f on a loop on this thread, in this state, until it returns; cancels the
-- jobs it leaves and waits for them. Inside a job, on the loop that is there.
-- @return f's values; raises its error
function ml.run(...)
  local f, _, _, args = open_job(...)
  f = resolve(f)
  if not core.in_job() then return core.run_loop(f, unpack(args, 1, args.n)) end
  local main, id = core.spawn_main(f, unpack(args, 1, args.n))
  local guard <close> = setmetatable({ main = main, id = id }, Run) -- luacheck: ignore guard
  return main:result()
end

if os.getenv("MOONLOOP_INIT") == "1" and not core.in_worker() then core.default_executor() end

return ml
