-- What is shown of requests: `on_debug`, MOONLOOP_HTTP_DEBUG and `http.to_curl`; and that no
-- secret is in it.

local http = require "moonloop.http"
local ml = require "moonloop"
local h = require "spec.support.helpers"
local httpbin = require "spec.support.httpbin"
local nginx = require "spec.support.nginx"
local proxy = require "spec.support.proxy"

-- All of these are secret, and nothing else that is sent here contains the word.
local function secretive(url, more)
  local options = {
    timeout = h.TIMEOUT,
    query = { token = "secret-1", API_KEY = "secret-2", a = "visible-1" },
    headers = {
      Cookie = "sid=secret-3; theme=secret-4", ["X-Api-Key"] = "secret-5",
      ["X-Auth-Token"] = { "secret-6", "secret-7" }, ["X-Plain"] = "visible-2",
      Referer = "http://x:secret-8@y/?password=secret-9&b=visible-3",
    },
    auth = { "me", "secret-10" },
  }
  for name, value in pairs(more or {}) do options[name] = value end
  return url:gsub("//", "//you:secret-11@"), options
end

local function assert_masked(text)
  local found = text:find "secret"
  assert.is_nil(found, found and text:sub(math.max(1, found - 60), found + 30))
end

describe("on_debug", function()
  local srv
  lazy_setup(function() srv = nginx.start { http2 = true } end)
  lazy_teardown(function() srv:stop() end)

  local function record(url, more)
    local seen = {}
    local at, options = secretive(url, more)
    options.on_debug = function(kind, text)
      seen[#seen + 1] = { kind = kind, text = text }
    end
    local res, err = http.request(at, options)
    return seen, res, err
  end
  local function all(seen, kind)
    local texts = {}
    for _, e in ipairs(seen) do
      if not kind or e.kind == kind then texts[#texts + 1] = e.text end
    end
    return table.concat(texts, "\n")
  end

  it("tells requests and responses, without their secrets", function()
    local seen, res = record(srv.url .. "/cookies")
    assert.equal(200, res.status)
    local sent = all(seen, "request")
    assert.matches("^GET /cookies%?API_KEY=%*%*%*&a=visible%-1&token=%*%*%* HTTP/1.1\r\n", sent)
    assert.matches("\r\nAuthorization: Basic %*%*%*\r\n", sent)
    assert.matches("\r\nCookie: sid=%*%*%*; theme=%*%*%*\r\n", sent)
    assert.matches("\r\nX%-Api%-Key: %*%*%*\r\n", sent)
    assert.matches("\r\nX%-Plain: visible%-2\r\n", sent)
    assert.matches("\r\nReferer: http://x:%*%*%*@y/%?password=%*%*%*&b=visible%-3\r\n", sent)
    local got = all(seen, "response")
    assert.matches("^HTTP/1.1 200 OK\r\n", got)
    assert.matches("\r\nSet%-Cookie: a=%*%*%*\r\n", got)
    assert.equal("8 bytes", all(seen, "received"))
    assert.is_truthy(#all(seen, "info") > 0)
    assert_masked(all(seen))
  end)

  it("tells each request on the way, over HTTP/2 and with a body too", function()
    local seen, res = record(srv.https_url .. "/redirect-307",
      { tls = { ca = srv.ca }, method = "POST", body = "secret-body" })
    assert.equal("2", res.http_version)
    local _, requests = all(seen, "request"):gsub("POST /", "")
    assert.equal(2, requests)
    local _, responses = all(seen, "response"):gsub("HTTP/2 %d+", "")
    assert.equal(2, responses)
    assert.matches("11 bytes$", all(seen, "sent"))
    assert_masked(all(seen))
  end)

  it("tells what a proxy is told", function()
    local via <close> = proxy.start { user = "me", password = "secret-12" }
    local seen, res = record(srv.https_url .. "/300b",
      { tls = { ca = srv.ca }, proxy = via.auth_url })
    assert.equal(200, res.status)
    assert.matches("CONNECT 127", all(seen, "request"))
    assert.matches("\r\nProxy%-Authorization: Basic %*%*%*\r\n", all(seen, "request"))
    assert_masked(all(seen))
  end)

  it("tells what goes before a failure", function()
    local seen, res, err = record("http://127.0.0.1:1/")
    assert.is_nil(res)
    assert.equal("refused", err.code)
    assert.matches("127.0.0.1:1", all(seen, "info"), 1, true)
    assert_masked(all(seen))
  end)

  it("is called while the request goes on, in the caller, and may wait and raise", function()
    ml.run(function()
      local order = {}
      local me = ml.current_job()
      local res = assert(http.get(srv.url .. "/delay/0.2/300b", {
        timeout = h.TIMEOUT,
        on_debug = function(kind)
          if kind ~= "request" and kind ~= "response" then return end
          assert.equal(me, ml.current_job())
          order[#order + 1] = kind
          order[kind] = ml.now()
          ml.sleep(0.001)
        end,
      }))
      assert.equal(300, #res.body)
      assert.same({ "request", "response" }, { order[1], order[2] })
      assert.is_true(order.response - order.request > 0.15)

      local ok, err = pcall(http.get, srv.url .. "/delay/10/300b", {
        timeout = h.TIMEOUT, on_debug = function() error("enough", 0) end,
      })
      assert.is_false(ok)
      assert.equal("enough", err)
      assert.equal(200, http.get(srv.url .. "/300b").status)
    end)
  end)

  it("works in a thread, and with a response that streams", function()
    local function count(url)
      local n = 0
      local res <close> = assert(require "moonloop.http".get(url, {
        timeout = 15, stream = true, on_debug = function() n = n + 1 end,
      }))
      local size = 0
      for chunk in res:chunks() do size = size + #chunk end
      return n, size
    end
    local pool <close> = ml.ThreadExecutor { workers = 1 }
    local n, size = pool:submit(count, srv.url .. "/200k"):result(h.TIMEOUT)
    assert.equal(204800, size)
    assert.is_true(n >= 4, n)
  end)

  it("must be a function", function()
    h.misuse("option 'on_debug': function expected", function()
      local res = http.get(srv.url, { on_debug = true })
      return res
    end)
  end)
end)

describe("MOONLOOP_HTTP_DEBUG", function()
  local srv
  lazy_setup(function() srv = nginx.start() end)
  lazy_teardown(function() srv:stop() end)

  local script = [[
    local http = require "moonloop.http"
    local res = assert(http.get((...):gsub("//", "//you:secret-11@"), {
      query = { token = "secret-1" }, headers = { Cookie = "sid=secret-3" }, timeout = 15,
    }))
    assert(http.get((...), { timeout = 15 }))
    print(res.status)
  ]]

  it("shows all requests on the standard error, without their secrets", function()
    for _, program in ipairs { "lua5.4", "moonloop" } do
      local out, code = h.run_script(script,
        { srv.url .. "/300b", env = { MOONLOOP_HTTP_DEBUG = "1" }, lua = program })
      assert.equal(0, code, out)
      assert.matches("\n%[http 1%] > GET /300b%?token=%*%*%* HTTP/1.1\n", out)
      assert.matches("\n%[http 1%] > Authorization: Basic %*%*%*\n", out)
      assert.matches("\n%[http 1%] > Cookie: sid=%*%*%*\n", out)
      assert.matches("\n%[http 1%] < HTTP/1.1 200 OK\n", out)
      assert.matches("\n%[http 1%] { 300 bytes\n", out)
      assert.matches("\n%[http 2%] > GET /300b HTTP/1.1\n", out)
      assert_masked(out)
    end
  end)

  it("shows nothing if it is 0 or empty", function()
    for _, value in ipairs { "0", "" } do
      local out = h.run_script(script,
        { srv.url .. "/300b", env = { MOONLOOP_HTTP_DEBUG = value } })
      assert.equal("200\n", out)
    end
  end)
end)

describe("http.to_curl", function()
  local srv, bin
  lazy_setup(function()
    srv = nginx.start { client_cert = true }
    bin = httpbin.start()
  end)
  lazy_teardown(function()
    srv:stop()
    bin:stop()
  end)

  local function run(command)
    local pipe <close> = assert(io.popen(command .. " 2>&1"))
    return pipe:read "a"
  end
  -- What curl's request and ours look like to the server.
  local function both(url, options)
    options.timeout = h.TIMEOUT
    local json = require "cjson".decode
    local command = http.to_curl(url, options, { secrets = true })
    local ours, theirs = assert(http.request(url, options)):json(), run(command)
    local ok, got = pcall(json, theirs)
    assert.is_true(ok, command .. "\n" .. theirs)
    return ours, got, command
  end

  it("gives a command that sends the same request", function()
    for i, options in ipairs {
      {},
      { method = "DELETE" },
      { method = "POST" },
      { method = "POST", body = "text" },
      { query = { q = "it's $HOME `x` \"y\" \\ [1-3] {a,b}" } },
      { headers = { ["X-A"] = "a'b", ["X-Empty"] = "", Accept = "text/x", ["User-Agent"] = "me" } },
      { method = "POST", json = { a = "it's", b = { 1, 2 } } },
      { method = "PUT", body = "@/etc/passwd\n", headers = { ["Content-Type"] = "text/plain" } },
      { method = "POST", body = "a\0b\1\255 c'\\", headers = { ["Content-Type"] = "x/y" } },
      { method = "POST", form = { a = "1 2", b = { "x", "y&z" } } },
      { auth = { "me", "pass'word" } },
      { auth = { bearer = "to.ken" } },
      { http_version = "1.1", compressed = false, range = { 0, 10 }, stall = { 10, 5 } },
      { follow = false, max_redirects = 3, connect_timeout = 2.5, max_body = 100000 },
    } do
      local ours, theirs, command = both(bin.url .. "/anything", options)
      ours.headers["Accept-Encoding"], theirs.headers["Accept-Encoding"] = nil, nil
      assert.same(ours, theirs, i .. ": " .. command)
    end
  end)

  it("knows Digest, redirects, proxies, TLS and the way to the server", function()
    local via <close> = proxy.start { user = "me", password = "secret" }
    assert.equal(200, http.get(bin.url .. "/digest-auth/auth/me/secret",
      { auth = { "me", "secret", type = "digest" } }).status)
    for _, case in ipairs {
      { bin.url .. "/digest-auth/auth/me/secret", { auth = { "me", "secret", type = "digest" } },
        '"authenticated":%s*true' },
      { srv.url .. "/redirect/2", {}, "^The quick" },
      { srv.url .. "/300b", { proxy = via.auth_url }, "^The quick" },
      { srv.url .. "/300b", { proxy = { url = via.url, user = "me", password = "secret" } },
        "^The quick" },
      { srv.url .. "/300b", { proxy = { url = "http://127.0.0.1:1", no_proxy = { "127.0.0.1" } } },
        "^The quick" },
      { srv.url .. "/300b", { proxy = false }, "^The quick" },
      { srv.https_url .. "/client-cert", { tls = { ca = srv.ca, cert = srv.cert,
        key = srv.locked_key, key_password = "secret", pinned = srv:pin(), min_version = "1.2" } },
        "^CN=client" },
      { srv.https_url .. "/300b", { tls = { verify = false } }, "^The quick" },
      { "http://moonloop.invalid:" .. srv.port .. "/300b", { resolve = { ["*:*"] = "127.0.0.1" } },
        "^The quick" },
      { "http://x/300b", { unix_socket = srv.socket, interface = "lo" }, "^The quick" },
    } do
      local command = http.to_curl(case[1], case[2], { secrets = true })
      assert.matches(case[3], run(command), 1, false, command)
    end
  end)

  it("masks secrets unless asked for", function()
    local url, options = secretive("http://example.com/", {
      proxy = { url = "http://x:secret-20@p:80", user = "me", password = "secret-21" },
      tls = { cert = "c.pem", key = "k.pem", key_password = "secret-22" },
    })
    local command = http.to_curl(url, options)
    assert_masked(command)
    assert.matches("visible-1", command, 1, true)
    assert.matches("visible-2", command, 1, true)
    assert.matches("--user 'me:***'", command, 1, true)
    assert.matches("--proxy 'http://x:***@p:80' --proxy-user 'me:***'", command, 1, true)
    assert.matches("--pass '***'", command, 1, true)
    assert.matches("--header 'Cookie: sid=***; theme=***'", command, 1, true)
    local shown = http.to_curl(url, options, { secrets = true })
    for _, n in ipairs { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 20, 21, 22 } do
      assert.matches("secret-" .. n, shown, 1, true)
    end
    for _, body in ipairs {
      { form = { password = "secret", a = "visible" } },
      { json = { password = "secret", a = "visible" } },
      { auth = { bearer = "secret" }, json = { access_token = "secret", a = "visible" } },
    } do
      command = http.to_curl("http://x/", body)
      assert_masked(command)
      assert.matches("visible", command, 1, true)
    end
  end)

  it("takes one table as http.request does, and is misused as that is", function()
    assert.matches("^curl .* --request PUT .* http://x/$",
      http.to_curl { url = "http://x/", method = "put" })
    assert.matches("secret", http.to_curl({ url = "http://x/?key=secret" }, { secrets = true }))
    local function misuse(pattern, ...)
      local args = table.pack(...)
      h.misuse(pattern, function()
        local text = http.to_curl(table.unpack(args, 1, args.n))
        return text
      end)
    end
    misuse("to_curl: url or table", nil)
    misuse("to_curl: table of options expected", "http://x/", 1)
    misuse("unknown option 'bdy'", "http://x/", { bdy = "x" })
    misuse("unknown option 'secret'", "http://x/", {}, { secret = true })
    misuse("'secrets': boolean expected", "http://x/", {}, { secrets = 1 })
    misuse("option 'url' is missing", {})
  end)
end)
