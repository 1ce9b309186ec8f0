-- How long does it take to cancel many sleeping jobs, and what memory do they leave?
--
-- usage: MALLOC_ARENA_MAX=1 lua5.4 bench/cancel_many.lua [N]
--
-- It does so again and again, on a loop of its own. `kept` is what the loop holds after the
-- last time more than after the one before, for each job: what it would leak. `left` is what
-- the process holds more when the executor is gone than before there was one. With an arena
-- for each thread malloc itself would keep some of it.

local ml = require "moonloop"
local process = require "bench.process"

local N <const> = tonumber(arg[1]) or 100000

-- On the loop: the seconds that the cancels took, and the memory once they are over.
local function round(n)
  local jobs, slept = {}, 0
  for i = 1, n do
    jobs[i] = ml.spawn(function()
      slept = slept + 1
      ml.sleep(1e6)
    end)
  end
  while slept < n do
    ml.checkpoint()
  end
  local start = ml.now()
  for i = 1, n do
    jobs[i]:cancel()
  end
  ml.wait(jobs)
  local seconds = ml.now() - start
  for i = 1, n do
    assert(jobs[i]:cancelled())
  end
  jobs = nil -- luacheck: ignore
  collectgarbage()
  collectgarbage()
  return seconds, process.resident()
end

local function run()
  local ex <close> = ml.AsyncExecutor { name = "bench" }
  ex:submit(round, 1000):result()
  ex:submit(round, N):result()
  local _, before = ex:submit(round, N):result()
  local seconds, after = ex:submit(round, N):result()
  local stats = ex:stats()
  assert(stats.parked == 0 and stats.cancelled == 3 * N + 1000)
  return seconds, (after - before) / N
end

do -- what is made once
  local ex <close> = ml.AsyncExecutor { name = "bench" }
  ex:submit(round, 1000):result()
end
local before = process.resident()
local seconds, kept = run()
collectgarbage()
local left = (process.resident() - before) / N
print(("bench=cancel_many n=%d s=%.3f kept_bytes=%.1f left_bytes=%.1f"):format(
  N, seconds, math.max(kept, 0), math.max(left, 0)))
