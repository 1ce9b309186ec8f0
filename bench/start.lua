-- How long does it take to make an executor and have its first job done, and to make a
-- worker's Lua state?
--
-- usage: lua5.4 bench/start.lua [N]
-- A state is measured as the CPU time that a job costs more when each is the last of its state.

local ml = require "moonloop"

local N <const> = tonumber(arg[1]) or 300

local function nothing() end

local function median(times)
  table.sort(times)
  return times[(#times + 1) // 2]
end

local function starts(make)
  local making, first = {}, {}
  for i = 1, N do
    local start = ml.now()
    local ex = make()
    making[i] = ml.now() - start
    ex:submit(nothing):result()
    first[i] = ml.now() - start
    ex:shutdown()
  end
  return median(making), median(first)
end

-- Jobs of one worker, submitted at once, so that no wake-up is in between.
local function job_time(max_jobs)
  local times = {}
  for round = 1, 9 do
    local pool <close> = ml.ThreadExecutor { workers = 1, max_jobs = max_jobs }
    pool:submit(nothing):result()
    local last
    local start = os.clock()
    for _ = 1, 60 do last = pool:submit(nothing) end
    last:result()
    times[round] = (os.clock() - start) / 60
  end
  return median(times)
end

local made, first = starts(ml.AsyncExecutor)
local _, first_of_pool = starts(ml.ThreadExecutor)
local state = job_time(1) - job_time(nil)
print(("bench=start n=%d made_us=%.1f first_us=%.1f pool_first_us=%.1f state_us=%.1f"):format(
  N, made * 1e6, first * 1e6, first_of_pool * 1e6, state * 1e6))
