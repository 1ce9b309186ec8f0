-- How much faster do two workers compute than one, by map over a pool?
--
-- usage: lua5.4 bench/cpu_map.lua [ITEMS]

local ml = require "moonloop"

local ITEMS <const> = tonumber(arg[1]) or 64

local function sieve(n)
  local composite, count = {}, 0
  for i = 2, n do
    if not composite[i] then
      count = count + 1
      for j = i * i, n, i do composite[j] = true end
    end
  end
  return count
end

local function seconds(workers)
  local pool <close> = ml.ThreadExecutor { workers = workers }
  local items = {}
  for i = 1, ITEMS do items[i] = 200000 end
  for n in pool:map(sieve, { 100, 100 }) do assert(n == 25) end
  local start = ml.now()
  for n in pool:map(sieve, items) do assert(n == 17984) end
  return ml.now() - start
end

-- The best of three: others use the machine too.
local function best(workers)
  return math.min(seconds(workers), seconds(workers), seconds(workers))
end

local one, two = best(1), best(2)
print(("bench=cpu_map items=%d one_s=%.3f two_s=%.3f speedup=%.2f"):format(
  ITEMS, one, two, one / two))
