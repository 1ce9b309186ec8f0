--- moonloop: an async executor for Lua 5.4.
--
-- The front door. What it gives away is made in src/lua (the core) and in the files
-- beside this one. Every function works in a job and in a sync state alike unless it
-- says otherwise.

local core = ...
local executors = require "moonloop.executors"
local generator = require "moonloop.generator"
local lists = require "moonloop.lists"
local scopes = require "moonloop.scopes"
require "moonloop.sync"

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

  job = require("moonloop.jobs").job,
  group = require("moonloop.groups").group,
  run = require("moonloop.run").run,
  var = require("moonloop.vars").var,
  trace = require "moonloop.trace",

  scope = scopes.scope,
  shield = scopes.shield,
  timeout = scopes.timeout,
  wait_for = scopes.wait_for,
  move_on_after = scopes.move_on_after,
  defer = scopes.defer,

  complete_async_jobs = lists.complete_async_jobs,
  gather = lists.gather,
  wait = lists.wait,
  as_completed = lists.as_completed,
  map = lists.map,
  each = lists.each,

  AsyncExecutor = executors.AsyncExecutor,
  ThreadExecutor = executors.ThreadExecutor,
  ProcessExecutor = require("moonloop.processes").ProcessExecutor,
  run_async_job = executors.run_async_job,
  run_async = executors.run_async,
  async_to_sync = executors.async_to_sync,
  sync_to_async = executors.sync_to_async,
  to_thread = executors.to_thread,
  cpu = executors.cpu,
  cpu_executor = executors.cpu_executor,
  run_in_executor = executors.run_in_executor,
  get_event_loop = executors.get_event_loop,
  set_event_loop = executors.set_event_loop,
  stats = executors.stats,
  jobs = executors.jobs,

  generator = generator.generator,
  agen_to_gen = generator.agen_to_gen,

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
