local ml = require "moonloop"
local http = require "moonloop.http"
local nginx = require "spec.support.nginx"
local h = require "spec.support.helpers"
local websockets = require "spec.support.websockets"

local LOCATIONS <const> = [[
    location /api/ {
      add_header X-Uri $request_uri; add_header X-Authorization $http_authorization;
      add_header X-Test $http_x_test; add_header X-Cookie $http_cookie;
      return 200 "api\n";
    }
    location = /set-cookie { add_header Set-Cookie "plain=1; Path=/"; return 200 "set\n"; }]]

describe("http.session", function()
  local srv, other
  lazy_setup(function()
    srv = nginx.start{ http2 = true, locations = LOCATIONS }
    other = nginx.start{ locations = LOCATIONS }
  end)
  lazy_teardown(function()
    srv:stop()
    other:stop()
  end)

  -- The nginx connection that answered.
  local function connection(session, url)
    return assert(session:get(url or srv.url .. "/connection", { timeout = h.TIMEOUT })).body
      :match "^%d+"
  end

  describe("has defaults:", function()
    it("base_url, as a page's links are read", function()
      local s <close> = http.session{ base_url = srv.url .. "/api/v1/" }
      local function uri(url, options)
        return assert(s:get(url, options)).headers["X-Uri"]
      end
      assert.equal("/api/v1/users", uri "users")
      assert.equal("/api/v1/", uri "")
      assert.equal("/api/users", uri "../users")
      assert.equal("/api/x", uri "/api/x")
      assert.equal("/api/v1/?a=b", uri "?a=b")
      assert.equal("/api/v1/users?q=1", uri("users", { query = { q = 1 } }))
      assert.equal("/api/abs", uri(other.url .. "/api/abs"))
      local res, err = s:get("http://")
      assert.is_nil(res)
      assert.equal("url", err.code)
    end)

    it("headers and query, under those of the request", function()
      local s <close> = http.session{ headers = { ["X-Test"] = "default" }, query = { key = "k" } }
      local url = srv.url .. "/api/"
      local function test_header(headers)
        return s:get(url, { headers = headers }).headers["X-Test"]
      end
      assert.equal("default", test_header())
      assert.equal("mine", test_header{ ["x-test"] = "mine" })
      assert.equal(nil, test_header{ ["X-TEST"] = false })
      s.headers["X-Test"] = "changed"
      assert.equal("changed", test_header())
      assert.equal("/api/?key=k", s:get(url).headers["X-Uri"])
      assert.equal("/api/?a=b&key=k", s:get(url, { query = { a = "b" } }).headers["X-Uri"])
      assert.equal("/api/?key=z", s:get(url, { query = { key = "z" } }).headers["X-Uri"])
    end)

    it("and any other option of a request", function()
      local s <close> = http.session{ max_body = 299, follow = false }
      assert.equal("too_large", select(2, s:get(srv.url .. "/300b")).code)
      assert.equal(300, #assert(s:get(srv.url .. "/300b", { max_body = 300 })).body)
      assert.equal(302, assert(s:get(srv.url .. "/redirect/1")).status)
    end)

    it("sends private headers to the host of base_url only", function()
      local s <close> = http.session{ base_url = srv.url, headers = { Authorization = "Bearer x" } }
      assert.equal("Bearer x", s:get("/api/").headers["X-Authorization"])
      assert.is_nil(s:get(other.url .. "/api/").headers["X-Authorization"])
      assert.equal("y", s:get(other.url .. "/api/", { headers = { authorization = "y" } })
        .headers["X-Authorization"])
    end)
  end)

  it("has the methods of the module", function()
    local s <close> = http.session{ base_url = srv.url }
    for _, verb in ipairs{ "get", "post", "put", "patch", "delete", "options" } do
      assert.equal(verb:upper(), assert(s[verb](s, "/echo")).headers["X-Method"])
    end
    assert.equal(200, assert(s:head("/300b")).status)
    assert.equal("PURGE", assert(s:request("/echo", { method = "purge" })).headers["X-Method"])
    local res = assert(s:request{ url = "/echo", method = "POST", json = { 1 } })
    assert.equal("[1]", res.body)
  end)

  describe("has connections of its own:", function()
    it("they are used again, and counted", function()
      local a <close> = http.session()
      local b <close> = http.session()
      local first = connection(a)
      for _ = 1, 3 do assert.equal(first, connection(a)) end
      assert.not_equal(first, connection(b))
      assert.same({ requests = 4, made = 1, reused = 3, in_use = 0, queued = 0, connections = 1 },
        a:stats())
      assert.equal(1, b:stats().requests)
    end)

    it("max_per_host: the others wait for one", function()
      local s <close> = http.session{ max_per_host = 2 }
      ml.run(function()
        local futures = {}
        for i = 1, 6 do
          futures[i] = ml.spawn(s.get, s, srv.url .. "/delay/0.05/300b", { timeout = h.TIMEOUT })
        end
        h.eventually(function() return s:stats().in_use == 2 end, "two requests in use")
        assert.equal(4, s:stats().queued)
        assert.equal(2, s:stats().connections)
        for i = 1, 6 do assert(futures[i]:result(h.TIMEOUT)) end
        local stats = s:stats()
        assert.same({ 2, 4, 0, 0 }, { stats.made, stats.reused, stats.in_use, stats.queued })
      end)
    end)

    it("many to one host, up to the limit, and found again by those that come later", function()
      local s <close> = http.session{ max_per_host = 260 }
      ml.run(function()
        local function burst(n) -- all are under way before the first is answered
          local futures = {}
          for i = 1, n do
            futures[i] = ml.spawn(s.get, s, srv.url .. "/delay/0.3/300b", { timeout = h.TIMEOUT })
          end
          for i = 1, n do assert(futures[i]:result(h.TIMEOUT)) end
        end
        burst(400)
        assert.equal(260, s:stats().made)
        assert.equal(260, s:stats().connections)
        burst(260)
        for _ = 1, 3 do burst(20) end
        assert.equal(260, s:stats().made)
        assert.equal(0, s:stats().in_use)
      end)
    end)

    it("max_connections: over all hosts", function()
      local s <close> = http.session{ max_connections = 1 }
      ml.run(function()
        local futures = {}
        for i = 1, 4 do
          local url = (i % 2 == 0 and srv or other).url .. "/300b"
          futures[i] = ml.spawn(s.get, s, url, { timeout = h.TIMEOUT })
        end
        for i = 1, 4 do assert(futures[i]:result(h.TIMEOUT)) end
        assert.equal(1, s:stats().connections)
      end)
    end)
  end)

  describe("when it is closed", function()
    it("ends requests in flight, refuses later ones, and has no connection", function()
      local before = h.fds()
      ml.run(function()
        local s = assert(http.session())
        connection(s)
        local future = ml.spawn(s.get, s, srv.url .. "/delay/30/300b")
        h.eventually(function() return s:stats().in_use == 1 end, "a request in flight")
        assert.is_true(s:close())
        assert.is_true(s:close())
        local res, err = future:result(h.TIMEOUT)
        assert.is_nil(res)
        assert.equal("closed", err.code)
        assert.matches("the session was closed", err.message)
        assert.equal("closed", select(2, s:get(srv.url .. "/300b")).code)
        assert.is_true(s:closed())
        h.eventually(function() return s:stats().connections == 0 end, "no connections")
        assert.matches("closed", tostring(s))
      end)
      h.eventually(function() return h.fds() <= before end, "descriptors as before")
    end)

    it("is so on all loops and in all states", function()
      local ex = ml.AsyncExecutor{ loops = 2 }
      local s = http.session()
      local started = {}
      local function hold(session, url, gate)
        gate:open()
        local _, err = session:get(url)
        return err and err.code
      end
      local futures = {}
      for i = 1, 4 do
        started[i] = h.gate()
        futures[i] = ex:submit(hold, s, srv.url .. "/delay/30/300b", started[i])
      end
      for i = 1, 4 do started[i]:pass() end
      h.eventually(function() return s:stats().in_use == 4 end, "four requests in flight")
      s:close()
      for i = 1, 4 do assert.equal("closed", futures[i]:result(h.TIMEOUT)) end
      h.eventually(function() return s:stats().connections == 0 end, "no connections")
      h.close(ex)
    end)

    it("by the collector, its connections go too", function()
      local before = h.fds()
      ml.run(function()
        local s = http.session()
        connection(s)
        s = nil -- luacheck: ignore
        h.collect()
      end)
      h.eventually(function() return h.fds() <= before end, "descriptors as before")
    end)
  end)

  describe("is one thing everywhere:", function()
    it("a session of a sync state serves jobs, threads and other states", function()
      local s <close> = http.session{ base_url = srv.url, headers = { ["X-Test"] = "t" },
        cookies = true }
      local function fetch(session)
        local res = assert(session:get("/set-cookie", { timeout = 15 }))
        return res.status, session.cookies:get "plain", session:get("/api/").headers["X-Test"]
      end
      local pool <close> = ml.ThreadExecutor{ workers = 2 }
      local futures = { ml.run_async_job(fetch, s) }
      for _ = 1, 4 do futures[#futures + 1] = pool:submit(fetch, s) end
      for _, future in ipairs(futures) do
        assert.same({ 200, "1", "t" }, { future:result(h.TIMEOUT) })
      end
      assert.same({ 200, "1", "t" }, { fetch(s) })
      assert.same({ 200, "1", "t" }, { ml.run(fetch, s) })
      assert.equal(14, s:stats().requests)
    end)

    it("it outlives loops, and they outlive it", function()
      local s = http.session()
      for _ = 1, 3 do
        ml.run(function() connection(s) end)
        assert.equal(0, s:stats().connections)
      end
      ml.run(function()
        for _ = 1, 3 do
          local inner <close> = http.session()
          connection(inner)
        end
        connection(s)
      end)
      s:close()
    end)
  end)

  describe("asks its hooks, in the caller:", function()
    it("on_request may change the request, and wait", function()
      local jobs = {}
      local s <close> = http.session{ base_url = srv.url, on_request = function(req)
        ml.sleep(0.001)
        jobs[#jobs + 1] = ml.current_job()
        req.headers["X-Test"] = req.method .. " " .. req.url:gsub(srv.url, "")
        req.query = { from = "hook" }
      end }
      ml.run(function()
        local res = assert(s:put("/api/x"))
        assert.equal("PUT /api/x", res.headers["X-Test"])
        assert.equal("/api/x?from=hook", res.headers["X-Uri"])
        assert.equal(ml.current_job(), jobs[1])
      end)
      assert.equal("GET /api/", assert(s:get("/api/")).headers["X-Test"])
    end)

    it("on_request may answer in place of the server, or refuse", function()
      local s <close> = http.session{
        on_request = function(req)
          if req.url == "http://refuse/" then return nil, { code = "mine" } end
          return { status = 299, url = req.url }
        end,
        on_response = function(res) res.seen = true end,
      }
      local res = assert(s:get("http://no.such.host.invalid/"))
      assert.equal(299, res.status)
      assert.is_true(res.seen)
      local none, err = s:get("http://refuse/")
      assert.is_nil(none)
      assert.equal("mine", err.code)
      assert.equal(0, s:stats().requests)
    end)

    it("on_response may answer with another response, after another request", function()
      local s <close> = http.session{ base_url = srv.url, on_response = function(res, req)
        if res.headers["X-Authorization"] then return nil end
        req.headers.Authorization = "Bearer fresh"
        return http.request(req)
      end }
      local res = assert(s:get("/api/"))
      assert.equal("Bearer fresh", res.headers["X-Authorization"])
      assert.equal(2, s:stats().requests)
      assert.equal(1, s:stats().made)
    end)

    it("what they raise reaches the caller, and all goes on", function()
      local s <close> = http.session{ base_url = srv.url, headers = { ["X-Test"] = "t" },
        on_request = function(req)
          if req.url:find "/300b$" then error({ "odd" }) end
        end,
        on_response = function(res)
          if res.status == 404 then error("no such page", 0) end
        end }
      assert.same({ "odd" }, h.raised(s.get, s, "/300b"))
      assert.equal("no such page", h.raised(s.get, s, "/status/404"))
      assert.equal(200, assert(s:get("/api/")).status)
      local bad <close> = http.session{ on_request = function() return "x" end }
      assert.matches("on_request must return", h.raised(bad.get, bad, srv.url))
    end)

    it("they cross with the session", function()
      local s <close> = http.session{ base_url = srv.url, on_request = function(req)
        req.headers["X-Test"] = "crossed"
      end }
      local function fetch(session) return session:get("/api/").headers["X-Test"] end
      assert.equal("crossed", ml.run_async_job(fetch, s):result(h.TIMEOUT))
    end)
  end)

  it("opens WebSockets with its defaults", function()
    local peer <close> = websockets.start()
    local s <close> = http.session{
      base_url = peer.url:gsub("^ws", "http"), headers = { ["X-Test"] = "t" }, query = { k = "v" },
      max_body = 10, timeout = h.TIMEOUT,
    }
    for _, url in ipairs{ "/headers", peer.url .. "/headers" } do
      local ws <close> = assert(s:websocket(url, { headers = { ["X-More"] = "m" } }))
      local seen = assert(ws:receive(h.TIMEOUT)):lower()
      assert.matches('"x%-test": ?"t"', seen)
      assert.matches('"x%-more": ?"m"', seen)
    end
    h.misuse("websocket: unknown option 'max_mesage'", function()
      local ws = s:websocket("/headers", { max_mesage = 1 })
      return ws
    end)
  end)

  it("streams", function()
    local s <close> = http.session{ base_url = srv.url }
    local res <close> = assert(s:get("/200k", { stream = true, timeout = h.TIMEOUT }))
    local size = 0
    for chunk in res:chunks() do size = size + #chunk end
    assert.equal(204800, size)
    local open <close> = assert(s:get("/slow", { stream = true }))
    s:close()
    local body, err = open:read(20000)
    assert.is_nil(body)
    assert.equal("closed", err.code)
  end)

  it("refuses options that make no sense, by name", function()
    h.misuse("unknown option 'base_ur': the nearest is", function()
      local s = http.session{ base_ur = "x" }
      return s
    end)
    for _, case in ipairs{
      { "option 'base_url': string expected, got number", { base_url = 1 } },
      { "option 'base_url': it must begin with http", { base_url = "ftp://x/" } },
      { "option 'url' is for one request", { url = "x" } },
      { "option 'body' is for one request", { body = "x" } },
      { "option 'max_per_host': positive integer expected, got 0", { max_per_host = 0 } },
      { "option 'headers': table expected", { headers = "x" } },
      { "option 'on_request': function expected", { on_request = {} } },
      { "option 'cookies': true, a path or a table", { cookies = 1 } },
      { "unknown option 'cookies.fil'", { cookies = { fil = "x" } } },
      { "option 'cookies.save': a path, or true with", { cookies = { save = true } } },
      { "option 'retries.n': an integer", { retries = { n = -1 } } },
      { "option 'timeout': a number of seconds", { timeout = -1 } },
      { "option 'headers': the value of 'a' contains a line break", { headers = { a = "b\n" } } },
      { "option 'auth': table expected", { auth = "me" } },
      { "unknown option 'tls.nope'", { tls = { nope = true } } },
    } do
      h.misuse(case[1], function()
        local s = http.session(case[2])
        return s
      end)
    end
    local s <close> = http.session()
    h.misuse("bad argument #1 to 'get' %(string expected, got nil%)", function()
      local res = s:get()
      return res
    end)
    h.misuse("unknown option 'folow'", function()
      local res = s:get(srv.url, { folow = true })
      return res
    end)
    h.misuse("option 'method' is for session:request", function()
      local res = s:get(srv.url, { method = "PUT" })
      return res
    end)
  end)
end)

describe("http.limits", function()
  it("says and changes what the plain functions may", function()
    assert.same({}, http.limits())
    assert.same({ max_per_host = 1 }, http.limits{ max_per_host = 1 })
    local srv <close> = nginx.start()
    ml.run(function()
      local before = http.stats()
      local futures = {}
      for i = 1, 5 do futures[i] = ml.spawn(http.get, srv.url .. "/300b") end
      for i = 1, 5 do assert(futures[i]:result(h.TIMEOUT)) end
      local stats = http.stats()
      assert.equal(5, stats.requests - before.requests)
      assert.equal(1, stats.made - before.made)
      assert.equal(4, stats.reused - before.reused)
    end)
    assert.same({}, http.limits{ max_per_host = 0 })
    h.misuse("unknown option 'max_per_hos'", function() http.limits{ max_per_hos = 1 } end)
  end)
end)
