local ml = require "moonloop"
local http = require "moonloop.http"
local tcp = require "moonloop.tcp"
local nginx = require "spec.support.nginx"
local h = require "spec.support.helpers"

-- The port of a server that answers one connection after the other with `reply`,
-- read by read, and then does what `after` says: "close", "hang" or "reset".
-- Runs in the loop of the calling job.
local function misbehaving(reply, after)
  local server = assert(tcp.listen("127.0.0.1", 0))
  ml.spawn(function()
    for sock in server:accepted() do
      ml.spawn(function()
        local _ <close> = sock
        sock:read_until("\r\n\r\n", { timeout = h.TIMEOUT })
        if reply then sock:write(reply, h.TIMEOUT) end
        if after == "hang" then sock:read(h.TIMEOUT) end
      end)
    end
  end)
  return "http://127.0.0.1:" .. server.port, server
end

describe("moonloop.http", function()
  local srv
  lazy_setup(function() srv = nginx.start{ http2 = true } end)
  lazy_teardown(function() srv:stop() end)

  describe("a response", function()
    it("has status, reason, headers, body, url, version and timings", function()
      local res = assert(http.get(srv.url .. "/300b", { timeout = h.TIMEOUT }))
      assert.equal(200, res.status)
      assert.is_true(res.ok)
      assert.equal("OK", res.reason)
      assert.equal(300, #res.body)
      assert.equal(srv.url .. "/300b", res.url)
      assert.equal("1.1", res.http_version)
      assert.equal("300", res.headers["Content-Length"])
      for _, phase in ipairs{ "resolve", "connect", "tls", "first_byte", "total" } do
        assert.equal("number", type(res.timings[phase]), phase)
      end
      assert.is_true(res.timings.total >= res.timings.first_byte and res.timings.first_byte > 0)
      assert.matches("^response: 200 OK: http://", tostring(res))
    end)

    it("keeps headers in order with their repeats, and finds them in any case", function()
      local headers = assert(http.get(srv.url .. "/cookies")).headers
      assert.equal("a=1", headers["set-cookie"])
      assert.equal("a=1", headers:get("SET-COOKIE"))
      assert.same({ "a=1", "b=2", "c=3" }, headers:all("Set-Cookie"))
      assert.same({}, headers:all("X-None"))
      assert.is_nil(headers:get("X-None"))
      assert.is_nil(headers["X-None"])
      local seen = {}
      for name, value in headers:pairs() do
        if name == "Set-Cookie" then seen[#seen + 1] = value end
      end
      assert.same({ "a=1", "b=2", "c=3" }, seen)
      local n = 0
      for _ in pairs(headers) do n = n + 1 end
      assert.is_true(n > 3)
      assert.matches("^HTTP/1.1 200 OK\r\n", tostring(headers))
    end)

    it("of any status is no error, unless asked", function()
      for _, status in ipairs{ 201, 204, 404, 418, 500, 503 } do
        local res = assert(http.get(srv.url .. "/status/" .. status))
        assert.equal(status, res.status)
        assert.equal(status < 400, res.ok)
        if res.ok then
          assert.equal(res, res:raise_for_status())
        else
          local err = h.raised(res.raise_for_status, res)
          assert.equal("status", err.code)
          assert.equal(status, err.status)
          assert.equal(res, err.response)
          assert.matches("^" .. status .. " ", tostring(err))
        end
      end
    end)

    it("is decoded from gzip, or left as it is", function()
      local plain = assert(http.get(srv.url .. "/10k"))
      local res = assert(http.get(srv.url .. "/gzip"))
      assert.equal("gzip", res.headers["Content-Encoding"])
      assert.equal(plain.body, res.body)
      res = assert(http.get(srv.url .. "/gzip", { compressed = false }))
      assert.is_nil(res.headers["Content-Encoding"])
      assert.equal(plain.body, res.body)
    end)

    it("crosses states as data", function()
      local res = ml.run_async_job(http.get, srv.url .. "/cookies"):result(h.TIMEOUT)
      assert.equal(200, res.status)
      assert.same({ "a=1", "b=2", "c=3" }, res.headers:all("set-cookie"))
      assert.equal(res, res:raise_for_status())
    end)

    it("reads JSON, and says when it is none", function()
      ml.run(function()
        local url, server =
          misbehaving('HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"a":[1,2,3]}')
        assert.same({ a = { 1, 2, 3 } }, assert(http.get(url)):json())
        server:close()
        local value, err = assert(http.get(srv.url .. "/300b")):json()
        assert.is_nil(value)
        assert.equal("json", err.code)
      end)
    end)
  end)

  describe("a request", function()
    local function echo(verb, options)
      return assert(http[verb](srv.url .. "/echo", options))
    end

    it("goes out with the method that is asked for", function()
      for _, verb in ipairs{ "get", "post", "put", "patch", "delete", "options" } do
        assert.equal(verb:upper(), echo(verb).headers["X-Method"])
      end
      assert.equal("", assert(http.head(srv.url .. "/300b")).body)
      local res = assert(http.request{ url = srv.url .. "/echo", method = "purge" })
      assert.equal("PURGE", res.headers["X-Method"])
      assert.equal("GET", assert(http.request{ url = srv.url .. "/echo" }).headers["X-Method"])
      assert.equal("PUT",
        assert(http.request(srv.url .. "/echo", { method = "PUT" })).headers["X-Method"])
    end)

    it("carries a body, NULs and all", function()
      local body = ("\0\1\2\255 x\r\n"):rep(10000)
      for _, verb in ipairs{ "post", "put", "patch", "delete" } do
        local res = echo(verb, { body = body, headers = { ["Content-Type"] = "x/y" } })
        assert.is_true(res.body == body)
        assert.equal("x/y", res.headers["X-Content-Type"])
      end
      assert.equal("", echo("post", { body = "" }).body)
    end)

    it("carries JSON", function()
      local res = echo("post", { json = { a = { 1, 2 }, b = "x" } })
      assert.equal("application/json", res.headers["X-Content-Type"])
      assert.same({ a = { 1, 2 }, b = "x" }, res:json())
      res = echo("post", { json = false, headers = { ["content-type"] = "application/x+json" } })
      assert.equal("false", res.body)
      assert.equal("application/x+json", res.headers["X-Content-Type"])
    end)

    it("carries headers, lists of them, and a query", function()
      local res = assert(http.get(srv.url .. "/headers", { headers = {
        ["X-Text"] = "some text", ["X-Number"] = 42, ["X-List"] = { "a", 2 }, ["X-Empty"] = "",
      } }))
      assert.matches("\r\nX%-Text: some text\r\n", res.body)
      assert.matches("\r\nX%-Number: 42\r\n", res.body)
      assert.matches("\r\nX%-List: a\r\nX%-List: 2\r\n", res.body)
      assert.matches("\r\nX%-Empty:%s*\r\n", res.body)
      assert.matches("\r\nUser%-Agent: moonloop/", res.body)
      assert.is_nil(res.body:find("\r\nAccept:", 1, true))

      local query = { q = "a b&c=d/ü", tag = { "x", "y" }, n = 1.5, flag = true, none = {} }
      local function uri(path)
        return assert(http.get(srv.url .. path, { query = query })).headers["X-Uri"]
      end
      local wanted = "flag=true&n=1.5&q=a%20b%26c%3Dd%2F%C3%BC&tag=x&tag=y"
      assert.equal("/echo?" .. wanted, uri "/echo")
      assert.equal("/echo?z=1&" .. wanted, uri "/echo?z=1")
      assert.equal("/echo?" .. wanted, uri "/echo#part")
      assert.equal("/echo", assert(http.get(srv.url .. "/echo", { query = {} })).headers["X-Uri"])
    end)

    it("lists the responses on the way, whatever was asked for before", function()
      local function way(n)
        local urls = {}
        for i, hop in ipairs(assert(http.get(srv.url .. "/redirect/" .. n)).redirects) do
          assert.equal(302, hop.status)
          urls[i] = hop.url:sub(#srv.url + 1)
        end
        return urls
      end
      assert.same({ "/redirect/2", "/redirect/1" }, way(2))
      assert(http.get(srv.url .. "/300b"))
      assert.same({ "/redirect/2", "/redirect/1" }, way(2))
      local _, err = http.get(srv.url .. "/delay/1/300b", { timeout = 0.05 })
      assert.equal("timeout", err.code)
      assert.same({ "/redirect/3", "/redirect/2", "/redirect/1" }, way(3))
    end)

    it("follows redirects as it should, and only so many", function()
      local res = assert(http.get(srv.url .. "/redirect/5"))
      assert.equal(200, res.status)
      assert.matches("/redirect/0$", res.url)
      assert.equal(302, assert(http.get(srv.url .. "/redirect/5", { follow = false })).status)
      assert.equal("redirects", select(2, http.get(srv.url .. "/redirect-loop")).code)
      assert.equal("redirects",
        select(2, http.get(srv.url .. "/redirect/5", { max_redirects = 4 })).code)
      assert.equal(200, assert(http.get(srv.url .. "/redirect/20", { max_redirects = 20 })).status)
      for path, method in pairs{ ["303"] = "GET", ["307"] = "POST", ["308"] = "POST" } do
        res = assert(http.post(srv.url .. "/redirect-" .. path, { body = "kept" }))
        assert.equal(method, res.headers["X-Method"])
        assert.equal(method == "POST" and "kept" or "", res.body)
      end
      res = assert(http.put(srv.url .. "/redirect-303", { body = "dropped" }))
      assert.equal("GET", res.headers["X-Method"])
    end)

    it("takes no more of a body than max_body", function()
      local res, err = http.get(srv.url .. "/10k", { max_body = 10239 })
      assert.is_nil(res)
      assert.equal("too_large", err.code)
      assert.equal(10240, #assert(http.get(srv.url .. "/10k", { max_body = 10240 })).body)
      assert.equal("too_large", select(2, http.get(srv.url .. "/gzip", { max_body = 5000 })).code)
    end)
  end)

  describe("TLS", function()
    it("speaks HTTP/2, and 1.1 if told to", function()
      local tls = { ca = srv.ca }
      local res = assert(http.get(srv.https_url .. "/10k", { tls = tls }))
      assert.equal("2", res.http_version)
      assert.equal("", res.reason)
      assert.equal(10240, #res.body)
      res = assert(http.get(srv.https_url .. "/10k", { tls = tls, http_version = "1.1" }))
      assert.equal("1.1", res.http_version)
    end)

    it("serves burst after burst on the connection that stands", function()
      ml.run(function()
        for _ = 1, 3 do
          local futures = {}
          for i = 1, 30 do
            futures[i] = ml.spawn(http.get, srv.https_url .. "/10k", { tls = { ca = srv.ca } })
          end
          for i = 1, 30 do
            assert.equal(10240, #assert(futures[i]:result(h.TIMEOUT)).body)
          end
        end
      end)
    end)

    it("verifies the server, each request by its own rules", function()
      for _ = 1, 2 do
        assert(http.get(srv.https_url .. "/300b", { tls = { ca = srv.ca } }))
        assert(http.get(srv.https_url .. "/300b", { tls = { verify = false } }))
        local res, err = http.get(srv.https_url .. "/300b")
        assert.is_nil(res)
        assert.equal("tls", err.code)
        assert.matches("certificate", err.message)
      end
      assert.equal("ENOENT",
        select(2, http.get(srv.https_url .. "/300b", { tls = { ca = "/none/such.pem" } })).code)
    end)

    it("trusts what SSL_CERT_FILE names, and multiplexes many at once on one connection", function()
      local out, code = h.run_script([[
        local ml, http = require "moonloop", require "moonloop.http"
        local function connections() -- to the server's port, of anybody
          local n, port = 0, ("%04X"):format(arg[1]:match ":(%d+)/")
          for line in io.lines "/proc/net/tcp" do
            if line:match "^%s*%d+: %x+:%x+ %x+:(%x+) 01 " == port then n = n + 1 end
          end
          return n
        end
        ml.run(function()
          local before = connections()
          local futures = {}
          for i = 1, 100 do futures[i] = ml.spawn(http.get, arg[1]) end
          for i = 1, 100 do
            local res, err = futures[i]:result()
            if not res then print(err.message) os.exit(1) end
            assert(res.http_version == "2" and #res.body == 10240)
          end
          print(connections() - before)
        end)]], { srv.https_url .. "/10k", env = { SSL_CERT_FILE = srv.ca } })
      assert.equal(0, code, out)
      -- Where the handshakes take long, libcurl makes some more, up to the limit of a host.
      local most = h.checking() and 8 or 1
      assert.is_true(tonumber(out) >= 1 and tonumber(out) <= most, out)
    end)
  end)

  describe("an error", function()
    it("has a code, a message that names the URL but no secret, and timings", function()
      local res, err = http.get("http://me:secret@127.0.0.1:1/path?token=abc")
      assert.is_nil(res)
      assert.equal("refused", err.code)
      assert.equal("GET http://127.0.0.1:1/path: connection refused", err.message)
      assert.equal(err.message, tostring(err))
      assert.equal("string", type(err.detail))
      assert.equal("number", type(err.timings.total))
    end)

    it("says what is wrong with a URL", function()
      for _, url in ipairs{ "", "example.com", "ftp://127.0.0.1/", "file:///etc/passwd", "http://",
                            "http://127.0.0.1:port/", "http://a b/" } do
        local res, err = http.get(url)
        assert.is_nil(res, url)
        assert.equal("url", err.code, url)
      end
    end)

    it("tells an unknown host", function()
      assert.equal("resolve", select(2, http.get("http://moonloop.invalid/")).code)
    end)

    it("tells a server that misbehaves", function()
      ml.run(function()
        for _, case in ipairs{
          { "closed", nil },
          { "closed", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this" },
          { "closed", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel" },
          { "protocol", "SMTP at your service\r\n\r\n" },
          { "protocol", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n" },
          { "protocol",
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello" },
          { "too_large",
            "HTTP/1.1 200 OK\r\n" .. ("X-More: " .. ("x"):rep(1000) .. "\r\n"):rep(300) },
        } do
          local url, server = misbehaving(case[2])
          local res, err = http.get(url, { timeout = h.TIMEOUT })
          assert.is_nil(res)
          assert.equal(case[1], err.code, err.message)
          server:close()
        end
      end)
    end)

    it("comes in time when the server does not", function()
      ml.run(function()
        for _, reply in ipairs{ "", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this" } do
          local url, server = misbehaving(reply ~= "" and reply or nil, "hang")
          local start = ml.now()
          local res, err = http.get(url, { timeout = 0.1 })
          assert.is_nil(res)
          assert.equal("timeout", err.code)
          assert.is_true(ml.is_timeout(err))
          assert.matches("timed out after", err.message)
          local took = ml.now() - start
          assert.is_true(took >= 0.1 and took < 1, took)
          server:close()
        end
      end)
      assert.equal("timeout", select(2, http.get(srv.url .. "/300b", { timeout = 0 })).code)
    end)
  end)

  describe("misuse raises at the caller's line:", function()
    local function misuse(pattern, ...)
      local args = table.pack(...)
      return h.misuse(pattern, function()
        local res = http.request(table.unpack(args, 1, args.n))
        return res
      end)
    end
    local url = "http://127.0.0.1:1/"

    it("an option that is unknown, with the nearest that is known", function()
      misuse("unknown option 'folow': the nearest is 'follow'", url, { folow = true })
      misuse("unknown option 'tls.verfy': the nearest is 'tls.verify'", url,
        { tls = { verfy = true } })
      misuse("name of an option must be a string, got number", url, { "x" })
    end)

    it("a wrong type or value", function()
      misuse("bad argument #1 to 'request' %(string expected, got nil%)", nil)
      misuse("bad argument #2 to 'request' %(table expected, got string%)", url, "x")
      misuse("option 'url' is missing", { method = "GET" })
      misuse("option 'url': string expected, got number", { url = 1 })
      misuse("option 'timeout': number of seconds expected, got string", url, { timeout = "1" })
      misuse("option 'timeout': .*negative", url, { timeout = -1 })
      misuse("option 'timeout': .*nan", url, { timeout = 0 / 0 })
      misuse("option 'connect_timeout'", url, { connect_timeout = {} })
      misuse("option 'body.file': string expected, got nil", url, { body = {} })
      misuse("option 'body': string, function, generator or { file = path } expected, got number",
        url, { body = 1 })
      misuse("option 'follow': boolean expected, got number", url, { follow = 0 })
      misuse("option 'max_body': an integer", url, { max_body = 1.5 })
      misuse("option 'max_redirects': an integer", url, { max_redirects = -1 })
      misuse("option 'http_version': '1.1', '2'", url, { http_version = "3.14" })
      misuse("option 'method': 'a b' is no method", url, { method = "a b" })
      misuse("option 'tls': table expected", url, { tls = true })
      misuse("option 'query': 'q' must be", url, { query = { q = print } })
      misuse("option 'query': a name must be a string", url, { query = { "x" } })
      misuse("options 'body', 'form', 'json' and 'multipart' exclude each other", url,
        { body = "", json = {} })
      misuse("option 'json': .*function", url, { json = { f = print } })
      misuse("nul byte", "http://a\0b/")
      h.misuse("option 'method' is for http.request", function()
        local res = http.get(url, { method = "POST" })
        return res
      end)
    end)

    it("a header that would make two", function()
      misuse("value of 'x%-a' contains a line break", url,
        { headers = { ["X-A"] = "a\r\nX-B: b" } })
      misuse("value of 'x%-a' contains a line break", url,
        { headers = { ["X-A"] = { "a", "b\n" } } })
      misuse("'x%-a: b' is no name of a header", url, { headers = { ["X-A: b"] = "c" } })
      misuse("'x%-a' must be a string, a number or a list", url, { headers = { ["X-A"] = true } })
      misuse("name of a header must be a string", url, { headers = { "X-A: b" } })
    end)
  end)

  describe("has no colour:", function()
    -- The same line everywhere; it must load where there is no busted.
    local function fetch(url)
      local res = assert(require "moonloop.http".get(url, { timeout = 15 }))
      return res.status, #res.body, require "moonloop".in_job()
    end

    it("a job of the default executor", function()
      local future = ml.run_async_job(fetch, srv.url .. "/300b")
      assert.same({ 200, 300, true }, { future:result(h.TIMEOUT) })
    end)

    it("a job of a loop on this thread", function()
      assert.same({ 200, 300, true }, { ml.run(function() return fetch(srv.url .. "/300b") end) })
    end)

    it("this thread", function()
      assert.same({ 200, 300, false }, { fetch(srv.url .. "/300b") })
    end)

    it("worker threads, many at once", function()
      local pool <close> = ml.ThreadExecutor{ workers = 4 }
      local futures = {}
      for i = 1, 40 do futures[i] = pool:submit(fetch, srv.url .. "/300b") end
      for i = 1, 40 do
        assert.same({ 200, 300, false }, { futures[i]:result(h.TIMEOUT) })
      end
    end)

    it("a coroutine of the user's, under pcall, in a job", function()
      local url = srv.url .. "/300b"
      local got = ml.run(function()
        local co = coroutine.wrap(function()
          for _ = 1, 3 do
            local ok, res = pcall(http.get, url)
            coroutine.yield(ok and res.status)
          end
        end)
        return { co(), co(), co() }
      end)
      assert.same({ 200, 200, 200 }, got)
    end)
  end)

  describe("connections", function()
    -- How many sockets this process has open.
    local function sockets()
      local pipe <close> = io.popen "ls -l /proc/$PPID/fd 2>/dev/null | grep -c socket:"
      return tonumber(pipe:read "a")
    end

    it("are used again", function()
      ml.run(function()
        http.get(srv.url .. "/300b")
        local before = sockets()
        for _ = 1, 50 do assert(http.get(srv.url .. "/300b")) end
        assert.equal(before, sockets())
      end)
    end)

    it("serve more requests at once than there may be connections", function()
      ml.run(function()
        local futures = {}
        for i = 1, 1000 do futures[i] = ml.spawn(http.get, srv.url .. "/300b") end
        for i = 1, 1000 do
          assert.equal(300, #assert(futures[i]:result(h.TIMEOUT)).body)
        end
      end)
    end)

    it("are waited for no longer than the timeout", function()
      ml.run(function()
        local options = { tls = { ca = srv.ca }, http_version = "1.1", timeout = 0.3 }
        local futures, start = {}, ml.now()
        for i = 1, 20 do
          futures[i] = ml.spawn(http.get, srv.https_url .. "/delay/1/files/300b", options)
        end
        for i = 1, 20 do
          assert.equal("timeout", select(2, futures[i]:result(h.TIMEOUT)).code)
        end
        assert.is_true(ml.now() - start < 3) -- one after another: 6
      end)
    end)

    it("close when a job is cancelled, in whatever phase it is", function()
      ml.run(function()
        assert(http.get(srv.url .. "/300b")) -- what the loop has for either kind is open now
        assert(http.get(srv.https_url .. "/300b", { tls = { ca = srv.ca } }))
        local hang = misbehaving(nil, "hang")
        local stuck = misbehaving("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly", "hang")
        local before = sockets()
        for _, url in ipairs{ hang, stuck, "http://moonloop.invalid/", "http://127.0.0.1:1/",
                              srv.https_url .. "/slow" } do
          for _, wait in ipairs{ 0, 0.03 } do
            local job = ml.spawn(http.get, url, { tls = { verify = false }, http_version = "1.1" })
            ml.sleep(wait)
            local asked = ml.now()
            job:cancel()
            job:wait(h.TIMEOUT)
            assert.is_true(ml.now() - asked < 0.1)
            if url == hang or url == stuck then assert.is_true(job:cancelled(), url) end
          end
        end
        h.eventually(function() return sockets() <= before end, "the sockets' closing")
        assert.equal(200, assert(http.get(srv.url .. "/300b")).status)
      end)
    end)

    it("and requests in flight end with their loop", function()
      h.collect()
      local files = h.fds()
      for _ = 1, 5 do
        ml.run(function()
          for _ = 1, 5 do ml.spawn(http.get, srv.url .. "/delay/10/300b") end
          assert(http.get(srv.url .. "/300b"))
        end)
      end
      h.collect() -- what a cancelled job held of its loop
      h.eventually(function() return h.fds() <= files end, "the descriptors' closing")
    end)
  end)
end)
