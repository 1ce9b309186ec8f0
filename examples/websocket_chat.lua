#!/usr/bin/env moonloop
-- Three guests of a chat room, each with a WebSocket: one job of a guest listens, the guest
-- itself talks, and a clock makes sure that nobody stays for ever.
--
--   ./dev run examples/websocket_chat.lua [URL]
--   lua5.4 examples/websocket_chat.lua ...        the same in the stock interpreter
--
-- Without a URL it starts examples/chat_server.lua. In a second terminal you may join it there:
-- moonloop examples/chat_server.lua --port 8080, then with ws://127.0.0.1:8080 as the URL here.

local ml = require "moonloop"
local http = require "moonloop.http"

local url = arg[1]
if url and not url:find "^wss?://" then
  io.stderr:write("usage: websocket_chat.lua [URL]\n")
  os.exit(url == "--help" and 0 or 2)
end

local LINES <const> = {
  ada = { "hello, bob", "and who is that?" },
  bob = { "hello, ada" },
  eve = { "nobody" },
}

-- The first to come prints what all hear.
local function visit(name, prints, came)
  local ws <close> = assert(http.websocket(url .. "/" .. name, { timeout = 5, ping_interval = 10 }))
  local left = ml.Event()
  local listener = ml.spawn(function()
    local heard = 0
    for message in ws:messages() do
      if prints then print(message) end
      if message == "eve has left" then left:set() end
      heard = heard + 1
    end
    return heard
  end)
  came:set()
  for _, line in ipairs(LINES[name]) do
    ml.sleep(0.02)
    assert(ws:send(line))
  end
  ml.sleep(0.05)
  if prints then left:wait(5) end
  assert(ws:close(1000, "good night"))
  return listener:result()
end

ml.run(function()
  local server
  if not url then
    server = require("examples.chat_server").start()
    url = server.url
  end
  local heard = ml.timeout(20, ml.group, function(g)
    local guests = {}
    for i, name in ipairs { "ada", "bob", "eve" } do
      local came = ml.Event()
      guests[name] = g:spawn(visit, name, i == 1, came)
      came:wait()
    end
    return guests.ada:result()
  end)
  print(("ada heard %d messages"):format(heard))
  if server then server.stop() end
end)
