-- How long from a submit to a child process to its result, with a string there and back?
--
-- usage: lua5.4 bench/process_pool.lua [N [BYTES]]
-- The floor is floor_socketpair.c, of the same size. gb_s counts both ways.

local ml = require "moonloop"

local N <const> = tonumber(arg[1]) or 20000
local BYTES <const> = tonumber(arg[2]) or 64
local WARM_UP <const> = math.min(1000, N)

local function echo(text) return text end

local ex <close> = ml.ProcessExecutor { name = "bench", workers = 1 }
local text = ("x"):rep(BYTES)
local now = ml.now
local times, start = {}, nil
for i = 1 - WARM_UP, N do
  local asked = now()
  if i == 1 then start = asked end
  assert(ex:submit(echo, text):result() == text)
  times[i] = now() - asked
end
local seconds = now() - start

table.sort(times)
print(("bench=process_pool n=%d bytes=%d ops_s=%.0f p50_us=%.2f p99_us=%.2f gb_s=%.2f"):format(
  N, BYTES, N / seconds, times[N // 2] * 1e6, times[math.max(N * 99 // 100, 1)] * 1e6,
  2 * N * BYTES / seconds / 1e9))
