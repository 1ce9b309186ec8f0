-- Reads a trace, checks it as a viewer would, and finds things in it.

local cjson = require "cjson"

local trace = {}

local function fail(event, message, ...)
  error(message:format(...) .. ": " .. cjson.encode(event), 3)
end

local function number(event, key)
  if type(event[key]) ~= "number" or event[key] < 0 then fail(event, "no %s", key) end
end

-- In whole nanoseconds: as floats of microseconds, sums do not compare.
local function ns(us)
  return math.floor(us * 1000 + 0.5)
end

-- By time; as they are in the file where times are equal.
local function sorted(events)
  for i, e in ipairs(events) do e.place = i end
  table.sort(events, function(a, b)
    if a.at ~= b.at then return a.at < b.at end
    return a.place < b.place
  end)
  return events
end

local function group(groups, key)
  groups[key] = groups[key] or {}
  return groups[key]
end

-- A slice ends before the one that is around it.
local function check_slices(slices)
  for i, e in ipairs(slices) do e.place = i end
  table.sort(slices, function(a, b) -- what is around first
    if a.at ~= b.at then return a.at < b.at end
    if a.ends ~= b.ends then return a.ends > b.ends end
    return a.place < b.place
  end)
  local open = {}
  for _, e in ipairs(slices) do
    while #open > 0 and open[#open].ends <= e.at do table.remove(open) end
    local around = open[#open]
    if around and e.ends > around.ends then
      fail(e, "reaches out of %s", cjson.encode(around))
    end
    e.around = around
    table.insert(open, e)
  end
end

local function check_lane(events)
  local open = {}
  for _, e in ipairs(sorted(events)) do
    if e.ph == "b" then
      table.insert(open, e)
    else
      local top = table.remove(open)
      if not top then fail(e, "ends what never began") end
      if top.name ~= e.name then fail(e, "ends %s", cjson.encode(top)) end
      top.ends = e.at
      top.outcome = e.args and e.args.outcome
      top.status = e.args and e.args.status
    end
  end
end

local function inside(trace_, event)
  for _, slice in ipairs(trace_.slices[event.tid] or {}) do
    if slice.at <= event.at and event.at < slice.ends then return slice end
  end
end

-- Numbers of threads are those of the system: processes have different ones.
local function check_arrows(self)
  for id, arrow in pairs(self.arrows) do
    if arrow.s and arrow.f then
      if arrow.s.at >= arrow.f.at then fail(arrow.f, "arrives before it starts") end
      arrow.from, arrow.to = inside(self, arrow.s), inside(self, arrow.f)
      if not arrow.from then fail(arrow.s, "starts nowhere") end
    elseif not arrow.s then
      self.arrows[id] = nil -- its beginning was dropped, or before the start
    end
  end
end

local KNOWN <const> = { X = true, b = true, e = true, s = true, f = true, i = true, M = true }

-- The trace in a file: `slices` and `names` by thread, `processes` by pid, `lanes` and `arrows` by
-- id, `events`.
function trace.read(path)
  local file <close> = assert(io.open(path))
  local text = file:read "a"
  assert(utf8.len(text), "it is not UTF-8")
  local json = cjson.decode(text)
  local self = setmetatable({ slices = {}, names = {}, processes = {}, lanes = {}, arrows = {},
    events = json.traceEvents, dropped = json.otherData.dropped }, { __index = trace })
  for _, e in ipairs(self.events) do
    number(e, "pid")
    number(e, "tid")
    if type(e.name) ~= "string" then fail(e, "no name") end
    if not KNOWN[e.ph] then fail(e, "unknown") end
    if e.ph == "M" then
      if e.name == "thread_name" then self.names[e.tid] = e.args.name end
      if e.name == "process_name" then self.processes[e.pid] = e.args.name end
    else
      number(e, "ts")
      if type(e.cat) ~= "string" then fail(e, "no category") end
      e.at = ns(e.ts)
    end
    if e.ph == "X" then
      number(e, "dur")
      e.ends = e.at + ns(e.dur)
      table.insert(group(self.slices, e.tid), e)
    elseif e.ph == "b" or e.ph == "e" then
      table.insert(group(self.lanes, e.cat .. " " .. e.id), e)
    elseif e.ph == "s" or e.ph == "f" then
      if group(self.arrows, e.id)[e.ph] then fail(e, "there are two") end
      self.arrows[e.id][e.ph] = e
    end
  end
  for _, slices in pairs(self.slices) do check_slices(slices) end
  for _, lane in pairs(self.lanes) do check_lane(lane) end
  check_arrows(self)
  return self
end

-- The events with this phase and name, and all these fields.
function trace:find(ph, name, fields)
  local found = {}
  for _, e in ipairs(self.events) do
    local is = e.ph == ph and (not name or e.name == name)
    for key, value in pairs(fields or {}) do is = is and e[key] == value end
    if is then table.insert(found, e) end
  end
  return found
end

-- The only one.
function trace:one(ph, name, fields)
  local found = self:find(ph, name, fields)
  if #found ~= 1 then
    error(("%d events %s %s"):format(#found, ph, tostring(name)), 2)
  end
  return found[1]
end

-- The names of what begins in the lane of an event.
function trace:parts(event)
  local names = {}
  for _, e in ipairs(self.lanes[event.cat .. " " .. event.id]) do
    if e.ph == "b" and e.name ~= event.name then table.insert(names, e.name) end
  end
  return names
end

return trace
