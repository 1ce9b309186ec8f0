-- What does a small HTTP request cost in CPU time when its connection is open already, with
-- C of them at once on one loop?
--
-- usage: lua5.4 bench/http_keepalive.lua URL [N [C]]     The floor is floor_curl.c.

local ml = require "moonloop"
local http = require "moonloop.http"

local URL <const> = arg[1]
local N <const> = tonumber(arg[2]) or 20000
local C <const> = tonumber(arg[3]) or 64
assert(URL, "usage: lua5.4 bench/http_keepalive.lua URL [N [C]]")

local body = assert(http.get(URL)).body

ml.run(function()
  local left, workers = N, {}
  local function worker()
    while left > 0 do
      left = left - 1
      local res = assert(http.get(URL))
      assert(res.status == 200 and res.body == body, "a wrong answer")
    end
  end
  local wall, cpu = ml.now(), os.clock()
  for i = 1, C do
    workers[i] = ml.spawn(worker)
  end
  ml.gather(workers)
  wall, cpu = ml.now() - wall, os.clock() - cpu
  print(("bench=http_keepalive n=%d c=%d bytes=%d cpu_us=%.2f req_s=%.0f"):format(
    N, C, #body, cpu * 1e6 / N, N / wall))
end)
