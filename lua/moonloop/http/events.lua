--- Server-sent events, by the rules of the WHATWG (https://html.spec.whatwg.org, "Server-sent
--- events"), and a client that connects again.

local check = require "moonloop.check"
local ml_core = require "moonloop.core"
local lists = require "moonloop.lists"
local error_value = ml_core.error_value

local EVENT_MAX <const> = 16 * 1024 * 1024 -- bytes of a line, and of an event's data
local RETRY <const>, RETRY_MAX <const> = 3, 60 -- seconds

local events = {}

-- The parser ----------------------------------------------------------------

-- Fed with text as it comes, however it is cut, it keeps events until they are asked for.
local Parser = {}
Parser.__index = Parser

function events.parser()
  return setmetatable({ first = 1, last = 0, line = "", data = {}, size = 0, id = "" }, Parser)
end

local function dispatch(self)
  local data, kind = self.data, self.kind
  self.id = self.coming_id or self.id -- of an event that is cut off it does not count
  self.data, self.kind, self.size = {}, nil, 0
  if not data[1] then return end
  self.last = self.last + 1
  self[self.last] = { type = kind or "message", data = table.concat(data, "\n"), id = self.id }
end

local function field(self, line)
  local name, value = line:match "^([^:]*): ?(.*)$"
  if not name then name, value = line, "" end
  if name == "data" then
    self.data[#self.data + 1], self.size = value, self.size + #value + 1
  elseif name == "event" then
    self.kind = value ~= "" and value or nil
  elseif name == "id" then
    if not value:find "\0" then self.coming_id = value end
  elseif name == "retry" then
    if value:find "^%d+$" then self.retry = tonumber(value) / 1000 end
  end -- others, and comments, whose name is empty, mean nothing
end

--- Takes what came next.
---@param text string
---@return table? err "too_large"
function Parser:feed(text)
  text = self.line .. text
  if not self.begun then
    if #text < 3 and ("\239\187\191"):find(text, 1, true) == 1 then -- it may become a mark
      self.line = text
      return
    end
    self.begun = true
    if text:find("\239\187\191", 1, true) == 1 then text = text:sub(4) end
  end
  local at = 1
  if self.after_cr and text ~= "" then -- the end of a line came in two parts
    self.after_cr = nil
    if text:byte() == 10 then at = 2 end
  end
  while true do
    local stop = text:find("[\r\n]", at)
    if not stop then break end
    if stop == at then dispatch(self) else field(self, text:sub(at, stop - 1)) end
    if self.size > EVENT_MAX then return error_value("too_large", "an event is too large") end
    at = stop + 1
    if text:byte(stop) == 13 then
      if at > #text then
        self.after_cr = true
      elseif text:byte(at) == 10 then
        at = at + 1
      end
    end
  end
  self.line = text:sub(at)
  if #self.line > EVENT_MAX then
    return error_value("too_large", "a line of an event is too long")
  end
end

--- The next event, or nil.
---@return moonloop.http.Event?
function Parser:next()
  local event = self[self.first]
  if not event then return nil end
  self[self.first] = nil
  self.first = self.first + 1
  return event
end

--- The next event of a response that streams; nil at its end; or nil and an error.
function events.read(stream, parser)
  while true do
    local event = parser:next()
    if event then return event end
    local text, err = stream:read()
    if text then err = parser:feed(text) end
    if err or not text then return nil, err end
  end
end

-- The client ----------------------------------------------------------------

local OWN <const> = { reconnect = true, retry = true, last_event_id = true }

---@class moonloop.http.Events
local Events = {}
Events.__index = Events

-- Connects. The response; false: the server wants no more connections; or nil, an error, and
-- whether it may be tried again.
local function connect(self)
  local options = {}
  for name, value in pairs(self.options) do options[name] = value end
  options.headers = { Accept = "text/event-stream", ["Cache-Control"] = "no-store" }
  for name, value in pairs(self.options.headers or {}) do options.headers[name] = value end
  if self.last_event_id ~= "" then options.headers["Last-Event-ID"] = self.last_event_id end
  options.stream = true
  local res, err = self.get(self.url, options)
  if not res then return nil, err, true end
  if res.status == 204 then
    res:close()
    return false
  end
  local kind = (res.headers["Content-Type"] or ""):match "^[^; ]*"
  if res.status ~= 200 then
    err = error_value("status", ("no events: %d %s"):format(res.status, res.reason),
      { status = res.status })
  elseif kind:lower() ~= "text/event-stream" then
    err = error_value("protocol", ("no events: the Content-Type is '%s'"):format(kind))
  end
  if err then
    res:close()
    return nil, err, res.status >= 500
  end
  self.res, self.parser = res, events.parser()
  self.parser.id = self.last_event_id
  return res
end

-- Waits and connects, until there is a connection, or it is over: nil, and an error if that is
-- why.
local function reconnect(self, err)
  while true do
    if not self.reconnect or self.failures >= self.reconnect then return nil, err end
    ml_core.sleep(math.min(self.retry * 2 ^ self.failures, math.max(self.retry, RETRY_MAX)))
    self.failures = self.failures + 1
    local res, again
    res, err, again = connect(self)
    if res then return res end
    if res == false or not again then return nil, err end
  end
end

--- The next event. Raises what ends them, other than the server's wish.
---@return moonloop.http.Event? event nil at the end
function Events:next()
  while true do
    if self.closed then return nil end
    local event, err = events.read(self.res, self.parser)
    self.retry = self.parser.retry or self.retry
    if event then
      self.last_event_id, self.failures = event.id, 0
      return event
    end
    self.last_event_id = self.parser.id
    self.res:close()
    if err and err.code == "too_large" then error(err, 0) end
    local res
    res, err = reconnect(self, err)
    if not res then
      self.closed = true
      if err then error(err, 0) end
    end
  end
end

Events.__call = Events.next

--- Ends it.
function Events:close()
  self.closed = true
  if self.res then self.res:close() end
end

Events.__close = Events.close

--- Connects to a source of events.
---@param get fun(url: string, options: table): table?, table?
---@param url string
---@param options table? moonloop.http.EventsOptions, and those of the request
---@return moonloop.http.Events? events callable, for `for`, and <close>
---@return table? err
function events.connect(get, url, options)
  options = options or {}
  if type(options) ~= "table" then
    check.misuse("events: table of options expected, got %s", type(options))
  end
  local reconnects = options.reconnect
  if reconnects == nil or reconnects == true then reconnects = math.huge end
  if reconnects and type(reconnects) ~= "number" then
    check.misuse("option 'reconnect': boolean or number expected, got %s", type(reconnects))
  end
  ml_core.check_timeout(options.retry, "retry")
  local id = options.last_event_id or ""
  if type(id) ~= "string" then
    check.misuse("option 'last_event_id': string expected, got %s", type(id))
  end
  local self = setmetatable({
    get = get, url = url, options = {}, reconnect = reconnects, retry = options.retry or RETRY,
    last_event_id = id, failures = 0,
  }, Events)
  for name, value in pairs(options) do
    if not OWN[name] then self.options[name] = value end
  end
  local res, err = connect(self)
  if res == nil then return nil, err end
  self.closed = res == false
  if lists.closes_loops then return self, nil, nil, self end
  return self
end

return events
