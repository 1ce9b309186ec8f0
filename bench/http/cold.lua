-- What do N calls cost in CPU time that synchronous code makes at once, over a session that is
-- new, on a loop that is new?
--
-- usage: lua5.4 bench/http/cold.lua URL [N [RUNS]]     Peers: cold_futures.py, cold_aiohttp.py

local ml = require "moonloop"
local http = require "moonloop.http"

local URL <const> = arg[1]
local N <const> = tonumber(arg[2]) or 10
local RUNS <const> = tonumber(arg[3]) or 10
assert(URL, "usage: lua5.4 bench/http/cold.lua URL [N [RUNS]]")

local function get(session, url)
  local res = assert(session:get(url))
  return res.status, #res.body
end

local function run()
  local session <close> = http.session {}
  local ex <close> = ml.AsyncExecutor { name = "cold" }
  local futures = {}
  for i = 1, N do futures[i] = ex:submit(get, session, URL) end
  for _, future in ipairs(futures) do
    local status, size = future:result()
    assert(status == 200 and size > 0, "a wrong answer")
  end
end

local cpu = os.clock()
for _ = 1, RUNS do run() end
cpu = os.clock() - cpu
print(("bench=http_cold n=%d runs=%d cpu_ms=%.3f"):format(N, RUNS, cpu * 1e3 / RUNS))
