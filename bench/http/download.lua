-- What does a large body cost in CPU time and memory when it is read as it comes, or put into
-- a file?
--
-- usage: lua5.4 bench/http/download.lua URL BYTES [FILE]     The floor is bare.c.

local http = require "moonloop.http"
local ml = require "moonloop"

local URL <const>, BYTES <const>, FILE <const> = arg[1], math.tointeger(arg[2]), arg[3]
assert(URL and BYTES, "usage: lua5.4 bench/http/download.lua URL BYTES [FILE]")

local function read()
  local res <close> = assert(http.get(URL, { stream = true }))
  local n = 0
  for chunk in res:chunks() do n = n + #chunk end
  return n
end

local function save()
  return assert(http.download(URL, FILE, { resume = false, sync = false })).size
end

-- The most memory that this process has had, in MB.
local function peak()
  local file <close> = assert(io.open "/proc/self/status")
  return file:read("a"):match "VmHWM:%s*(%d+) kB" * 1024 / 1e6
end

ml.run(function()
  local wall, cpu = ml.now(), os.clock()
  local n = (FILE and save or read)()
  wall, cpu = ml.now() - wall, os.clock() - cpu
  assert(n == BYTES, "a body of another size")
  print(("bench=http_download bytes=%d cpu_ms=%.1f rss_mb=%.1f mb_s=%.0f"):format(
    n, cpu * 1e3, peak(), n / wall / 1e6))
end)
