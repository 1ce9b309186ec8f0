--- moonloop: an async executor for Lua 5.4.
--
-- The front door. What it gives away is made in src/lua (the core) and in the files
-- beside this one. Every function works in a job and in a sync state alike unless it
-- says otherwise.

local core = ...
local ml = { version = "0.1.0" }

local function add(module, names)
  for name in names:gmatch "%S+" do ml[name] = assert(module[name], name) end
end

add(core, [[
  spawn sleep checkpoint now poll in_job current_job cancelled promise ref on_error on_blocked
  is_cancelled is_timeout
]])
ml.create_task = ml.spawn

add(require "moonloop.jobs", "job")
add(require "moonloop.scopes", "scope shield timeout wait_for move_on_after defer")
add(require "moonloop.lists", "complete_async_jobs gather wait as_completed map each")
add(require "moonloop.executors", [[
  AsyncExecutor ThreadExecutor run_async_job run_async async_to_sync sync_to_async to_thread cpu
  cpu_executor run_in_executor get_event_loop set_event_loop stats jobs
]])
add(require "moonloop.processes", "ProcessExecutor")
add(require "moonloop.generator", "generator agen_to_gen")
add(require "moonloop.groups", "group")
add(require "moonloop.sync", "Semaphore Lock Event Condition Barrier Queue Channel select")
add(require "moonloop.vars", "var")
add(require "moonloop.run", "run")

if os.getenv("MOONLOOP_INIT") == "1" and not core.in_worker() then core.default_executor() end

return ml
