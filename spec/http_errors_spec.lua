-- Errors: one code per cause, a message that names URL and phase, details, timings; and never a
-- secret, in none of their fields.

local http = require "moonloop.http"
local ml = require "moonloop"
local h = require "spec.support.helpers"
local misbehave = require "spec.support.misbehave"
local nginx = require "spec.support.nginx"
local socks = require "spec.support.socks"

describe("an HTTP error", function()
  local srv, bad
  lazy_setup(function()
    srv = nginx.start { tls = true }
    bad = misbehave.start()
  end)
  lazy_teardown(function()
    srv:stop()
    bad:stop()
  end)

  local function at(where) return "http://" .. where .. "/path" end

  -- code, phase, what the message says after "GET URL: ", URL, options
  local function cases()
    local trusted = { ca = srv.ca }
    local wrong = "sha256//" .. ("A"):rep(43) .. "="
    return {
      { "url", nil, "it must begin with http:// or https://", "ftp://127.0.0.1/path" },
      { "url", nil, "the port is no number", "http://127.0.0.1:99999/path" },
      { "resolve", "resolve", "failed while resolving the host name: ", at "moonloop.invalid" },
      { "refused", "connect", "connection refused", at "127.0.0.1:1" },
      { "connect", "connect", "cannot connect to the socket /none/x.sock: no such file",
        at "anything", { unix_socket = "/none/x.sock" } },
      { "interface", nil, "failed ", srv.url .. "/path", { interface = "none0" } },
      { "timeout", "connect", "timed out after N s while waiting for a connection",
        at(bad.full), { timeout = 0.1 } },
      { "timeout", "tls", "timed out after N s in the TLS handshake",
        "https://" .. bad.mute .. "/path", { timeout = 0.1, tls = trusted } },
      { "timeout", "wait", "timed out after N s while waiting for the response",
        at(bad.mute), { timeout = 0.1 } },
      { "timeout", "body", "timed out after N s while receiving the body",
        srv.url .. "/slow", { timeout = 0.2 } },
      { "stall", "wait", "stalled while waiting for the response: fewer than 1 bytes in 0.2 s",
        at(bad.mute), { stall = 0.2 } },
      { "tls", "tls", "failed in the TLS handshake: ", srv.https_url .. "/path" },
      { "tls", "tls", "failed in the TLS handshake: ", srv.https_url .. "/path",
        { tls = { ca = srv.ca, pinned = wrong } } },
      { "ENOENT", nil, "option 'tls.ca': /none/ca.pem: no such file", srv.https_url .. "/path",
        { tls = { ca = "/none/ca.pem" } } },
      { "proxy", nil, "the proxy failed: ", srv.url .. "/path", { proxy = "http://127.0.0.1:1" } },
      { "proxy", nil, "the proxy failed: ", srv.url .. "/path",
        { proxy = "socks5://me:secret@127.0.0.1:1" } },
      { "proxy", nil, "the proxy failed: ", srv.url .. "/path",
        { proxy = "http://me:secret@moonloop.invalid:80" } },
      { "closed", "wait", "the connection was closed while waiting for the response: ",
        srv.url .. "/drop" },
      { "closed", "body", "the connection was closed while receiving the body: ",
        bad.url .. "/reset-in-body" },
      { "protocol", nil, "failed ", at(bad.noise) },
      { "redirects", nil, "failed ", srv.url .. "/redirect-loop" },
      { "too_large", "body", "the body is larger than max_body, 100 bytes", srv.url .. "/300b",
        { max_body = 100 } },
    }
  end

  local function assert_no_secret(value, what)
    if type(value) == "string" then
      assert.is_nil(value:find("secret", 1, true), what .. ": " .. value)
    elseif type(value) == "table" then
      for key, field in pairs(value) do assert_no_secret(field, what .. "." .. tostring(key)) end
    end
  end

  it("has a code of its own, names URL and phase, and keeps secrets", function()
    for i, case in ipairs(cases()) do
      local code, phase, text, url, options = table.unpack(case, 1, 5)
      options = options or {}
      options.timeout = options.timeout or h.TIMEOUT
      options.query = { token = "secret", q = "secret" }
      options.auth = { "me", "secret" }
      options.headers = { Cookie = "a=secret" }
      local res, err = http.get(url:gsub("//", "//you:secret@"), options)
      local what = i .. " " .. code
      assert.is_nil(res, what)
      assert.equal(code, err.code, what .. ": " .. err.message)
      local start = "GET " .. url .. ": " .. text
      local message = err.message:gsub("out after %d+%.?%d* s", "out after N s")
      assert.equal(start:lower(), message:sub(1, #start):lower(), what)
      if phase then assert.equal(phase, err.phase, what) end
      assert_no_secret(err, what)
      assert_no_secret(tostring(err), what)
      if code ~= "url" then
        assert.equal("number", type(err.timings.total), what)
        assert.equal("string", type(err.detail), what)
      end
    end
  end)

  it("of a SOCKS proxy that refuses is the proxy's", function()
    local via <close> = socks.start { user = "me", password = "secret" }
    for _, proxy in ipairs { via.url, { url = via.url, user = "me", password = "wrong-secret" } } do
      local res, err = http.get(srv.url .. "/300b", { proxy = proxy, timeout = h.TIMEOUT })
      assert.is_nil(res)
      assert.equal("proxy", err.code)
      assert_no_secret(err, "socks")
    end
  end)

  it("leaves the connections usable, and nothing behind", function()
    assert(http.get(srv.url .. "/300b", { timeout = h.TIMEOUT }))
    local fds
    for round = 1, 3 do
      for _, case in ipairs(cases()) do
        local options = case[5] or {}
        options.timeout = options.timeout or h.TIMEOUT
        assert.is_nil(http.get(case[4], options))
      end
      assert.equal(200, http.get(srv.url .. "/300b", { timeout = h.TIMEOUT }).status)
      if round == 1 then fds = h.fds() end
    end
    h.eventually(function() return h.fds() <= fds end, "the descriptors' closing")
  end)

  it("crosses states with its fields", function()
    local res, err = ml.run_async_job(http.get, at "127.0.0.1:1"):result(h.TIMEOUT)
    assert.is_nil(res)
    assert.equal("refused", err.code)
    assert.equal("connect", err.phase)
    assert.equal("string", type(err.detail))
  end)
end)
