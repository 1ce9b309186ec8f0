-- A request that is cancelled, in whatever phase it is, ends at once; its connection is
-- closed, the others stay.

local ml = require "moonloop"
local http = require "moonloop.http"
local h = require "spec.support.helpers"
local misbehave = require "spec.support.misbehave"
local nginx = require "spec.support.nginx"
local resolver = require "spec.support.resolver"

local SOON <const> = h.checking() and 1 or 0.1

-- How many connections to that port are being made.
local function connecting(port)
  local n, wanted = 0, ("%04X"):format(port)
  for line in io.lines "/proc/net/tcp" do
    if line:match "^%s*%d+: %x+:%x+ %x+:(%x+) 02 " == wanted then n = n + 1 end
  end
  return n
end

describe("a request that is cancelled", function()
  local bad, phases
  lazy_setup(function()
    bad = misbehave.start()
    local function fault(name, scheme)
      return function() return (bad:happened(name) or 0) end,
        scheme and scheme .. "://" .. bad[name] or bad.url .. "/" .. name
    end
    -- { phase, url, options, a number that grows when the phase is reached }
    phases = {}
    local function add(phase, options, reached, url)
      phases[#phases + 1] = { phase = phase, url = url, options = options, reached = reached }
    end
    local port = tonumber(bad.full:match ":(%d+)")
    add("connect", {}, function() return connecting(port) end, "http://" .. bad.full)
    add("tls", {}, fault("mute", "https"))
    add("send", { method = "POST", body = ("x"):rep(20000000) }, fault "deaf")
    add("wait", {}, fault "never")
    add("headers", {}, fault "stall-in-head")
    add("slow headers", {}, fault "slow-head")
    add("body", {}, fault "stall")
    add("slow body", {}, fault "slow-body")
  end)
  lazy_teardown(function() bad:stop() end)

  local function request(url, options)
    return require "moonloop.http".request(url, options)
  end

  -- Starts the request with `start`, cancels it when it is in that phase, and says how
  -- long that took; five times if need be, for this machine may be busy.
  local function cancel_in(phase, start)
    local took
    for _ = 1, 5 do
      local seen = phase.reached()
      local future = start(request, phase.url, phase.options)
      h.eventually(function() return phase.reached() > seen end, phase.phase)
      local asked = ml.now()
      future:cancel()
      assert.is_nil((future:wait(h.TIMEOUT)))
      took = ml.now() - asked
      assert.is_true(future:cancelled(), phase.phase)
      h.eventually(function() return phase.phase ~= "connect" or phase.reached() == seen end,
        "the end of the connecting")
      if took < SOON then return end
    end
    error(("%s: cancelled after %.3f s"):format(phase.phase, took))
  end

  local function is_well()
    assert.equal("ok\n", assert(http.get(bad.url .. "/ok", { timeout = h.TIMEOUT })).body)
  end

  -- Runs f twice: the second time leaves nothing behind, here and at the server, but the
  -- one connection that stands.
  local function leaves_nothing(f)
    local _, others = bad:connections()
    local files
    for _ = 1, 2 do
      f()
      is_well()
      h.collect()
      h.eventually(function() return select(2, bad:connections()) <= others + 1 end,
        "the server's peers")
      if files then
        h.eventually(function() return h.fds() <= files end, "the descriptors' closing")
      end
      files = h.fds()
    end
  end

  it("ends at once in each phase, and its connection too: on this loop", function()
    ml.run(function()
      leaves_nothing(function()
        for _, phase in ipairs(phases) do cancel_in(phase, ml.spawn) end
      end)
    end)
  end)

  it("ends at once in each phase, and its connection too: on the default executor", function()
    leaves_nothing(function()
      for _, phase in ipairs(phases) do cancel_in(phase, ml.run_async_job) end
    end)
  end)

  it("ends when its body waits to be read, and its connection too", function()
    ml.run(function()
      leaves_nothing(function()
        local reading = h.gate()
        local job = ml.spawn(function()
          local res <close> = assert(http.get(bad.url .. "/endless-body", { stream = true }))
          assert(res:read(1000))
          reading:open()
          ml.sleep(h.TIMEOUT)
        end)
        reading:pass()
        ml.sleep(0.05) -- so that the server has sent more than is kept
        local asked = ml.now()
        job:cancel()
        assert.is_nil((job:wait(h.TIMEOUT)))
        assert.is_true(job:cancelled())
        assert.is_true(ml.now() - asked < 10 * SOON)
      end)
    end)
  end)

  it("by a scope of a thread ends in time", function()
    for _, phase in ipairs(phases) do
      local start = ml.now()
      local res, err = ml.move_on_after(0.05, request, phase.url, phase.options)
      assert.is_nil(res)
      assert.equal("timeout", err.code)
      assert.is_true(ml.now() - start < 0.05 + 10 * SOON, phase.phase)
    end
    is_well()
    h.eventually(function() return select(2, bad:connections()) <= 2 end, "the server's peers")
  end)

  it("ends when many are, in all phases at once, while others go on", function()
    ml.run(function()
      local doomed, others = {}, {}
      for i = 1, 40 do
        local phase = phases[i % #phases + 1]
        doomed[i] = ml.spawn(request, phase.url, phase.options)
        others[i] = ml.spawn(http.get, bad.url .. "/ok", { timeout = h.TIMEOUT })
      end
      ml.sleep(0.05)
      for i = 1, 40 do doomed[i]:cancel() end
      for i = 1, 40 do
        doomed[i]:wait(h.TIMEOUT)
        assert.is_true(doomed[i]:cancelled())
        assert.equal("ok\n", assert(others[i]:result(h.TIMEOUT)).body)
      end
    end)
  end)

  it("is one stream of its HTTP/2 connection, which stays", function()
    local srv <close> = nginx.start{ http2 = true }
    local options = { tls = { ca = srv.ca }, timeout = h.TIMEOUT }
    ml.run(function()
      assert(http.get(srv.https_url .. "/300b", options))
      local accepted = srv:connections()
      local doomed, others = {}, {}
      for i = 1, 20 do
        doomed[i] = ml.spawn(http.get, srv.https_url .. "/delay/10/300b", options)
        others[i] = ml.spawn(http.get, srv.https_url .. "/delay/0.1/300b", options)
      end
      ml.sleep(0.03)
      for i = 1, 20 do doomed[i]:cancel() end
      for i = 1, 20 do
        doomed[i]:wait(h.TIMEOUT)
        assert.is_true(doomed[i]:cancelled())
        assert.equal("2", assert(others[i]:result(h.TIMEOUT)).http_version)
      end
      assert(http.get(srv.https_url .. "/300b", options))
      assert.equal(accepted, (srv:connections()))
    end)
  end)
end)

describe("a name server", function()
  local dns, bad, missing
  lazy_setup(function()
    local available, why = resolver.available()
    if not available then
      missing = why
      return
    end
    dns, bad = resolver.start(), misbehave.start()
  end)
  lazy_teardown(function()
    if dns then
      dns:stop()
      bad:stop()
    end
  end)

  -- Runs a script where names are what resolver.lua says; `url(host)` is one of the server's.
  local function run(code)
    if missing then
      pending("no name server of our own: " .. missing)
      return
    end
    local out, status = h.run_script([[
      local ml, http = require "moonloop", require "moonloop.http"
      local h = require "spec.support.helpers"
      local SOON = tonumber(arg[3])
      local function url(host) return "http://" .. host .. ".test:" .. arg[1] .. "/ok" end
      local function asked(name)
        for line in io.lines(arg[2]) do if line == name .. ".test" then return true end end
      end
      ]] .. code, { bad.url:match ":(%d+)$", dns.dir .. "/asked", tostring(SOON),
        lua = dns:program "lua5.4" })
    assert.equal(0, status, out)
  end

  it("that is slow is waited for, and nobody else waits", function()
    run [[
      ml.run(function()
        local slow = ml.spawn(http.get, url "slow-500", { timeout = h.TIMEOUT })
        h.eventually(function() return asked "slow-500" end, "the question")
        for _ = 1, 20 do assert(http.get(url "ok", { timeout = h.TIMEOUT })) end
        assert(not slow:done())
        local res = assert(slow:result(h.TIMEOUT))
        assert(res.body == "ok\n" and res.timings.resolve >= 0.3, res.timings.resolve)
      end)]]
  end)

  it("that knows no such name, or fails, is told", function()
    run [[
      for _, host in ipairs{ "none", "broken" } do
        local res, err = http.get(url(host), { timeout = h.TIMEOUT })
        assert(not res and err.code == "resolve", err)
        assert(err.message:find("Could not resolve host: " .. host .. ".test", 1, true), err)
      end
      assert(http.get(url "ok"))]]
  end)

  it("that does not answer is waited for until the timeout", function()
    run [[
      for _, options in ipairs{ { timeout = 0.3 }, { connect_timeout = 0.3 } } do
        local start = ml.now()
        local res, err = http.get(url "never", options)
        local took = ml.now() - start
        assert(not res and err.code == "timeout", err)
        assert(took >= 0.29 and took < 0.3 + 10 * SOON, took)
      end
      assert(http.get(url "ok"))]]
  end)

  it("that does not answer delays no cancel, no other request and no exit", function()
    local start = ml.now()
    run [[
      ml.run(function()
        assert(http.get(url "ok"))
        local took
        for i = 1, 5 do
          local job = ml.spawn(http.get, url "never")
          if i == 1 then h.eventually(function() return asked "never" end, "the question") end
          ml.checkpoint()
          local start = ml.now()
          job:cancel()
          job:wait(h.TIMEOUT)
          took = math.min(took or 1e9, ml.now() - start)
          assert(job:cancelled())
          assert(http.get(url "ok"))
        end
        assert(took < SOON, took)
      end)]]
    assert.is_true(ml.now() - start < 8)
  end)
end)
