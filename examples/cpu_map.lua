#!/usr/bin/env moonloop
-- Computing on all cores: a range in pieces, a thread for each core, and how far it is.
--
--   ./dev run examples/cpu_map.lua [N]       primes up to N (10000000)
--   lua5.4 examples/cpu_map.lua ...          the same in the stock interpreter
--
-- Each thread has a Lua state of its own, so nothing is shared and nothing locked: a piece goes
-- there as two numbers, and a number comes back. On a terminal one line shows what is done; in
-- a file or a pipe there is a line for each quarter.

local ml = require "moonloop"

local N <const> = math.tointeger(tonumber(arg[1] or 10000000))
if not N or N < 2 then
  io.stderr:write("usage: cpu_map.lua [N]\n")
  os.exit(arg[1] == "--help" and 0 or 2)
end

-- How many primes there are from `first` to `last`: a sieve of that piece alone.
local function count_primes(first, last)
  local composite, count = {}, 0
  for divisor = 2, math.floor(last ^ 0.5) do
    local multiple = math.max(divisor, (first + divisor - 1) // divisor) * divisor
    for i = multiple, last, divisor do composite[i] = true end
  end
  for i = math.max(first, 2), last do
    if not composite[i] then count = count + 1 end
  end
  return count
end

local terminal = os.execute "test -t 2"

-- Says that `done` of `all` are done. On a terminal it writes the same line again.
local function show(done, all)
  local percent = done * 100 // all
  if terminal then
    local bar = ("#"):rep(percent * 40 // 100)
    io.stderr:write(("\r[%-40s] %3d %%%s"):format(bar, percent, done == all and "\n" or ""))
  elseif done * 4 // all > (done - 1) * 4 // all then
    io.stderr:write(("%d %% done\n"):format(percent))
  end
end

local start, cpu = ml.now(), os.clock()
local size, pieces = math.ceil(N / 100), {}
for first = 1, N, size do
  pieces[#pieces + 1] = ml.cpu_executor():submit(count_primes, first, math.min(first + size - 1, N))
end

local primes, done = 0, 0
for piece in ml.as_completed(pieces) do -- whichever is ready
  primes, done = primes + piece:result(), done + 1
  show(done, #pieces)
end
local seconds = ml.now() - start
print(("%d primes up to %d in %.2f s, %.1f cores at work"):format(
  primes, N, seconds, (os.clock() - cpu) / seconds))
