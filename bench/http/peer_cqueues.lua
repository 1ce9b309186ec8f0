-- The bench many.lua for lua-http on cqueues, whose connections are used again by hand: its
-- own requests make one each. Debian has it for Lua 5.1.
--
-- usage: lua5.1 bench/http/peer_cqueues.lua URL N C BYTES

local cqueues = require "cqueues"
local client = require "http.client"
local new_headers = require "http.headers".new

local host, port, path = arg[1]:match "^http://([^:/]+):(%d+)(/.*)$"
local n, c, bytes = tonumber(arg[2]), tonumber(arg[3]), tonumber(arg[4])
local left = n

local headers = new_headers()
headers:append(":method", "GET")
headers:append(":scheme", "http")
headers:append(":authority", host .. ":" .. port)
headers:append(":path", path)

local function worker()
  local connection = assert(client.connect { host = host, port = tonumber(port), tls = false })
  while left > 0 do
    left = left - 1
    local stream = assert(connection:new_stream())
    assert(stream:write_headers(headers, true))
    local answer = assert(stream:get_headers())
    assert(answer:get ":status" == "200" and #stream:get_body_as_string() == bytes,
      "a wrong answer")
  end
  connection:close()
end

local loop = cqueues.new()
for _ = 1, c do loop:wrap(worker) end
local cpu = os.clock()
assert(loop:loop())
cpu = os.clock() - cpu
print(("bench=http_cqueues n=%d c=%d cpu_us=%.2f"):format(n, c, cpu * 1e6 / n))
