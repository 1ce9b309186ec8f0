-- Runs benches and their floors in turns, several rounds, and prints the medians, the ratio
-- and what is asked for.
--
-- usage: ./dev bench [-r ROUNDS] [NAME ...]      NAME: submit_wait, http_keepalive, ...

local nginx = require "spec.support.nginx"
local process = require "bench.process"

local OUT <const> = arg[1] -- where the floors are
local GIB <const> = 1024 * 1024 * 1024
local cpus = process.cpus()
local same = ("%d,%d"):format(cpus[1], cpus[1])
local apart = cpus[2] and ("%d,%d"):format(cpus[1], cpus[2])

local function lua(script, ...)
  return table.concat({ "lua5.4 bench/" .. script .. ".lua", ... }, " ")
end

local function floor(program, ...)
  return table.concat({ "'" .. OUT .. "/" .. program .. "'", ... }, " ")
end

local function on_first_cpu(command)
  return ("taskset -c %d %s"):format(cpus[1], command)
end

-- `key` is what is compared. Goals: `ratio` to the floor at most, `most`, `least`.
local benches = {
  { name = "submit_wait", note = "CPUs " .. same, key = "p50_us", ratio = 1.5,
    bench = lua("submit_wait", 20000, same), floor = floor("floor_pingpong", 20000, same) },
  apart and
  { name = "submit_wait", note = "CPUs " .. apart, key = "p50_us", ratio = 1.5,
    bench = lua("submit_wait", 10000, apart), floor = floor("floor_pingpong", 10000, apart) }
  or false,
  { name = "submit_wait", note = "unpinned", key = "p50_us", ratio = 1.5,
    bench = lua("submit_wait", 20000), floor = floor("floor_pingpong", 20000) },
  { name = "submit_pipelined", note = "one thread", key = "jobs_s", least = 1e6,
    bench = lua("submit_pipelined") },
  { name = "spawn", note = "1000 alive", key = "us", ratio = 2,
    bench = lua("spawn"), floor = lua("floor_coroutine") },
  { name = "parked", note = "100,000 jobs", key = "bytes", most = 1536,
    bench = lua("parked", 100000) },
  { name = "parked", note = "1,000,000 jobs", key = "bytes", most = 1536, rounds = 1,
    bench = lua("parked", 1000000) },
  { name = "gather", note = "10,000 jobs", key = "us", ratio = 3,
    bench = lua("gather", 10000), floor = lua("floor_coroutine", 2000000, 10000) },
  { name = "sync", note = "semaphore", key = "semaphore_us", most = 0.3, bench = lua("sync") },
  { name = "sync", note = "lock", key = "lock_us", most = 0.3, bench = lua("sync") },
  { name = "cancel_many", note = "100,000 sleepers", key = "s", most = 0.5,
    bench = "MALLOC_ARENA_MAX=1 " .. lua("cancel_many", 100000) },
  { name = "cancel_many", note = "kept on the loop", key = "kept_bytes", most = 8,
    bench = "MALLOC_ARENA_MAX=1 " .. lua("cancel_many", 100000) },
  { name = "cancel_many", note = "left at the end", key = "left_bytes", most = 8,
    bench = "MALLOC_ARENA_MAX=1 " .. lua("cancel_many", 100000) },
  { name = "timers", note = "CPU", key = "cpu_us", ratio = 1.5,
    bench = lua("timers", 100000), floor = floor("floor_timers", 100000) },
  { name = "timers", note = "median lateness", key = "late_ms", most = 1.2,
    bench = lua("timers", 100000), floor = floor("floor_timers", 100000) },
  { name = "generator", note = "prefetch 64", key = "items_s", least = 1e6,
    bench = lua("generator", 1000000, 64) },
  { name = "generator", note = "strict, CPUs " .. same, key = "p50_us", ratio = 1.5,
    bench = lua("generator", 20000, 0, same), floor = floor("floor_pingpong", 20000, same) },
  { name = "generator", note = "strict, unpinned", key = "p50_us", ratio = 1.5,
    bench = lua("generator", 20000, 0), floor = floor("floor_pingpong", 20000) },
  { name = "http_keepalive", note = "300 B, 64 at once", key = "cpu_us", ratio = 1.25, http = true,
    bench = on_first_cpu(lua("http_keepalive", "$URL/300b", 20000, 64)),
    floor = on_first_cpu(floor("floor_curl", "-n 20000 -c 64 $URL/300b 300")) },
  { name = "http_download", note = "1 GiB, read", key = "cpu_ms", ratio = 1.1, http = true,
    bench = on_first_cpu(lua("http_download", "$URL/files/1g", GIB)),
    floor = on_first_cpu(floor("floor_curl", "-n 1 -c 1 $URL/files/1g", GIB)) },
  { name = "http_download", note = "1 GiB, to a file", key = "cpu_ms", ratio = 1.1, http = true,
    bench = on_first_cpu(lua("http_download", "$URL/files/1g", GIB, "$FILE")),
    floor = on_first_cpu(floor("floor_curl", "-n 1 -c 1 -o $FILE $URL/files/1g", GIB)) },
  { name = "http_download", note = "1 GiB, memory", key = "rss_mb", most = 20, rounds = 1,
    http = true, bench = lua("http_download", "$URL/files/1g", GIB) },
  { name = "perf_test", whole = "lua5.4 examples/perf_test.lua" },
}

---@return number # the value of `key` in the line that the command prints
local function measure(command, key)
  local pipe = assert(io.popen(command, "r"))
  local line = pipe:read("a")
  local ok = pipe:close()
  local value = line:match("%f[%w]" .. key .. "=(%d+%.?%d*)")
  if not ok or not value then
    error(("%s: no %s in its output: %s"):format(command, key, line), 0)
  end
  return tonumber(value)
end

local function median(list)
  table.sort(list)
  local n = #list
  return (list[(n + 1) // 2] + list[n // 2 + 1]) / 2
end

local function show(x)
  if x >= 1000 then
    local digits = ("%.0f"):format(x):reverse():gsub("(%d%d%d)", "%1,"):reverse()
    return (digits:gsub("^,", ""))
  end
  return ("%.3g"):format(x)
end

local function verdict(value, b, ratio)
  local reached, goal
  if b.ratio then
    reached, goal = ratio <= b.ratio, ("ratio <= %.4g"):format(b.ratio)
  elseif b.most then
    reached, goal = value <= b.most, "<= " .. show(b.most)
  else
    reached, goal = value >= b.least, ">= " .. show(b.least)
  end
  return goal, reached and "reached" or "missed"
end

local FORMAT <const> = "%-18s %-18s %-8s %12s %10s %8s   %-16s %s"

-- A server with a file of 1 GiB, which takes no room on the disk.
local function start_server()
  local server = nginx.start { cpu = cpus[2] }
  assert(os.execute(("truncate -s %d '%s/1g'"):format(GIB, server.files)))
  return server
end

local function compare(b, rounds, server)
  local values, floors, ratios = {}, {}, {}
  local function one(command)
    if server and command then
      command = command:gsub("%$URL", server.url):gsub("%$FILE", server.dir .. "/saved")
    end
    return command and measure(command, b.key)
  end
  for round = 1, b.rounds or rounds do
    local value, low
    if round % 2 == 1 then
      low, value = one(b.floor), one(b.bench)
    else
      value, low = one(b.bench), one(b.floor)
    end
    values[round], floors[round], ratios[round] = value, low, low and value / low
  end
  local value, ratio = median(values), b.floor and median(ratios)
  local goal, word = verdict(value, b, ratio)
  print(FORMAT:format(b.name, b.note, b.key, show(value), b.floor and show(median(floors)) or "-",
    ratio and ("%.2f"):format(ratio) or "-", goal, word))
end

local rounds, wanted, known = 5, nil, {}
for _, b in ipairs(benches) do
  if b then known[b.name] = true end
end
local i = 2
while arg[i] do
  if arg[i] == "-r" then
    i = i + 1
    rounds = assert(math.tointeger(arg[i]), "-r wants a number of rounds")
  elseif known[arg[i]] then
    wanted = wanted or {}
    wanted[arg[i]] = true
  else
    io.stderr:write("there is no bench ", arg[i], "\n")
    os.exit(1)
  end
  i = i + 1
end

io.stdout:setvbuf("line")
local server
local titles = false
for _, b in ipairs(benches) do
  if b and (not wanted or wanted[b.name]) then
    if b.whole then
      if titles then print() end
      assert(os.execute(b.whole))
    else
      if not titles then
        print(FORMAT:format("bench", "", "what", "median", "floor", "ratio", "goal", ""))
        titles = true
      end
      if b.http then server = server or start_server() end
      compare(b, rounds, server)
    end
  end
end
if server then server:stop() end
