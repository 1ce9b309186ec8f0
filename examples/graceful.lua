#!/usr/bin/env moonloop
-- Stops in good order: on Ctrl-C, or when its time is over, it takes no more work, lets what
-- it began come to its end, and cancels what takes too long.
--
--   ./dev run examples/graceful.lua [SECONDS]      runs for SECONDS (1) or until Ctrl-C
--   lua5.4 examples/graceful.lua ...               the same in the stock interpreter
--
-- Ctrl-C cancels the main job: an error is raised at its wait, and the code in `ml.defer` runs
-- as the block is left. It is shielded, so it may wait. A second Ctrl-C ends the program.

local ml = require "moonloop"

local GRACE <const> = 0.3 -- seconds for what was begun
local SECONDS <const> = tonumber(arg[1] or 1)
if not SECONDS or SECONDS < 0 then
  io.stderr:write("usage: graceful.lua [SECONDS]\n")
  os.exit(arg[1] == "--help" and 0 or 2)
end

-- An order takes 50 ms, every fifth for ever. Cancelled, it is put back, which takes time too.
local function order(n)
  local _ <close> = ml.defer(function(err)
    if not err then return end
    ml.sleep(0.02)
    print(("order %d was put back: %s"):format(n, err))
  end)
  ml.sleep(n % 5 == 0 and math.huge or 0.05)
end

local function names(jobs)
  local list = {}
  for i, job in ipairs(jobs) do list[i] = job.name end
  table.sort(list)
  return table.concat(list, ", ")
end

local function stop(ex, taken)
  print(("stopping: %d orders were taken, %d are done"):format(taken, ex:stats().finished))
  local ok, err = ex:shutdown { timeout = GRACE }
  if not ok then
    print("not done in time: " .. names(err.jobs))
    assert(ex:shutdown { cancel = true, timeout = GRACE })
  end
  local stats = ex:stats()
  print(("stopped: %d done, %d cancelled, none lost"):format(stats.finished, stats.cancelled))
  assert(stats.finished + stats.cancelled == taken)
end

ml.run(function()
  local ex <close> = ml.AsyncExecutor { name = "orders" }
  local taken = 0
  local _ <close> = ml.defer(function() stop(ex, taken) end)
  print("taking orders")
  io.stdout:flush()
  ml.move_on_after(SECONDS, function()
    while true do
      taken = taken + 1
      ex:submit(ml.job { order, taken, name = "order " .. taken })
      ml.sleep(0.03)
    end
  end)
end)
