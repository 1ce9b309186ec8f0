--- TCP and unix sockets. Whatever takes time here waits as everything in moonloop does: a job is
--- parked, a thread blocks. See docs/tcp.md.
---
---   local tcp = require "moonloop.tcp"
---   local sock <close> = assert(tcp.connect("127.0.0.1", 8080))
---   assert(sock:write("hello\n"))
---   print(sock:read_line())

local ml = require "moonloop"
local check = require "moonloop.check"
local core = require "moonloop.tcp.core"
local main = require "moonloop.core"

local tcp = {}

local connect_options = {
  host = "string", port = "integer", unix = "string", timeout = "number",
  nodelay = "boolean", keepalive = "integer",
}
local listen_options = {
  host = "string", port = "integer", unix = "string", timeout = "number",
  nodelay = "boolean", keepalive = "integer", backlog = "integer", reuseport = "boolean",
}
local read_until_options = { max = "integer", timeout = "number", keep = "boolean" }

-- Raises for an option that is unknown or has the wrong type.
local function check_options(name, options, known)
  if type(options) ~= "table" then
    check.misuse("%s: options must be a table, got %s", name, type(options))
  end
  for key, value in pairs(options) do
    local wanted, got = known[key], type(value)
    if not wanted then check.misuse("%s: unknown option '%s'", name, tostring(key)) end
    if wanted == "integer" and got == "number" and math.tointeger(value) then got = wanted end
    if got ~= wanted then
      check.misuse("%s: '%s' must be of type %s, got %s", name, key, wanted, got)
    end
  end
end

-- The options of connect or listen, from (host, port, options) or from one table.
local function endpoint(name, known, host, port, options)
  local at = {}
  if type(host) == "table" then
    host, options = nil, host
  end
  if options ~= nil then
    if type(options) == "table" then
      for key, value in pairs(options) do at[key] = value end
    else
      at = options
    end
  end
  if host ~= nil and type(at) == "table" then at.host, at.port = host, port end
  check_options(name, at, known)
  if at.unix and (at.host or at.port) then
    check.misuse("%s: 'unix' excludes 'host' and 'port'", name)
  end
  if at.unix == "" then check.misuse("%s: 'unix' is empty", name) end
  if at.host and at.host:find("\0", 1, true) then
    check.misuse("%s: 'host' contains a zero byte", name)
  end
  if at.port and (at.port < 0 or at.port > 65535) then
    check.misuse("%s: 'port' must be 0 to 65535, got %d", name, at.port)
  end
  for _, key in ipairs { "keepalive", "backlog" } do
    if at[key] and (at[key] < 1 or at[key] > 32767) then
      check.misuse("%s: '%s' must be 1 to 32767, got %d", name, key, at[key])
    end
  end
  if at.nodelay == nil then at.nodelay = true end
  return at
end

--- Connects to a host and port, or to a unix socket. The addresses of the name are tried in turn.
---@param host string|table a name or a number, or a table with all options
---@param port integer?
---@param options table? `timeout` `nodelay` (true) `keepalive` (seconds), or `unix` (a path)
---@return userdata? socket
---@return table? err `ECONNREFUSED`, `EAI_NONAME`, `timeout` ...
function tcp.connect(host, port, options)
  local at = endpoint("connect", connect_options, host, port, options)
  if not at.unix and not (at.host and at.port) then
    check.misuse "connect: host and port expected"
  end
  return core.connect(at.host, at.port, at.unix, at.nodelay, at.keepalive, at.timeout)
end

--- Listens on a host and port, or on a unix socket, whose file is removed at the close.
---@param host string|table? "127.0.0.1" by default; "::" for all
---@param port integer? 0, the default: a free one, see `server.port`
---@param options table? `backlog` `reuseport` `nodelay` `keepalive` `timeout`, or `unix` (a path)
---@return userdata? server
---@return table? err `EADDRINUSE`, `EACCES` ...
function tcp.listen(host, port, options)
  local at = endpoint("listen", listen_options, host, port, options)
  if not at.unix then at.host = at.host or "127.0.0.1" end
  return core.listen(at.host, at.port, at.unix, at.nodelay, at.keepalive, at.timeout, at.backlog,
    at.reuseport)
end

local read_until = core.socket.read_until

--- Reads up to the first `mark`, any bytes.
---@param mark string
---@param options table? `max` (1 MiB, with the mark) `timeout` `keep` (the mark stays in it)
---@return string?
---@return table? err `too_large`, `closed` (with `err.partial`), `timeout` ...
function core.socket:read_until(mark, options)
  options = options or {}
  if type(mark) ~= "string" or mark == "" then
    check.misuse "read_until: a mark of one byte or more expected"
  end
  check_options("read_until", options, read_until_options)
  if options.max and options.max < 1 then check.misuse "read_until: 'max' must be positive" end
  return read_until(self, mark, options.max, options.keep, options.timeout)
end

-- What is over once other connections have been closed.
local exhausted = { EMFILE = true, ENFILE = true, ENOBUFS = true, ENOMEM = true }

--- Iterates over the connections that come, until the server is closed. While the system is out
--- of descriptors it tries again ten times a second.
function core.server:accepted()
  return function()
    while true do
      local sock, err = self:accept()
      if sock then return sock end
      if err.code == "closed" then return nil end
      if not exhausted[err.code] then error(err) end
      ml.sleep(0.1)
    end
  end
end

-- A connection's job: on the loop that it was given to.
local function handle(handler, accepted)
  local sock <close> = core.move(accepted)
  handler(sock)
end

-- What is served now: cancelled if an error ends the serving, and waited for.
local Serving = {
  __close = function(self, err)
    for future in pairs(self.futures) do
      if err ~= nil then future:cancel() end
    end
    if self.count > 0 then ml.shield(self.idle.wait, self.idle) end
  end,
}

local serve_options = { executor = "userdata", limit = "integer" }

--- Serves the connections that come, each in a job of its own, until the server is closed and the
--- last of them is done. A handler's socket is closed as it returns; its error goes to
--- `ml.on_error`. A cancel ends the handlers too.
---@param handler function called with the socket
---@param options table? `executor`: its loops take the connections in turn, the least loaded first,
--- and the handler crosses to them (by default it runs in jobs of the caller's loop);
--- `limit`: how many are served at once; others wait in the system's backlog
---@return boolean true
function core.server:serve(handler, options)
  options = options or {}
  if type(handler) ~= "function" then
    check.misuse("serve: function expected, got %s", type(handler))
  end
  check_options("serve", options, serve_options)
  local executor, limit = options.executor, options.limit
  if limit and limit < 1 then check.misuse "serve: 'limit' must be positive" end
  if executor and not (main.is_executor(executor) and main.executor_kind(executor) == "async") then
    check.misuse "serve: 'executor' must be an AsyncExecutor"
  end
  local slots = limit and ml.Semaphore(limit)
  local serving <close> = setmetatable({ futures = {}, count = 0, idle = ml.Event() }, Serving)
  local function done(future)
    serving.futures[future] = nil
    serving.count = serving.count - 1
    if serving.count == 0 then serving.idle:set() end
    if slots then slots:release() end
  end
  local next_accepted = self:accepted()
  while true do
    if slots then slots:acquire() end
    local sock = next_accepted()
    if not sock then return true end
    local future
    if executor then
      future = executor:submit(handle, handler, sock)
    else
      future = ml.spawn(handle, handler, sock)
    end
    serving.futures[future] = true
    serving.count = serving.count + 1
    serving.idle:clear()
    future:add_done_callback(done)
  end
end

return tcp
