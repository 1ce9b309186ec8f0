-- How many jobs a second can one thread hand to a loop, and have the results of, when it does
-- not wait for each? A cached function with integer arguments; N submits, then N results,
-- again and again.
--
-- usage: lua5.4 bench/submit_pipelined.lua [N [ROUNDS]]

local ml = require "moonloop"

local N <const> = tonumber(arg[1]) or 1000
local ROUNDS <const> = tonumber(arg[2]) or 500

local function add(a, b)
  return a + b
end

local ex <close> = ml.AsyncExecutor { name = "bench" }
local futures = {}

local function round()
  for i = 1, N do
    futures[i] = ex:submit(add, i, 1)
  end
  local sum = 0
  for i = 1, N do
    sum = sum + futures[i]:result()
  end
  assert(sum == N * (N + 1) // 2 + N)
end

round()
local wall, cpu = ml.now(), os.clock()
for _ = 1, ROUNDS do
  round()
end
wall, cpu = ml.now() - wall, os.clock() - cpu
local jobs = N * ROUNDS
print(("bench=submit_pipelined n=%d rounds=%d jobs_s=%.0f cpu_us=%.3f"):format(
  N, ROUNDS, jobs / wall, cpu * 1e6 / jobs))
