-- How much memory and CPU time do N requests at once take that are answered after a while, and
-- do they all succeed?
--
-- usage: lua5.4 bench/http/slow.lua URL [N]     Peer: bare.c

local ml = require "moonloop"
local http = require "moonloop.http"
local process = require "bench.process"

local URL <const> = arg[1]
local N <const> = tonumber(arg[2]) or 10000
assert(URL, "usage: lua5.4 bench/http/slow.lua URL [N]")

-- Bytes: as much memory as this process has at most had.
local function peak()
  local file <close> = assert(io.open "/proc/self/status")
  return file:read("a"):match "VmHWM:%s*(%d+) kB" * 1024
end

ml.run(function()
  local session <close> = http.session { max_connections = N, max_per_host = N }
  local before = process.resident()
  local failed, jobs = 0, {}
  local wall, cpu = ml.now(), os.clock()
  for i = 1, N do
    jobs[i] = ml.spawn(function()
      local res, err = session:get(URL, { timeout = 60 })
      if res and res.status == 200 then return end
      failed = failed + 1
      if failed == 1 then io.stderr:write(res and res.status or tostring(err), "\n") end
    end)
  end
  ml.gather(jobs)
  wall, cpu = ml.now() - wall, os.clock() - cpu
  print(("bench=http_slow n=%d failed=%d request_kb=%.1f cpu_us=%.2f wall_s=%.2f"):format(
    N, failed, (peak() - before) / N / 1e3, cpu * 1e6 / N, wall))
end)
