-- How much memory does a parked job take on an executor's loop, all told: its coroutine, its
-- record, its timer and its future? Then the executor ends, which cancels every one of them.
--
-- usage: lua5.4 bench/parked.lua [N [lua]]
--
-- A job is `ml.sleep` itself; with "lua", a Lua function that sleeps: one call frame more.

local ml = require "moonloop"

local N <const> = tonumber(arg[1]) or 100000
local ex = ml.AsyncExecutor { name = "bench" }

local bytes, spawned = ex:submit(function(n, framed)
  -- Resident memory of this process, in bytes.
  local function resident()
    collectgarbage()
    for line in io.lines("/proc/self/status") do
      local kb = line:match("^VmRSS:%s*(%d+) kB")
      if kb then return tonumber(kb) * 1024 end
    end
    error("no VmRSS in /proc/self/status")
  end
  local job = framed and function(s) ml.sleep(s) end or ml.sleep
  local before, start = resident(), os.clock()
  for _ = 1, n do
    ml.spawn(job, 1e6)
  end
  for _ = 1, n // 500 do
    ml.checkpoint()
  end
  local taken = os.clock() - start
  return (resident() - before) / n, taken
end, N, arg[2] == "lua"):result()

assert(ex:stats().parked == N)
local ending = os.clock()
assert(ex:shutdown { cancel = true })
ending = os.clock() - ending
assert(ex:stats().cancelled == N)
print(("bench=parked n=%d bytes=%.0f spawn_us=%.2f cancel_us=%.2f"):format(
  N, bytes, spawned * 1e6 / N, ending * 1e6 / N))
