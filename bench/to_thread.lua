-- How long does ml.to_thread of a trivial function take, from a job or from a thread?
--
-- usage: lua5.4 bench/to_thread.lua [N ["job" | "thread"]]
-- The floors are floor_queue_work.c for the job, floor_pingpong.c for the thread.

local ml = require "moonloop"

local N <const> = tonumber(arg[1]) or 20000
local FROM <const> = arg[2] or "job"
local WARM_UP <const> = 1000

local function square(x)
  return x * x
end

local function measure()
  local now, to_thread = ml.now, ml.to_thread
  local times, start = {}, nil
  for i = 1 - WARM_UP, N do
    local asked = now()
    if i == 1 then start = asked end
    assert(to_thread(square, i) == i * i)
    times[i] = now() - asked
  end
  return times, now() - start
end

local times, seconds
if FROM == "job" then
  times, seconds = ml.run(measure)
else
  times, seconds = measure()
end
table.sort(times)
print(("bench=to_thread n=%d from=%s ops_s=%.0f p50_us=%.2f p99_us=%.2f"):format(
  N, FROM, N / seconds, times[N // 2] * 1e6, times[N * 99 // 100] * 1e6))
