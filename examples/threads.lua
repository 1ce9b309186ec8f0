#!/usr/bin/env moonloop
-- Eight threads, each with a Lua state of its own and plain code that seems to block, share
-- one loop and its connections.
--
--   ./dev run examples/threads.lua [REQUESTS]      REQUESTS of each thread (50)
--
-- http.get is the same function everywhere. On a thread that is no loop's it hands the request
-- to the default executor, whose loop does all the waiting, and blocks that thread alone until
-- the answer is there. So the threads need no more connections than they have requests under
-- way, and what one leaves open the next one uses.

local ml = require "moonloop"
local http = require "moonloop.http"

local THREADS <const> = 8
local REQUESTS <const> = math.tointeger(tonumber(arg[1] or 50))
if not REQUESTS or REQUESTS < 1 then
  io.stderr:write("usage: threads.lua [REQUESTS]\n")
  os.exit(arg[1] == "--help" and 0 or 2)
end

-- Runs on a worker thread, in that thread's own Lua state: a copy of this function, in which
-- `http` and `ml` are that state's modules.
local function worker(url, requests)
  local bytes, start = 0, ml.now()
  for _ = 1, requests do
    local res = assert(http.get(url))
    bytes = bytes + #res.body
  end
  return bytes, ml.now() - start
end

-- The open connections to a port of this machine.
local function connections(port)
  local count, pattern = 0, (" %%x+:%%x+ %%x+:%04X 01 "):format(port)
  for line in io.lines("/proc/net/tcp") do
    if line:find(pattern) then count = count + 1 end
  end
  return count
end

ml.run(function()
  -- The server runs here, on the main thread's loop.
  local server = require("examples.demo_server").start {}
  local url = ("http://127.0.0.1:%d/delay/5/size/1000"):format(server.port)

  local pool = ml.ThreadExecutor { name = "worker", workers = THREADS }
  -- However this ends, by Ctrl-C too, no worker is left asking a server that is gone.
  local _ <close> = ml.defer(function() pool:shutdown { cancel = true } end)
  local start, futures = ml.now(), {}
  for i = 1, THREADS do
    futures[i] = pool:submit(worker, url, REQUESTS)
  end
  for i, future in ipairs(futures) do
    local bytes, seconds = future:result() -- in a job: the main thread's loop goes on meanwhile
    print(("thread %d: %d requests, %d bytes, %.0f ms"):format(i, REQUESTS, bytes, seconds * 1000))
  end
  local wall = ml.now() - start

  print(("\n%d threads made %d requests in %.0f ms over %d connections"):format(
    THREADS, THREADS * REQUESTS, wall * 1000, connections(server.port)))
  server.stop()
end)
