--- moonloop: an async executor for Lua 5.4.
--
-- The front door. What it gives away is made in src/lua (the core) and in the files
-- beside this one. Every function works in a job and in a sync state alike unless it
-- says otherwise.

local core = ...
local require <const> = require

--- Gives functions of a module by name. It is loaded with the first call of one of them: most
-- states need few, and each worker of a pool has a state.
local function later(module)
  return function(name)
    local f
    return function(...)
      f = f or require(module)[name]
      return f(...)
    end
  end
end

--- The same for what handles can do: the module puts its own functions in place of these.
local function methods_later(metatable, module)
  function metatable.__index(self, key)
    require(module)
    return self[key]
  end
  function metatable.__close(...)
    require(module)
    return metatable.__close(...)
  end
  metatable.__metatable = false
end

local executors = later "moonloop.executors"
local generators = later "moonloop.generator"
local jobs = later "moonloop.jobs"
local lists = later "moonloop.lists"
local scopes = later "moonloop.scopes"
local traces = later "moonloop.trace"

methods_later(core.executor_metatable, "moonloop.executors")
methods_later(core.pin_metatable, "moonloop.workers")
core.generator_metatable.__index.close = generators "close"
core.generator_metatable.__close = generators "leave"
core.condition_methods.wait = later "moonloop.sync" "wait"
core.spawn_other(jobs "spawn")
core.submit_other(jobs "submit")

-- Every state of a worker comes through here: one constructor is the quickest way to fill it.
local ml = {
  version = "0.1.0",

  spawn = core.spawn,
  create_task = core.spawn,
  sleep = core.sleep,
  checkpoint = core.checkpoint,
  now = core.now,
  poll = core.poll,
  in_job = core.in_job,
  current_job = core.current_job,
  cancelled = core.cancelled,
  promise = core.promise,
  ref = core.ref,
  on_error = core.on_error,
  on_blocked = core.on_blocked,
  is_cancelled = core.is_cancelled,
  is_timeout = core.is_timeout,

  job = jobs "job",
  group = later "moonloop.groups" "group",
  run = later "moonloop.run" "run",
  var = later "moonloop.vars" "var",
  trace = { start = traces "start", stop = traces "stop", dump = traces "dump" },

  scope = scopes "scope",
  shield = scopes "shield",
  timeout = scopes "timeout",
  wait_for = scopes "wait_for",
  move_on_after = scopes "move_on_after",
  defer = scopes "defer",

  complete_async_jobs = lists "complete_async_jobs",
  gather = lists "gather",
  wait = lists "wait",
  as_completed = lists "as_completed",
  map = lists "map",
  each = lists "each",

  AsyncExecutor = executors "AsyncExecutor",
  ThreadExecutor = executors "ThreadExecutor",
  ProcessExecutor = later "moonloop.processes" "ProcessExecutor",
  run_async_job = executors "run_async_job",
  run_async = executors "run_async",
  async_to_sync = executors "async_to_sync",
  sync_to_async = executors "sync_to_async",
  to_thread = executors "to_thread",
  cpu = executors "cpu",
  cpu_executor = executors "cpu_executor",
  run_in_executor = executors "run_in_executor",
  get_event_loop = executors "get_event_loop",
  set_event_loop = executors "set_event_loop",
  stats = executors "stats",
  jobs = executors "jobs",

  generator = generators "generator",
  agen_to_gen = generators "agen_to_gen",

  Semaphore = core.Semaphore,
  Lock = core.Lock,
  Event = core.Event,
  Condition = core.Condition,
  Barrier = core.Barrier,
  Queue = core.Queue,
  Channel = core.Channel,
  select = core.select,
}

if os.getenv("MOONLOOP_INIT") == "1" and not core.in_worker() then core.default_executor() end

return ml
