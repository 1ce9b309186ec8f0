local cjson = require "cjson"
local ml = require "moonloop"
local http = require "moonloop.http"
local h = require "spec.support.helpers"
local proxy = require "spec.support.proxy"
local websockets = require "spec.support.websockets"

local TIMEOUT = h.TIMEOUT

local srv, tls

setup(function()
  srv, tls = websockets.start(), websockets.start { tls = true }
end)

teardown(function()
  srv:stop()
  tls:stop()
end)

local function open(path, options)
  options = options or {}
  options.timeout = options.timeout or TIMEOUT
  return assert(http.websocket(srv.url .. path, options))
end

local function code(_, err)
  return err and err.code
end

-- The same promises hold on this thread and in a job.
local function everywhere(promise, body)
  it(promise .. ", on a thread", body)
  it(promise .. ", in a job", function() ml.run(body) end)
end

-- What the server saw of the connection with that path, once it has ended.
local function seen(path)
  return h.eventually(function()
    for _, entry in ipairs(srv:seen()) do
      if entry.path == path then return entry end
    end
  end, "the end of " .. path)
end

describe("a websocket", function()
  everywhere("carries text and binary messages of all sizes", function()
    local ws <close> = open "/echo"
    for _, size in ipairs { 0, 1, 125, 126, 127, 65535, 65536, 1000000 } do
      local data = ("\0\255a"):rep(size // 3 + 1):sub(1, size)
      assert.is_true(ws:send(data, "binary", TIMEOUT))
      local message, kind = ws:receive(TIMEOUT)
      assert.is_true(message == data)
      assert.equal("binary", kind)
    end
    assert.is_true(ws:send "grüße 😀")
    assert.same({ "grüße 😀", "text" }, { ws:receive(TIMEOUT) })
  end)

  everywhere("goes over TLS, and checks the certificate", function()
    local bad, err = http.websocket(tls.url .. "/echo", { timeout = TIMEOUT })
    assert.is_nil(bad)
    assert.equal("tls", err.code)
    local ws <close> = assert(http.websocket(tls.url .. "/echo",
      { timeout = TIMEOUT, tls = { ca = tls.ca } }))
    local data = ("0123456789abcdef"):rep(100000)
    for _ = 1, 3 do
      assert(ws:send(data, "text", TIMEOUT))
      assert.is_true(data == ws:receive(TIMEOUT))
    end
  end)

  everywhere("closes in good order, with status and reason", function()
    local path = "/echo?" .. tostring(ml.now())
    local ws = open(path)
    assert.is_false(ws.closed)
    assert.is_true(ws:close(4001, "enough", TIMEOUT))
    assert.is_true(ws.closed)
    assert.is_true(ws:close())
    local entry = seen(path)
    assert.same({ 4001, "enough" }, { entry.code, entry.reason })
    local _, err = ws:receive(0)
    assert.same({ "closed", 4001 }, { err.code, err.status })
    assert.equal("closed", code(ws:send "late"))
    assert.equal("closed", code(ws:ping(nil, TIMEOUT)))
  end)

  everywhere("tells why the peer closed it", function()
    local ws <close> = open "/close/4242/because"
    local message, err = ws:receive(TIMEOUT)
    assert.is_nil(message)
    assert.same({ "closed", 4242, "because" }, { err.code, err.status, err.reason })
    assert.matches("4242 because", err.message)
    assert.equal(4242, select(2, ws:send "x").status)
  end)

  everywhere("tells when the connection just ends", function()
    local ws <close> = open "/abort"
    local _, err = ws:receive(TIMEOUT)
    assert.same({ "closed", 1006 }, { err.code, err.status })
  end)

  everywhere("is closed by the end of its block", function()
    local path = "/echo?block" .. tostring(ml.now())
    do
      local ws <close> = open(path)
      ws:send "x"
    end
    assert.equal(1000, seen(path).code)
  end)

  everywhere("is dropped by an error that leaves its block, without waiting", function()
    local began = ml.now()
    local err = h.raised(function()
      local _ <close> = open "/mute"
      error("broken", 0)
    end)
    assert.equal("broken", err)
    assert.is_true(ml.now() - began < 5)
  end)

  everywhere("iterates over what comes, until the peer closes", function()
    local ws <close> = open "/flood/300/2000"
    local n = 0
    for message, kind in ws:messages() do
      assert.equal("text", kind)
      assert.equal(n, tonumber(message:sub(1, 8)))
      assert.equal(2000, #message)
      n = n + 1
    end
    assert.equal(300, n)
    local bad <close> = open "/close/1011/oops"
    local err = h.raised(function() for _ in bad:messages() do error "no message" end end)
    assert.same({ "closed", 1011, "oops" }, { err.code, err.status, err.reason })
  end)

  everywhere("reads no more than fits while nobody receives, and loses nothing", function()
    local ws <close> = open("/flood/400/50000", { max_queue = 100000 })
    ml.sleep(0.2)
    local n = 0
    for message in ws:messages() do
      assert.equal(n, tonumber(message:sub(1, 8)))
      n = n + 1
    end
    assert.equal(400, n)
  end)

  everywhere("keeps the order where it stops after each message", function()
    local ws <close> = open("/flood/3000/3000", { max_queue = 1 })
    local n = 0
    for message in ws:messages() do
      assert.equal(n, tonumber(message:sub(1, 8)))
      n = n + 1
    end
    assert.equal(3000, n)
  end)

  everywhere("joins fragments, and answers pings between them", function()
    local ws <close> = open "/fragments"
    for _, size in ipairs { 10, 1000, 50000 } do
      local data = ("abc"):rep(size):sub(1, size)
      assert(ws:send(data))
      assert.is_true(data == ws:receive(TIMEOUT))
    end
  end)

  everywhere("sends a message in pieces", function()
    local ws <close> = open "/collect"
    local n = 0
    assert.is_true(ws:send(function()
      n = n + 1
      return n <= 5 and ("x"):rep(n * 1000) or nil
    end, "binary", TIMEOUT))
    assert.equal("bytes 15000", ws:receive(TIMEOUT))
    local parts = { "a\xc3", "\xbc", "\xf0\x9f", "\x98", "\x80!" } -- cut inside of characters
    assert.is_true(ws:send(function() return table.remove(parts, 1) end))
    assert.equal("str 4", ws:receive(TIMEOUT))
    assert.is_true(ws:send(function() end))
    assert.equal("str 0", ws:receive(TIMEOUT))
  end)

  everywhere("drops the connection if the pieces fail, and raises their error", function()
    local path = "/collect?" .. tostring(ml.now())
    local ws <close> = open(path)
    local err = h.raised(function()
      local sent
      ws:send(function()
        if sent then error({ mine = true }) end
        sent = true
        return "piece"
      end)
    end)
    assert.is_true(err.mine)
    assert.equal("closed", code(ws:receive(TIMEOUT)))
    assert.not_equal(1000, seen(path).code)
  end)

  everywhere("measures the time to a pong", function()
    local ws <close> = open "/echo"
    local seconds = assert(ws:ping(nil, TIMEOUT))
    assert.is_true(seconds > 0 and seconds < TIMEOUT)
    assert(ws:ping("", TIMEOUT))
    assert(ws:ping(("p"):rep(125), TIMEOUT))
  end)

  everywhere("answers the peer's pings while nobody receives", function()
    local ws <close> = open "/pings/5"
    ml.sleep(0.05)
    assert.equal("pongs: 5", ws:receive(TIMEOUT))
  end)

  everywhere("gives up waiting in time and goes on", function()
    local ws <close> = open "/echo"
    assert.equal("timeout", code(ws:receive(h.SHORT)))
    assert.equal("timeout", code(ws:receive(0)))
    assert(ws:send "still here")
    assert.equal("still here", ws:receive(TIMEOUT))
    local mute <close> = open "/mute"
    assert.equal("timeout", code(mute:ping(nil, h.SHORT)))
    local big = ("x"):rep(32 * 1024 * 1024)
    local ok, err = mute:send(big, "binary", 0.1)
    assert.is_nil(ok)
    assert.same({ "timeout", true }, { err.code, err.on_its_way })
    ok, err = mute:send("later", "text", h.SHORT)
    assert.is_nil(ok)
    assert.same({ "timeout", false }, { err.code, err.on_its_way })
    assert.equal("timeout", code(mute:close(1000, "", h.SHORT)))
    assert.is_true(mute:close())
  end)

  it("notices with its own pings that the peer is gone", function()
    local mute <close> = open("/mute", { ping_interval = 0.05, ping_timeout = 0.1 })
    local _, err = mute:receive(TIMEOUT)
    assert.same({ "closed", 1006 }, { err.code, err.status })
    assert.matches("ping", err.reason)
    local ws <close> = open("/echo", { ping_interval = 0.01, ping_timeout = TIMEOUT })
    assert.equal("timeout", code(ws:receive(0.2)))
    assert(ws:send "alive")
    assert.equal("alive", ws:receive(TIMEOUT))
  end)

  it("keeps its own pings from ending it while it is not read", function()
    local ws <close> = open("/flood/50/50000",
      { ping_interval = 0.02, ping_timeout = 0.05, max_queue = 100000 })
    ml.sleep(0.3)
    local n = 0
    for _ in ws:messages() do n = n + 1 end
    assert.equal(50, n)
  end)

  it("refuses messages that are too large, and tells the peer", function()
    local path = "/echo?large" .. tostring(ml.now())
    local ws <close> = open(path, { max_message = 1000 })
    assert(ws:send(("x"):rep(1000)))
    assert.equal(1000, #ws:receive(TIMEOUT))
    assert(ws:send(("x"):rep(1001)))
    local _, err = ws:receive(TIMEOUT)
    assert.same({ "too_large", 1009 }, { err.code, err.status })
    assert.matches("max_message", err.message)
    assert.equal(1009, seen(path).code)
  end)

  it("lets one job receive while others send, ping and close", function()
    ml.run(function()
      local ws = open "/echo"
      local got = {}
      local reader = ml.spawn(function()
        for message in ws:messages() do got[message] = (got[message] or 0) + 1 end
      end)
      ml.group(function(g)
        for i = 1, 20 do
          g:spawn(function()
            for k = 1, 20 do
              assert(ws:send(("job %d message %d"):format(i, k), "text", TIMEOUT))
            end
            assert(ws:ping(nil, TIMEOUT))
          end)
        end
      end)
      h.eventually(function()
        local n = 0
        for _ in pairs(got) do n = n + 1 end
        return n == 400
      end, "400 echoes")
      assert(ws:close(1000, "", TIMEOUT))
      reader:result(TIMEOUT)
      for _, times in pairs(got) do assert.equal(1, times) end
    end)
  end)

  it("keeps messages whole while another is sent in pieces", function()
    ml.run(function()
      local ws <close> = open "/collect"
      local more, begun = ml.Event(), ml.Event()
      local pieces = ml.spawn(function()
        local n = 0
        return ws:send(function()
          n = n + 1
          if n == 2 then begun:set() more:wait(TIMEOUT) end
          return n <= 2 and "12345" or nil
        end, "binary", TIMEOUT)
      end)
      begun:wait(TIMEOUT)
      local other = ml.spawn(function() return ws:send("other", "text", TIMEOUT) end)
      assert(ws:ping(nil, TIMEOUT)) -- goes between the pieces
      assert.is_false(other:done())
      more:set()
      assert.is_true(pieces:result(TIMEOUT))
      assert.is_true(other:result(TIMEOUT))
      assert.equal("bytes 10", ws:receive(TIMEOUT))
      assert.equal("str 5", ws:receive(TIMEOUT))
    end)
  end)

  it("has one receiver at a time", function()
    ml.run(function()
      local ws <close> = open "/echo"
      local first = ml.spawn(function() return ws:receive(TIMEOUT) end)
      ml.sleep(0)
      h.misuse("another receive waits", function() ws:receive(1) end)
      ws:send "for the first"
      assert.equal("for the first", first:result(TIMEOUT))
    end)
  end)

  it("crosses states", function()
    local ws <close> = open "/echo"
    local ex <close> = ml.AsyncExecutor {}
    local sent = ex:submit(function(w)
      assert(w:send("from " .. tostring(w.protocol)))
      return w.url, w.headers.upgrade
    end, ws)
    assert.same({ srv.url .. "/echo", "websocket" }, { sent:result(TIMEOUT) })
    assert.equal("from nil", ws:receive(TIMEOUT))
    local pool <close> = ml.ThreadExecutor { workers = 1 }
    assert(ws:send "to a thread")
    assert.equal("to a thread", pool:submit(function(w) return (w:receive(15)) end, ws)
      :result(TIMEOUT))
  end)

  it("shows what it is", function()
    local url = srv.url:gsub("//", "//me:secret@") .. "/echo?token=1"
    local ws = assert(http.websocket(url, { timeout = TIMEOUT }))
    assert.equal("websocket (" .. srv.url .. "/echo)", tostring(ws))
    ws:close()
    assert.equal("websocket (" .. srv.url .. "/echo) (closed)", tostring(ws))
  end)
end)

describe("the handshake", function()
  everywhere("agrees on a protocol", function()
    local ws <close> = open("/echo", { protocols = { "chat.v3", "chat.v1" } })
    assert.equal("chat.v1", ws.protocol)
    local none <close> = open "/echo"
    assert.is_nil(none.protocol)
  end)

  everywhere("sends the headers, the query and the user it is given", function()
    local ws <close> = open("/headers", {
      headers = { Origin = "http://example.com", ["X-List"] = { "a:", "b" }, ["X-Empty"] = "" },
      query = { a = "b c" },
    })
    local got = cjson.decode((ws:receive(TIMEOUT)))
    assert.equal("http://example.com", got.Origin)
    assert.equal("", got["X-Empty"])
    assert.equal("127.0.0.1:" .. srv.port, got.Host)
    assert.matches("^moonloop/", got["User-Agent"])
    assert.is_nil(got.Accept)
    local refused, err = http.websocket(srv.url .. "/basic", { timeout = TIMEOUT })
    assert.is_nil(refused)
    assert.same({ "handshake", 401 }, { err.code, err.status })
    local url = srv.url:gsub("//", "//me:s%%3Acret@") .. "/basic"
    local known <close> = assert(http.websocket(url, { timeout = TIMEOUT }))
    assert(known:ping(nil, TIMEOUT))
  end)

  everywhere("says who we are", function()
    local function sent(auth)
      local ws <close> = open("/headers", { auth = auth })
      return cjson.decode((ws:receive(TIMEOUT))).Authorization
    end
    assert.equal("Basic bWU6c2VjcmV0", sent { "me", "secret" })
    assert.equal("Bearer token", sent { bearer = "token" })
    h.misuse("'auth' must be", function()
      return (http.websocket(srv.url, { auth = { "a", "b", type = "digest" } }))
    end)
  end)

  everywhere("does not follow redirects, and tells what was answered", function()
    local ws, err = http.websocket(srv.url .. "/status/302?secret=1", { timeout = TIMEOUT })
    assert.is_nil(ws)
    assert.same({ "handshake", 302 }, { err.code, err.status })
    assert.equal("/echo", err.headers.Location)
    assert.matches("302 Found", err.message)
    assert.is_nil(err.message:find("secret", 1, true))
    assert.is_true(err.timings.total > 0)
    assert.equal(503, select(2, http.websocket(srv.url .. "/status/503", {})).status)
  end)

  everywhere("gives up in time", function()
    local began = ml.now()
    local ws, err = http.websocket(srv.url .. "/late/30", { timeout = 0.1 })
    assert.is_nil(ws)
    assert.same({ "timeout", "wait" }, { err.code, err.phase })
    ws, err = http.websocket(srv.url .. "/late/30", { connect_timeout = 0.1 })
    assert.is_nil(ws)
    assert.equal("timeout", err.code)
    assert.is_true(ml.now() - began < 5)
    local late <close> = open "/late/0.1"
    assert(late:ping(nil, TIMEOUT))
  end)

  everywhere("fails as a request does", function()
    assert.equal("refused", code(http.websocket("ws://127.0.0.1:1/", {})))
    assert.equal("resolve", code(http.websocket("ws://no.such.host.invalid/", {})))
    assert.equal("url", code(http.websocket("ftp://127.0.0.1/", {})))
    assert.equal("url", code(http.websocket("ws://127.0.0.1/#part", {})))
    assert.equal("url", code(http.websocket("ws:///", {})))
    assert.equal("tls", code(http.websocket("wss://127.0.0.1:" .. srv.port .. "/",
      { timeout = TIMEOUT })))
  end)

  it("goes through a proxy, plain and with TLS", function()
    local via <close> = proxy.start()
    for i, url in ipairs { srv.url .. "/echo", tls.url .. "/echo" } do
      local ws <close> = assert(http.websocket(url,
        { timeout = TIMEOUT, tls = { ca = tls.ca }, proxy = via.url }))
      assert(ws:send("through " .. i))
      assert.equal("through " .. i, ws:receive(TIMEOUT))
    end
    assert.same({ "CONNECT 127.0.0.1:" .. srv.port, "CONNECT 127.0.0.1:" .. tls.port },
      h.eventually(function()
        local asked = via:requests()
        return #asked == 2 and asked
      end, "two requests at the proxy"))
  end)

  it("refuses mistakes of the program at the line of the call", function()
    local function bad(pattern, ...)
      h.misuse(pattern, function(...) return (http.websocket(...)) end, ...)
    end
    bad("url expected, got nil")
    bad("table of options expected", "ws://h/", 5)
    bad("unknown option 'protocol'", "ws://h/", { protocol = "x" })
    bad("unknown option 'body'", "ws://h/", { body = "x" })
    bad("list of names", "ws://h/", { protocols = "chat" })
    bad("%[2%] is no name", "ws://h/", { protocols = { "a", "b c" } })
    bad("'a' twice", "ws://h/", { protocols = { "a", "a" } })
    bad("max_message.*positive integer", "ws://h/", { max_message = 0 })
    bad("'ping_interval' must be a positive number", "ws://h/", { ping_interval = -1 })
    bad("handshake's own", "ws://h/", { headers = { ["Sec-WebSocket-Key"] = "x" } })
    bad("line break", "ws://h/", { headers = { A = "b\r\nC: d" } })
    local ws <close> = open "/echo"
    local function wrong(pattern, method, ...)
      h.misuse(pattern, function(...) return (ws[method](ws, ...)) end, ...)
    end
    wrong("must be utf%-8", "send", "\xff")
    wrong("must be utf%-8", "send", function() return "\xff\xff\xff\xff" end)
    wrong("string or an iterator", "send", {})
    wrong("kind must be", "send", "x", "json")
    wrong("more than 125 bytes", "ping", ("x"):rep(126))
    wrong("1000, or 3000 to 4999", "close", 1005)
    wrong("more than 123 bytes", "close", 1000, ("x"):rep(124))
    wrong("utf%-8", "close", 1000, "\xff")
    wrong("seconds", "receive", -1)
    assert(ws:ping(nil, TIMEOUT))
  end)
end)

describe("what is left of a websocket", function()
  -- What it begins is cancelled while it waits.
  local function cancelled(begin)
    ml.run(function()
      local job = ml.spawn(begin)
      ml.sleep(0.05)
      local began = ml.now()
      assert.is_true(job:cancel_and_wait(TIMEOUT))
      assert.is_true(ml.now() - began < 1)
      assert.is_true(job:cancelled())
    end)
  end

  it("is nothing, after a cancel in each phase", function()
    h.collect()
    open "/echo":close() -- what is made once is there
    local files = h.fds()
    cancelled(function() http.websocket(srv.url .. "/late/30", {}) end)
    cancelled(function()
      local ws <close> = open "/echo"
      ws:receive()
    end)
    cancelled(function()
      local ws <close> = open "/mute"
      ws:send(("x"):rep(32 * 1024 * 1024), "binary")
    end)
    cancelled(function()
      local ws <close> = open "/mute"
      ws:ping()
    end)
    cancelled(function()
      local ws = open "/mute"
      ws:close(1000, "", TIMEOUT)
    end)
    h.eventually(function()
      h.collect()
      return h.fds() <= files
    end, "the descriptors of before")
  end)

  it("loses no message to a receive that was cancelled", function()
    ml.run(function()
      local ws <close> = open "/echo"
      local job = ml.spawn(function() return ws:receive() end)
      ml.sleep(0)
      job:cancel_and_wait(TIMEOUT)
      assert(ws:send "kept")
      assert.equal("kept", ws:receive(TIMEOUT))
    end)
  end)

  it("is nothing, when nobody holds it any more", function()
    local path = "/echo?forgotten" .. tostring(ml.now())
    open(path)
    h.collect()
    assert.equal(1001, seen(path).code)
  end)

  it("ends with the executor of its loop", function()
    local path = "/echo?executor" .. tostring(ml.now())
    local ex = ml.AsyncExecutor {}
    local ws = ex:submit(function(url) return (require "moonloop.http".websocket(url)) end,
      srv.url .. path):result(TIMEOUT)
    assert(ws:ping(nil, TIMEOUT))
    h.close(ex)
    assert.equal("closed", code(ws:receive(TIMEOUT)))
    assert.equal("closed", code(ws:send "x"))
    assert.equal("closed", code(ws:ping()))
    assert.is_true(ws:close())
    assert.equal(1001, seen(path).code)
  end)

  it("ends with a run, and leaves nothing waiting", function()
    local ws = ml.run(function()
      local w = open "/echo"
      ml.spawn(function() w:receive() end)
      ml.sleep(0)
      return w
    end)
    assert.equal("closed", code(ws:receive(0)))
  end)

  it("does not keep a script from ending", function()
    for _, lua in ipairs { "lua5.4", "moonloop" } do
      local output, status = h.run_script(([[
        local ws = assert(require "moonloop.http".websocket(%q, { timeout = 15 }))
        assert(ws:send "x")
        print((ws:receive(15)))]]):format(srv.url .. "/echo"), { lua = lua })
      assert.equal("x\n", output)
      assert.equal(0, status)
    end
  end)
end)
