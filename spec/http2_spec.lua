local ml = require "moonloop"
local http = require "moonloop.http"
local nginx = require "spec.support.nginx"
local h = require "spec.support.helpers"

describe("HTTP/2", function()
  local srv, tls
  lazy_setup(function()
    srv = nginx.start{ http2 = true, locations = [[
      location = /tls-once { keepalive_timeout 0; return 200 "$ssl_session_reused"; }]] }
    tls = { ca = srv.ca }
  end)
  lazy_teardown(function() srv:stop() end)

  -- Spawns n requests at once; returns a table of the connections that answered, by nginx's
  -- number, with how many each answered; how many connections that is; and the responses.
  local function burst(session, n, path, options)
    local futures, by, count, responses = {}, {}, 0, {}
    for i = 1, n do
      futures[i] = ml.spawn(session.get, session, srv.https_url .. path, options)
    end
    for i = 1, n do
      local res = assert(futures[i]:result(h.TIMEOUT))
      responses[i] = res
      local number = res.body:match "^%d+"
      if not by[number] then count = count + 1 end
      by[number] = (by[number] or 0) + 1
    end
    return by, count, responses
  end

  it("serves a burst on one connection, from the first request on", function()
    ml.run(function()
      local s <close> = http.session{ tls = tls, timeout = h.TIMEOUT }
      for _ = 1, 3 do
        local _, count, responses = burst(s, 100, "/connection")
        assert.equal(1, count)
        for _, res in ipairs(responses) do assert.equal("2", res.http_version) end
      end
      local stats = s:stats()
      assert.same({ 300, 1, 299, 1 },
        { stats.requests, stats.made, stats.reused, stats.connections })
    end)
  end)

  it("has many streams open at once on it", function()
    ml.run(function()
      local s <close> = http.session{ tls = tls, timeout = h.TIMEOUT }
      local start = ml.now()
      local _, _, responses = burst(s, 50, "/delay/0.2/connection")
      local took = ml.now() - start
      assert.equal(50, #responses)
      assert.is_true(took < 5, took) -- one after the other it would be 10 s
      assert.equal(1, s:stats().made)
    end)
  end)

  it("has no more than max_host_streams of them: the others wait, or get another one", function()
    ml.run(function()
      local one <close> = http.session{ tls = tls, timeout = h.TIMEOUT, max_host_streams = 5,
        max_per_host = 1 }
      local start = ml.now()
      burst(one, 20, "/delay/0.05/connection")
      assert.is_true(ml.now() - start >= 0.2) -- four times five
      assert.equal(1, one:stats().made)
      local more <close> = http.session{ tls = tls, timeout = h.TIMEOUT, max_host_streams = 5 }
      burst(more, 1, "/connection")
      burst(more, 20, "/delay/0.2/connection")
      assert.is_true(more:stats().made >= 2)
    end)
  end)

  it("keeps to max_per_host beyond that", function()
    ml.run(function()
      local s <close> = http.session{ tls = tls, timeout = h.TIMEOUT, max_host_streams = 5,
        max_per_host = 2 }
      local _, count = burst(s, 40, "/delay/0.01/connection")
      assert.is_true(count <= 2, count)
      assert.is_true(s:stats().connections <= 2)
    end)
  end)

  it("is not for a session that wants 1.1: that has connections, at most 8", function()
    ml.run(function()
      local s <close> = http.session{ tls = tls, timeout = h.TIMEOUT, http_version = "1.1" }
      local _, count, responses = burst(s, 40, "/delay/0.02/connection")
      assert.equal("1.1", responses[1].http_version)
      assert.is_true(count > 1 and count <= 8, count)
      assert.equal(count, s:stats().made)
    end)
  end)

  it("carries large bodies in both directions at once", function()
    ml.run(function()
      local s <close> = http.session{ tls = tls, timeout = h.TIMEOUT, http_version = "2" }
      local futures = {}
      for i = 1, 10 do
        local body = (("%03d "):format(i)):rep(12000) -- 48 KB
        futures[i] = ml.spawn(function()
          local res = assert(s:post(srv.https_url .. "/echo", { body = body }))
          return res.body == body and res.http_version
        end)
      end
      for i = 1, 10 do assert.equal("2", futures[i]:result(h.TIMEOUT)) end
    end)
  end)

  it("a stream that is cancelled leaves the others and the connection alone", function()
    ml.run(function()
      local s <close> = http.session{ tls = tls, timeout = h.TIMEOUT }
      burst(s, 1, "/connection")
      local slow = ml.spawn(s.get, s, srv.https_url .. "/delay/30/connection")
      local other = ml.spawn(s.get, s, srv.https_url .. "/delay/0.1/connection")
      h.eventually(function() return s:stats().in_use == 2 end, "two streams")
      assert.is_true(slow:cancel_and_wait(h.TIMEOUT))
      assert.equal(200, assert(other:result(h.TIMEOUT)).status)
      burst(s, 10, "/connection")
      assert.equal(1, s:stats().made)
    end)
  end)

  it("or not: TLS sessions are taken up again by new connections, on other loops too", function()
    local options = { tls = tls, http_version = "1.1", timeout = h.TIMEOUT }
    local function reused(session)
      return assert(session:get(srv.https_url .. "/tls-once")).body
    end
    local s <close> = http.session(options)
    assert.equal(".", reused(s))
    assert.equal("r", reused(s))
    assert.equal("r", ml.run(reused, s))
    assert.equal(3, s:stats().made)
    local fresh <close> = http.session(options)
    assert.equal(".", reused(fresh))
  end)
end)
