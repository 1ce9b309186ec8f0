-- How much memory does a parked job take, all told: its coroutine, its record, its timer,
-- its future and its place in a list? Then the loop ends, which cancels every one of them.
--
-- usage: lua5.4 bench/parked.lua [N]

local ml = require "moonloop"

local N <const> = tonumber(arg[1]) or 100000

-- Resident memory of this process, in bytes.
local function resident()
  for line in io.lines("/proc/self/status") do
    local kb = line:match("^VmRSS:%s*(%d+) kB")
    if kb then return tonumber(kb) * 1024 end
  end
  error("no VmRSS in /proc/self/status")
end

local jobs, parked = {}, 0
local function job()
  parked = parked + 1
  ml.sleep(1e6)
end

local before, after, start, spawned, ending
ml.run(function()
  collectgarbage()
  before, start = resident(), os.clock()
  for i = 1, N do
    jobs[i] = ml.spawn(job)
  end
  while parked < N do
    ml.checkpoint()
  end
  spawned = os.clock() - start
  collectgarbage()
  after, ending = resident(), os.clock()
end)
ending = os.clock() - ending

for i = 1, N do
  assert(jobs[i]:cancelled())
end
print(("bench=parked n=%d bytes=%.0f spawn_us=%.2f cancel_us=%.2f"):format(
  N, (after - before) / N, spawned * 1e6 / N, ending * 1e6 / N))
