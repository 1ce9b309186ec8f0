-- Runs benches and their floors in turns, several rounds, and prints the medians, the ratio
-- and what is asked for.
--
-- usage: ./dev bench [-r ROUNDS] [NAME ...]      NAME: submit_wait, spawn, ...

local measure = require "bench.measure"
local process = require "bench.process"
local median, show = measure.median, measure.show

local OUT <const> = arg[1] -- where the floors are
local cpus = process.cpus()
local same = ("%d,%d"):format(cpus[1], cpus[1])
local apart = cpus[2] and ("%d,%d"):format(cpus[1], cpus[2])

local function lua(script, ...)
  return table.concat({ "lua5.4 bench/" .. script .. ".lua", ... }, " ")
end

local function floor(program, ...)
  return table.concat({ "'" .. OUT .. "/" .. program .. "'", ... }, " ")
end

local UNWATCHED <const> = "MOONLOOP_BLOCKED_MS=0 "

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
  { name = "process_pool", note = "64 B", key = "p50_us", ratio = 1.5,
    bench = lua("process_pool", 10000, 64), floor = floor("floor_socketpair", 10000, 64) },
  { name = "process_pool", note = "1 MB, both ways", key = "gb_s", least = 1.5,
    bench = lua("process_pool", 500, 1000000) },
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
  { name = "to_thread", note = "from a job", key = "p50_us", ratio = 1.5,
    bench = lua("to_thread", 20000, "job"), floor = floor("floor_queue_work", 20000) },
  { name = "to_thread", note = "from a thread", key = "p50_us", ratio = 2,
    bench = lua("to_thread", 20000, "thread"), floor = floor("floor_pingpong", 20000) },
  { name = "cpu_map", note = "two workers", key = "speedup", least = 1.9,
    bench = lua("cpu_map") },
  { name = "trace", note = "spawned jobs", key = "ratio", most = 1.1, rounds = 1,
    bench = lua("trace", "spawn") },
  { name = "trace", note = "submitted jobs", key = "ratio", most = 1.1, rounds = 1,
    bench = lua("trace", "submit") },
  { name = "start", note = "an executor", key = "first_us", most = 1000, bench = lua("start") },
  { name = "start", note = "a worker's state", key = "state_us", most = 150,
    bench = lua("start") },
  { name = "slices", note = "10 ms", key = "cpu_s", ratio = 1.05,
    bench = UNWATCHED .. lua("slices", 10), floor = UNWATCHED .. lua("slices", 0) },
  { name = "watched", note = "spawn", key = "us", ratio = 1.02,
    bench = lua("spawn"), floor = UNWATCHED .. lua("spawn") },
  { name = "watched", note = "submit_pipelined", key = "cpu_us", ratio = 1.02,
    bench = lua("submit_pipelined"), floor = UNWATCHED .. lua("submit_pipelined") },
  { name = "perf_test", whole = "lua5.4 examples/perf_test.lua" },
}

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

local function compare(b, rounds)
  local values, floors, ratios = {}, {}, {}
  local function one(command)
    return command and measure.value(command, b.key)
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
      compare(b, rounds)
    end
  end
end
