-- How long from a submit to its result, when the loop sleeps and the job is trivial?
--
-- usage: lua5.4 bench/submit_wait.lua [N [CPU,CPU]]     (this thread's CPU, the loop's)
-- The floor is floor_pingpong.c, with the same CPUs.

local ml = require "moonloop"

local N <const> = tonumber(arg[1]) or 20000
local WARM_UP <const> = 1000

local function square(x)
  return x * x
end

local ex <close> = ml.AsyncExecutor { name = "bench" }
if arg[2] then
  local process = require "bench.process"
  local mine, loops = arg[2]:match("^(%d+),(%d+)$")
  ex:submit(process.pin, assert(tonumber(loops))):result()
  process.pin(tonumber(mine))
end

local now = ml.now
local times, start = {}, nil
for i = 1 - WARM_UP, N do
  local asked = now()
  if i == 1 then start = asked end
  assert(ex:submit(square, i):result() == i * i)
  times[i] = now() - asked
end
local seconds = now() - start

table.sort(times)
print(("bench=submit_wait n=%d cpus=%s ops_s=%.0f p50_us=%.2f p99_us=%.2f"):format(
  N, arg[2] or "any", N / seconds, times[N // 2] * 1e6, times[N * 99 // 100] * 1e6))
