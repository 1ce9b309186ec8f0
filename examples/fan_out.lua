#!/usr/bin/env moonloop
-- Fetches many URLs at once, on one thread, and tells how it went.
--
--   ./dev run examples/fan_out.lua [-c N] [-n N] [URL ...]
--   lua5.4 examples/fan_out.lua ...        the same in the stock interpreter
--
-- Without a URL it starts examples/demo_server.lua on a free port and asks that. A host that
-- does not answer, or a URL that is none, is a row of the table like any other.

local ml = require "moonloop"
local http = require "moonloop.http"

local USAGE <const> = [[
usage: fan_out.lua [-c N] [-n N] [URL ...]
  -c N   at most N requests at once (20)
  -n N   N requests in all, going round the URLs (each URL once)
]]

local function options()
  local opts, names = { urls = {}, c = 20 }, { ["-c"] = "c", ["-n"] = "n" }
  local i = 1
  while arg[i] do
    local name = names[arg[i]]
    if arg[i] == "-h" or arg[i] == "--help" then
      io.stdout:write(USAGE)
      os.exit(0)
    elseif name then
      i = i + 1
      opts[name] = math.tointeger(tonumber(arg[i]))
      if (opts[name] or 0) < 1 then
        io.stderr:write("-", name, " wants a number from 1\n", USAGE)
        os.exit(2)
      end
    elseif arg[i]:sub(1, 1) == "-" then
      io.stderr:write("unknown option ", arg[i], "\n", USAGE)
      os.exit(2)
    else
      table.insert(opts.urls, arg[i])
    end
    i = i + 1
  end
  return opts
end

-- What to ask when nothing is given: answers that take 20 to 160 ms, and three failures.
local function demo_urls(port)
  local base, urls = "http://127.0.0.1:" .. port, {}
  for i = 1, 8 do
    urls[i] = ("%s/delay/%d/size/%d"):format(base, i * 20, 4 ^ i // 1)
  end
  table.insert(urls, base .. "/status/503")
  table.insert(urls, "http://127.0.0.1:1/nobody-listens")
  table.insert(urls, "http://not a host/")
  return urls
end

local function fetch(url)
  local start = ml.now()
  local res, err = http.get(url, { timeout = 30 })
  return ml.now() - start, res, err
end

local function thousands(n)
  local s = ("%d"):format(n):reverse():gsub("(%d%d%d)", "%1,"):reverse()
  return (s:gsub("^,", ""))
end

local function report(rows, total, c)
  local format = "%-9s %7s %7s %12s %9s   %s"
  print(format:format("status", "times", "failed", "bytes", "mean ms", "URL"))
  for _, row in ipairs(rows) do
    print(format:format(row.status, thousands(row.times), thousands(row.failed),
      thousands(row.bytes), ("%.1f"):format(row.seconds * 1000 / row.times), row.url))
  end
  print(("\n%s requests, %s failed, %s bytes, %d at once: %.3f s"):format(
    thousands(total.times), thousands(total.failed), thousands(total.bytes), c, total.wall))
  print(("One after another they would have taken %.3f s: %.1f times as long."):format(
    total.seconds, total.seconds / total.wall))
end

local opts = options()
local progress = os.execute("test -t 2") -- is stderr a terminal?

ml.run(function()
  local urls, server = opts.urls, nil
  if #urls == 0 then
    server = require("examples.demo_server").start {}
    urls = demo_urls(server.port)
    opts.n = opts.n or 5 * #urls
  end

  local requests, rows, row_of = {}, {}, {}
  for i = 1, opts.n or #urls do
    local url = urls[(i - 1) % #urls + 1]
    requests[i] = url
    if not row_of[url] then
      row_of[url] = { url = url, times = 0, failed = 0, bytes = 0, seconds = 0 }
      table.insert(rows, row_of[url])
    end
  end

  local total = { times = 0, failed = 0, bytes = 0, seconds = 0 }
  local start = ml.now()
  for url, seconds, res, err in ml.each(requests, fetch, { limit = opts.c }) do
    local row = row_of[url]
    row.status = res and res.status or err.code
    for _, sum in ipairs { row, total } do
      sum.times = sum.times + 1
      sum.failed = sum.failed + ((res and res.status < 400) and 0 or 1)
      sum.bytes = sum.bytes + (res and #res.body or 0)
      sum.seconds = sum.seconds + seconds
    end
    if progress then
      io.stderr:write(("\r%d of %d"):format(total.times, #requests))
    end
  end
  total.wall = ml.now() - start
  if progress then io.stderr:write("\r\27[K") end

  report(rows, total, opts.c)
  if server then server.stop() end
end)
