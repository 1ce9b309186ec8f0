-- A small HTTP/1.1 server on moonloop.tcp: answers as late, as long and as badly as it is asked to.
--
--   moonloop examples/demo_server.lua [--port N] [--delay MS]
--
--   GET /delay/50/size/2000     waits 50 ms, then sends 2000 bytes
--   GET /status/503             answers with that status
--   GET /page/3                 a page with links to /page/6, /page/7 and back to /page/1,
--                               up to 63
--
-- It is a module too: inside a loop, demo_server.start{ port=, delay= } gives { port, url, stop }.
local ml = require "moonloop"
local tcp = require "moonloop.tcp"

local IDLE = 30 -- seconds that a connection may be silent

-- The next request of the connection, or nil when there is none.
local function read_request(sock)
  local line = sock:read_line(IDLE)
  local method, path, version = (line or ""):match("^(%u+) (%S+) HTTP/1%.(%d)$")
  if not method then return nil end
  local request = { method = method, path = path, keep_alive = version == "1" }
  local length = 0
  for header in function() return sock:read_line(IDLE) end do
    if header == "" then
      if length > 0 and not sock:read(length, IDLE) then return nil end
      return request
    end
    local name, value = header:lower():match("^([^:]+):%s*(.-)%s*$")
    if name == "content-length" then length = math.tointeger(tonumber(value)) or 0 end
    if name == "connection" then request.keep_alive = value ~= "close" end
  end
end

-- A page of a small site, whose links are a tree.
local function page(n)
  local links = {}
  for _, to in ipairs { 2 * n, 2 * n + 1, n // 2 } do
    if to > 0 and to < 64 then
      table.insert(links, ('<a href="/page/%d">%d</a>'):format(to, to))
    end
  end
  return ("<title>Page %d</title>\n%s\n"):format(n, table.concat(links, "\n"))
end

local function answer(request, delay)
  delay = tonumber(request.path:match("/delay/(%d+)")) or delay
  local size = math.tointeger(tonumber(request.path:match("/size/(%d+)"))) or 12
  local status = tonumber(request.path:match("/status/(%d%d%d)")) or 200
  if delay > 0 then ml.sleep(delay / 1000) end
  local text = "hello, loop\n"
  local body = text:rep(size // #text + 1):sub(1, size)
  local number = math.tointeger(tonumber(request.path:match("/page/(%d+)$")))
  if number then body = page(number) end
  if status == 204 or status == 304 then body = "" end
  return {
    ("HTTP/1.1 %d %s\r\n"):format(status, status < 400 and "OK" or "Not OK"),
    ("Content-Length: %d\r\n"):format(#body),
    request.keep_alive and "\r\n" or "Connection: close\r\n\r\n",
    request.method == "HEAD" and "" or body,
  }
end

local function serve(sock, delay, open)
  local _ <close> = sock
  open[sock] = true
  for request in function() return read_request(sock) end do
    if not sock:write(answer(request, delay), IDLE) or not request.keep_alive then break end
  end
  open[sock] = nil
end

local demo_server = {}

function demo_server.start(options)
  options = options or {}
  local server = assert(tcp.listen(options.host or "127.0.0.1", options.port or 0))
  local open = {}
  ml.spawn(function()
    for sock in server:accepted() do ml.spawn(serve, sock, options.delay or 0, open) end
  end)
  return {
    port = server.port,
    url = "http://127.0.0.1:" .. server.port,
    stop = function()
      server:close()
      for sock in pairs(open) do sock:close() end
    end,
  }
end

if arg and arg[0] and arg[0]:find("demo_server%.lua$") then
  local options = {}
  for i = 1, #arg, 2 do
    local name = arg[i]:match("^%-%-(%a+)$")
    local value = math.tointeger(tonumber(arg[i + 1]))
    if not value or (name ~= "port" and name ~= "delay") then
      io.stderr:write("usage: demo_server.lua [--port N] [--delay MS]\n")
      os.exit(arg[i] == "--help" and 0 or 2)
    end
    options[name] = value
  end
  ml.run(function()
    print("listening on " .. demo_server.start(options).url)
    io.stdout:flush()
    ml.sleep(math.huge)
  end)
end

return demo_server
