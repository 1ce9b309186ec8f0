-- What does a job cost in plain Lua? Recycled coroutines, each of which takes a function,
-- yields once in it and finishes it. No loop, no futures, no errors caught.
--
-- usage: lua5.4 bench/floor_coroutine.lua [N [ALIVE]]        The floor of spawn.lua and gather.lua.

local N <const> = tonumber(arg[1]) or 2000000
local ALIVE <const> = tonumber(arg[2]) or 1000
local create, resume, yield = coroutine.create, coroutine.resume, coroutine.yield

local finished = 0
local function job()
  yield()
  finished = finished + 1
end

local function body(f)
  while true do
    f()
    f = yield()
  end
end

local pool = {}
for i = 1, ALIVE do
  pool[i] = create(body)
end

local function round()
  for i = 1, ALIVE do
    resume(pool[i], job) -- begin it; it parks
  end
  for i = 1, ALIVE do
    resume(pool[i]) -- it finishes; its coroutine waits for the next
  end
end

round()
finished = 0
local start = os.clock()
for _ = 1, N // ALIVE do
  round()
end
local seconds = os.clock() - start
assert(finished == N // ALIVE * ALIVE)
local us = seconds * 1e6 / finished
print(("bench=floor_coroutine n=%d alive=%d us=%.3f"):format(finished, ALIVE, us))
