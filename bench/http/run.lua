-- Runs the HTTP benches and what they are measured against in turns, several rounds, and prints
-- the medians, and the median of the ratios of each turn. What is not installed is left out.
--
-- usage: ./dev bench http [-r ROUNDS] [CASE ...]      CASE: a word of a case's name

local measure = require "bench.measure"
local make_trust = require "bench.trust"
local nginx = require "spec.support.nginx"
local process = require "bench.process"

local OUT <const> = arg[1] -- where the C programs are
local GIB <const> = 1024 * 1024 * 1024
local SLOW <const> = 10000
local cpus = process.cpus()
local server <close> = nginx.start { http2 = true, cpu = cpus[2], connections = SLOW + 1000 }
local bundle, folder = make_trust(server)

-- A file of 1 GiB that takes no room on the disk.
assert(os.execute(("truncate -s %d '%s/1g'"):format(GIB, server.files)))

local WORDS <const> = {
  URL = server.url, HTTPS = server.https_url, CA = server.ca, SAVED = server.dir .. "/saved",
  OUT = OUT, GIB = GIB, SLOW = SLOW,
}

local TRUST <const> = ("SSL_CERT_FILE='%s' SSL_CERT_DIR='%s' REQUESTS_CA_BUNDLE='%s'"):format(
  bundle, folder, bundle)

-- ---- the programs ----

local function succeeds(command)
  return os.execute("(" .. command .. ") >/dev/null 2>&1") == true
end

-- Who is measured: `start` is how its commands begin; `missing` says why it cannot be.
local programs = {
  moonloop = { start = "lua5.4 bench/http/%s.lua" },
  bare = { start = "'$OUT/http_%s'" },
  go = { start = "'$OUT/http_go' %s", package = "golang-go",
    test = ("go build -o '%s/http_go' bench/http/go.go"):format(OUT) },
  futures = { start = "/usr/bin/python3 bench/http/peer_futures.py",
    package = "python3-requests-futures", test = "/usr/bin/python3 -c 'import requests_futures'" },
  aiohttp = { start = "/usr/bin/python3 bench/http/peer_aiohttp.py %s",
    package = "python3-aiohttp", test = "/usr/bin/python3 -c 'import aiohttp'" },
  uvloop = { start = "/usr/bin/python3 bench/http/peer_aiohttp.py --uvloop %s",
    package = "python3-uvloop", test = "/usr/bin/python3 -c 'import aiohttp, uvloop'" },
  cqueues = { start = "lua5.1 bench/http/peer_cqueues.lua", package = "lua5.1 lua-http",
    test = [[lua5.1 -e 'require "http.client"']] },
  node = { start = "node bench/http/peer_node.js", package = "nodejs", test = "node --version" },
  curl = { start = "bench/http/peer_curl.sh", package = "curl", test = "curl --version" },
  wrk = { start = "bench/http/peer_wrk.sh", package = "wrk", test = "command -v wrk" },
}

---@return string? # the command; nil: the program is not installed
local function command(name, what, arguments)
  local program = programs[name]
  if program.found == nil then
    program.found = not program.test or succeeds(program.test)
    if not program.found then
      print(("no %s: install %s to measure it as well"):format(name, program.package))
    end
  end
  if not program.found then return end
  local line = ("taskset -c %d env %s %s %s"):format(cpus[1], TRUST, program.start:format(what),
    arguments)
  return (line:gsub("%$(%u+)", WORDS))
end

-- ---- the cases ----

-- `key`: what is compared. `what` and `with` make moonloop's command, and those of `against`,
-- each of which may have the most that the ratio to it should be; `most` is for moonloop's own
-- figure. A program that is here for the record is measured once, and its figure stands beside
-- that of moonloop in the same round.
local cases = {}

local function many(note, file, n, c, bytes, against)
  local with = ("$URL/%s %d %d"):format(file, n, c)
  local case = { name = "many, " .. note, key = "cpu_us", what = "many", with = with, against = {} }
  for _, peer in ipairs(against) do
    local share = peer.share or 1
    peer.what = peer[1] == "bare" and "bare" or "many"
    if peer[1] == "bare" then
      peer.with = ("-n %d -c %d $URL/%s %d"):format(n, c, file, bytes)
    elseif peer[1] == "wrk" then
      peer.with = ("$URL/%s 1 %d"):format(file, c)
    else
      peer.with = ("$URL/%s %d %d %d"):format(file, n // share, c, bytes)
    end
    case.against[#case.against + 1] = peer
  end
  cases[#cases + 1] = case
end

many("300 B, 64 at once", "300b", 20000, 64, 300, {
  { "bare", goal = 1.15 }, { "go", goal = 1 },
  { "wrk", record = true }, { "curl", record = true, share = 4 },
  { "cqueues", record = true, share = 4 }, { "node", record = true, share = 4 },
  { "uvloop", record = true, share = 4 },
})
many("10 KB, 64 at once", "10k", 20000, 64, 10240, { { "bare", goal = 1.15 }, { "go" } })
many("200 KB, 64 at once", "200k", 4000, 64, 204800, {
  { "bare", goal = 1.15 }, { "go", record = true }, { "wrk", record = true } })
many("300 B, 1,000 at once", "300b", 20000, 1000, 300, { { "go", goal = 1 }, { "bare" } })

for _, c in ipairs { { n = 10, futures = 0.06, aiohttp = 0.25 },
  { n = 100, futures = 0.1, aiohttp = 0.15 } } do
  local with = ("$HTTPS/300b %d 10"):format(c.n)
  cases[#cases + 1] = {
    name = ("cold, %d calls over TLS"):format(c.n), key = "cpu_ms", what = "cold", with = with,
    against = {
      { "futures", goal = c.futures, with = with },
      { "aiohttp", goal = c.aiohttp, what = "cold", with = with },
      { "go", what = "cold", with = with, record = true },
    },
  }
end

cases[#cases + 1] = {
  name = "http2, 300 B, 64 at once", key = "cpu_us", what = "many", with = "$HTTPS/300b 20000 64",
  against = { { "bare", goal = 1.15, what = "bare",
    with = "-m -a $CA -n 20000 -c 64 $HTTPS/300b 300" } },
}
cases[#cases + 1] = {
  name = "http2, 10 KB, 64 at once", key = "cpu_us", what = "many", with = "$HTTPS/10k 20000 64",
  against = { { "bare", goal = 1.15, what = "bare",
    with = "-m -a $CA -n 20000 -c 64 $HTTPS/10k 10240" } },
}
cases[#cases + 1] = {
  name = "lone, a GET after another", key = "p50_us", what = "many", with = "$URL/300b 5000 1",
  against = {
    { "bare", goal = 1.1, what = "bare", with = "-n 5000 -c 1 $URL/300b 300" },
    { "go", what = "many", with = "$URL/300b 5000 1 300", record = true },
  },
}
cases[#cases + 1] = {
  name = "slow, 10,000 wait at once", key = "request_kb", what = "slow",
  with = "$URL/delay/1/300b $SLOW", most = 60, rounds = 1, zero = "failed", files = SLOW + 1000,
}
cases[#cases + 1] = {
  name = "slow, the CPU time of one", key = "cpu_us", what = "slow", files = SLOW + 1000,
  with = "$URL/delay/1/300b $SLOW", rounds = 1,
  against = { { "bare", what = "bare", with = "-n $SLOW -c $SLOW $URL/delay/1/300b 300" } },
}
cases[#cases + 1] = {
  name = "download, 1 GiB, read", key = "cpu_ms", what = "download",
  with = "$URL/files/1g $GIB",
  against = { { "bare", goal = 1.1, what = "bare", with = "-n 1 -c 1 $URL/files/1g $GIB" } },
}
cases[#cases + 1] = {
  name = "download, 1 GiB, to a file", key = "cpu_ms", what = "download",
  with = "$URL/files/1g $GIB $SAVED",
  against = { { "bare", goal = 1.1, what = "bare",
    with = "-n 1 -c 1 -o $SAVED $URL/files/1g $GIB" } },
}
cases[#cases + 1] = {
  name = "download, 1 GiB, memory", key = "rss_mb", what = "download",
  with = "$URL/files/1g $GIB", most = 20, rounds = 1,
}

-- ---- running them ----

local FORMAT <const> = "%-28s %-10s %10s  %-8s %10s %7s   %s"

local function goal_of(value, most)
  return most and ("<= %.4g %s"):format(most, value <= most and "reached" or "missed") or ""
end

-- One round: moonloop and all peers, beginning with another one each time.
local function run_round(case, peers, round)
  local order, figures = { { case.command } }, {}
  for _, peer in ipairs(peers) do
    if round == 1 or not peer.record then order[#order + 1] = { peer.command, peer } end
  end
  for i = 0, #order - 1 do
    local line, peer = table.unpack(order[(i + round) % #order + 1])
    figures[peer or case] = measure.value(line, case.key)
    if not peer and case.zero then
      assert(measure.value(line, case.zero) == 0, case.name .. ": some " .. case.zero)
    end
  end
  for _, peer in ipairs(peers) do
    if figures[peer] then
      table.insert(peer.values, figures[peer])
      table.insert(peer.ratios, figures[case] / figures[peer])
    end
  end
  table.insert(case.values, figures[case])
end

local function run(case, rounds)
  local peers = {}
  case.command, case.values = command("moonloop", case.what, case.with), {}
  for _, peer in ipairs(case.against or {}) do
    peer.command, peer.values, peer.ratios = command(peer[1], peer.what, peer.with), {}, {}
    if peer.command then peers[#peers + 1] = peer end
  end
  for round = 1, case.rounds or rounds do run_round(case, peers, round) end
  local value = measure.median(case.values)
  local title, shown = case.name, measure.show(value)
  if case.most or #peers == 0 then
    print(FORMAT:format(title, case.key, shown, "-", "-", "-", goal_of(value, case.most)))
    title, shown = "", ""
  end
  for _, peer in ipairs(peers) do
    local ratio = measure.median(peer.ratios)
    print(FORMAT:format(title, case.key, shown, peer[1], measure.show(measure.median(peer.values)),
      ("%.3g"):format(ratio), goal_of(ratio, peer.goal)))
    title, shown = "", ""
  end
end

local rounds, wanted = 5, {}
local i = 2
while arg[i] do
  if arg[i] == "-r" then
    i = i + 1
    rounds = assert(math.tointeger(arg[i]), "-r wants a number of rounds")
  else
    wanted[#wanted + 1] = arg[i]
  end
  i = i + 1
end

local function is_wanted(case)
  for _, word in ipairs(wanted) do
    if case.name:find(word, 1, true) then return true end
  end
  return #wanted == 0
end

io.stdout:setvbuf("line")
local files = process.descriptors()
print(FORMAT:format("case", "what", "moonloop", "against", "its", "ratio", "goal"))
for _, case in ipairs(cases) do
  if is_wanted(case) then
    if case.files and files < case.files then
      print(("%s: it wants %d descriptors (ulimit -n)"):format(case.name, case.files))
    else
      run(case, rounds)
    end
  end
end
