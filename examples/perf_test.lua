#!/usr/bin/env moonloop
-- How much CPU time do N HTTP requests take: as jobs of one loop thread, and as blocking calls
-- on threads with one libcurl easy handle each?
--
--   ./dev run examples/perf_test.lua [RUNS]
--
-- It asks a real nginx, 10 and 100 times a run, and checks every body. CPU time is that of this
-- whole process, mean of RUNS (10) runs; the two sides take turns, and who goes first too. Both
-- keep their connections alive, and trust the system's certificates and the test server's.
--
--   fresh   the loop side makes and ends a loop in each run, the threads make new handles
--   warm    both have asked before
--
-- Each call is a submit of its own, to the loop as to the threads, of which there are as many as
-- CPUs. "In bulk" saves that: one submit to the loop, and one to each thread for its share of the
-- calls. In the last case there is a thread for each call, as in a server with a thread a client.

local ml = require "moonloop"
local http = require "moonloop.http"

local RUNS <const> = math.tointeger(tonumber(arg[1] or 10))
if not RUNS or RUNS < 1 then
  io.stderr:write("usage: perf_test.lua [RUNS]\n")
  os.exit(arg[1] == "--help" and 0 or 2)
end

-- The helpers of specs and benches; ./dev puts them on the path.
local found = package.searchpath("spec.support.nginx", package.path)
local build = package.searchpath("moonloop", package.cpath)
assert(found and build, "run it as ./dev run examples/perf_test.lua")
assert(os.execute(("make -s -C '%sbench' modules OUT='%sbench'"):format(
  found:match("^(.-)spec/support/nginx.lua$"), build:match("^(.*/)"))))
local nginx = require "spec.support.nginx"
local easy = require "bench.easy"
local make_trust = require "bench.trust"
local process = require "bench.process"
local CPUS <const> = #process.cpus()

local function check(status, body, expected)
  assert(status == 200 and body == expected, "a wrong answer")
end

-- On the loop's thread: n requests at once.
local function on_loop(n, url, expected)
  local function ask()
    local res = assert(http.get(url))
    check(res.status, res.body, expected)
  end
  if n == 1 then return ask() end
  local jobs = {}
  for i = 1, n do
    jobs[i] = ml.spawn(ask)
  end
  ml.gather(jobs)
end

-- On a worker thread: n requests, one after another, over the thread's own handle. Another
-- `era` wants another handle.
local function on_thread(n, url, expected, trust, era)
  if easy.era ~= era then
    if easy.client then easy.client:close() end
    easy.client, easy.era = easy.new(trust), era
  end
  for _ = 1, n do
    local status, body = easy.client:get(url)
    check(status, body, expected)
  end
end

-- Submits f once for each share of the calls and waits for all.
local function submit(ex, f, shares, ...)
  local futures = {}
  for i, share in ipairs(shares) do
    futures[i] = ex:submit(f, share, ...)
  end
  for _, future in ipairs(futures) do
    future:result()
  end
end

---@return table # n as a sum of `count` numbers
local function share_out(n, count)
  local shares = {}
  for i = 1, count do
    shares[i] = n * i // count - n * (i - 1) // count
  end
  return shares
end

-- The seconds of CPU that f(...) takes.
local function cost(f, ...)
  local before = os.clock()
  f(...)
  return os.clock() - before
end

local function run_case(case, n, expected, trust)
  local threads = case.thread_a_call and n or CPUS
  local pool <close> = ml.ThreadExecutor { workers = threads }
  local kept <close> = ml.AsyncExecutor { name = "perf" }
  local loop_shares = share_out(n, case.bulk and 1 or n)
  local thread_shares = share_out(n, case.bulk and threads or n)

  local function by_loop()
    if not case.fresh then
      return submit(kept, on_loop, loop_shares, case.url, expected)
    end
    local ex <close> = ml.AsyncExecutor { name = "perf" }
    submit(ex, on_loop, loop_shares, case.url, expected)
  end

  local function by_threads(run)
    submit(pool, on_thread, thread_shares, case.url, expected, trust, case.fresh and run or 0)
  end

  if not case.fresh then
    for _ = 1, 3 do
      by_loop()
      by_threads()
    end
  end
  local loop_time, thread_time = 0, 0
  for run = 1, RUNS do
    if run % 2 == 1 then
      loop_time = loop_time + cost(by_loop)
      thread_time = thread_time + cost(by_threads, run)
    else
      thread_time = thread_time + cost(by_threads, run)
      loop_time = loop_time + cost(by_loop)
    end
  end
  local ratio = loop_time / thread_time
  local goal = n == 100 and case.goal
  print(("%-32s %5d %8d %9.2f %11.2f %7.2f   %s"):format(case.name, n, threads,
    loop_time * 1000 / RUNS, thread_time * 1000 / RUNS, ratio,
    goal and ("<= %.1f %s"):format(goal, ratio <= goal and "reached" or "missed") or ""))
end

local server <close> = nginx.start { http2 = true }
local trust = {}
trust.ca, trust.capath = make_trust(server)
process.setenv("SSL_CERT_FILE", trust.ca)
process.setenv("SSL_CERT_DIR", trust.capath)
local expected = assert(http.get(server.url .. "/300b")).body
local cases = {
  { name = "https, fresh", url = server.https_url .. "/300b", fresh = true, goal = 0.3 },
  { name = "https, warm", url = server.https_url .. "/300b" },
  { name = "http, fresh", url = server.url .. "/300b", fresh = true },
  { name = "http, warm", url = server.url .. "/300b", goal = 0.9 },
  { name = "http, warm, in bulk", url = server.url .. "/300b", bulk = true },
  { name = "http, warm, 20 ms, thread a call", url = server.url .. "/delay/0.02/300b",
    thread_a_call = true, goal = 0.5 },
}

print(("CPU ms for 300-byte GETs, mean of %d runs, %d CPUs\n"):format(RUNS, CPUS))
print("case                              GETs  threads   loop ms  threads ms   ratio   goal")
for _, case in ipairs(cases) do
  for _, n in ipairs { 10, 100 } do
    run_case(case, n, expected, trust)
  end
end
