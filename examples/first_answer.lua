#!/usr/bin/env moonloop
-- Asks two mirrors at once and takes whichever answers first, within a deadline.
--
--   ./dev run examples/first_answer.lua [MIRROR_URL ...]
--   lua5.4 examples/first_answer.lua ...        the same in the stock interpreter
--
-- Nothing is left behind: the group ends when its jobs have ended, and those that lost are
-- cancelled, their connections with them. A mirror that fails is no answer; when all fail, or
-- the deadline passes, the caller is told. Without a URL it starts examples/demo_server.lua
-- and tries four pairs of mirrors there.

local ml = require "moonloop"
local http = require "moonloop.http"

local DEADLINE <const> = 0.5 -- seconds for all of it

-- In a group an error would end the others, so what may fail is returned.
local function ask(url)
  local res, err = http.get(url)
  if not res then return nil, err.message end
  if not res.ok then return nil, ("%d %s"):format(res.status, res.reason) end
  return res
end

---@return table? response the first good one
---@return table|string? err why there is none
---@return table? jobs a future for each URL, all settled
local function first_answer(urls)
  local jobs = {}
  return ml.group(function(g)
    for i, url in ipairs(urls) do
      jobs[i] = g:spawn(ask, url)
    end
    local reasons = {}
    for future in ml.as_completed(jobs) do
      local res, reason = future:result()
      if res then
        for _, job in ipairs(jobs) do job:cancel("another mirror was first") end
        return res, nil, jobs
      end
      table.insert(reasons, reason)
    end
    return nil, table.concat(reasons, "; ")
  end)
end

local function report(title, urls)
  local start = ml.now()
  local res, err, jobs = ml.move_on_after(DEADLINE, first_answer, urls)
  local ms = (ml.now() - start) * 1000
  if not res then
    print(("%s: no answer after %.0f ms: %s"):format(title, ms, err))
    return
  end
  print(("%s: %s, %d bytes after %.0f ms"):format(title, res.url:match("^%w+://[^/]*(.*)$"),
    #res.body, ms))
  for i, job in ipairs(jobs) do
    if job:cancelled() then print("    cancelled: " .. urls[i]) end
  end
end

if arg[1] == "-h" or arg[1] == "--help" then
  print("usage: first_answer.lua [MIRROR_URL ...]")
  os.exit(0)
end

ml.run(function()
  if arg[1] then return report("your mirrors", arg) end
  local server = require("examples.demo_server").start {}
  local function mirrors(...)
    local urls = { ... }
    for i, path in ipairs(urls) do urls[i] = server.url .. path end
    return urls
  end
  report("both are up", mirrors("/near/delay/30", "/far/delay/400"))
  report("the near one is down", mirrors("/near/status/503", "/far/delay/80"))
  report("both are down", mirrors("/near/status/503", "/far/status/502"))
  report("both are slow", mirrors("/near/delay/5000", "/far/delay/9000"))
  server.stop()
end)
