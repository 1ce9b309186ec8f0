-- How fast do items come from a generator on a loop to a thread that iterates?
--
-- usage: lua5.4 bench/generator.lua [N [PREFETCH [CPU,CPU]]]     (this thread's CPU, the loop's)
-- With prefetch 0 each item is a pull and an answer: its floor is floor_pingpong.c with the
-- same CPUs.

local ml = require "moonloop"

local N <const> = tonumber(arg[1]) or 1000000
local PREFETCH <const> = tonumber(arg[2]) or 64
local WARM_UP <const> = 1000

local function count(n)
  for i = 1, n do
    coroutine.yield(i)
  end
end

local ex <close> = ml.AsyncExecutor{ name = "bench" }
if arg[3] then
  local process = require "bench.process"
  local mine, loops = arg[3]:match("^(%d+),(%d+)$")
  ex:submit(process.pin, assert(tonumber(loops))):result()
  process.pin(tonumber(mine))
end

local function run(n)
  local sum = 0
  for item in ex:generator{ count, n, prefetch = PREFETCH } do
    sum = sum + item
  end
  assert(sum == n * (n + 1) // 2)
end

run(WARM_UP)
local start = ml.now()
run(N)
local items_s = N / (ml.now() - start)

-- One by one, for the percentiles.
local times, now, m = {}, ml.now, math.min(N, 100000)
local g <close> = ex:generator{ count, m, prefetch = PREFETCH }
for i = 1, m do
  local asked = now()
  assert(select(2, g:next()) == i)
  times[i] = now() - asked
end
table.sort(times)
print(("bench=generator n=%d prefetch=%d cpus=%s items_s=%.0f p50_us=%.2f p99_us=%.2f"):format(
  N, PREFETCH, arg[3] or "any", items_s, times[m // 2] * 1e6, times[m * 99 // 100] * 1e6))
