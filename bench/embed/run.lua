-- What do moonloop's waits cost a server with plugins, and what do they save? The servers of
-- examples/embed under the load of wrk: plugins as jobs; on a thread for each connection; and
-- there with blocking HTTP instead of moonloop. Their upstream is a real nginx that answers after
-- 50 ms.
--
-- usage: ./dev bench embed [-t SECONDS] [CLIENTS ...]      3 seconds; 10 100 1000 clients

local nginx = require "spec.support.nginx"
local process = require "spec.support.process"

local OUT <const> = arg[1] -- where the C programs are
local WORDS <const> = { ["quote"] = "one upstream", ["report"] = "two upstreams" }

local upstream <close> = nginx.start {
  connections = 8192,
  locations = [[
    location = /quote { echo_sleep 0.05; echo "a quote"; }
    location = /news { echo_sleep 0.05; echo "some news"; }]],
}
process.find("wrk", "wrk")
local here = process.capture "pwd"
local Server = process.class()

local function start(mode)
  return process.start(setmetatable({}, Server), mode.program, function(self)
    self.port = process.free_port()
    return ("env UPSTREAM=%s '%s/%s' %s %d '%s/%s'"):format(
        upstream.url, OUT, mode.program, mode.switch or "", self.port, here, mode.plugins),
      process.listens(self.port)
  end)
end

local modes = {
  { name = "jobs", program = "job_server", plugins = "examples/embed/plugins" },
  { name = "threads", program = "plugin_server", plugins = "examples/embed/plugins" },
  { name = "blocking", program = "plugin_server", switch = "--blocking",
    plugins = "bench/embed/plugins" },
}

-- User and system time of a process in seconds; /proc counts in hundredths.
local function cpu(pid)
  local user, system = process.read_file(("/proc/%s/stat"):format(pid))
    :match("%) %u" .. (" %S+"):rep(10) .. " (%d+) (%d+)")
  return (user + system) / 100
end

-- Loads the plugin. In the middle of it a look at the process is taken.
local function load(server, pid, plugin, clients, seconds)
  local output = process.capture((
    "wrk -t 1 -c %d -d %ds --timeout 20s --latency http://127.0.0.1:%d/%s & sleep %g;"
    .. " grep -E 'Threads|VmRSS' /proc/%s/status; wait"):format(
      clients, seconds, server.port, plugin, seconds / 2, pid))
  local n, rate = output:match "(%d+) requests in", output:match "Requests/sec: *([%d.]+)"
  local p50, unit = output:match "50%% +([%d.]+)(%a+)"
  assert(p50, output)
  local failed = tonumber(output:match "Non%-2xx or 3xx responses: (%d+)" or 0)
  for count in (output:match "Socket errors: ([^\n]*)" or ""):gmatch "%d+" do
    failed = failed + count
  end
  return {
    n = tonumber(n), rate = tonumber(rate), failed = failed,
    p50_ms = p50 * ({ us = 1e-3, ms = 1, s = 1e3 })[unit],
    threads = tonumber(output:match "Threads:%s*(%d+)"),
    rss_mb = output:match "VmRSS:%s*(%d+)" / 1024,
  }
end

local FORMAT <const> = "%-14s %7s  %-9s %8s %8s %11s %8s %8s %7s"

local function run(plugin, clients, mode, seconds)
  local server <close> = start(mode)
  local pid = process.read_file(server.dir .. "/pid"):match "%d+"
  load(server, pid, plugin, clients, 4) -- threads, states and connections are made
  local before = cpu(pid)
  local r = load(server, pid, plugin, clients, seconds)
  print(FORMAT:format(WORDS[plugin], clients, mode.name, r.threads, ("%.1f"):format(r.rss_mb),
    ("%.0f"):format((cpu(pid) - before) * 1e6 / r.n), ("%.0f"):format(r.rate),
    ("%.1f"):format(r.p50_ms), r.failed))
end

local seconds, counts = 3, {}
local i = 2
while arg[i] do
  if arg[i] == "-t" then
    i = i + 1
    seconds = assert(math.tointeger(arg[i]), "-t wants a number of seconds")
  else
    counts[#counts + 1] = assert(math.tointeger(arg[i]), "a number of clients, got " .. arg[i])
  end
  i = i + 1
end
if #counts == 0 then counts = { 10, 100, 1000 } end

io.stdout:setvbuf("line")
print(FORMAT:format("plugin", "clients", "waits in", "threads", "RSS MB", "CPU us/req", "req/s",
  "p50 ms", "failed"))
for _, plugin in ipairs { "quote", "report" } do
  for _, clients in ipairs(counts) do
    for _, mode in ipairs(modes) do run(plugin, clients, mode, seconds) end
  end
end
