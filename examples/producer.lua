#!/usr/bin/env moonloop
-- A thread produces, jobs consume, and a channel between them keeps the pace.
--
--   ./dev run examples/producer.lua [COUNT]        COUNT items (200)
--   lua5.4 examples/producer.lua ...               the same in the stock interpreter
--
-- The producer computes, so it has a thread of its own. Its sends wait while the channel is
-- full: it is never more than CAPACITY ahead of the jobs, however fast it is. The jobs, on a
-- loop of yet another thread, wait in their receives and leave that loop to each other. The
-- same channel is a plain argument on both sides.

local ml = require "moonloop"

local CAPACITY <const>, CONSUMERS <const> = 8, 3
local COUNT <const> = math.tointeger(tonumber(arg[1] or 200))
if not COUNT or COUNT < 1 then
  io.stderr:write("usage: producer.lua [COUNT]\n")
  os.exit(arg[1] == "--help" and 0 or 2)
end

-- On a worker thread: numbers, each with its smallest divisor.
local function produce(channel, count)
  local waited = 0
  for n = 2, count + 1 do
    local divisor = 2
    while n % divisor ~= 0 do divisor = divisor + 1 end
    local before = ml.now()
    channel:send { n = n, prime = divisor == n }
    waited = waited + ml.now() - before
  end
  channel:close() -- what was sent is still received
  return waited
end

-- A job: takes what comes until the channel is closed and empty.
local function consume(channel)
  local taken, primes = 0, 0
  for item in channel do
    ml.sleep(0.001) -- it writes to a database, say
    taken = taken + 1
    if item.prime then primes = primes + 1 end
  end
  return taken, primes
end

local channel = ml.Channel(CAPACITY)
local pool <close> = ml.ThreadExecutor { name = "producer", workers = 1 }
local ex <close> = ml.AsyncExecutor { name = "consumers" }

local producer = pool:submit(produce, channel, COUNT)
local consumers = {}
for i = 1, CONSUMERS do
  consumers[i] = ex:submit(consume, channel)
end

local total, primes = 0, 0
for i, consumer in ipairs(consumers) do
  local taken, some = consumer:result()
  print(("consumer %d took %d"):format(i, taken))
  total, primes = total + taken, primes + some
end
print(("the producer waited %.0f ms for them"):format(producer:result() * 1000))
print(("%d items, %d of them prime"):format(total, primes))
