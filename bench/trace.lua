-- What does tracing cost? Jobs of 10 us, that is 100,000 a second, which wait once, spawned on
-- a loop or submitted to one. Rounds without and with a trace take turns; the figure is the
-- median of the ratios of their CPU time.
--
-- usage: lua5.4 bench/trace.lua spawn|submit [ROUNDS [N [US]]]      US: of each job, 0: nothing

local ml = require "moonloop"
local measure = require "bench.measure"

local MODE <const> = arg[1] or "spawn"
local ROUNDS <const> = tonumber(arg[2]) or 21
local N <const> = tonumber(arg[3]) or 20000
local US <const> = tonumber(arg[4]) or 10
local ALIVE <const> = 100

local function work(n)
  local x = 0
  for i = 1, n do x = x ~ i end
  return x
end

local function job(n)
  ml.checkpoint()
  return work(n)
end

local function spawn(n)
  local futures = {}
  for i = 1, N do
    futures[i % ALIVE] = ml.spawn(job, n)
    if i % ALIVE == 0 then ml.wait(futures) end
  end
end

local ex = MODE == "submit" and ml.AsyncExecutor{ name = "bench" }
local function submit(n)
  local futures = {}
  for i = 1, N do
    futures[i % ALIVE + 1] = ex:submit(job, n)
    if i % ALIVE == 0 then
      for k = 1, ALIVE do futures[k]:result() end
    end
  end
end

-- CPU microseconds of a job.
local function cost(n)
  local start = os.clock()
  if ex then submit(n) else ml.run(spawn, n) end
  return (os.clock() - start) * 1e6 / N
end

-- So much work that a job takes US, all told.
local function calibrate()
  cost(0)
  local bare, with = cost(0), cost(1000)
  return math.max(0, math.floor((US - bare) / (with - bare) * 1000))
end

local n = US > 0 and calibrate() or 0
local offs, ratios, more = {}, {}, {}
for i = 1, ROUNDS do
  local function traced()
    ml.trace.start()
    local us = cost(n)
    ml.trace.stop()
    return us
  end
  local off, on
  if i % 2 == 1 then off, on = cost(n), traced() else on, off = traced(), cost(n) end
  offs[i], ratios[i], more[i] = off, on / off, on - off
end
ml.trace.start()
cost(n)
ml.trace.stop()
local _, written = assert(ml.trace.dump("/dev/null"))
local events = written.events + written.dropped
assert(events >= 5 * N, "a job has a beginning, an end, and runs twice")
if ex then ex:shutdown() end
print(("bench=trace mode=%s rounds=%d n=%d job_us=%.2f ratio=%.3f more_us=%.3f events=%.1f"):format(
  MODE, ROUNDS, N, measure.median(offs), measure.median(ratios), measure.median(more), events / N))
