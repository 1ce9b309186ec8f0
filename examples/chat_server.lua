-- A chat room: what one says over its WebSocket, all hear. The server's side of WebSockets in
-- two pages of Lua, for examples; it knows text, pings and closing, and no more.
--
--   moonloop examples/chat_server.lua [--port N]
--
-- It is a module too: inside a loop, chat_server.start{ port= } gives { port, url, stop }.
local ml = require "moonloop"
local tcp = require "moonloop.tcp"

local IDLE <const> = 60 -- seconds that a guest may be silent
local LONGEST <const> = 4096 -- bytes of a message

-- ---- what the handshake needs: SHA-1, base64 ----

local function rotate(x, n) return (x << n | x >> 32 - n) & 0xffffffff end

local function sha1(text)
  local h0, h1, h2, h3, h4 = 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0
  text = text .. "\x80" .. ("\0"):rep((55 - #text) % 64) .. string.pack(">I8", #text * 8)
  for at = 1, #text, 64 do
    local w = { string.unpack(">" .. ("I4"):rep(16), text, at) }
    for i = 17, 80 do w[i] = rotate(w[i - 3] ~ w[i - 8] ~ w[i - 14] ~ w[i - 16], 1) end
    local a, b, c, d, e = h0, h1, h2, h3, h4
    for i = 1, 80 do
      local f, k
      if i <= 20 then f, k = b & c | ~b & d, 0x5a827999
      elseif i <= 40 then f, k = b ~ c ~ d, 0x6ed9eba1
      elseif i <= 60 then f, k = b & c | b & d | c & d, 0x8f1bbcdc
      else f, k = b ~ c ~ d, 0xca62c1d6 end
      local next_a = rotate(a, 5) + (f & 0xffffffff) + e + k + w[i] & 0xffffffff
      a, b, c, d, e = next_a, a, rotate(b, 30), c, d
    end
    h0, h1, h2 = h0 + a & 0xffffffff, h1 + b & 0xffffffff, h2 + c & 0xffffffff
    h3, h4 = h3 + d & 0xffffffff, h4 + e & 0xffffffff
  end
  return string.pack(">I4I4I4I4I4", h0, h1, h2, h3, h4)
end

local LETTERS <const> = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function base64(bytes)
  local out = {}
  for at = 1, #bytes, 3 do
    local a, b, c = bytes:byte(at, at + 2)
    local n = a << 16 | (b or 0) << 8 | (c or 0)
    for i = 0, 3 do
      local letter = (n >> 18 - 6 * i & 63) + 1
      out[#out + 1] = (i < 2 or (i == 2 and b) or c) and LETTERS:sub(letter, letter) or "="
    end
  end
  return table.concat(out)
end

-- ---- frames ----

local TEXT <const>, CLOSE <const>, PING <const>, PONG <const> = 1, 8, 9, 10

local function frame(opcode, data)
  local size = #data < 126 and string.char(#data) or "\126" .. string.pack(">I2", #data)
  return string.char(0x80 | opcode) .. size .. data
end

-- The next frame of a guest: opcode, data; or nothing when the guest is gone or is rude.
local function read_frame(sock)
  local head = sock:read(2, IDLE)
  if not head then return nil end
  local first, size = head:byte(1, 2)
  size = size & 127
  if size == 126 then size = string.unpack(">I2", (sock:read(2, IDLE) or "\255\255")) end
  if first & 0x80 == 0 or size > LONGEST then return nil end -- no pieces, nothing long
  local mask, data = sock:read(4, IDLE), sock:read(size, IDLE)
  if not mask or not data then return nil end
  local bytes = {}
  for i = 1, #data do
    bytes[i] = string.char(data:byte(i) ~ mask:byte((i - 1) % 4 + 1))
  end
  return first & 15, table.concat(bytes)
end

-- ---- the room ----

local Room = {}
Room.__index = Room

function Room:tell(text)
  local message = frame(TEXT, text)
  for sock in pairs(self.guests) do sock:write(message, IDLE) end
end

local GUID <const> = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

-- Agrees on a WebSocket; the guest's name is the path.
local function shake_hands(sock)
  local request = sock:read_until("\r\n\r\n", { timeout = IDLE })
  local name = request and request:match "^GET /(%w+)"
  local key = request and request:lower():find("sec%-websocket%-key:", 1)
  if not name or not key then
    sock:write("HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", IDLE)
    return nil
  end
  key = request:match("^[^:]+:%s*(%S+)", key)
  return sock:write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
    .. "Connection: Upgrade\r\nSec-WebSocket-Accept: " .. base64(sha1(key .. GUID))
    .. "\r\n\r\n", IDLE) and name
end

function Room:serve(sock)
  local _ <close> = sock
  local name = shake_hands(sock)
  if not name then return end
  self.guests[sock] = name
  self:tell(name .. " is here")
  for opcode, data in function() return read_frame(sock) end do
    if opcode == TEXT then self:tell(name .. ": " .. data) end
    if opcode == PING then sock:write(frame(PONG, data), IDLE) end
    if opcode == CLOSE then
      sock:write(frame(CLOSE, data), IDLE)
      break
    end
  end
  self.guests[sock] = nil
  self:tell(name .. " has left")
end

local chat_server = {}

function chat_server.start(options)
  options = options or {}
  local server = assert(tcp.listen(options.host or "127.0.0.1", options.port or 0))
  local room = setmetatable({ guests = {} }, Room)
  ml.spawn(function()
    for sock in server:accepted() do ml.spawn(room.serve, room, sock) end
  end)
  return {
    port = server.port,
    url = "ws://127.0.0.1:" .. server.port,
    stop = function()
      server:close()
      for sock in pairs(room.guests) do sock:close() end
    end,
  }
end

if arg and arg[0] and arg[0]:find("chat_server%.lua$") then
  local port = #arg == 2 and arg[1] == "--port" and math.tointeger(tonumber(arg[2]))
  if #arg > 0 and not port then
    io.stderr:write("usage: chat_server.lua [--port N]\n")
    os.exit(arg[1] == "--help" and 0 or 2)
  end
  ml.run(function()
    print("listening on " .. chat_server.start { port = port }.url)
    io.stdout:flush()
    ml.sleep(math.huge)
  end)
end

return chat_server
