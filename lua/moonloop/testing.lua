--- moonloop.testing: what specs of concurrent code need: gates, a clock, and an HTTP server that
--- lies.
--
-- Nothing in here needs busted.

local check = require "moonloop.check"
local core = require "moonloop.core"
local ml = require "moonloop"
local server = require "moonloop.testing.server"
local testing = {}

--- The seconds after which `pass`, and a server's `request`, give up when they are not told.
testing.TIMEOUT = 10

local Gate = { __name = "moonloop.testing.gate" }
Gate.__index = Gate
testing.Gate = Gate -- so that a gate's metatable crosses by name

--- A gate: shut, until it is opened, once, from any job, thread or state. It crosses.
---@return table gate
function testing.gate()
  local promise = ml.promise()
  return setmetatable({ promise = promise, future = promise.future }, Gate)
end

--- Opens the gate. Raises if it is open.
---@param ... any what `pass` returns
function Gate:open(...) self.promise:set_result(...) end

--- Waits until the gate is open. Any number may pass. Raises with code "timeout".
---@param timeout number? seconds; testing.TIMEOUT
---@return any ... what it was opened with
function Gate:pass(timeout) return self.future:result(timeout or testing.TIMEOUT) end

--- Does not wait.
---@return boolean
function Gate:is_open() return self.future:done() end

--- Stops the time of the whole process, until it is closed: from here on sleeps, timeouts and
-- ml.now() go by this clock. When all wait, it jumps to the next of their deadlines.
--   clock:now()              seconds since it was made
--   clock:advance(seconds)   waits until all that is due by then has run, deadline by deadline
--   clock:close(), <close>   real time goes on
-- Raises if there is one already.
---@param options { autojump: boolean? }? autojump = false: it moves by `advance` alone
---@return userdata clock
function testing.clock(options)
  options = check.options("clock", options, { autojump = true })
  local jumps = options.autojump
  if jumps ~= nil and type(jumps) ~= "boolean" then
    check.misuse("clock: option 'autojump': boolean expected, got %s", check.type_of(jumps))
  end
  return core.clock_open(jumps ~= false)
end

local Server = { __name = "moonloop.testing.http_server" }
Server.__index = Server

--- Starts an HTTP/1.1 server on a free port of 127.0.0.1: a job that waits beside the others.
-- A route is "METHOD /path", or "/path" for every method; its value is what is answered:
-- a text, a table { status = 200, headers = {}, body = "", delay = seconds }, or a function
-- that gets the request, may wait, and returns one of these. Anything else is answered 404.
---@param routes table<string, string|table|function>
---@return table server `url`, `port`
function testing.http_server(routes)
  if type(routes) ~= "table" then
    check.misuse("http_server: table of routes expected, got %s", check.type_of(routes))
  end
  for route, answer in pairs(routes) do server.check(route, answer) end
  local heard, ready = ml.Queue(), ml.promise()
  local job = ml.spawn(server.run, routes, heard, ready)
  local ok, port = ready.future:wait(testing.TIMEOUT)
  if not ok then
    job:cancel_and_wait(testing.TIMEOUT)
    error(port, 0)
  end
  local url = ("http://127.0.0.1:%d"):format(port)
  return setmetatable({ url = url, port = port, heard = heard, job = job }, Server)
end

--- The next request that came, in the order of their arrival; waits for it.
---@param timeout number? seconds; testing.TIMEOUT
---@return table? request { method, path, query, headers, body }; names of headers in small letters
---@return table? err code "timeout", or "closed" after `close`
function Server:request(timeout) return self.heard:get(timeout or testing.TIMEOUT) end

--- How many requests have come and were not asked for by `request`.
---@return integer
function Server:unread() return self.heard:size() end

--- Stops listening and ends its connections, whatever they do; waits for that.
function Server:close()
  if self.closed then return end
  self.closed = true
  self.job:cancel_and_wait(testing.TIMEOUT)
  self.heard:shutdown{ immediate = true }
end

function Server:__close() ml.shield(self.close, self) end

return testing
