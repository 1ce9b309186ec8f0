local ml = require "moonloop"
local http = require "moonloop.http"
local tcp = require "moonloop.tcp"
local nginx = require "spec.support.nginx"
local h = require "spec.support.helpers"

local MIB <const> = 1024 * 1024

-- An iterator over the texts of a list.
local function each(list)
  local i = 0
  return function()
    i = i + 1
    return list[i]
  end
end

describe("a body", function()
  local srv
  lazy_setup(function()
    srv = nginx.start {
      http2 = true,
      locations = [[location = /dripping { limit_rate 8k; rewrite ^ /files/10k break; }
        location = /keep {
          client_body_in_file_only on;
          add_header X-File $request_body_file;
          echo_read_request_body;
          echo kept;
        }]],
    }
  end)
  lazy_teardown(function() srv:stop() end)

  local function post(body, options)
    options = options or {}
    options.body, options.timeout = body, options.timeout or h.TIMEOUT
    return http.post(srv.url .. "/echo", options)
  end

  local function write(name, text)
    local path = srv.files .. "/" .. name
    local file <close> = assert(io.open(path, "wb"))
    file:write(text)
    return path
  end

  describe("that is generated", function()
    it("goes in chunks from an iterator, a coroutine and a generator", function()
      local function check(body)
        assert.equal("ab1c", assert(post(body)).body)
      end
      check(each { "a", "", "b", 1, "c" })
      check(coroutine.wrap(function()
        for _, text in ipairs { "a", "b1", "c" } do coroutine.yield(text) end
      end))
      check(ml.agen_to_gen(function()
        for _, text in ipairs { "a", "b1", "c" } do
          coroutine.yield(text)
          require "moonloop".sleep(0.001)
        end
      end))
      check(setmetatable({}, { __call = each { "ab", "1c" } }))
    end)

    it("may be empty", function()
      assert.equal("", assert(post(each {})).body)
    end)

    it("goes with a length where that is known", function()
      local res = assert(post(each { "abc", "de" }, { length = 5 }))
      assert.equal("abcde", res.body)
      assert.equal("5", res.headers["X-Content-Length"])
      res = assert(post(each { "abc" }, { headers = { ["Content-Length"] = 3 } }))
      assert.equal("3", res.headers["X-Content-Length"])
      h.misuse("the body is longer than its length says, by 1 bytes",
        function() post(each { "ab", "cd" }, { length = 3 }) end)
      h.misuse("the body is shorter than its length says, by 6 bytes",
        function() post(each { "ab", "cd" }, { length = 10 }) end)
      h.misuse("the header content%-length says 3, and the body has 2 bytes", function()
        post(each { "ab" }, { length = 2, headers = { ["Content-Length"] = "3" } })
      end)
      h.misuse("option 'length' is for a body that comes piece by piece",
        function() post("abc", { length = 3 }) end)
    end)

    it("goes out with every method, and the same in a job, a thread and a worker", function()
      local function send(url)
        local client = require "moonloop.http"
        local n = 0
        local res = assert(client.put(url, { timeout = 15, body = function()
          n = n + 1
          return n <= 100 and ("%05d"):format(n):rep(4000) or nil
        end }))
        return res.headers["X-Method"], #res.body, res.body:sub(-5)
      end
      local url = srv.url .. "/echo"
      local wanted = { "PUT", 2000000, "00100" }
      assert.same(wanted, { send(url) })
      assert.same(wanted, { ml.run(send, url) })
      assert.same(wanted, { ml.run_async_job(send, url):result(h.TIMEOUT) })
      assert.same(wanted, { ml.to_thread(send, url) })
    end)

    it("may wait between its pieces, and other jobs go on", function()
      ml.run(function()
        local gate = h.gate()
        local done = false
        local request = ml.spawn(function()
          local res = assert(post(coroutine.wrap(function()
            coroutine.yield "a"
            gate:pass()
            coroutine.yield "b"
          end)))
          done = true
          return res.body
        end)
        ml.sleep(0.05)
        assert.is_false(done)
        gate:open()
        assert.equal("ab", request:result(h.TIMEOUT))
      end)
    end)

    it("is held to what goes out: memory stays bounded", function()
      ml.run(function()
        local server <close> = assert(tcp.listen("127.0.0.1", 0))
        local sock, pulled = nil, 0
        ml.spawn(function()
          sock = assert(server:accept(h.TIMEOUT)) -- and reads nothing
        end)
        local piece = ("x"):rep(MIB)
        local request = ml.spawn(function()
          return http.put("http://127.0.0.1:" .. server.port, { body = function()
            pulled = pulled + 1
            return piece
          end })
        end)
        local before
        repeat
          before = pulled
          ml.sleep(0.1)
        until pulled == before and sock
        assert.is_true(pulled < 32, pulled)
        request:cancel_and_wait(h.TIMEOUT)
        sock:close()
      end)
    end)

    it("that fails raises its error from the call, and the connection is dropped", function()
      ml.run(function()
        local server <close> = assert(tcp.listen("127.0.0.1", 0))
        local there = h.gate()
        local seen = ml.spawn(function()
          local sock <close> = assert(server:accept(h.TIMEOUT))
          local head = sock:read_until("abc\r\n", { timeout = h.TIMEOUT, keep = true })
          there:open()
          return head, sock:read_all(MIB, h.TIMEOUT)
        end)
        local broken, pieces = {}, each { "abc" }
        local err = h.raised(http.post, "http://127.0.0.1:" .. server.port, {
          body = function() return pieces() or there:pass() or error(broken) end,
        })
        assert.equal(broken, err)
        local head, rest = seen:result(h.TIMEOUT)
        assert.matches("\r\n3\r\nabc\r\n$", head)
        assert.equal("", rest or "") -- no end of the body
        assert.equal("ok", assert(post "ok").body)
      end)
      h.misuse("option 'body': it must give strings, got table",
        function() post(function() return {} end) end)
    end)

    it("is closed with the request, if it is a generator", function()
      local closed = ml.promise()
      local function endless(ended)
        local _ <close> = setmetatable({}, { __close = function() ended:set_result(true) end })
        while true do coroutine.yield(("x"):rep(1000)) end
      end
      local res, err = http.post(srv.url .. "/slow-body", {
        body = ml.generator { endless, closed }, timeout = 0.3,
      })
      assert.is_true(res ~= nil or err.code == "timeout")
      assert.is_true(closed.future:result(h.TIMEOUT))
    end)

    it("ends early where the server has answered and does not want the rest", function()
      local small <close> = nginx.start { locations = "location = /small {"
        .. " client_max_body_size 1k; echo_read_request_body; echo_request_body; }" }
      for _ = 1, 20 do
        local n = 0
        local res = assert(http.post(small.url .. "/small", {
          timeout = h.TIMEOUT,
          length = 200 * MIB,
          body = function()
            n = n + 1
            return n <= 200 and ("x"):rep(MIB) or nil
          end,
        }))
        assert.equal(413, res.status)
        assert.is_true(n < 200)
      end
      assert.equal(300, #assert(http.get(small.url .. "/300b")).body)
    end)

    it("and what is echoed may stream at the same time", function()
      local sent, read = 0, 0
      ml.run(function()
        local server <close> = assert(tcp.listen("127.0.0.1", 0))
        ml.spawn(function()
          local sock <close> = assert(server:accept(h.TIMEOUT))
          sock:read_until("\r\n\r\n", { timeout = h.TIMEOUT })
          sock:write("HTTP/1.1 200 OK\r\nContent-Length: 8388608\r\n\r\n", h.TIMEOUT)
          local left = 8 * MIB
          while left > 0 do
            local data = assert(sock:read(nil, h.TIMEOUT))
            assert(sock:write(data, h.TIMEOUT))
            left = left - #data
          end
        end)
        local res <close> = assert(http.post("http://127.0.0.1:" .. server.port, {
          stream = true, timeout = h.TIMEOUT, length = 8 * MIB,
          body = function()
            if sent == 8 * MIB then return nil end
            sent = sent + 65536
            return ("x"):rep(65536)
          end,
        }))
        assert.is_true(sent < 8 * MIB)
        for chunk in res:chunks() do read = read + #chunk end
      end)
      assert.equal(8 * MIB, sent)
      assert.equal(8 * MIB, read)
    end)

    it("goes over HTTP/2, many at once, and waits there too", function()
      ml.run(function()
        local requests = {}
        for i = 1, 8 do
          requests[i] = ml.spawn(function()
            local n, sent = 0, {}
            local res = assert(http.post(srv.https_url .. "/keep", {
              http_version = "2", tls = { ca = srv.ca }, timeout = h.TIMEOUT,
              body = function()
                n = n + 1
                if n % 10 == i then ml.sleep(0.001) end
                sent[n] = n <= 50 and ("%04d"):format(n):rep(2500) or nil
                return sent[n]
              end,
            }))
            assert.equal("2", res.http_version)
            -- nginx's own echo of such a body leaves out a part of it.
            local file <close> = assert(io.open(res.headers["X-File"], "rb"))
            return file:read "a" == table.concat(sent)
          end)
        end
        for _, request in ipairs(requests) do
          assert.is_true(request:result(h.TIMEOUT))
        end
      end)
    end)

    it("cannot be sent again", function()
      ml.run(function()
        local server <close> = assert(tcp.listen("127.0.0.1", 0))
        ml.spawn(function()
          local sock <close> = assert(server:accept(h.TIMEOUT))
          sock:read_until("\r\n0\r\n\r\n", { timeout = h.TIMEOUT }) -- all of it has come
          sock:write("HTTP/1.1 307 Temporary Redirect\r\nLocation: /\r\n"
            .. "Content-Length: 0\r\n\r\n", h.TIMEOUT)
          sock:read(h.TIMEOUT)
        end)
        local res, err = http.post("http://127.0.0.1:" .. server.port,
          { body = each { "abc" }, timeout = h.TIMEOUT })
        assert.is_nil(res)
        assert.equal("body", err.code)
        assert.matches("would have to be sent once more", err.message)
      end)
    end)
  end)

  describe("from a file", function()
    it("goes with its length, and any method", function()
      local path = write("upload", ("0123456789abcdef"):rep(MIB // 4))
      for _, verb in ipairs { "post", "put" } do
        local res = assert(http[verb](srv.url .. "/echo",
          { body = { file = path }, timeout = h.TIMEOUT }))
        assert.equal(verb:upper(), res.headers["X-Method"])
        assert.equal(tostring(4 * MIB), res.headers["X-Content-Length"])
        assert.equal(4 * MIB, #res.body)
        assert.equal("0123456789abcdef", res.body:sub(-16))
      end
      assert.equal("", assert(post { file = write("empty", "") }).body)
    end)

    it("is sent again where a redirect wants that", function()
      local res = assert(http.post(srv.url .. "/redirect-307",
        { body = { file = write("again", "abc") }, timeout = h.TIMEOUT }))
      assert.equal("abc", res.body)
    end)

    it("that cannot be read is an error that names it", function()
      local function failing(path, code)
        local res, err = post { file = path }
        assert.is_nil(res)
        assert.equal(code, err.code)
        assert.matches(path, err.message, 1, true)
      end
      failing(srv.files .. "/none", "ENOENT")
      failing(srv.files, "EISDIR")
      failing("/dev/null", "ESPIPE")
      h.misuse("option 'body.file': string expected, got boolean",
        function() post { file = true } end)
      h.misuse("the path contains a nul byte", function() post { file = "a\0b" } end)
    end)

    it("that becomes shorter meanwhile is an error", function()
      local path = write("shrinks", ("x"):rep(MIB))
      local res, err = post({ file = path }, { on_progress = function() end })
      assert.is_truthy(res, tostring(err))
      ml.run(function()
        local server <close> = assert(tcp.listen("127.0.0.1", 0))
        ml.spawn(function()
          local sock <close> = assert(server:accept(h.TIMEOUT))
          sock:read_until("\r\n\r\n", { timeout = h.TIMEOUT })
          assert(io.open(path, "wb")):close()
          while sock:read(nil, h.TIMEOUT) do end -- luacheck: ignore
        end)
        write("shrinks", ("x"):rep(32 * MIB))
        res, err = http.put("http://127.0.0.1:" .. server.port,
          { body = { file = path }, timeout = h.TIMEOUT })
        assert.is_nil(res)
        assert.equal("file", err.code)
        assert.matches(path .. ": it became shorter", err.message, 1, true)
      end)
    end)
  end)

  describe("shows its progress", function()
    it("both ways", function()
      local seen = {}
      local res = assert(http.post(srv.url .. "/echo", {
        body = ("x"):rep(2 * MIB), timeout = h.TIMEOUT,
        on_progress = function(p)
          ml.sleep(0.001) -- it may wait
          seen[#seen + 1] = p
        end,
      }))
      assert.equal(2 * MIB, #res.body)
      local last = seen[#seen]
      assert.equal(2 * MIB, last.sent)
      assert.equal(2 * MIB, last.to_send)
      assert.is_true(last.received >= 2 * MIB)
      for i = 2, #seen do
        assert.is_true(seen[i].sent + seen[i].received > seen[i - 1].sent + seen[i - 1].received)
      end
    end)

    it("ten times a second at most, with what is known", function()
      local seen = {}
      local began = ml.now()
      assert(http.get(srv.url .. "/dripping", { timeout = h.TIMEOUT, on_progress = function(p)
        seen[#seen + 1] = p
      end }))
      assert.is_true(#seen >= 2 and #seen <= 2 + (ml.now() - began) * 10, #seen)
      assert.equal(10240, seen[1].to_receive)
      assert.is_true(seen[1].received < 10240)
      assert.equal(10240, seen[#seen].received)
      assert.is_nil(seen[1].to_send)
    end)

    it("until that raises, which ends the request", function()
      local err = h.raised(http.get, srv.url .. "/slow",
        { on_progress = function() error({ "enough" }) end })
      assert.same({ "enough" }, err)
      assert.equal(300, #assert(http.get(srv.url .. "/300b")).body)
    end)
  end)
end)
