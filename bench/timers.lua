-- What do many sleeps cost, and how late do they end? N jobs sleep 0 to MAX_MS milliseconds.
--
-- usage: lua5.4 bench/timers.lua [N [MAX_MS]]        The floor is floor_timers.c, which runs
-- the same function in as many coroutines.

local ml = require "moonloop"

local N <const> = tonumber(arg[1]) or 100000
local MAX_MS <const> = tonumber(arg[2]) or 1000

local random, now, sleep = math.random, ml.now, ml.sleep
local late, woken = {}, 0

local function job()
  local seconds = random(0, MAX_MS) / 1000
  local due = now() + seconds
  sleep(seconds)
  woken = woken + 1
  late[woken] = now() - due
end

math.randomseed(1)
local start
ml.run(function()
  start = os.clock()
  for _ = 1, N do ml.spawn(job) end
  sleep(MAX_MS / 1000)
  while woken < N do sleep(0.01) end
end)
local us = (os.clock() - start) * 1e6 / N

assert(woken == N)
table.sort(late)
assert(late[1] >= 0)
print(("bench=timers n=%d max_ms=%d cpu_us=%.3f late_ms=%.3f late_p99_ms=%.3f"):format(
  N, MAX_MS, us, late[N // 2] * 1000, late[N * 99 // 100] * 1000))
