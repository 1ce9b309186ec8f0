-- What does a job cost inside a loop: spawned, parked once, finished? 1000 are alive at any
-- time; each spawns the next as it ends.
--
-- usage: lua5.4 bench/spawn.lua [N]        The floor is floor_coroutine.lua.

local ml = require "moonloop"

local N <const> = tonumber(arg[1]) or 1000000
local ALIVE <const> = 1000

local left, finished
local function job()
  ml.checkpoint()
  finished = finished + 1
  if left > 0 then
    left = left - 1
    ml.spawn(job)
  end
end

local function round(n)
  left, finished = n - ALIVE, 0
  for _ = 1, ALIVE do
    ml.spawn(job)
  end
  while finished < n do
    ml.checkpoint()
  end
end

ml.run(function()
  round(ALIVE * 10)
  local start = os.clock()
  round(N)
  local seconds = os.clock() - start
  assert(finished == N)
  print(("bench=spawn n=%d alive=%d us=%.3f"):format(N, ALIVE, seconds * 1e6 / N))
end)
