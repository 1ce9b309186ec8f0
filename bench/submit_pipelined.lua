-- How many jobs a second can one thread hand to a loop, and have their results, when it
-- does not wait for each? A cached function, integer arguments, WINDOW on their way.
--
-- usage: lua5.4 bench/submit_pipelined.lua [N [WINDOW]]

local ml = require "moonloop"

local N <const> = tonumber(arg[1]) or 2000000
local WINDOW <const> = tonumber(arg[2]) or 1000

local function add(a, b)
  return a + b
end

local ex <close> = ml.AsyncExecutor { name = "bench" }

local function pump(n)
  local ring, sum = {}, 0
  for i = 1, WINDOW do
    ring[i] = ex:submit(add, i, 1)
  end
  local slot = 0
  for i = WINDOW + 1, n do
    slot = slot % WINDOW + 1
    sum = sum + ring[slot]:result()
    ring[slot] = ex:submit(add, i, 1)
  end
  for i = 1, WINDOW do
    sum = sum + ring[i]:result()
  end
  assert(sum == n * (n + 1) // 2 + n)
end

pump(WINDOW * 10)
local wall, cpu = ml.now(), os.clock()
pump(N)
wall, cpu = ml.now() - wall, os.clock() - cpu
print(("bench=submit_pipelined n=%d window=%d jobs_s=%.0f cpu_us=%.3f"):format(
  N, WINDOW, N / wall, cpu * 1e6 / N))
