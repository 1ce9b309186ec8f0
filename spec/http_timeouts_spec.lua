-- Timeouts hold against every way of being slow: a connect that gets no answer, a TLS
-- handshake, a head and a body that come byte by byte or not at all.

local ml = require "moonloop"
local http = require "moonloop.http"
local h = require "spec.support.helpers"
local misbehave = require "spec.support.misbehave"
local nginx = require "spec.support.nginx"

-- A timeout may be late by a fifth; on a machine that is busy, once in a while by more.
local LATE <const> = h.checking() and 20 or 1.2 -- sanitizers take their own time

describe("a timeout", function()
  local bad
  lazy_setup(function() bad = misbehave.start() end)
  lazy_teardown(function() bad:stop() end)

  -- What is wrong with how the request fails, if anything; and how long it takes.
  local function try(limit, url, options, phase)
    local start = ml.now()
    local res, err = http.request(url, options)
    local took = ml.now() - start
    assert.is_nil(res, url)
    assert.equal("timeout", err.code, err.message)
    assert.is_true(ml.is_timeout(err))
    assert.is_true(took >= limit * 0.99, ("%s: early, %.3f s"):format(url, took))
    if not err.message:match("timed out after %d[%d.]* s" .. (phase or "")) then
      return err.message, took
    elseif took > limit * LATE then
      return ("%s: late, %.3f s"):format(url, took), took
    elseif math.abs(err.timings.total - took) > limit * (LATE - 1) then
      return ("%s: timings.total is %.3f of %.3f s"):format(url, err.timings.total, took), took
    end
    return nil, took
  end

  -- How long the request takes to fail with "timeout". A machine that does other things as well
  -- may be late, and be late with what the server sends: not five times in a row.
  local function time_of(...)
    local wrong, took
    for _ = 1, 5 do
      wrong, took = try(...)
      if not wrong then break end
    end
    assert.is_nil(wrong)
    return took
  end

  -- All at once, in a loop of this thread.
  local function all(cases)
    ml.run(function()
      local jobs = {}
      for i, case in ipairs(cases) do jobs[i] = ml.spawn(time_of, table.unpack(case)) end
      for i = 1, #jobs do jobs[i]:result(h.TIMEOUT) end
    end)
  end

  it("for all of it passes in every phase", function()
    local cases = {}
    for url, phase in pairs{
      ["http://" .. bad.full] = "while waiting for a connection",
      ["https://" .. bad.full] = "while waiting for a connection",
      ["http://" .. bad.mute] = "while waiting for the response",
      ["https://" .. bad.mute] = "", -- libcurl may not tell the handshake from the connect
      [bad.url .. "/never"] = "while waiting for the response",
      [bad.url .. "/stall-in-head"] = "while receiving the headers",
      [bad.url .. "/slow-head"] = "while receiving the headers",
      [bad.url .. "/stall"] = "while receiving the body",
      [bad.url .. "/slow-body"] = "while receiving the body",
    } do
      cases[#cases + 1] = { 0.5, url, { timeout = 0.5 }, ".*" .. phase }
    end
    cases[#cases + 1] = { 0.5, bad.url .. "/deaf",
      { method = "POST", body = ("x"):rep(20000000), timeout = 0.5 },
      ".*while sending the request" }
    all(cases)
    assert.equal("ok\n", assert(http.get(bad.url .. "/ok", { timeout = h.TIMEOUT })).body)
  end)

  it("for the connect passes while there is none", function()
    all{
      { 0.4, "http://" .. bad.full, { connect_timeout = 0.4, timeout = h.TIMEOUT } },
      { 0.4, "https://" .. bad.full, { connect_timeout = 0.4 } },
      { 0.4, "https://" .. bad.mute, { connect_timeout = 0.4 } },
    }
  end)

  it("for the connect is over with it", function()
    all{
      { 0.6, bad.url .. "/never", { connect_timeout = 0.1, timeout = 0.6 } },
      { 0.6, bad.url .. "/slow-body", { connect_timeout = 0.1, timeout = 0.6 } },
    }
  end)

  it("goes on over redirects", function()
    local srv <close> = nginx.start{ locations = [[
      location = /loop { echo_sleep 0.1; echo_exec /again; }
      location = /again { return 302 /loop; }]] }
    all{ { 0.45, srv.url .. "/loop", { timeout = 0.45, max_redirects = 100 } } }
  end)

  it("holds in a thread as in a job", function()
    time_of(0.3, bad.url .. "/slow-head", { timeout = 0.3 })
    time_of(0.3, "http://" .. bad.full, { connect_timeout = 0.3 })
  end)

  it("leaves the connection of nobody else", function()
    local options = { timeout = 0.05 }
    ml.run(function()
      assert(http.get(bad.url .. "/ok", { timeout = h.TIMEOUT }))
      local accepted = bad:connections()
      for _ = 1, 5 do
        assert.equal("timeout", select(2, http.get(bad.url .. "/never", options)).code)
        assert.equal("ok\n", assert(http.get(bad.url .. "/ok", { timeout = h.TIMEOUT })).body)
      end
      -- What timed out cannot be used again: each request may have needed a new one.
      assert.is_true(bad:connections() - accepted <= 10)
      h.eventually(function() return select(2, bad:connections()) <= 2 end, "their closing")
    end)
  end)
end)
