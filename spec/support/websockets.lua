-- A WebSocket server, Debian's python3-websockets.
--
--   local srv <close> = websockets.start { tls = true }
--   srv.url     "ws://127.0.0.1:23456", or "wss://..."
--   srv.ca      the certificate to trust for it, with tls
--   srv:seen()  what it saw of the connections that have ended: { path, code, reason }
--
-- Paths:
--   /echo                     every message comes back
--   /fragments                likewise, in pieces of 1000 with pings between
--   /close/STATUS/REASON      closes at once
--   /abort                    ends the connection at once, without a closing frame
--   /flood/COUNT/SIZE         so many messages, numbered, then a close
--   /slow/SECONDS             reads nothing for so long, then echoes
--   /mute                     reads nothing at all
--   /pings/COUNT              pings, and says "pongs: COUNT" when all were answered
--   /headers                  says the headers of the handshake, as JSON
--   /collect                  says type and size of each message: "str 5", "bytes 3"
--   /status/CODE              that status instead of a WebSocket
--   /basic                    wants the user "me" with the password "s:cret"
--   /late/SECONDS             lets the handshake wait
--
-- It speaks the protocols "chat.v2" and "chat.v1".

local cjson = require "cjson"
local certificates = require "spec.support.certificates"
local process = require "spec.support.process"

local websockets = {}

local Server = process.class()

local folder = debug.getinfo(1, "S").source:match "^@(.*/)" or "./"

---@param opts? { tls: boolean? }
---@return table server
function websockets.start(opts)
  local tls = opts and opts.tls
  local python = process.python()
  if not os.execute(python .. " -c 'import websockets' 2>/dev/null") then
    error("websockets is missing: install the package python3-websockets", 2)
  end
  local script = process.read_file(folder .. "websockets.py")
  local self = process.start(setmetatable({}, Server), "websockets", function(self)
    process.write_file(self.dir .. "/server.py", script)
    if tls then
      certificates.make(self.dir)
      self.ca = self.dir .. "/ca.pem"
    end
    return process.quote(python) .. " server.py " .. (tls and "tls" or "plain"),
      "grep -q '^port' start.log"
  end)
  self.port = math.tointeger(tonumber(self:log():match "port (%d+)"))
  self.url = (tls and "wss" or "ws") .. "://127.0.0.1:" .. self.port
  return self
end

function Server:seen()
  local list = {}
  for line in process.read_file(self.dir .. "/seen"):gmatch "[^\n]+" do
    list[#list + 1] = cjson.decode(line)
  end
  return list
end

return websockets
