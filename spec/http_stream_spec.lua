local ml = require "moonloop"
local http = require "moonloop.http"
local tcp = require "moonloop.tcp"
local nginx = require "spec.support.nginx"
local h = require "spec.support.helpers"

local MIB <const> = 1024 * 1024

-- Calls f(url, sock) in a job with a server that gives one connection to `serve(sock)` after it
-- has read the head of the request.
local function with_server(serve, f)
  return ml.run(function()
    local server = assert(tcp.listen("127.0.0.1", 0))
    local _ <close> = server
    local connections = ml.spawn(function()
      for sock in server:accepted() do
        local _ <close> = sock
        sock:read_until("\r\n\r\n", { timeout = h.TIMEOUT })
        serve(sock)
      end
    end)
    local _ <close> = ml.defer(function() connections:cancel_and_wait(h.TIMEOUT) end)
    return f("http://127.0.0.1:" .. server.port)
  end)
end

local CHUNKED <const> = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

local function chunk(text) return ("%x\r\n%s\r\n"):format(#text, text) end

-- A server that sends the texts, each as a chunk, and ends the body.
local function sending(texts)
  return function(sock)
    sock:write(CHUNKED, h.TIMEOUT)
    for _, text in ipairs(texts) do sock:write(chunk(text), h.TIMEOUT) end
    sock:write("0\r\n\r\n", h.TIMEOUT)
  end
end

describe("a response that streams", function()
  local srv
  lazy_setup(function()
    srv = nginx.start { http2 = true }
    for _, size in ipairs { 2, 8 } do
      local file <close> = assert(io.open(srv.files .. "/" .. size .. "m", "wb"))
      file:write(("0123456789abcdef"):rep(size * MIB // 16))
    end
  end)
  lazy_teardown(function() srv:stop() end)

  local function open(path, options)
    options = options or {}
    options.stream, options.timeout = true, h.TIMEOUT
    return assert(http.get(srv.url .. path, options))
  end

  it("is there with its head, without a body", function()
    local gate = h.gate()
    with_server(function(sock)
      sock:write(CHUNKED, h.TIMEOUT)
      gate:pass()
      sock:write(chunk "late" .. "0\r\n\r\n", h.TIMEOUT)
    end, function(url)
      local res <close> = assert(http.get(url, { stream = true, timeout = h.TIMEOUT }))
      assert.equal(200, res.status)
      assert.is_true(res.ok)
      assert.equal("chunked", res.headers["Transfer-Encoding"])
      assert.is_nil(res.body)
      assert.equal(res, res:raise_for_status())
      assert.matches("^response: 200 OK: http://", tostring(res))
      gate:open()
      assert.equal("late", res:read_all())
      assert.is_nil(res:read())
      assert.equal("", res:read_all())
      assert.is_true(res.timings.total > 0)
    end)
  end)

  it("is read the same in a job, in a thread and in a worker", function()
    local function read(url)
      local client = require "moonloop.http"
      local res <close> = assert(client.get(url, { stream = true, timeout = 15 }))
      local n = 0
      for part in res:chunks() do n = n + #part end
      return n
    end
    local url = srv.url .. "/files/8m"
    assert.equal(8 * MIB, read(url))
    assert.equal(8 * MIB, ml.run(read, url))
    assert.equal(8 * MIB, ml.run_async_job(read, url):result(h.TIMEOUT))
    assert.equal(8 * MIB, ml.to_thread(read, url))
  end)

  it("gives as many bytes as are asked for, and fewer at the end", function()
    with_server(sending { "abc", "defg", "h" }, function(url)
      local res <close> = assert(http.get(url, { stream = true, timeout = h.TIMEOUT }))
      assert.equal("abcde", res:read(5))
      assert.equal("fgh", res:read(100))
      assert.is_nil(res:read(1))
    end)
    local res <close> = open "/files/8m"
    local n = 0
    for part in res:chunks(MIB + 1) do
      n = n + #part
      assert.is_true(#part == MIB + 1 or n == 8 * MIB)
    end
    assert.equal(8 * MIB, n)
  end)

  it("gives lines, whatever ends them and wherever they are cut", function()
    local function lines_of(keep)
      return with_server(sending { "a\nb\r", "\nc", "c\n\n", "d\r\n", "last" }, function(url)
        local res <close> = assert(http.get(url, { stream = true, timeout = h.TIMEOUT }))
        local lines = {}
        for line in res:lines(keep) do lines[#lines + 1] = line end
        return lines
      end)
    end
    assert.same({ "a", "b", "cc", "", "d", "last" }, lines_of())
    assert.same({ "a\n", "b\r\n", "cc\n", "\n", "d\r\n", "last" }, lines_of(true))
  end)

  it("gives values of JSON, one a line", function()
    with_server(sending { '{"a":1}\n\n[2', ',3]\r\n"x"' }, function(url)
      local res <close> = assert(http.get(url, { stream = true, timeout = h.TIMEOUT }))
      local values = {}
      for value in res:json_lines() do values[#values + 1] = value end
      assert.same({ { a = 1 }, { 2, 3 }, "x" }, values)
    end)
    with_server(sending { "{}\n{" }, function(url)
      local res <close> = assert(http.get(url, { stream = true, timeout = h.TIMEOUT }))
      local next_value = res:json_lines()
      assert.same({}, next_value())
      assert.equal("json", h.raised(next_value).code)
    end)
    with_server(sending { '{"a":', "[1]}" }, function(url)
      local res <close> = assert(http.get(url, { stream = true, timeout = h.TIMEOUT }))
      assert.same({ a = { 1 } }, res:json())
    end)
  end)

  it("is decoded", function()
    local res <close> = open "/gzip"
    assert.equal(assert(http.get(srv.url .. "/10k")).body, res:read_all())
  end)

  it("may be of any status, and follows redirects", function()
    local res <close> = open "/status/404"
    assert.equal(404, res.status)
    assert.equal("status 404\n", res:read_all())
    local moved <close> = open "/redirect/3"
    assert.equal(srv.url .. "/redirect/0", moved.url)
    assert.equal(300, #moved:read_all())
    local stays <close> = open("/redirect/3", { follow = false })
    assert.equal(302, stays.status)
  end)

  it("comes over HTTP/2 too", function()
    local res <close> = assert(http.get(srv.https_url .. "/files/8m",
      { stream = true, http_version = "2", tls = { ca = srv.ca }, timeout = h.TIMEOUT }))
    assert.equal("2", res.http_version)
    ml.sleep(0.05) -- it pauses meanwhile
    assert.equal(8 * MIB, #res:read_all())
  end)

  it("pauses by itself among others of its connection", function()
    ml.run(function()
      local readers = {}
      for i = 1, 8 do
        readers[i] = ml.spawn(function()
          local res <close> = assert(http.get(srv.https_url .. "/files/2m",
            { stream = true, http_version = "2", tls = { ca = srv.ca }, timeout = h.TIMEOUT }))
          local n = 0
          for part in res:chunks() do
            n = n + #part
            if i % 2 == 0 then ml.sleep(0.002) end -- longer than what comes meanwhile
          end
          return n
        end)
      end
      for _, reader in ipairs(readers) do assert.equal(2 * MIB, reader:result(h.TIMEOUT)) end
    end)
  end)

  it("ends with an error where the connection does, after what came", function()
    with_server(function(sock)
      sock:write(CHUNKED .. chunk "some\nmore" .. "10\r\ncut", h.TIMEOUT)
    end, function(url)
      local res <close> = assert(http.get(url, { stream = true, timeout = h.TIMEOUT }))
      assert.equal("some", res:read_line())
      local data, err = res:read(100)
      assert.is_nil(data)
      assert.equal("closed", err.code)
      assert.matches("while receiving the body", err.message)
      assert.equal("morecut", err.partial)
      assert.equal("morecut", res:read())
      assert.equal("closed", select(2, res:read()).code)
      assert.equal("closed", h.raised(res:chunks()).code)
    end)
  end)

  it("ends with an error at the timeout and beyond max_body", function()
    local res <close> = assert(http.get(srv.url .. "/slow", { stream = true, timeout = 0.3 }))
    local data, err = res:read_all()
    assert.is_nil(data)
    assert.equal("timeout", err.code)
    assert.matches("timed out after 0.3", err.message)
    local big <close> = open("/files/8m", { max_body = MIB })
    data, err = big:read_all()
    assert.is_nil(data)
    assert.equal("too_large", err.code)
    assert.is_true(#err.partial <= MIB)
  end)

  it("keeps what a read that times out has taken", function()
    local gate = h.gate()
    with_server(function(sock)
      sock:write(CHUNKED .. chunk "abc", h.TIMEOUT)
      gate:pass()
      sock:write(chunk "def\n" .. "0\r\n\r\n", h.TIMEOUT)
    end, function(url)
      local res <close> = assert(http.get(url, { stream = true, timeout = h.TIMEOUT }))
      local data, err = res:read(6, h.SHORT)
      assert.is_nil(data)
      assert.equal("timeout", err.code)
      assert.equal("timeout", select(2, res:read_line(false, h.SHORT)).code)
      gate:open()
      assert.equal("abcdef", res:read_line(false, h.TIMEOUT))
    end)
  end)

  it("holds back a server that is faster than the reader", function()
    local sent = 0
    with_server(function(sock)
      sock:write("HTTP/1.1 200 OK\r\nContent-Length: " .. 64 * MIB .. "\r\n\r\n", h.TIMEOUT)
      local piece = ("x"):rep(64 * 1024)
      while sent < 64 * MIB and sock:write(piece, h.TIMEOUT) do sent = sent + #piece end
    end, function(url)
      local res <close> = assert(http.get(url, { stream = true, timeout = h.TIMEOUT }))
      local before
      repeat -- until the buffers of the system are full
        before = sent
        ml.sleep(0.1)
      until sent == before
      assert.is_true(sent < 32 * MIB, sent)
      assert.equal(64 * MIB, #res:read_all())
    end)
  end)

  it("costs no CPU while it waits for its reader", function()
    local res <close> = open "/files/8m"
    res:read(1)
    ml.sleep(0.05)
    local before = os.clock()
    ml.sleep(0.3)
    assert.is_true(os.clock() - before < 0.15, os.clock() - before)
  end)

  it("is closed by <close>, by close, and by the collector", function()
    local function openings()
      do
        local res <close> = open "/files/8m"
        res:read(1)
      end
      local res = open "/files/8m"
      res:close()
      res:close()
      assert.equal("closed", select(2, res:read()).code)
      open("/files/8m"):read(1)
    end
    http.get(srv.url .. "/300b") -- the default executor is there
    h.collect()
    local fds = h.fds()
    openings()
    h.eventually(function()
      h.collect()
      return h.fds() <= fds
    end, "the connections' end")
    assert.equal(300, #assert(http.get(srv.url .. "/300b")).body)
  end)

  it("leaves the connection to the next request when it was read to its end", function()
    ml.run(function()
      local serial = {}
      for i = 1, 3 do
        local res <close> = open "/300b"
        res:read_all()
        serial[i] = res.timings.connect
      end
      assert.same({ 0, 0 }, { serial[2], serial[3] })
    end)
  end)

  it("ends when the job that reads it is cancelled, and frees its connection", function()
    ml.run(function()
      local closed = ml.promise()
      local server <close> = assert(tcp.listen("127.0.0.1", 0))
      ml.spawn(function()
        local sock <close> = assert(server:accept(h.TIMEOUT))
        sock:read_until "\r\n\r\n"
        sock:write(CHUNKED .. chunk "x", h.TIMEOUT)
        closed:set_result((select(2, sock:read(h.TIMEOUT)) or {}).code)
      end)
      local started = h.gate()
      local job = ml.spawn(function()
        local res <close> = assert(http.get("http://127.0.0.1:" .. server.port, { stream = true }))
        assert.equal("x", res:read())
        started:open()
        return res:read()
      end)
      started:pass()
      job:cancel_and_wait(h.TIMEOUT)
      assert.is_true(job:cancelled())
      assert.is_truthy(closed.future:result(h.TIMEOUT))
    end)
  end)

  -- Cancels the job that runs f(started, url), once `started` is open, and checks that it ends at
  -- once and leaves nothing.
  local function cancelled_in(f)
    ml.run(function()
      http.get(srv.url .. "/300b")
      local fds = h.fds()
      local started = h.gate()
      local job = ml.spawn(f, started, srv.url)
      started:pass()
      local began = ml.now()
      job:cancel_and_wait(h.TIMEOUT)
      assert.is_true(ml.now() - began < (h.checking() and 1 or 0.1), ml.now() - began)
      assert.is_true(job:cancelled())
      assert.equal(300, #assert(http.get(srv.url .. "/300b")).body)
      h.eventually(function() return h.fds() <= fds end, "the end of the connection")
    end)
  end

  it("is cancelled while it waits for its head", function()
    cancelled_in(function(started, url)
      started:open()
      return http.get(url .. "/delay/10/300b", { stream = true })
    end)
  end)

  it("is cancelled while it is paused", function()
    cancelled_in(function(started, url)
      local res <close> = assert(http.get(url .. "/files/8m", { stream = true }))
      res:read(1)
      ml.sleep(0.05)
      started:open()
      ml.sleep(h.TIMEOUT)
    end)
  end)

  it("is cancelled while its request's body waits", function()
    cancelled_in(function(started, url)
      return http.post(url .. "/echo", { stream = true, body = function()
        started:open()
        ml.sleep(h.TIMEOUT)
      end })
    end)
  end)

  it("has one reader at a time", function()
    with_server(function(sock)
      sock:write(CHUNKED, h.TIMEOUT)
      sock:read(h.TIMEOUT)
    end, function(url)
      local res <close> = assert(http.get(url, { stream = true, timeout = h.TIMEOUT }))
      local first = ml.spawn(function() return res:read() end)
      ml.sleep(0)
      h.misuse("another job waits for this response", function() res:read() end)
      first:cancel_and_wait(h.TIMEOUT)
      assert.equal("timeout", select(2, res:read(nil, h.SHORT)).code)
    end)
  end)

  it("does not cross states", function()
    local function fetch(url)
      return require "moonloop.http".get(url, { stream = true })
    end
    local err = h.raised(function()
      return ml.run_async_job(fetch, srv.url .. "/300b"):result(h.TIMEOUT)
    end)
    assert.equal("crossing", err.code)
    assert.matches("response that streams", err.message)
  end)

  it("refuses what it cannot read", function()
    local res <close> = open "/300b"
    h.misuse("positive integer expected, got 0", function() res:read(0) end)
    h.misuse("positive integer expected, got x", function() res:read("x") end)
    h.misuse("option 'stream': boolean expected, got number",
      function() http.get(srv.url, { stream = 1 }) end)
  end)
end)
