-- The options of a request, against servers and proxies that others wrote.

local http = require "moonloop.http"
local ml = require "moonloop"
local h = require "spec.support.helpers"
local httpbin = require "spec.support.httpbin"
local misbehave = require "spec.support.misbehave"
local nginx = require "spec.support.nginx"
local proxy = require "spec.support.proxy"
local socks = require "spec.support.socks"
local tls_front = require "spec.support.tls_front"

describe("options of a request:", function()
  local srv, bin
  lazy_setup(function()
    srv = nginx.start { client_cert = true, http2 = true }
    bin = httpbin.start()
  end)
  lazy_teardown(function()
    srv:stop()
    bin:stop()
  end)

  local function get(url, options)
    options = options or {}
    options.timeout = options.timeout or h.TIMEOUT
    return http.get(url, options)
  end
  local function code(url, options)
    local res, err = get(url, options)
    assert.is_nil(res)
    return err.code, err.message
  end

  describe("form", function()
    it("is sent as a browser sends it", function()
      local res = assert(http.post(bin.url .. "/post", {
        form = { name = "Müller & Söhne", n = 42, tag = { "a", "b" }, flag = true, empty = "" },
        timeout = h.TIMEOUT,
      })):json()
      assert.same({ name = "Müller & Söhne", n = "42", tag = { "a", "b" }, flag = "true",
                    empty = "" }, res.form)
      assert.equal("application/x-www-form-urlencoded", res.headers["Content-Type"])
    end)

    it("may be empty, or of another type", function()
      local res = assert(http.post(srv.url .. "/echo", { form = {} }))
      assert.equal("", res.body)
      res = assert(http.post(srv.url .. "/echo",
        { form = { b = "1", a = "2" }, headers = { ["Content-Type"] = "x/y" } }))
      assert.equal("a=2&b=1", res.body)
      assert.equal("x/y", res.headers["X-Content-Type"])
    end)
  end)

  describe("auth", function()
    it("is Basic by user and password", function()
      local res = assert(get(bin.url .. "/basic-auth/me/s:cret", { auth = { "me", "s:cret" } }))
      assert.equal(200, res.status)
      assert.equal(401, get(bin.url .. "/basic-auth/me/secret", { auth = { "me", "x" } }).status)
      assert.equal("hello me\n", get(srv.url .. "/basic", { auth = { "me", "secret" } }).body)
    end)

    it("is Digest if asked for, also for a POST with a body", function()
      local options = { auth = { "me", "secret", type = "digest" }, timeout = h.TIMEOUT }
      local res = assert(get(bin.url .. "/digest-auth/auth/me/secret", options))
      assert.equal(200, res.status)
      assert.is_true(res:json().authenticated)
      options.auth[2] = "wrong"
      assert.equal(401, get(bin.url .. "/digest-auth/auth/me/secret", options).status)
    end)

    it("is a token", function()
      local res = assert(get(bin.url .. "/bearer", { auth = { bearer = "to.ken" } }))
      assert.equal("to.ken", res:json().token)
    end)

    it("is looked up in a netrc file", function()
      local path = srv.dir .. "/netrc"
      local file <close> = assert(io.open(path, "w"))
      file:write "machine 127.0.0.1 login me password secret\n"
      file:flush()
      assert.equal(200, get(srv.url .. "/basic", { auth = { netrc = path } }).status)
      assert.equal(401, get(srv.url .. "/basic").status)
      local url = srv.url:gsub("//", "//me:other@")
      assert.equal(401, get(url .. "/basic", { auth = { netrc = path } }).status)
      assert.equal("ENOENT", code(srv.url .. "/basic", { auth = { netrc = "/none/netrc" } }))
    end)

    it("stays with the host that it is for", function()
      local other = srv.url:gsub("127.0.0.1", "localhost")
      for _, auth in ipairs { { "me", "secret" }, { bearer = "secret" } } do
        local res = assert(get(bin.url .. "/redirect-to",
          { auth = auth, query = { url = other .. "/echo" } }))
        assert.equal(200, res.status)
        assert.is_nil(res.headers["X-Authorization"])
        assert.equal("GET", res.headers["X-Method"])
      end
    end)
  end)

  describe("proxy", function()
    it("speaks HTTP, and CONNECT for TLS", function()
      local via <close> = proxy.start()
      assert.equal(300, #get(srv.url .. "/300b", { proxy = via.url }).body)
      local tls = { ca = srv.ca }
      assert.equal(300, #get(srv.https_url .. "/300b", { proxy = via.url, tls = tls }).body)
      assert.same({ "GET " .. srv.url .. "/300b", "CONNECT " .. srv.https_url:sub(9) },
        via:requests())
    end)

    it("takes a user and a password, and says when they are wrong", function()
      local via <close> = proxy.start { user = "me", password = "secret" }
      local options = { url = via.url, user = "me", password = "secret" }
      assert.equal(200, get(srv.url .. "/300b", { proxy = options }).status)
      assert.equal(200, get(srv.url .. "/300b", { proxy = via.auth_url }).status)
      assert.not_equal(200, get(srv.url .. "/300b", { proxy = via.url }).status)
      local tls = { ca = srv.ca }
      assert.equal(200, get(srv.https_url .. "/300b", { proxy = options, tls = tls }).status)
      options.password = "wrong"
      local what, message = code(srv.https_url .. "/300b", { proxy = options, tls = tls })
      assert.equal("proxy", what)
      assert.matches("40[17]", message)
    end)

    it("is SOCKS, with names looked up here or there", function()
      local via <close> = socks.start()
      local both <close> = nginx.start{ ipv6 = true } -- the proxy takes either for localhost
      local at = both.url:gsub("127.0.0.1", "localhost")
      assert.equal(200, get(both.url .. "/300b", { proxy = via.url }).status)
      assert.equal(200, get(at .. "/300b", { proxy = via.remote_url }).status)
      local seen = via:requests()
      assert.equal(2, #seen)
      assert.equal("localhost:" .. both.port, seen[2])
      assert.equal(200,
        get(srv.https_url .. "/300b", { proxy = via.url, tls = { ca = srv.ca } }).status)
      assert.equal("proxy", (code("http://127.0.0.1:1/", { proxy = via.url })))
    end)

    it("is SOCKS with a password", function()
      local via <close> = socks.start { user = "me", password = "secret" }
      assert.equal(200, get(srv.url .. "/300b", { proxy = via.auth_url }).status)
      assert.equal(200, get(srv.url .. "/300b",
        { proxy = { url = via.url, user = "me", password = "secret" } }).status)
      local what, message = code(srv.url .. "/300b",
        { proxy = { url = via.url, user = "me", password = "wrong-secret" } })
      assert.equal("proxy", what)
      assert.is_nil(message:find("secret", 1, true))
    end)

    it("is spoken to with TLS, trusted by rules of its own", function()
      local via <close> = proxy.start { user = "me", password = "secret" }
      local front <close> = tls_front.start(via.port)
      local function through(url, trust, tls)
        return get(url .. "/300b", { tls = tls, proxy = {
          url = front.url, user = "me", password = "secret", tls = trust,
        } })
      end
      local ours = { ca = srv.ca }
      assert.equal(200, assert(through(srv.url, { ca = front.ca })).status)
      assert.equal(200, assert(through(srv.url, { verify = false })).status)
      assert.equal(200, assert(through(srv.https_url, { ca = front.ca }, ours)).status)
      local res, err = through(srv.url)
      assert.is_nil(res)
      assert.equal("proxy", err.code)
      -- What is trusted of the one is not of the other.
      res, err = through(srv.https_url, { ca = front.ca })
      assert.is_nil(res)
      assert.equal("tls", err.code)
      res, err = through(srv.https_url, nil, ours)
      assert.is_nil(res)
      assert.equal("proxy", err.code)
    end)

    it("is passed by for the hosts that no_proxy names", function()
      local dead = "http://127.0.0.1:1"
      for _, hosts in ipairs { "127.0.0.1", "example.com, 127.0.0.1", { "x", "127.0.0.1" }, "*" } do
        local options = { proxy = { url = dead, no_proxy = hosts } }
        assert.equal(200, assert(get(srv.url .. "/300b", options)).status)
      end
      for _, url in ipairs { dead, "socks5://127.0.0.1:1", "http://moonloop.invalid:80" } do
        assert.equal("proxy", (code(srv.url .. "/300b", { proxy = url })), url)
      end
    end)

    it("comes from the environment unless told otherwise", function()
      local out, status = h.run_script([[
        local http = require "moonloop.http"
        local url = ...
        print(select(2, http.get(url)).code)
        print(http.get(url, { proxy = false }).status)
        print(http.get(url, { proxy = { no_proxy = "127.0.0.1" } }).status)
      ]], { srv.url .. "/300b", env = { http_proxy = "http://me:secret@127.0.0.1:1" } })
      assert.equal(0, status, out)
      assert.equal("proxy\n200\n200\n", out)
    end)
  end)

  describe("tls", function()
    local trusted
    before_each(function() trusted = { ca = srv.ca } end)

    it("shows a certificate", function()
      assert.equal(403, get(srv.https_url .. "/client-cert", { tls = trusted }).status)
      trusted.cert, trusted.key = srv.cert, srv.key
      assert.equal("CN=client\n", get(srv.https_url .. "/client-cert", { tls = trusted }).body)
      trusted.key, trusted.key_password = srv.locked_key, "secret"
      assert.equal(200, get(srv.https_url .. "/client-cert", { tls = trusted }).status)
      -- Connections of the one are not used for the other.
      assert.equal(403, get(srv.https_url .. "/client-cert", { tls = { ca = srv.ca } }).status)
    end)

    it("says what is wrong with a key, but not its password", function()
      -- A path of its own: what tells connections apart is the certificate's.
      assert(os.execute(("cp %s %s.copy"):format(srv.cert, srv.cert)))
      trusted.cert = srv.cert .. ".copy"
      trusted.key, trusted.key_password = srv.locked_key, "sesame"
      local what, message = code(srv.https_url .. "/client-cert", { tls = trusted })
      assert.equal("tls", what)
      assert.is_nil(message:find("sesame", 1, true))
      for _, name in ipairs { "ca", "cert", "key" } do
        local tls = { cert = srv.cert, key = srv.key, ca = srv.ca }
        tls[name] = "/none/such.pem"
        what, message = code(srv.https_url .. "/300b", { tls = tls })
        assert.equal("ENOENT", what)
        assert.matches("option 'tls%." .. name .. "': /none/such%.pem", message)
      end
      assert.equal("tls", (code(srv.https_url .. "/300b", { tls = { ca = srv.key } })))
    end)

    it("trusts a directory of certificates", function()
      local dir = srv.dir .. "/hashed"
      assert(os.execute(("mkdir -p %s && cp %s %s && openssl rehash %s"):format(dir, srv.ca, dir,
        dir)))
      assert.equal(200, get(srv.https_url .. "/300b", { tls = { ca = dir } }).status)
    end)

    it("knows the server by its key", function()
      trusted.pinned = srv:pin()
      assert.equal(200, get(srv.https_url .. "/300b", { tls = trusted }).status)
      local wrong = "sha256//" .. ("A"):rep(43) .. "="
      trusted.pinned = wrong
      assert.equal("tls", (code(srv.https_url .. "/300b", { tls = trusted })))
      trusted.pinned = wrong .. ";" .. srv:pin()
      assert.equal(200, get(srv.https_url .. "/300b", { tls = trusted }).status)
    end)

    it("asks for no less than a version", function()
      local old <close> = nginx.start { tls = true, protocols = "TLSv1.2" }
      trusted = { ca = old.ca, min_version = "1.2" }
      assert.equal(200, get(old.https_url .. "/300b", { tls = trusted }).status)
      trusted.min_version = "1.3"
      local what, message = code(old.https_url .. "/300b", { tls = trusted })
      assert.equal("tls", what)
      assert.matches("TLS handshake", message)
    end)
  end)

  describe("the way to the server", function()
    it("is an address of your own, for this request only", function()
      local name = "http://moonloop.invalid:" .. srv.port
      for _, key in ipairs { "moonloop.invalid:" .. srv.port, "*:" .. srv.port,
                             "moonloop.invalid:*", "*:*" } do
        local res = assert(get(name .. "/headers", { resolve = { [key] = "127.0.0.1" } }))
        assert.matches("\r\nHost: moonloop%.invalid:", res.body)
      end
      assert.equal("resolve", (code(name .. "/300b")))
      -- The first name that fits counts, not the wildcard.
      local res = assert(get(name .. "/300b", { resolve = {
        ["*:*"] = "127.0.0.9", ["moonloop.invalid:" .. srv.port] = "127.0.0.1",
      } }))
      assert.equal(200, res.status)
      assert.equal("refused", (code(name .. "/300b", { resolve = { ["*:*"] = "::1" } })))
    end)

    it("is checked against the name, not the address, with TLS", function()
      local at = "https://localhost:" .. srv.https_port
      assert.equal(200, get(at .. "/300b",
        { resolve = { ["localhost:*"] = "127.0.0.1" }, tls = { ca = srv.ca } }).status)
      assert.equal("tls", (code("https://moonloop.invalid:" .. srv.https_port .. "/300b",
        { resolve = { ["*:*"] = "127.0.0.1" }, tls = { ca = srv.ca } })))
    end)

    it("begins at an interface", function()
      for _, from in ipairs { "lo", "127.0.0.2", "host!127.0.0.3" } do
        assert.equal(200, get(srv.url .. "/300b", { interface = from }).status)
      end
      assert.equal("interface", (code(srv.url .. "/300b", { interface = "none0" })))
    end)

    it("is a unix socket", function()
      local res = assert(get("http://anything/300b", { unix_socket = srv.socket }))
      assert.equal(300, #res.body)
      local what, message = code("http://anything/300b", { unix_socket = "/none/x.sock" })
      assert.equal("connect", what)
      assert.matches("/none/x%.sock", message)
    end)
  end)

  describe("what is asked for", function()
    it("is a range", function()
      local whole = get(srv.url .. "/300b").body
      for range, part in pairs { ["0-99"] = whole:sub(1, 100), ["290-"] = whole:sub(291),
                                 ["-5"] = whole:sub(-5) } do
        local res = assert(get(srv.url .. "/300b", { range = range }))
        assert.equal(206, res.status)
        assert.equal(part, res.body)
      end
      assert.equal(whole:sub(11, 20), get(srv.url .. "/300b", { range = { 10, 19 } }).body)
      assert.equal(whole:sub(291), get(srv.url .. "/300b", { range = { 290 } }).body)
      local res = assert(get(srv.url .. "/300b", { range = "0-1,4-5" }))
      assert.matches("^multipart/byteranges", res.headers["Content-Type"])
      assert.equal(416, get(srv.url .. "/300b", { range = { 1000 } }).status)
    end)

    it("is asked for before a body is sent", function()
      local body = ("x"):rep(100000)
      for _, expect in ipairs { true, 5 } do
        local res = assert(http.post(srv.url .. "/echo", { body = body, expect = expect }))
        assert.equal(body, res.body)
      end
      -- A server that does not say "100 Continue" gets the body when the time is over.
      ml.run(function()
        local server = assert(require "moonloop.tcp".listen("127.0.0.1", 0))
        local seen = ml.spawn(function()
          local sock <close> = assert(server:accept(h.TIMEOUT))
          local head = sock:read_until("\r\n\r\n", { timeout = h.TIMEOUT })
          local start = ml.now()
          local first = sock:read(4, h.TIMEOUT)
          sock:write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", h.TIMEOUT)
          return head, ml.now() - start, first
        end)
        local url = "http://127.0.0.1:" .. server.port
        assert(http.post(url, { body = "text", expect = 0.2, timeout = h.TIMEOUT }))
        local head, waited, first = seen:result(h.TIMEOUT)
        assert.matches("\r\nExpect: 100%-continue\r\n", head)
        assert.equal("text", first)
        assert.is_true(waited > 0.15 and waited < 1, waited)
        server:close()
      end)
    end)
  end)

  describe("stall", function()
    it("ends what does not move, and leaves alone what does", function()
      ml.run(function()
        local bad <close> = misbehave.start()
        local start = ml.now()
        local what, message = code("http://" .. bad.mute .. "/", { stall = 0.3 })
        assert.equal("stall", what)
        assert.matches("stalled while waiting for the response: fewer than 1 bytes in 0.3 s",
          message)
        local took = ml.now() - start
        assert.is_true(took >= 0.3 and took < 0.8, took)
        -- 2 KB a second
        what, message = code(srv.url .. "/slow", { stall = { 20000, 0.3 } })
        assert.equal("stall", what)
        assert.matches("while receiving the body", message)
        -- 20 ms between its lines
        assert.equal(200, get(srv.url .. "/trickle", { stall = { 10, 0.15 } }).status)
        assert.equal(200, get(srv.url .. "/delay/0.2/300b", { stall = 5 }).status)
        assert.equal(200, get(srv.url .. "/300b", { stall = { 1, math.huge } }).status)
      end)
    end)

    it("does not take a slow reader or a slow sender for a slow server", function()
      local file <close> = assert(io.open(srv.files .. "/large", "w"))
      file:write(("x"):rep(8 * 1024 * 1024))
      file:flush()
      ml.run(function()
        local res <close> = assert(get(srv.url .. "/files/large", { stall = 0.2, stream = true }))
        ml.sleep(0.5)
        local size = 0
        for chunk in res:chunks() do size = size + #chunk end
        assert.equal(8 * 1024 * 1024, size)
        local n = 0
        local echo = assert(http.post(srv.url .. "/echo", {
          stall = 0.2, timeout = h.TIMEOUT,
          body = function()
            n = n + 1
            if n == 2 then ml.sleep(0.5) end
            return n < 4 and "piece" or nil
          end,
        }))
        assert.equal("piecepiecepiece", echo.body)
      end)
    end)
  end)

  describe("misuse raises at the caller's line:", function()
    local function misuse(pattern, options)
      h.misuse(pattern, function()
        local res = http.get("http://127.0.0.1:1/", options)
        return res
      end)
    end

    it("names and types", function()
      misuse("unknown option 'tls.certs': the nearest is 'tls.cert'", { tls = { certs = "x" } })
      misuse("unknown option 'auth.beare': the nearest is 'auth.bearer'",
        { auth = { beare = "x" } })
      misuse("unknown option 'proxy.no_prox'", { proxy = { no_prox = "x" } })
      misuse("unknown option 'proxy.tls.cert'", { proxy = { tls = { cert = "x" } } })
      misuse("'auth%[2%]': string expected, got nil", { auth = { "me" } })
      misuse("'auth': table expected", { auth = "me:secret" })
      misuse("'auth': { user, password }, ", { auth = {} })
      misuse("'auth': .* has no 'typ'", { auth = { "a", "b", typ = "basic" } })
      misuse("'auth.type': 'basic' or 'digest'", { auth = { "a", "b", type = "ntlm" } })
      misuse("user of basic authentication", { auth = { "a:b", "c" } })
      misuse("'auth.netrc': boolean or path", { auth = { netrc = 1 } })
      misuse("exclude each other", { auth = { netrc = true, bearer = "x" } })
      misuse("'auth.bearer': a token must not contain a line break", { auth = { bearer = "a\nb" } })
      misuse("'auth%[1%]': it must not contain a nul byte", { auth = { "a\0", "b" } })
      misuse("'proxy': url, table or false", { proxy = true })
      misuse("'proxy': a url of http, https, socks4", { proxy = "ftp://x" })
      misuse("'proxy': a url of http, https, socks4", { proxy = "127.0.0.1:80" })
      misuse("'proxy': this is no url", { proxy = "http://a b" })
      misuse("'url', 'user' and 'password' belong together", { proxy = { user = "x" } })
      misuse("'proxy.url' is missing", { proxy = {} })
      misuse("'tls.min_version': '1.0', '1.1'", { tls = { min_version = "3" } })
      misuse("'tls.pinned': \"sha256//\"", { tls = { pinned = "/etc/passwd" } })
      misuse("'tls.pinned': \"sha256//\"", { tls = { pinned = "sha256//short" } })
      misuse("'tls.key' needs 'tls.cert'", { tls = { key = "x" } })
      misuse("'form': 'a' must be", { form = { a = print } })
      misuse("'form': a name must be a string", { form = { "a" } })
      misuse("exclude each other", { form = {}, body = "x" })
      misuse("'stall': number of seconds expected", { stall = "1" })
      misuse("'stall': more than 0", { stall = 0 })
      misuse("'stall': { bytes a second, seconds }", { stall = { 0, 1 } })
      misuse("'stall': number of seconds expected, got nil", { stall = { 1 } })
      misuse("'range': ranges such as", { range = "all" })
      misuse("'range': ranges such as", { range = "1-2\r\nX: y" })
      misuse("'range': the last byte", { range = { 5, 4 } })
      misuse("'range': an integer", { range = { -5 } })
      misuse("'resolve': \"host:port\"", { resolve = { ["host"] = "127.0.0.1" } })
      misuse("'resolve': \"host:port\"", { resolve = { ["host:99999"] = "127.0.0.1" } })
      misuse("'resolve': an ip address", { resolve = { ["host:1"] = "localhost" } })
      misuse("'resolve': { %[\"host:port\"%]", { resolve = { "host:1:127.0.0.1" } })
      misuse("'interface': the name", { interface = "" })
      misuse("'unix_socket': a path of 1 to 107 bytes expected, got 200",
        { unix_socket = ("x"):rep(200) })
      misuse("'expect': number of seconds", { expect = "x" })
    end)

    it("never shows a secret", function()
      for _, options in ipairs {
        { proxy = "http://me:secret@a b" }, { proxy = "ftp://me:secret@x" },
        { auth = { "a:b", "secret" } }, { auth = { bearer = "secret\n" } },
        { tls = { key_password = "secret\0" } },
      } do
        local message = h.misuse("option", function()
          local res = http.get("http://127.0.0.1:1/", options)
          return res
        end)
        assert.is_nil(message:find("secret", 1, true), message)
      end
    end)
  end)
end)

describe("a response", function()
  local srv
  lazy_setup(function()
    srv = nginx.start { locations = [[
      location = /set {
        add_header Set-Cookie "sid=abc=1; Path=/x; HttpOnly; Secure; SameSite=Lax; Max-Age=60";
        add_header Set-Cookie
          "theme= dark ;Domain=.example.com;Expires=Wed, 21 Oct 2065 07:28:00 GMT";
        add_header Set-Cookie "=nameless";
        add_header Set-Cookie "old=; max-age=-1; max-age=x";
        return 200 "set";
      }]] }
  end)
  lazy_teardown(function() srv:stop() end)

  it("knows the redirects on the way", function()
    local res = assert(http.get(srv.url .. "/redirect/3"))
    assert.same({
      { status = 302, url = srv.url .. "/redirect/3" },
      { status = 302, url = srv.url .. "/redirect/2" },
      { status = 302, url = srv.url .. "/redirect/1" },
    }, res.redirects)
    assert.equal(srv.url .. "/redirect/0", res.url)
    assert.same({}, http.get(srv.url .. "/300b").redirects)
    assert.same({}, http.get(srv.url .. "/redirect/3", { follow = false }).redirects)
    res = ml.run_async_job(http.get, srv.url .. "/redirect/1"):result(h.TIMEOUT)
    assert.equal(1, #res.redirects)
  end)

  it("has the cookies that it sets", function()
    local cookies = assert(http.get(srv.url .. "/set")).cookies
    assert.equal("abc=1", cookies.sid)
    assert.equal("dark", cookies.theme)
    assert.equal("", cookies.old)
    assert.same({
      { name = "sid", value = "abc=1", path = "/x", http_only = true, secure = true,
        same_site = "Lax", max_age = 60 },
      { name = "theme", value = "dark", domain = "example.com", http_only = false, secure = false,
        expires = 3023335680 },
      { name = "old", value = "", http_only = false, secure = false, max_age = -1 },
    }, { table.unpack(cookies) })
    local res = ml.run_async_job(http.get, srv.url .. "/set"):result(h.TIMEOUT)
    assert.equal("abc=1", res.cookies.sid)
    assert.equal(res.cookies, res.cookies)
    assert.same({}, http.get(srv.url .. "/300b").cookies)
  end)

  it("has the body's bytes as they are, whatever the charset", function()
    local bytes = {}
    for i = 0, 255 do bytes[i + 1] = string.char(i) end
    local all = table.concat(bytes)
    local res = assert(http.post(srv.url .. "/echo",
      { body = all, headers = { ["Content-Type"] = "text/plain; charset=utf-16" } }))
    assert.equal(all, res.body)
  end)
end)
