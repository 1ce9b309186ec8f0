-- What do time slices cost? Four jobs of one loop compute; with slices they take turns. The
-- CPU time of the process, the watching thread's with it.
--
-- usage: lua5.4 bench/slices.lua [MS [ROUNDS]]      MS: the slice, 0: none. The floor is MS 0.

local ml = require "moonloop"

local MS <const> = tonumber(arg[1]) or 10
local ROUNDS <const> = tonumber(arg[2]) or 40
local JOBS <const> = 4

-- Calls, arithmetic, tables and a C function that calls back; no garbage to speak of, whose
-- share varies from run to run.
local function fib(n)
  if n < 2 then return n end
  return fib(n - 1) + fib(n - 2)
end

local function primes(flags, n)
  local count = 0
  for i = 2, n do flags[i] = true end
  for i = 2, n do
    if flags[i] then
      count = count + 1
      for k = i * i, n, i do flags[k] = false end
    end
  end
  return count
end

local function less(a, b) return a < b end

local switches, last = 0, nil

local function compute(me)
  local flags, numbers, sum = {}, {}, 0
  for _ = 1, ROUNDS do
    sum = sum + fib(24) + primes(flags, 50000)
    for i = 1, 5000 do numbers[i] = i * 7919 % 5003 end
    table.sort(numbers, less)
    sum = sum + numbers[100]
    if last ~= me then switches, last = switches + 1, me end
  end
  return sum
end

ml.run(function()
  local jobs = {}
  local start = os.clock()
  for i = 1, JOBS do
    jobs[i] = ml.spawn(ml.job{ compute, i, preempt_ms = MS > 0 and MS or nil })
  end
  local sums = ml.gather(jobs)
  local seconds = os.clock() - start
  for i = 1, JOBS do assert(sums[i] == sums[1]) end
  assert(MS == 0 and switches == JOBS or MS > 0 and switches > 2 * JOBS, "they take no turns")
  print(("bench=slices ms=%g jobs=%d switches=%d cpu_s=%.4f"):format(MS, JOBS, switches, seconds))
end)
