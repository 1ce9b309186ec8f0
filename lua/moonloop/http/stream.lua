--- Responses that stream: their body is read as it comes.

local ml_core = require "moonloop.core"
local core = require "moonloop.http.core"
local lists = require "moonloop.lists"
local check = require "moonloop.check"
local events = require "moonloop.lazy" "moonloop.http.events"
local error_value, now = ml_core.error_value, ml_core.now

local INPUT <const> = core.INPUT
local LINE_MAX <const> = 1024 * 1024

local Response <const> = core.Response

---@class moonloop.http.Stream: moonloop.http.Response
local Stream = { __name = "response", raise_for_status = Response.raise_for_status }
Stream.__index = Stream

-- What has been taken lies in self.buffer, from self.at on. Makes sure that there is something:
-- true; or nil at the end of the body; or nil and an error.
local function fill(self, timeout)
  if self.buffer then return true end
  local exchange = self.exchange
  if not exchange then return nil, error_value("closed", "the response was closed") end
  if exchange:wait(INPUT, timeout) == 0 then return nil, error_value("timeout", "read: timeout") end
  if exchange.failure then return nil, exchange.failure end
  local x = exchange.x
  local chunk = x:take()
  if chunk ~= "" then
    self.buffer, self.at = chunk, 1
    return true
  end
  self.timings = x:timings()
  return x:failure()
end

-- What lies there, at most up to the place `to`.
local function take(self, to)
  local buffer, at = self.buffer, self.at
  if to and to < #buffer then
    self.at = to + 1
    return buffer:sub(at, to)
  end
  self.buffer = nil
  return at == 1 and buffer or buffer:sub(at)
end

-- Puts back what a read took before it failed, so that it is not lost.
local function put_back(self, parts, err)
  if #parts == 0 then return nil, err end
  local text = table.concat(parts)
  self.buffer, self.at = text, 1
  err.partial = text
  return nil, err
end

local function left_of(deadline) return deadline and math.max(0, deadline - now()) end

--- Reads from the body. What came before an error is not lost: the next read gives it.
---@param n integer? so many bytes, fewer at the end; nil: what is there, at least a byte
---@param timeout number? seconds
---@return string? data nil at the end of the body
---@return table? err
function Stream:read(n, timeout)
  local deadline = ml_core.check_timeout(timeout)
  if n == nil then
    local ok, err = fill(self, left_of(deadline))
    if not ok then return nil, err end
    return take(self)
  end
  if math.type(n) ~= "integer" or n < 1 then
    check.misuse("read: positive integer expected, got %s", tostring(n))
  end
  local parts = {}
  while n > 0 do
    local ok, err = fill(self, left_of(deadline))
    if err then return put_back(self, parts, err) end
    if not ok then break end
    local part = take(self, self.at + n - 1)
    parts[#parts + 1], n = part, n - #part
  end
  if parts[2] then return table.concat(parts) end
  return parts[1]
end

--- Reads the rest of the body.
---@param max integer? bytes; more are the error "too_large"
---@return string? data "" at the end of the body
---@return table? err
function Stream:read_all(max)
  local parts, size = {}, 0
  while true do
    local ok, err = fill(self)
    if err then return put_back(self, parts, err) end
    if not ok then return table.concat(parts) end
    parts[#parts + 1] = take(self)
    size = size + #parts[#parts]
    if max and size > max then
      return put_back(self, parts,
        error_value("too_large", ("the body is larger than %d bytes"):format(max)))
    end
  end
end

--- Reads a line.
---@param keep boolean? with its end, "\n" or "\r\n"
---@param timeout number? seconds
---@return string? line nil at the end of the body; the last may have no end
---@return table? err "too_large": it has more than 1 MiB
function Stream:read_line(keep, timeout)
  local deadline = ml_core.check_timeout(timeout)
  local parts, size = {}, 0
  while true do
    local ok, err = fill(self, left_of(deadline))
    if err then return put_back(self, parts, err) end
    if not ok then break end
    local stop = self.buffer:find("\n", self.at, true)
    local part = take(self, stop)
    parts[#parts + 1], size = part, size + #part
    if size > LINE_MAX then
      return put_back(self, parts, error_value("too_large", "a line is longer than 1 MiB"))
    end
    if stop then break end
  end
  if size == 0 then return nil end
  local line = parts[2] and table.concat(parts) or parts[1]
  if keep then return line end
  return line:match "^(.-)\r?\n$" or line
end

-- What a generic `for` takes. What makes the body end early is raised. Leaving the loop closes
-- the response, where this Lua can.
local function iterator(self, read, ...)
  local a, b = ...
  local function next_item()
    local item, err = read(self, a, b)
    if err then error(err, 0) end
    return item
  end
  if lists.closes_loops then return next_item, nil, nil, self end
  return next_item
end

--- Iterates over the body as it comes.
---@param n integer? bytes in each; nil: as they come
---@return fun(): string?
function Stream:chunks(n) return iterator(self, Stream.read, n) end

--- Iterates over its lines.
---@param keep boolean? with their ends
---@return fun(): string?
function Stream:lines(keep) return iterator(self, Stream.read_line, keep) end

--- Iterates over server-sent events.
---@return fun(): moonloop.http.Event?
function Stream:events()
  return iterator(self, events.read, events.parser())
end

local function read_json(self)
  local line, err
  repeat
    line, err = self:read_line()
    if not line then return nil, err end
  until line:find "%S"
  return Response.json { body = line }
end

--- Iterates over the values of a body that has JSON in each line. Empty lines are skipped.
---@return fun(): any
function Stream:json_lines() return iterator(self, read_json) end

--- Reads the rest of the body, as JSON.
---@return any
---@return table? err
function Stream:json()
  local body, err = self:read_all()
  if not body then return nil, err end
  return Response.json { body = body }
end

--- Closes the response. What was not read is lost, and its connection with it.
function Stream:close()
  local exchange = self.exchange
  self.exchange, self.buffer = nil, nil
  if exchange then exchange:close() end
end

Stream.__close = Stream.close
Stream.__tostring = core.Response.__tostring

local stream = { Stream = Stream }

--- Makes a response of one that moonloop.http.exchange attends to.
function stream.new(res, exchange)
  res.exchange = exchange
  -- A response makes them when they are asked for; a Stream has them.
  res.redirects, res.cookies = res.redirects, res.cookies
  return setmetatable(res, Stream)
end

return stream
