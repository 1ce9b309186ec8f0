local ml = require "moonloop"
local tcp = require "moonloop.tcp"
local h = require "spec.support.helpers"

local TIMEOUT = h.TIMEOUT

-- Two connected sockets, what closes both, and the port of their server.
local function pair()
  local server <close> = assert(tcp.listen("127.0.0.1", 0))
  local client = assert(tcp.connect("127.0.0.1", server.port, { timeout = TIMEOUT }))
  local peer = assert(server:accept(TIMEOUT))
  local both = setmetatable({}, {
    __close = function()
      client:close()
      peer:close()
    end,
  })
  return client, peer, both, server.port
end

local function code(_, err)
  return err and err.code
end

-- The same promises hold on this thread and in a job.
local function everywhere(promise, body)
  it(promise .. ", on a thread", body)
  it(promise .. ", in a job", function() ml.run(body) end)
end

describe("a socket", function()
  everywhere("carries bytes both ways", function()
    local a, b, _ <close>, port = pair()
    assert.is_true(a:write("ping\0\255", TIMEOUT))
    assert.equal("ping\0\255", b:read(nil, TIMEOUT))
    assert.is_true(b:write({ "po", "ng", 1, 2.5 }, TIMEOUT))
    assert.equal("pong12.5", a:read(8, TIMEOUT))
    assert.equal(port, select(2, a:peer()))
    assert.same({ a:address() }, { b:peer() })
  end)

  everywhere("reads exactly as many bytes as it is asked for", function()
    local a, b, _ <close> = pair()
    assert(a:write("abcdef"))
    assert.equal("abcd", b:read(4, TIMEOUT))
    assert.equal("", b:read(0, 0))
    assert.equal("timeout", code(b:read(4, 0.02)))
    assert(a:write("gh"))
    assert.equal("efgh", b:read(4, TIMEOUT))
  end)

  everywhere("reads up to a mark, wherever the pieces end", function()
    local a, b, _ <close> = pair()
    assert(a:write("one--two-"))
    assert.equal("one", b:read_until("--", { timeout = TIMEOUT }))
    assert.equal("timeout", code(b:read_until("--", { timeout = 0.02 })))
    assert(a:write("-three---"))
    assert.equal("two--", b:read_until("--", { timeout = TIMEOUT, keep = true }))
    assert.equal("three", b:read_until("--", { timeout = TIMEOUT }))
    assert.equal("-", b:read())
  end)

  everywhere("refuses a line that is too long and keeps its bytes", function()
    local a, b, _ <close> = pair()
    assert(a:write("123456789\n"))
    assert.equal("too_large", code(b:read_until("\n", { max = 5, timeout = TIMEOUT })))
    assert.equal("123456789", b:read_line(TIMEOUT))
  end)

  everywhere("iterates over lines, the last one without an end too", function()
    local a, b, _ <close> = pair()
    assert(a:write("one\r\n\ntwo\nlast"))
    assert(a:shutdown(TIMEOUT))
    local lines = {}
    for line in b:lines() do lines[#lines + 1] = line end
    assert.same({ "one", "", "two", "last" }, lines)
    assert.equal("closed", code(b:read_line(TIMEOUT)))
  end)

  everywhere("reads all there is", function()
    local a, b, _ <close> = pair()
    assert(a:write("all there is"))
    assert(a:shutdown())
    assert.equal("too_large", code(b:read_all(5, TIMEOUT)))
    assert.equal("all there is", b:read_all(nil, TIMEOUT))
    assert.equal("", b:read_all(nil, TIMEOUT))
    assert.equal("closed", code(b:read(nil, TIMEOUT)))
  end)

  everywhere("gives what came before the end with the error", function()
    local a, b, _ <close> = pair()
    assert(a:write("abc"))
    a:close()
    local data, err = b:read(10, TIMEOUT)
    assert.is_nil(data)
    assert.equal("closed", err.code)
    assert.equal("abc", err.partial)
    assert.is_nil(select(2, b:read(10, TIMEOUT)).partial)
  end)

  it("carries large data while the peer is slow, and keeps the order", function()
    ml.run(function()
      local a, b, _ <close> = pair()
      local piece = {}
      for i = 1, 200000 do piece[i] = ("%08d"):format(i) end
      piece = table.concat(piece)
      local writer = ml.spawn(function()
        for _ = 1, 10 do assert(a:write(piece, TIMEOUT)) end
        a:shutdown()
      end)
      local n = 0
      for _ = 1, 10 do
        assert.is_true(b:read(#piece, TIMEOUT) == piece)
        n = n + #piece
      end
      assert.equal(16000000, n)
      writer:result(TIMEOUT)
    end)
  end)

  everywhere("says how much of a write that timed out went out, and goes on", function()
    local a, b, _ <close> = pair()
    local data = ("0123456789"):rep(3200000)
    local ok, err = a:write(data, 0.05)
    assert.is_nil(ok)
    assert.equal("timeout", err.code)
    assert.is_true(err.sent > 0 and err.sent < #data)
    assert.is_true(b:read(err.sent, TIMEOUT) == data:sub(1, err.sent))
    assert.is_true(a:write("more", TIMEOUT))
    assert.equal("more", b:read(4, TIMEOUT))
  end)

  it("is shut for writing by a write that was cancelled half-way", function()
    ml.run(function()
      local a, b, _ <close> = pair()
      local writer = ml.spawn(function() a:write(("x"):rep(32000000)) end)
      ml.sleep(0.02)
      writer:cancel()
      writer:wait(TIMEOUT)
      assert.is_true(writer:cancelled())
      assert.equal("closed", code(a:write("y", TIMEOUT)))
      assert.equal("x", b:read(1, TIMEOUT))
    end)
  end)

  it("loses nothing to a read that is cancelled", function()
    ml.run(function()
      local a, b, _ <close> = pair()
      local reader = ml.spawn(function() return b:read(8) end)
      ml.checkpoint()
      assert(a:write("half"))
      ml.sleep(0.02)
      reader:cancel()
      reader:wait(TIMEOUT)
      assert.is_true(reader:cancelled())
      assert(a:write("half"))
      assert.equal("halfhalf", b:read(8, TIMEOUT))
    end)
  end)

  it("lets other jobs run while one only reads and writes", function()
    ml.run(function()
      local a, b, _ <close> = pair()
      local turns, done = 0, false
      local other = ml.spawn(function()
        while not done do
          turns = turns + 1
          ml.checkpoint()
        end
      end)
      ml.spawn(function() b:read_all() end)
      for _ = 1, 2000 do assert(a:write("12345678", TIMEOUT)) end
      done = true
      other:result(TIMEOUT)
      assert.is_true(turns >= 20)
    end)
  end)

  it("is served while many other jobs never rest", function()
    ml.run(function()
      local a, b, _ <close> = pair()
      local done = false
      for _ = 1, 100 do
        ml.spawn(function()
          while not done do ml.checkpoint() end
        end)
      end
      ml.spawn(function()
        for _ = 1, 20 do assert(b:write(b:read_line(TIMEOUT) .. " back\n", TIMEOUT)) end
      end)
      local began = ml.now()
      for i = 1, 20 do
        assert(a:write(i .. "\n", TIMEOUT))
        assert.equal(i .. " back", a:read_line(TIMEOUT))
      end
      done = true
      assert.is_true(ml.now() - began < 5)
    end)
  end)

  it("allows one read at a time and says so", function()
    ml.run(function()
      local a, b, _ <close> = pair()
      local reader = ml.spawn(function() return b:read() end)
      ml.checkpoint()
      h.misuse("another read", function() b:read() end)
      assert(a:write("x"))
      assert.equal("x", reader:result(TIMEOUT))
    end)
  end)

  it("ends the read that waits when another job closes it", function()
    ml.run(function()
      local a, b, _ <close> = pair()
      local reader = ml.spawn(function() return b:read() end)
      ml.checkpoint()
      b:close()
      b:close()
      local ok, none, err = reader:wait(TIMEOUT)
      assert.is_true(ok)
      assert.is_nil(none)
      assert.equal("closed", err.code)
      assert.equal("closed", code(b:write("x")))
      assert.equal("closed", code(b:read()))
      assert.truthy(tostring(b):find("closed"))
      assert.equal("closed", code(a:read(nil, TIMEOUT)))
    end)
  end)

  everywhere("gives an error, and no signal, when the peer is gone", function()
    local a, b, _ <close> = pair()
    b:close()
    assert.equal("closed", code(a:read(nil, TIMEOUT)))
    local failed = h.eventually(function()
      local ok, err = a:write("x", TIMEOUT)
      return not ok and err.code
    end)
    assert.truthy(failed == "EPIPE" or failed == "ECONNRESET")
  end)

  it("works by reference in another state", function()
    local a, b, _ <close> = pair()
    local reader = ml.run_async_job(function(sock, limit)
      local line = sock:read_line(limit)
      sock:write("got " .. line .. "\n")
      return sock
    end, b, TIMEOUT)
    assert(a:write("hello\n"))
    assert.equal("got hello", a:read_line(TIMEOUT))
    assert.equal(b, (reader:result(TIMEOUT)))
    local threads <close> = ml.ThreadExecutor{ workers = 1 }
    local blocking = threads:submit(function(sock, s) return sock:read_line(s) end, b, TIMEOUT)
    assert(a:write("world\n"))
    assert.equal("world", blocking:result(TIMEOUT))
  end)

  it("is closed when nobody holds it any more", function()
    local a <close> = (pair()) -- what closes both is dropped too
    h.collect()
    assert.equal("closed", code(a:read(nil, TIMEOUT)))
  end)

  it("shows its state", function()
    local a, b, _ <close>, port = pair()
    assert.equal(("tcp socket (127.0.0.1:%d)"):format(port), tostring(a))
    a:close()
    assert.equal("tcp socket (closed)", tostring(a))
    assert.is_true(b:nodelay(false))
  end)
end)

describe("connecting", function()
  everywhere("fails with the system's code", function()
    local server = assert(tcp.listen())
    local port = server.port
    server:close()
    h.eventually(function()
      local sock, err = tcp.connect("127.0.0.1", port, { timeout = TIMEOUT })
      if sock then sock:close() end
      return not sock and err.code == "ECONNREFUSED"
    end)
    local _, err = tcp.connect("127.0.0.1", port)
    assert.equal(("connect to 127.0.0.1:%d: connection refused"):format(port), err.message)
    assert.equal("ENOENT", code(tcp.connect { unix = "/nonexistent/socket" }))
    assert.equal("ENAMETOOLONG", code(tcp.connect { unix = ("x"):rep(200) }))
  end)

  everywhere("finds names and tries each address", function()
    local server <close> = assert(tcp.listen { port = 0 })
    local sock <close> = assert(tcp.connect("localhost", server.port, { timeout = TIMEOUT }))
    assert.equal("127.0.0.1", (sock:peer()))
  end)

  everywhere("fails for a name that does not exist", function()
    local sock, err = tcp.connect("no host has this name", 80, { timeout = TIMEOUT })
    assert.is_nil(sock)
    assert.truthy(err.code:find("^EAI_"))
  end)

  everywhere("keeps to its timeout", function()
    -- A full queue of connections: the system lets the next one wait.
    local server <close> = assert(tcp.listen { backlog = 1 })
    local held, err = {}, nil
    for _ = 1, 20 do
      local sock
      sock, err = tcp.connect("127.0.0.1", server.port, { timeout = 0.05 })
      if not sock then break end
      held[#held + 1] = sock
    end
    assert.equal("timeout", err.code)
    for _, sock in ipairs(held) do sock:close() end
  end)

  it("raises for misuse and names it", function()
    h.misuse("unknown option 'porrt'", function() tcp.connect { porrt = 1 } end)
    h.misuse("'port' must be of type integer", function() tcp.connect("localhost", "http") end)
    h.misuse("0 to 65535", function() tcp.connect("localhost", 70000) end)
    h.misuse("host and port", function() tcp.connect("localhost") end)
    -- Called last in a function, or by pcall: there is a line all the same.
    local _, tail = pcall(function() return tcp.connect("localhost") end)
    local _, called = pcall(tcp.connect, "localhost")
    assert.matches("^spec/tcp_spec.lua:%d+: connect: host and port expected", tail)
    assert.matches("^spec/tcp_spec.lua:%d+: connect: host and port expected", called)
    h.misuse("excludes", function() tcp.connect { unix = "/tmp/x", host = "h" } end)
    h.misuse("type number", function() tcp.connect("localhost", 80, { timeout = "1" }) end)
    h.misuse("unknown option 'maxx'", function()
      local a, b = pair()
      finally(function() a:close() b:close() end)
      a:read_until("x", { maxx = 1 })
    end)
  end)
end)

describe("a server", function()
  everywhere("accepts in the order of the connections", function()
    local server <close> = assert(tcp.listen())
    local ports, clients = {}, {}
    for i = 1, 5 do
      clients[i] = assert(tcp.connect("127.0.0.1", server.port))
      ports[i] = select(2, clients[i]:address())
    end
    for i = 1, 5 do
      local sock <close> = assert(server:accept(TIMEOUT))
      assert.equal(ports[i], select(2, sock:peer()))
      clients[i]:close()
    end
    assert.equal("timeout", code(server:accept(0.01)))
    assert.equal("timeout", code(server:accept(0)))
  end)

  it("loses no connection to an accept that is cancelled", function()
    ml.run(function()
      local server <close> = assert(tcp.listen())
      local acceptor = ml.spawn(function() return server:accept() end)
      ml.checkpoint()
      local _ <close> = assert(tcp.connect("127.0.0.1", server.port))
      acceptor:cancel()
      acceptor:wait(TIMEOUT)
      if acceptor:cancelled() then assert(server:accept(TIMEOUT)):close() end
    end)
  end)

  it("serves many connections at once until it is closed", function()
    ml.run(function()
      local server = assert(tcp.listen())
      local served = 0
      local acceptor = ml.spawn(function()
        for sock in server:accepted() do
          ml.spawn(function()
            local _ <close> = sock
            for line in sock:lines() do sock:write(line:upper() .. "\n") end
            served = served + 1
          end)
        end
        return "closed"
      end)
      local clients = {}
      for i = 1, 50 do
        clients[i] = ml.spawn(function()
          local sock <close> = assert(tcp.connect("localhost", server.port, { timeout = TIMEOUT }))
          for n = 1, 20 do
            sock:write(("line %d of %d\n"):format(n, i))
            assert.equal(("LINE %d OF %d"):format(n, i), sock:read_line(TIMEOUT))
          end
        end)
      end
      for i = 1, 50 do clients[i]:result(TIMEOUT) end
      h.eventually(function() return served == 50 end)
      server:close()
      assert.equal("closed", acceptor:result(TIMEOUT))
    end)
  end)

  everywhere("says when its address is taken", function()
    local server <close> = assert(tcp.listen())
    assert.equal(("tcp server (127.0.0.1:%d)"):format(server.port), tostring(server))
    local other, err = tcp.listen("127.0.0.1", server.port)
    assert.is_nil(other)
    assert.equal("EADDRINUSE", err.code)
    local expected = "listen on 127.0.0.1:%d: address already in use"
    assert.equal(expected:format(server.port), err.message)
  end)

  everywhere("listens on unix sockets and removes their file", function()
    local path = os.tmpname()
    os.remove(path)
    local server = assert(tcp.listen { unix = path })
    assert.equal(path, server:address())
    assert.is_nil(server.port)
    local client <close> = assert(tcp.connect { unix = path, timeout = TIMEOUT })
    local peer <close> = assert(server:accept(TIMEOUT))
    assert(client:write("over a file\n"))
    assert.equal("over a file", peer:read_line(TIMEOUT))
    assert.equal(path, client:peer())
    server:close()
    h.eventually(function() return not io.open(path) end)
  end)

  it("ends with its loop, and so does what waits there", function()
    local server
    local accepted = ml.run(function()
      server = assert(tcp.listen())
      return (ml.spawn(function() return server:accept() end))
    end)
    assert.is_true(accepted:done())
    assert.equal("closed", code(server:accept(TIMEOUT)))
  end)

  it("leaves no descriptor behind", function()
    ml.run(pair)
    h.collect() -- a handle keeps its loop, which has a descriptor
    local before = h.fds()
    for _ = 1, 20 do
      ml.run(function()
        local a, b = pair()
        a:write("x")
        b:read()
      end)
    end
    h.eventually(function()
      h.collect()
      return h.fds() <= before
    end)
  end)
end)
