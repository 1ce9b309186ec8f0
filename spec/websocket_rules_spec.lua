-- What a WebSocket does when its peer does not keep to RFC 6455: a raw server says anything. The
-- numbers are those of the cases of the Autobahn test suite that ask the same.

local ml = require "moonloop"
local http = require "moonloop.http"
local tcp = require "moonloop.tcp"
local h = require "spec.support.helpers"

local TIMEOUT = h.TIMEOUT

-- A frame as a server sends it. Options: fin rsv mask, or a `length` that is not the data's.
local function frame(opcode, data, o)
  o = o or {}
  local first = (o.fin == false and 0 or 0x80) | (o.rsv or 0) << 4 | opcode
  local size, mask = o.length or #data, o.mask and 0x80 or 0
  local head
  if o.wide then
    head = string.pack(">BBI8", first, mask | 127, size)
  elseif size < 126 then
    head = string.pack(">BB", first, mask | size)
  elseif size < 65536 then
    head = string.pack(">BBI2", first, mask | 126, size)
  else
    head = string.pack(">BBI8", first, mask | 127, size)
  end
  return head .. (o.mask and "\0\0\0\0" or "") .. data
end

local TEXT <const>, BINARY <const>, CLOSE <const>, PING <const>, PONG <const> = 1, 2, 8, 9, 10

-- The next frame that the client sends: opcode, data; or nothing at the end.
local function read_frame(sock)
  local head = sock:read(2, TIMEOUT)
  if not head then return nil end
  local first, size = head:byte(1, 2)
  assert(size & 0x80 ~= 0, "a client masks its frames")
  size = size & 0x7f
  if size == 126 then
    size = string.unpack(">I2", assert(sock:read(2, TIMEOUT)))
  elseif size == 127 then
    size = string.unpack(">I8", assert(sock:read(8, TIMEOUT)))
  end
  local mask = { assert(sock:read(4, TIMEOUT)):byte(1, 4) }
  local bytes = { assert(sock:read(size, TIMEOUT)):byte(1, -1) }
  for i, byte in ipairs(bytes) do bytes[i] = string.char(byte ~ mask[(i - 1) % 4 + 1]) end
  return first & 15, table.concat(bytes), first & 0x80 ~= 0
end

-- The Sec-WebSocket-Accept for a request, by openssl.
local function accept_of(request)
  local key = request:match "Sec%-WebSocket%-Key: (%S+)"
  local pipe = assert(io.popen(("printf %%s '%s258EAFA5-E914-47DA-95CA-C5AB0DC85B11'"
    .. " | openssl dgst -sha1 -binary | openssl base64"):format(key)))
  local line = pipe:read "l"
  pipe:close()
  return line
end

local ANSWER <const> = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
  .. "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n"

-- Runs `body(ws, err, sock)` in a job, with a WebSocket to a server that `answer(request)`
-- answers for; `more` follows in the same write.
local function with(options, body)
  ml.run(function()
    local server = assert(tcp.listen("127.0.0.1", 0))
    local peer = ml.spawn(function()
      local sock = assert(server:accept(TIMEOUT))
      local request = assert(sock:read_until("\r\n\r\n", { keep = true, timeout = TIMEOUT }))
      local answer = options.answer or ANSWER:format(accept_of(request))
      assert(sock:write(answer:gsub("%%ACCEPT", accept_of(request)) .. (options.more or "")))
      return sock
    end)
    local url = ("ws://127.0.0.1:%d/"):format(server.port)
    local ws, err = http.websocket(url, { timeout = TIMEOUT, max_message = options.max_message,
      protocols = options.protocols })
    local sock = peer:result(TIMEOUT)
    body(ws, err, sock)
    if ws then ws:close(1000, "", 0.05) end
    sock:close()
    server:close()
  end)
end

describe("a websocket fails", function()
  -- What the client says of it, and what it tells the peer.
  local function breaks(name, bytes, code, status, max_message)
    it(name, function()
      with({ more = bytes, max_message = max_message }, function(ws, _, sock)
        local message, err = ws:receive(TIMEOUT)
        assert.is_nil(message)
        assert.same({ code, status }, { err.code, err.status })
        assert.is_true(#err.reason > 5)
        local opcode, data = read_frame(sock)
        assert.equal(CLOSE, opcode)
        assert.equal(status, (string.unpack(">I2", data)))
        assert.equal(err.reason, data:sub(3))
      end)
    end)
  end

  for rsv = 1, 7 do
    breaks("at reserved bits " .. rsv .. " (3.*)", frame(TEXT, "", { rsv = rsv }), "protocol",
      1002)
  end
  for _, opcode in ipairs { 3, 4, 5, 6, 7, 11, 12, 13, 14, 15 } do
    breaks("at the opcode " .. opcode .. " (4.*)", frame(opcode, "x"), "protocol", 1002)
  end
  breaks("at a masked frame", frame(TEXT, "x", { mask = true }), "protocol", 1002)
  breaks("at a ping of more than 125 bytes (2.5)", frame(PING, ("x"):rep(126)), "protocol", 1002)
  breaks("at a fragmented ping (5.1)", frame(PING, "x", { fin = false }), "protocol", 1002)
  breaks("at a fragmented pong (5.2)", frame(PONG, "x", { fin = false }), "protocol", 1002)
  breaks("at a continuation of nothing (5.9)", frame(0, "x"), "protocol", 1002)
  breaks("at a message inside another (5.18)",
    frame(TEXT, "a", { fin = false }) .. frame(TEXT, "b"), "protocol", 1002)
  breaks("at a length that is not the shortest", frame(BINARY, "abc", { wide = true }),
    "protocol", 1002)
  breaks("at a length with its highest bit set",
    string.pack(">BBI8", 0x82, 127, 1 << 63), "protocol", 1002)
  breaks("at text that is not UTF-8 (6.3)",
    frame(TEXT, "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"), "protocol", 1007)
  breaks("at an overlong form (6.21)", frame(TEXT, "\xc0\xaf"), "protocol", 1007)
  breaks("above U+10FFFF (6.6)", frame(TEXT, "\xf4\x90\x80\x80"), "protocol", 1007)
  breaks("at text that ends inside a character (6.6)", frame(TEXT, "ab\xe2\x82"), "protocol", 1007)
  breaks("at once when text goes wrong in a fragment (6.4)",
    frame(TEXT, "ab\xff", { fin = false }), "protocol", 1007)
  breaks("at a closing frame of one byte (7.3.2)", frame(CLOSE, "x"), "protocol", 1002)
  breaks("at a reason that is not UTF-8 (7.5.1)",
    frame(CLOSE, string.pack(">I2", 1000) .. "\xff\xfe"), "protocol", 1007)
  breaks("at a closing frame of more than 125 bytes (7.3.6)",
    frame(CLOSE, string.pack(">I2", 1000) .. ("x"):rep(124)), "protocol", 1002)
  for _, status in ipairs { 0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000,
    65535 } do
    breaks("at the closing status " .. status .. " (7.9)",
      frame(CLOSE, string.pack(">I2", status)), "protocol", 1002)
  end
  breaks("at the length of a message that is too large, before it comes",
    frame(BINARY, "x", { length = 1 << 40 }), "too_large", 1009)
  breaks("at fragments that are too large together",
    frame(TEXT, ("x"):rep(60), { fin = false }) .. frame(0, ("x"):rep(41)), "too_large", 1009, 100)

  it("and still gives what came before (5.10)", function()
    with({ more = frame(TEXT, "one") .. frame(TEXT, "two") .. frame(0, "") }, function(ws)
      assert.equal("one", ws:receive(TIMEOUT))
      assert.equal("two", ws:receive(TIMEOUT))
      assert.equal("protocol", select(2, ws:receive(TIMEOUT)).code)
    end)
  end)

  it("and closes the connection when the peer goes on regardless", function()
    with({ more = frame(3, "") }, function(ws, _, sock)
      assert.equal("protocol", select(2, ws:receive(TIMEOUT)).code)
      assert.equal(CLOSE, (read_frame(sock)))
      local began = ml.now()
      repeat until not sock:write(frame(TEXT, ("x"):rep(10000)), TIMEOUT)
      assert.is_true(ml.now() - began < 10)
    end)
  end)
end)

describe("a websocket takes", function()
  local function takes(name, bytes, ...)
    local wanted = { ... }
    it(name, function()
      with({ more = bytes }, function(ws)
        for _, message in ipairs(wanted) do assert.equal(message, ws:receive(TIMEOUT)) end
      end)
    end)
  end

  takes("fragments (5.3)", frame(TEXT, "frag", { fin = false }) .. frame(0, "ment"), "fragment")
  takes("empty fragments (6.1)", frame(TEXT, "", { fin = false }) .. frame(0, "", { fin = false })
    .. frame(0, "") .. frame(BINARY, ""), "", "")
  takes("a character cut by fragments (6.2)",
    frame(TEXT, "\xe2", { fin = false }) .. frame(0, "\x82", { fin = false }) .. frame(0, "\xac"),
    "€")
  takes("pings between fragments (5.6)", frame(TEXT, "a", { fin = false }) .. frame(PING, "p")
    .. frame(0, "b"), "ab")
  takes("pongs that answer nothing (2.7)", frame(PONG, "what?") .. frame(PONG, "")
    .. frame(TEXT, "x"), "x")
  takes("noncharacters (6.22)", frame(TEXT, "\xef\xbf\xbe\xf4\x8f\xbf\xbf"),
    "\xef\xbf\xbe\xf4\x8f\xbf\xbf")

  it("bytes one by one (2.6, 5.5)", function()
    local bytes = frame(TEXT, "gr\xc3", { fin = false }) .. frame(PING, "ping")
      .. frame(0, "\xbc\xc3\x9fe") .. frame(BINARY, ("x"):rep(200)) .. frame(CLOSE, "\x0f\xa1bye")
    with({}, function(ws, _, sock)
      assert(sock:nodelay(true))
      local writer = ml.spawn(function()
        for i = 1, #bytes do
          assert(sock:write(bytes:sub(i, i), TIMEOUT))
          if i % 7 == 0 then ml.sleep(0.001) end
        end
      end)
      assert.equal("grüße", ws:receive(TIMEOUT))
      assert.equal(("x"):rep(200), ws:receive(TIMEOUT))
      local _, err = ws:receive(TIMEOUT)
      assert.same({ "closed", 4001, "bye" }, { err.code, err.status, err.reason })
      writer:result(TIMEOUT)
      assert.same({ PONG, "ping", true }, { read_frame(sock) })
      assert.same({ CLOSE, "\x0f\xa1", true }, { read_frame(sock) })
      assert.is_nil(read_frame(sock)) -- and the connection ends
    end)
  end)

  it("each ping for a pong (2.10)", function()
    local bytes = ""
    for i = 1, 10 do bytes = bytes .. frame(PING, "ping " .. i) end
    with({ more = bytes }, function(_, _, sock)
      for i = 1, 10 do assert.same({ PONG, "ping " .. i, true }, { read_frame(sock) }) end
    end)
  end)

  it("pings without end from a peer that reads nothing, in bounded memory", function()
    with({}, function(ws, _, sock)
      local pings = frame(PING, ("p"):rep(125)):rep(1000)
      for _ = 1, 200 do assert(sock:write(pings, TIMEOUT)) end -- 25 MB; so many pongs would wait
      assert(sock:write(frame(TEXT, "end"), TIMEOUT))
      local before = collectgarbage "count"
      assert.equal("end", ws:receive(TIMEOUT))
      assert.is_true(collectgarbage "count" - before < 1024)
    end)
  end)

  it("a pong for all the pings before it", function()
    with({}, function(ws, _, sock)
      local first = ml.spawn(function() return ws:ping("first", TIMEOUT) end)
      local second = ml.spawn(function() return ws:ping("second", TIMEOUT) end)
      local third = ml.spawn(function() return ws:ping("third", TIMEOUT) end)
      for _ = 1, 3 do assert.equal(PING, (read_frame(sock))) end
      assert(sock:write(frame(PONG, "second"), TIMEOUT))
      assert.is_number(first:result(TIMEOUT))
      assert.is_number(second:result(TIMEOUT))
      assert.is_false(third:done())
      assert(sock:write(frame(PONG, "third"), TIMEOUT))
      assert.is_number(third:result(TIMEOUT))
    end)
  end)

  it("a closing frame without a status (7.3.1)", function()
    with({ more = frame(CLOSE, "") }, function(ws, _, sock)
      local _, err = ws:receive(TIMEOUT)
      assert.same({ "closed", 1005, "" }, { err.code, err.status, err.reason })
      assert.same({ CLOSE, "", true }, { read_frame(sock) })
      for _ in ws:messages() do error "nothing comes" end
    end)
  end)

  for _, status in ipairs { 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 3000,
    3999, 4000, 4999 } do
    it("the closing status " .. status .. " (7.7)", function()
      with({ more = frame(CLOSE, string.pack(">I2", status)) }, function(ws, _, sock)
        assert.equal(status, select(2, ws:receive(TIMEOUT)).status)
        local _, data = read_frame(sock)
        assert.equal(status, (string.unpack(">I2", data)))
      end)
    end)
  end

  it("nothing after the closing frame (7.1.3)", function()
    with({ more = frame(CLOSE, "\x03\xe8") .. frame(TEXT, "late") }, function(ws)
      assert.equal(1000, select(2, ws:receive(TIMEOUT)).status)
    end)
  end)
end)

describe("the handshake refuses", function()
  local function refuses(name, answer, code, pattern, options)
    it(name, function()
      options = options or {}
      options.answer = answer
      with(options, function(ws, err)
        assert.is_nil(ws)
        assert.equal(code, err.code)
        assert.matches(pattern, err.message)
      end)
    end)
  end

  local good = ANSWER:format "%ACCEPT"
  refuses("an answer that is no HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n", "protocol", "HTTP/1.1")
  refuses("HTTP/1.0", good:gsub("1%.1", "1.0"), "protocol", "HTTP/1.1")
  refuses("a 200", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "handshake", "200 OK")
  refuses("an answer without Upgrade", good:gsub("Upgrade: websocket\r\n", ""), "handshake",
    "Upgrade")
  refuses("another Upgrade", good:gsub("websocket\r\n", "h2c\r\n"), "handshake", "Upgrade")
  refuses("an answer without Connection", good:gsub("Connection: Upgrade\r\n", ""), "handshake",
    "Connection")
  refuses("an answer without Accept", good:gsub("Sec[^\r]*\r\n", ""), "handshake", "Accept")
  refuses("another Accept", good:gsub("%%ACCEPT", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="), "handshake",
    "not for this request")
  refuses("an extension", good:gsub("\r\n\r\n", "\r\nSec-WebSocket-Extensions: x-y\r\n\r\n"),
    "handshake", "extension")
  refuses("a protocol that was not offered",
    good:gsub("\r\n\r\n", "\r\nSec-WebSocket-Protocol: other\r\n\r\n"), "handshake", "protocol",
    { protocols = { "chat" } })
  refuses("a head without end",
    "HTTP/1.1 101 X\r\n" .. ("A: " .. ("x"):rep(1000) .. "\r\n"):rep(80), "too_large", "headers")

  it("a connection that closes without an answer", function()
    ml.run(function()
      local server <close> = assert(tcp.listen("127.0.0.1", 0))
      local peer = ml.spawn(function()
        local sock = assert(server:accept(TIMEOUT))
        sock:read_until("\r\n\r\n", { timeout = TIMEOUT })
        sock:close()
      end)
      local ws, err = http.websocket("ws://127.0.0.1:" .. server.port, { timeout = TIMEOUT })
      assert.is_nil(ws)
      assert.equal("closed", err.code)
      peer:result(TIMEOUT)
    end)
  end)

  it("nothing that is merely written otherwise", function()
    local answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101\r\n"
      .. "connection: keep-alive, UPGRADE\r\nUPGRADE:WebSocket\r\n"
      .. "sec-websocket-accept:   %ACCEPT  \r\nSec-WebSocket-Protocol: b\r\n\r\n"
    with({ answer = answer, more = frame(TEXT, "hi"), protocols = { "a", "b" } }, function(ws, err)
      assert(ws, err)
      assert.equal("b", ws.protocol)
      assert.equal("hi", ws:receive(TIMEOUT))
    end)
  end)
end)
