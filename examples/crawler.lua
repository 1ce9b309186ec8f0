#!/usr/bin/env moonloop
-- A crawler: a group of workers takes URLs from a queue and puts those of the links it finds.
--
--   ./dev run examples/crawler.lua [-w WORKERS] [-n PAGES] [URL]
--   lua5.4 examples/crawler.lua ...        the same in the stock interpreter
--
-- The number of workers is the limit on requests at once, PAGES that on all of them. The
-- queue knows when the crawl is over: when each URL that was put has been reported as done.
-- Without a URL it starts examples/demo_server.lua, whose 63 pages link to each other.

local ml = require "moonloop"
local http = require "moonloop.http"

local USAGE <const> = "usage: crawler.lua [-w WORKERS] [-n PAGES] [URL]"

local function options()
  local opts, names, i = { workers = 8, pages = 100 }, { ["-w"] = "workers", ["-n"] = "pages" }, 1
  while arg[i] do
    local name = names[arg[i]]
    if name then
      i = i + 1
      opts[name] = math.tointeger(tonumber(arg[i]))
    else
      opts.url = arg[i]
    end
    if not opts.workers or not opts.pages or (not name and arg[i]:sub(1, 1) == "-") then
      io.stderr:write(USAGE, "\n")
      os.exit(arg[i] == "--help" and 0 or 2)
    end
    i = i + 1
  end
  return opts
end

-- The pages that `body` links to, on the same host.
local function links(body, url)
  local host = url:match("^%w+://[^/]+")
  return coroutine.wrap(function()
    for link in body:gmatch('href="([^"#]+)"') do
      if link:sub(1, 1) == "/" then link = host .. link end
      if link:sub(1, #host) == host then coroutine.yield(link) end
    end
  end)
end

---@return table pages a list of { url, status, title } or { url, err }
---@return integer most how many requests were under way at once
local function crawl(start, workers, limit)
  local queue, seen, count, pages = ml.Queue(), {}, 0, {}
  local running, most = 0, 0

  local function discover(url)
    if seen[url] or count == limit then return end
    seen[url], count = true, count + 1
    queue:put(url)
  end

  local function visit(url)
    running = running + 1
    most = math.max(most, running)
    local res, err = http.get(url, { timeout = 10 })
    running = running - 1
    if not res then
      table.insert(pages, { url = url, err = err })
      return
    end
    table.insert(pages, { url = url, status = res.status, title = res.body:match("<title>(.-)<") })
    for link in links(res.body, url) do discover(link) end
  end

  discover(start)
  ml.group(function(g)
    for _ = 1, workers do
      g:spawn(function()
        for url in function() return queue:get() end do -- until the queue is shut down
          visit(url)
          queue:task_done()
        end
      end)
    end
    queue:join()
    queue:shutdown()
  end)
  return pages, most
end

local opts = options()
ml.run(function()
  local server
  if not opts.url then
    server = require("examples.demo_server").start { delay = 20 }
    opts.url = server.url .. "/page/1"
  end
  local began = ml.now()
  local pages, most = crawl(opts.url, opts.workers, opts.pages)
  local seconds = ml.now() - began
  for i, page in ipairs(pages) do
    if i > 5 and #pages > 6 then
      print(("... and %d more"):format(#pages - 5))
      break
    end
    print(page.status or page.err.code, page.url:match("^%w+://[^/]+(.*)$"), page.title or "")
  end
  print(("%d pages in %.2f s, at most %d requests at once"):format(#pages, seconds, most))
  if server then server.stop() end
end)
