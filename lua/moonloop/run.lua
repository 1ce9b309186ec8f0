--- ml.run: a loop on the calling thread, or a part of the one that is there.

local core = require "moonloop.core"
local jobs = require "moonloop.jobs"
local lists = require "moonloop.lists"
local scopes = require "moonloop.scopes"
local unpack = table.unpack

--- Cancels the jobs that belong to a run, and waits for them.
local Run = {
  __close = function(self)
    if not self.main:done() then self.main:cancel() end
    scopes.shield(function()
      repeat
        local left = core.jobs_of(self.id)
        for _, future in ipairs(left) do future:cancel() end
        lists.wait_all(left)
      until #left == 0
    end)
  end,
}

--- Runs f on a loop on this thread, in this state, until it returns; cancels the
-- jobs it leaves and waits for them. Inside a job, on the loop that is there.
-- @return f's values; raises its error
local function run(...)
  local f, _, timeout, args = jobs.open(...)
  f = jobs.resolve(f)
  if timeout then f = jobs.limited(timeout, f) end
  if not core.in_job() then return core.run_loop(f, unpack(args, 1, args.n)) end
  local main, id = core.spawn_main(f, unpack(args, 1, args.n))
  local guard <close> = setmetatable({ main = main, id = id }, Run) -- luacheck: ignore guard
  return main:result()
end

return { run = run }
