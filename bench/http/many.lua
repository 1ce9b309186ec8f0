-- What does a request cost in CPU time, and how long does it take, when connections are open
-- already, with C of them at once on one loop?
--
-- usage: lua5.4 bench/http/many.lua URL [N [C]]     The floor is bare.c.

local ml = require "moonloop"
local http = require "moonloop.http"

local URL <const> = arg[1]
local N <const> = tonumber(arg[2]) or 20000
local C <const> = tonumber(arg[3]) or 64
assert(URL, "usage: lua5.4 bench/http/many.lua URL [N [C]]")

local body = assert(http.get(URL)).body

ml.run(function()
  local left, workers, took = N, {}, {}
  local function worker()
    while left > 0 do
      left = left - 1
      local began = ml.now()
      local res = assert(http.get(URL))
      took[#took + 1] = ml.now() - began
      assert(res.status == 200 and res.body == body, "a wrong answer")
    end
  end
  local wall, cpu = ml.now(), os.clock()
  for i = 1, C do
    workers[i] = ml.spawn(worker)
  end
  ml.gather(workers)
  wall, cpu = ml.now() - wall, os.clock() - cpu
  table.sort(took)
  print(("bench=http_many n=%d c=%d bytes=%d cpu_us=%.2f req_s=%.0f p50_us=%.1f"):format(
    N, C, #body, cpu * 1e6 / N, N / wall, took[(N + 1) // 2] * 1e6))
end)
