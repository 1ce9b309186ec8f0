-- What does it cost to acquire and release a primitive that nobody else wants, in a job?
--
-- usage: lua5.4 bench/sync.lua [N]

local ml = require "moonloop"

local N <const> = tonumber(arg[1]) or 2000000

local function pairs_of(primitive)
  for _ = 1, N do
    primitive:acquire()
    primitive:release()
  end
end

local function measure(f, ...)
  f(...)
  local start = os.clock()
  f(...)
  return (os.clock() - start) * 1e6 / N
end

ml.run(function()
  local sem, lock = ml.Semaphore(1), ml.Lock()
  local sem_us, lock_us = measure(pairs_of, sem), measure(pairs_of, lock)
  assert(sem:value() == 1 and not lock:locked())
  print(("bench=sync n=%d semaphore_us=%.3f lock_us=%.3f"):format(N, sem_us, lock_us))
end)
