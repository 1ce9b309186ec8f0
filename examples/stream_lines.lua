#!/usr/bin/env moonloop
-- A plain `for` loop reads lines as they come in over a socket; a job on another thread does
-- the waiting.
--
--   ./dev run examples/stream_lines.lua [COUNT]      COUNT lines of each kind (5)
--   lua5.4 examples/stream_lines.lua ...             the same in the stock interpreter
--
-- `lines` is an async generator: it may wait between its items, and what it passes to
-- coroutine.yield arrives in the loop, which knows nothing of jobs. It runs only when the
-- loop asks for the next line, unless it is told to keep some ready (prefetch).

local ml = require "moonloop"
local tcp = require "moonloop.tcp"

local COUNT <const> = math.tointeger(tonumber(arg[1] or 5))
if not COUNT or COUNT < 1 then
  io.stderr:write("usage: stream_lines.lua [COUNT]\n")
  os.exit(arg[1] == "--help" and 0 or 2)
end

-- On the loop: a server that tells a reading every 20 ms to whoever connects, for ever.
local function serve(port)
  local server = assert(tcp.listen("127.0.0.1", 0))
  port:set_result(server.port)
  for sock in server:accepted() do
    ml.spawn(function()
      local _ <close> = sock
      local n = 0
      repeat
        n = n + 1
        ml.sleep(0.02)
      until not sock:write(("reading %d: %.1f degrees\n"):format(n, 20 + n % 7 / 2))
    end)
  end
end

-- On the loop: the lines that a server sends. Whatever ends it, the socket is closed.
local function lines(port)
  local sock <close> = assert(tcp.connect("127.0.0.1", port))
  local _ <close> = ml.defer(function() print("the connection is closed") end)
  for line in sock:lines() do
    coroutine.yield(line, ml.now())
  end
end

local ex <close> = ml.AsyncExecutor { name = "streams" }
local port = ml.promise()
local server = ex:submit(serve, port)

-- From here on it is code as anyone writes it. A loop that is left early holds its generator
-- in a <close> variable: as the block ends, the generator is closed and has cleaned up.
do
  local readings <close> = ex:generator { lines, port.future:result() }
  local count = 0
  for line, at in readings do
    print(("%s, %.1f ms ago"):format(line, (ml.now() - at) * 1000))
    count = count + 1
    if count == COUNT then break end
  end
end

-- The same pull by pull: a line that does not come in time is not lost.
do
  local readings <close> = ex:generator { lines, port.future:result(), prefetch = 4 }
  local late, count = 0, 0
  while count < COUNT do
    local more, line = readings:next(0.005)
    if more then
      count = count + 1
    elseif ml.is_timeout(line) then
      late = late + 1 -- time for something else
    else
      break
    end
  end
  print(("%d lines, and %d looks that found none yet"):format(count, late))
end

server:cancel_and_wait(5)
