-- What does a job of a large `gather` cost: spawned, run, its result collected?
--
-- usage: lua5.4 bench/gather.lua [JOBS [ROUNDS]]        The floor is floor_coroutine.lua, with
-- as many coroutines alive.

local ml = require "moonloop"

local JOBS <const> = tonumber(arg[1]) or 10000
local ROUNDS <const> = tonumber(arg[2]) or 100

local function job()
  return 1
end

local function round()
  local jobs = {}
  for i = 1, JOBS do
    jobs[i] = job
  end
  local results = ml.gather(jobs)
  assert(#results == JOBS and results[JOBS] == 1)
end

ml.run(function()
  round()
  local start = os.clock()
  for _ = 1, ROUNDS do
    round()
  end
  local us = (os.clock() - start) * 1e6 / (JOBS * ROUNDS)
  print(("bench=gather jobs=%d rounds=%d us=%.3f"):format(JOBS, ROUNDS, us))
end)
