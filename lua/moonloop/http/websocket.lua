--- WebSockets, the client's side. What waits here waits as everything in moonloop does.
--- See docs/websocket.md.
---
---     local ws <close> = assert(http.websocket("wss://example.com/chat"))
---     assert(ws:send("hello"))
---     for message, kind in ws:messages() do print(kind, message) end

local ml_core = require "moonloop.core"
require "moonloop.http.core" -- has the class of headers
local core = require "moonloop.http.websocket.core"
local check = require "moonloop.check"

local misuse = check.misuse
local send, drop = core.send, core.drop

---@class moonloop.http.WebSocket
local WebSocket = core.methods

-- ---- opening ----

-- Those of a request that are for a WebSocket too.
local of_request = {}
for name in ([[
  auth connect_timeout headers interface proxy query resolve timeout tls unix_socket
]]):gmatch "%S+" do of_request[name] = true end

local own = {
  max_message = true, max_queue = true, ping_interval = true, ping_timeout = true,
  protocols = true,
}

local function seconds(options, name, default)
  local value = options[name]
  if value == nil then return default end
  if type(value) ~= "number" or value <= 0 or value ~= value then
    misuse("websocket: '%s' must be a positive number of seconds, got %s", name, tostring(value))
  end
  return value
end

-- "chat, superchat"
local function list_of(protocols)
  if protocols == nil then return nil end
  if type(protocols) ~= "table" or #protocols == 0 then
    misuse("websocket: 'protocols' must be a list of names, got %s", type(protocols))
  end
  local seen = {}
  for i, name in ipairs(protocols) do
    if type(name) ~= "string" or not name:find "^[%w!#$%%&'*+.^_`|~-]+$" then
      misuse("websocket: 'protocols'[%d] is no name of a protocol: %s", i, tostring(name))
    end
    if seen[name] then misuse("websocket: 'protocols' has '%s' twice", name) end
    seen[name] = true
  end
  return table.concat(protocols, ", ")
end

local function check_headers(headers)
  if type(headers) ~= "table" then return end -- what it must be, the request says
  for name in pairs(headers) do
    local lower = type(name) == "string" and name:lower() or ""
    if lower == "connection" or lower == "upgrade" or lower:find "^sec%-websocket%-" then
      misuse("websocket: the header '%s' is the handshake's own", name)
    end
  end
end

-- The others take a question and answer of the server's, for which there is no room here.
local function check_auth(auth)
  if type(auth) == "table" and (auth.netrc or auth.type == "digest") then
    misuse "websocket: 'auth' must be a user and password for Basic, or a bearer token"
  end
end

--- Connects, and agrees with the server on a WebSocket. Waits.
---@param url string ws://, wss:// (or http://, https://)
---@param options table? `protocols` `max_message` `max_queue` `ping_interval` `ping_timeout`, and
--- of a request's `headers` `query` `timeout` `connect_timeout` `tls` `proxy` and more
---@return moonloop.http.WebSocket?
---@return table? err as of a request; "handshake" (with `status` and `headers`): the server refused
local function open(url, options)
  if type(url) ~= "string" then misuse("websocket: URL expected, got %s", type(url)) end
  if options ~= nil and type(options) ~= "table" then
    misuse("websocket: table of options expected, got %s", type(options))
  end
  options = options or {}
  local request = {}
  for name, value in pairs(options) do
    if of_request[name] then
      request[name] = value
    elseif not own[name] then
      misuse("websocket: unknown option '%s'", tostring(name))
    end
  end
  check_headers(request.headers)
  check_auth(request.auth)
  return core.open(url, request, list_of(options.protocols),
    check.count("websocket: 'max_message'", options.max_message, 16 * 1024 * 1024),
    check.count("websocket: 'max_queue'", options.max_queue, 1024 * 1024),
    seconds(options, "ping_interval", 0), seconds(options, "ping_timeout", 20))
end

-- ---- sending ----

-- The part of a text up to its last whole character, and the rest of it.
local function whole(text)
  local length, at = utf8.len(text)
  if length then return text, "" end
  if #text - at >= 3 then misuse "send: a text message must be UTF-8; send it as \"binary\"" end
  return text:sub(1, at - 1), text:sub(at)
end

-- A message in pieces. One that cannot be finished leaves a connection that is good for nothing.
local function send_pieces(ws, pieces, kind, timeout)
  local begun, rest, done = false, "", false
  local _ <close> = setmetatable({}, {
    __close = function() if begun and not done then drop(ws) end end,
  })
  for piece in pieces do
    if type(piece) ~= "string" then
      misuse("send: a piece of a message must be a string, got %s", type(piece))
    end
    if kind == "text" then piece, rest = whole(rest .. piece) end
    local ok, err = send(ws, piece, not begun and kind or nil, false, timeout)
    begun = begun or ok or err.on_its_way
    if not ok then return nil, err end
  end
  if rest ~= "" then misuse "send: a text message must be UTF-8; send it as \"binary\"" end
  local ok, err = send(ws, "", not begun and kind or nil, true, timeout)
  done = ok
  return ok, err
end

--- Sends a message. Waits until the system has taken all of it. When it gives up before, the
--- message may arrive all the same if err.on_its_way, and not at all if not; the connection
--- is good in both cases.
---@param data string|function a string; or an iterator of the pieces of one message
---@param kind? "text"|"binary" default "text"
---@param timeout number? seconds; for each piece
---@return boolean? true
---@return table? err "closed" (with `status` and `reason`), "timeout"
function WebSocket:send(data, kind, timeout)
  kind = kind or "text"
  if kind ~= "text" and kind ~= "binary" then
    misuse("send: the kind must be \"text\" or \"binary\", got %s", tostring(kind))
  end
  if type(data) == "string" then return send(self, data, kind, true, timeout) end
  local meta = getmetatable(data)
  if type(data) ~= "function" and not (type(meta) == "table" and meta.__call) then
    misuse("send: a string or an iterator expected, got %s", type(data))
  end
  return send_pieces(self, data, kind, timeout)
end

-- ---- receiving ----

local regular = { [1000] = true, [1001] = true, [1005] = true }

local function next_message(ws)
  local message, kind = ws:receive()
  if message then return message, kind end
  if kind.code == "closed" and regular[kind.status] then return nil end
  error(kind, 0)
end

--- Iterates over the messages that come: message, "text" or "binary". Ends when the WebSocket
--- was closed in good order, by either side (1000, 1001 or no status); raises for other ends.
function WebSocket:messages()
  return next_message, self
end

-- ---- closing ----

-- Without an error it takes leave of the peer, which waits; with one, or where it cannot wait,
-- the connection just ends.
function core.meta.__close(ws, err)
  if ws.closed then return end
  if err ~= nil or not pcall(ml_core.check_wait, "websocket close") then
    drop(ws)
  else
    ws:close()
  end
end

return { open = open, of_request = of_request, WebSocket = WebSocket }
