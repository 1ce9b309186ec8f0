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
-- There are as many threads as CPUs, each with an equal share of the calls, except in the last
-- case, which is what a server with a thread for each client does.

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
local process = require "bench.process"
local CPUS <const> = #process.cpus()

local function check(status, body, expected)
  assert(status == 200 and body == expected, "a wrong answer")
end

-- On the loop's thread: n requests at once.
local function loop_side(url, n, expected)
  local jobs = {}
  for i = 1, n do
    jobs[i] = ml.spawn(function()
      local res = assert(http.get(url))
      check(res.status, res.body, expected)
    end)
  end
  ml.gather(jobs)
end

-- On each worker thread: n requests, one after another, over a handle of its own.
local function thread_side(url, n, expected, trust, fresh)
  if fresh and easy.mine then
    easy.mine:close()
    easy.mine = nil
  end
  easy.mine = easy.mine or easy.new(trust)
  for _ = 1, n do
    local status, body = easy.mine:get(url)
    check(status, body, expected)
  end
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

  local function by_loop()
    if not case.fresh then
      return kept:submit(loop_side, case.url, n, expected):result()
    end
    local ex <close> = ml.AsyncExecutor { name = "perf" }
    ex:submit(loop_side, case.url, n, expected):result()
  end

  local function by_threads()
    local futures = {}
    for i = 1, threads do
      local share = n * i // threads - n * (i - 1) // threads
      futures[i] = pool:submit(thread_side, case.url, share, expected, trust, case.fresh)
    end
    for _, future in ipairs(futures) do
      future:result()
    end
  end

  if not case.fresh then
    for _ = 1, 3 do
      by_loop()
      by_threads()
    end
  end
  local on_loop, on_threads = 0, 0
  for run = 1, RUNS do
    if run % 2 == 1 then
      on_loop = on_loop + cost(by_loop)
      on_threads = on_threads + cost(by_threads)
    else
      on_threads = on_threads + cost(by_threads)
      on_loop = on_loop + cost(by_loop)
    end
  end
  local ratio = on_loop / on_threads
  local goal = n == 100 and case.goal
  print(("%-32s %5d %8d %9.2f %11.2f %7.2f   %s"):format(case.name, n, threads,
    on_loop * 1000 / RUNS, on_threads * 1000 / RUNS, ratio,
    goal and ("<= %.1f %s"):format(goal, ratio <= goal and "reached" or "missed") or ""))
end

-- A bundle and a folder of certificates as the system has them, and the test server's besides:
-- what a process finds on a machine where that one is installed.
local function make_trust(server)
  local bundle, folder = server.dir .. "/bundle.pem", server.dir .. "/certs"
  assert(os.execute(([[
    system=/etc/ssl/certs
    cat $system/ca-certificates.crt '%s' >'%s'
    mkdir '%s' && cd '%s' || exit 1
    for link in $system/????????.[0-9]; do ln -s "$link" .; done
    ln -s '%s' "$(openssl x509 -hash -noout -in '%s').0"]]):format(
    server.ca, bundle, folder, folder, server.ca, server.ca)))
  return { ca = bundle, capath = folder }
end

local server <close> = nginx.start { http2 = true }
local trust = make_trust(server)
process.setenv("SSL_CERT_FILE", trust.ca)
process.setenv("SSL_CERT_DIR", trust.capath)
local expected = assert(http.get(server.url .. "/300b")).body
local cases = {
  { name = "https, fresh", url = server.https_url .. "/300b", fresh = true, goal = 0.3 },
  { name = "https, warm", url = server.https_url .. "/300b" },
  { name = "http, fresh", url = server.url .. "/300b", fresh = true },
  { name = "http, warm", url = server.url .. "/300b", goal = 0.9 },
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
