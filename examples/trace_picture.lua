#!/usr/bin/env moonloop
-- Draws a trace as an SVG: what each thread ran, and below what became of each job and request.
--
--   moonloop --trace out.json script.lua
--   ./dev run examples/trace_picture.lua out.json out.svg
--
-- Without a file it traces a little fan-out of its own, and prints the picture. A trace opens in
-- https://ui.perfetto.dev too, where one can zoom in; this is for a page that shows it.

local cjson = require "cjson"
local ml = require "moonloop"

local USAGE <const> = "usage: trace_picture.lua [TRACE.json [PICTURE.svg]]\n"
local WIDTH <const>, LEFT <const>, ROW <const> = 1000, 110, 14

local COLOURS <const> = {
  job = "#3a76c4", queued = "#c9ced6", wait = "#dfe9f6", submit = "#7d5ba6", callbacks = "#5aa0a0",
  gc = "#a06a3c", blocked = "#d03c3c", http = "#e3f1df", resolve = "#c9a227", connect = "#e08a2e",
  tls = "#d4686f", redirects = "#b58fc7", ["first byte"] = "#a9d39e", receive = "#4f9a53",
}

-- What a bar is drawn in: the kind of a phase, else that of its category.
local function colour(e)
  if e.name:find "^wait:" then return COLOURS.wait end
  return COLOURS[e.name] or COLOURS[e.cat] or "#888888"
end

-- The events as bars: slices by thread, and the lanes of jobs and requests, each with its
-- parts; and the arrows between slices.
local function read(events)
  local threads, names, processes, lanes, open, arrows, last = {}, {}, {}, {}, {}, {}, 0
  local function of(groups, key, fields)
    if not groups[key] then
      groups[key] = fields
      table.insert(groups, fields)
    end
    return groups[key]
  end
  for i, e in ipairs(events) do e.place = i end
  table.sort(events, function(a, b) -- in the order of the file where times are equal
    if a.ts ~= b.ts then return (a.ts or 0) < (b.ts or 0) end
    return a.place < b.place
  end)
  for _, e in ipairs(events) do
    if e.ph == "M" and e.name == "thread_name" then
      local child = processes[e.pid] and processes.own ~= e.pid
      names[e.tid] = child and ("%s %d"):format(processes[e.pid], e.pid) or e.args.name
    elseif e.ph == "M" then
      processes.own = processes.own or e.pid
      processes[e.pid] = e.args.name
    end
    if e.ph == "X" then
      e.ends = e.ts + e.dur
      table.insert(of(threads, e.tid, { tid = e.tid }), e)
    elseif e.ph == "b" then
      local key = e.cat .. e.id
      if not open[key] then
        open[key] = { outer = e, cat = e.cat, ts = e.ts }
        table.insert(lanes, open[key])
      end
      table.insert(open[key], e)
    elseif e.ph == "e" and open[e.cat .. e.id] then
      local lane = open[e.cat .. e.id]
      for i = #lane, 1, -1 do
        if lane[i].name == e.name and not lane[i].ends then
          lane[i].ends = e.ts
          break
        end
      end
    end
    if e.ph == "s" or e.ph == "f" then
      arrows[e.id] = arrows[e.id] or {}
      arrows[e.id][e.ph] = e
    end
    if e.ts then last = math.max(last, e.ends or e.ts) end
  end
  for _, lane in ipairs(lanes) do
    for _, part in ipairs(lane) do part.ends = part.ends or last end
    lane.ends = lane.outer.ends
  end
  for _, thread in ipairs(threads) do thread.name = names[thread.tid] or tostring(thread.tid) end
  return threads, lanes, arrows, last
end

-- Rows that have no two lanes at once.
local function pack(lanes, cat)
  local rows = {}
  for _, lane in ipairs(lanes) do
    if lane.cat == cat then
      local row
      for _, r in ipairs(rows) do
        if r.ends <= lane.ts then
          row = r
          break
        end
      end
      if not row then
        row = {}
        table.insert(rows, row)
      end
      table.insert(row, lane)
      row.ends = lane.ends
    end
  end
  return rows
end

local ENTITIES <const> = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }
local function escape(text) return (text:gsub("[&<>\"]", ENTITIES)) end

local function draw(events)
  local threads, lanes, arrows, last = read(events)
  local first = last
  for _, e in ipairs(events) do first = math.min(first, e.ts or first) end
  local scale = (WIDTH - LEFT - 10) / math.max(1, last - first)
  local out, y, middle = {}, 30, {}
  local function x(ts) return LEFT + (ts - first) * scale end
  local function add(...) table.insert(out, string.format(...)) end
  local function bar(e, top, height, label, fill)
    local wide = math.max(0.6, (e.ends - e.ts) * scale)
    add('<rect x="%.1f" y="%d" width="%.2f" height="%d" fill="%s"%s>', x(e.ts), top, wide, height,
      fill or colour(e), wide > 3 and ' stroke="#fff"' or "")
    add("<title>%s, %.3f ms</title></rect>", escape(e.name), (e.ends - e.ts) / 1000)
    if label and wide > 6 * #label then
      add('<text x="%.1f" y="%d" font-size="9" fill="%s">%s</text>', x(e.ts) + 3, top + height - 2,
        e.cat == "job" and colour(e) == COLOURS.job and "#fff" or "#333", escape(label))
    end
  end
  local function heading(text, strong)
    add('<text x="4" y="%d"%s>%s</text>', y + ROW - 4, strong and ' font-weight="bold"' or "",
      escape(text))
  end

  for _, thread in ipairs(threads) do
    heading(thread.name, true)
    middle[thread.tid] = y + ROW / 2
    for _, e in ipairs(thread) do
      local part = e.cat == "submit" or e.cat == "gc"
      bar(e, part and y + 4 or y, part and ROW - 10 or ROW - 1, not part and e.name)
    end
    y = y + ROW + 4
  end
  for _, arrow in pairs(arrows) do
    local s, f = arrow.s, arrow.f
    if s and f and s.tid ~= f.tid then
      add('<path d="M%.1f %dL%.1f %d" stroke="#7d5ba6" fill="none"/>', x(s.ts), middle[s.tid],
        x(f.ts), middle[f.tid])
    end
  end
  for _, section in ipairs { { "job", "jobs" }, { "http", "requests" } } do
    local rows = pack(lanes, section[1])
    y = y + 6
    if #rows > 0 then heading(section[2], true) end
    for _, row in ipairs(rows) do
      for _, lane in ipairs(row) do
        bar(lane.outer, y + 4, ROW - 10, nil, "#a9bdd8")
        for _, part in ipairs(lane) do
          local label = lane.cat == "http" and lane.outer.name:gsub("%w+://[^/]+", "") or part.name
          if part ~= lane.outer then bar(part, y, ROW - 2, label) end
        end
      end
      y = y + ROW
    end
  end

  local step = 10 ^ math.floor(math.log((last - first) / 4, 10))
  for at = first, last, step do
    add('<path d="M%.1f 18V%d" stroke="#000" stroke-opacity="0.12"/>', x(at), y)
    add('<text x="%.1f" y="14" text-anchor="middle">%g ms</text>', x(at), (at - first) // 1 / 1000)
  end
  local place = LEFT
  for _, name in ipairs { "job", "queued", "wait", "connect", "first byte", "receive" } do
    add('<rect x="%d" y="%d" width="10" height="10" fill="%s"/><text x="%d" y="%d">%s</text>',
      place, y + 10, COLOURS[name], place + 14, y + 19, name == "job" and "runs" or name)
    place = place + 100
  end
  return ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" '
    .. 'font-size="10">\n<rect width="100%%" height="100%%" fill="#fff"/>\n%s\n</svg>\n'):format(
    WIDTH, y + 28, table.concat(out, "\n"))
end

local function digest(text)
  local sum = 0
  for _ = 1, 15 do
    for i = 1, #text do sum = (sum * 31 + text:byte(i)) % 65521 end
  end
  return sum
end

-- A trace to show when there is none: pages that come one after another, each digested on a
-- thread.
local function demo()
  local path = os.tmpname()
  local http, server = require "moonloop.http", require("examples.demo_server").start {}
  ml.trace.start()
  ml.map({ 20, 10, 15, 5, 25, 10, 15, 20 }, function(ms)
    local page = assert(http.get(("%s/delay/%d/size/2000"):format(server.url, ms)))
    return ml.cpu(ml.job{ digest, page.body, name = "digest" })
  end, { limit = 4 })
  ml.trace.stop()
  assert(ml.trace.dump(path))
  server.stop()
  return path
end

if arg[1] == "-h" or arg[1] == "--help" or arg[3] then
  io.stdout:write(USAGE)
  os.exit(not arg[3])
end
local path
if not arg[1] then ml.run(function() path = demo() end) end
local file = assert(io.open(path or arg[1]))
local picture = draw(cjson.decode(file:read "a").traceEvents)
file:close()
if path then os.remove(path) end
local to = arg[2] and assert(io.open(arg[2], "w")) or io.stdout
to:write(picture)
if arg[2] then to:close() end
