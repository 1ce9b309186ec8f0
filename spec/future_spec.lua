-- Futures: one handle type, settled once, asked from anywhere.

local ml = require "moonloop"
local h = require "spec.support.helpers"

describe("a future", function()
  local ex

  before_each(function()
    ex = ml.AsyncExecutor{ name = "futures" }
  end)

  after_each(function()
    h.close(ex)
  end)

  -- A future whose job has begun, and the gate that lets it end.
  local function running()
    local started, release = h.gate(), h.gate()
    local future = ex:submit(h.hold, started, release)
    started:pass()
    return future, release
  end

  local function failed(value)
    local future = ex:submit(function(v) error(v, 0) end, value)
    future:wait(h.TIMEOUT)
    return future
  end

  it("gives all values of its job, nils and the count kept", function()
    local future = ex:submit(function() return nil, 1, nil, nil end)
    assert.same(table.pack(nil, 1, nil, nil), table.pack(future:result(h.TIMEOUT)))
    assert.equal(0, select("#", ex:submit(function() end):result(h.TIMEOUT)))
  end)

  it("raises the job's error from result", function()
    local future = ex:submit(function() error "no luck" end)
    assert.matches("future_spec%.lua:%d+: no luck", h.raised(future.result, future, h.TIMEOUT))
  end)

  it("returns true and the values from wait", function()
    assert.same({ true, 1, 2 }, { ex:submit(function() return 1, 2 end):wait(h.TIMEOUT) })
  end)

  it("returns nil and the error from wait, and never raises it", function()
    assert.same({ nil, "oops" }, { failed("oops"):wait(h.TIMEOUT) })
  end)

  it("gives up at the timeout of a wait and stays usable", function()
    local future, release = running()
    local ok, err = future:wait(0)
    assert.is_nil(ok)
    assert.equal("timeout", err.code)
    assert.is_true(ml.is_timeout(err))
    assert.equal("timeout", select(2, future:wait(h.SHORT)).code)
    release:open "late"
    assert.same({ true, "late" }, { future:wait(h.TIMEOUT) })
  end)

  it("raises a timeout from result and leaves the job alone", function()
    local future, release = running()
    local err = h.raised(future.result, future, h.SHORT)
    assert.equal("timeout", err.code)
    assert.is_true(future:running())
    release:open "still there"
    assert.equal("still there", future:result(h.TIMEOUT))
  end)

  it("takes result{ timeout, cancel } as cancel and wait for the clean-up", function()
    local started, cleaned = h.gate(), h.gate()
    local future = ex:submit(function(s, c)
      local _ <close> = setmetatable({}, { __close = function() c:open() end })
      s:open()
      ml.sleep(60)
    end, started, cleaned)
    started:pass()
    local err = h.raised(future.result, future, { timeout = h.SHORT, cancel = true })
    assert.equal("timeout", err.code)
    assert.is_true(cleaned:is_open())
    assert.is_true(future:cancelled())
  end)

  it("does not wait with a timeout of zero but reads what is there", function()
    local future = ex:submit(function() return "x" end)
    future:wait(h.TIMEOUT)
    assert.equal("x", future:result(0))
    assert.same({ true, "x" }, { future:wait(0) })
  end)

  it("returns the error from exception, and nil when there was none", function()
    assert.equal("bad", failed("bad"):exception(h.TIMEOUT))
    assert.is_nil(ex:submit(function() return 1 end):exception(h.TIMEOUT))
  end)

  it("returns the cancelled error from exception", function()
    local future, release = running()
    assert.is_true(future:cancel "enough")
    local err = future:exception(h.TIMEOUT)
    assert.equal("job_cancelled", err.code)
    assert.equal("enough", err.reason)
    release:open()
  end)

  it("raises only its own timeout from exception", function()
    local future, release = running()
    assert.equal("timeout", h.raised(future.exception, future, 0).code)
    release:open()
  end)

  it("has a traceback only if the job failed", function()
    assert.matches("future_spec%.lua:%d+", failed("bad"):traceback())
    local future = ex:submit(function() return 1 end)
    future:wait(h.TIMEOUT)
    assert.is_nil(future:traceback())
  end)

  it("tells its state: running, then done", function()
    local future, release = running()
    assert.same({ false, true, false }, { future:done(), future:running(), future:cancelled() })
    assert.matches("running", tostring(future))
    release:open()
    future:wait(h.TIMEOUT)
    assert.same({ true, false, false }, { future:done(), future:running(), future:cancelled() })
    assert.matches("finished", tostring(future))
  end)

  it("tells its state: failed and cancelled", function()
    assert.matches("failed", tostring(failed "bad"))
    local future, release = running()
    future:cancel_and_wait(h.TIMEOUT)
    assert.same({ true, false, true }, { future:done(), future:running(), future:cancelled() })
    assert.matches("cancelled", tostring(future))
    release:open()
  end)

  it("is pending until its job begins", function()
    local pool <close> = ml.ThreadExecutor{ workers = 1 }
    local started, release = h.gate(), h.gate()
    pool:submit(h.hold, started, release)
    started:pass()
    local queued = pool:submit(function() return "ran" end)
    assert.same({ false, false, false }, { queued:done(), queued:running(), queued:cancelled() })
    assert.matches("pending", tostring(queued))
    release:open()
    assert.equal("ran", queued:result(h.TIMEOUT))
  end)

  it("has the name of its job", function()
    local future = ex:submit(ml.job{ function() end, name = "tea" })
    assert.equal("tea", future.name)
    assert.matches("tea", tostring(future))
    future:wait(h.TIMEOUT)
  end)

  it("answers cancel with whether it took", function()
    local future, release = running()
    assert.is_true(future:cancel())
    future:wait(h.TIMEOUT)
    assert.is_false(future:cancel())
    local finished = ex:submit(function() return 1 end)
    finished:wait(h.TIMEOUT)
    assert.is_false(finished:cancel())
    assert.equal(1, finished:result(0))
    release:open()
  end)

  it("equals every other handle of the same future", function()
    local future, release = running()
    assert.is_true(future == ex:submit(function(f) return f end, future):result(h.TIMEOUT))
    assert.is_false(future == ex:submit(function() end))
    release:open()
  end)

  it("rebuilds a result once: two reads give the same table", function()
    local future = ex:submit(function() return {} end)
    assert.equal(future:result(h.TIMEOUT), future:result(h.TIMEOUT))
    assert.equal(future:result(h.TIMEOUT), select(2, future:wait(0)))
  end)

  it("wakes every thread that waits for it", function()
    local pool <close> = ml.ThreadExecutor{ workers = 4 }
    local future, release = running()
    local waiting = {}
    for i = 1, 4 do
      waiting[i] = { h.gate() }
      waiting[i][2] = pool:submit(function(started, f, timeout)
        started:open()
        return f:result(timeout)
      end, waiting[i][1], future, h.TIMEOUT)
    end
    for i = 1, 4 do waiting[i][1]:pass() end
    release:open "all"
    for i = 1, 4 do assert.equal("all", waiting[i][2]:result(h.TIMEOUT)) end
  end)

  it("keeps neither arguments nor results alive when nobody has it", function()
    local weak = setmetatable({}, { __mode = "v" })
    do
      local argument = { "argument" }
      local future = ex:submit(function(t)
        local result = { "result" }
        rawset(_G, "weak", setmetatable({ t, result }, { __mode = "v" }))
        return result
      end, argument)
      weak[1], weak[2], weak[3] = argument, future:result(h.TIMEOUT), future
    end
    h.collect()
    assert.same({}, weak)
    assert.equal(0, ex:submit(function()
      h.collect()
      local n = 0
      for _ in pairs(rawget(_G, "weak")) do n = n + 1 end
      return n
    end):result(h.TIMEOUT))
  end)

  it("is misuse to wait for oneself", function()
    local err = ex:submit(function()
      return select(2, pcall(function() return ml.current_job():result() end))
    end):result(h.TIMEOUT)
    assert.matches("^%S*future_spec%.lua:%d+: ", err)
  end)

  it("refuses what is no timeout, at the caller's line", function()
    local future, release = running()
    for _, method in ipairs{ "wait", "result", "exception", "cancel_and_wait" } do
      h.misuse("number", function() future[method](future, "soon") end)
      h.misuse("number", function() future[method](future, true) end)
      h.misuse("n[ao][nt]", function() future[method](future, 0 / 0) end)
      h.misuse("", function() future[method](future, -1) end)
    end
    h.misuse("timeout", function() future:result{ timeout = "soon" } end)
    h.misuse("timout", function() future:result{ timout = 1 } end)
    assert.is_true(future:running())
    release:open()
  end)

  it("refuses a method called on something else", function()
    local future = ex:submit(function() end)
    h.misuse("future expected", function() future.wait({}) end)
    h.misuse("future expected", function() future.cancel() end)
    future:wait(h.TIMEOUT)
  end)
end)

describe("a done-callback", function()
  local ex

  before_each(function()
    ex = ml.AsyncExecutor{ name = "callbacks" }
  end)

  after_each(function()
    ml.on_error(nil)
    h.close(ex)
  end)

  it("runs once, with the future, while its state waits", function()
    local release, calls = h.gate(), {}
    local future = ex:submit(function(g) return g:pass() end, release)
    future:add_done_callback(function(f) calls[#calls + 1] = f end)
    assert.equal(0, #calls)
    release:open "x"
    future:wait(h.TIMEOUT)
    h.eventually(function() return #calls > 0 end)
    ml.poll(0)
    assert.equal(1, #calls)
    assert.is_true(calls[1] == future)
  end)

  it("may be any value that can be called", function()
    local future, seen = ex:submit(function() end), nil
    future:wait(h.TIMEOUT)
    future:add_done_callback(setmetatable({}, { __call = function(_, f) seen = f end }))
    h.eventually(function() ml.poll(0) return seen ~= nil end)
    assert.equal(future, seen)
    h.misuse("function expected, got table", function() future:add_done_callback{} end)
  end)

  it("runs when its state polls", function()
    local future, called = ex:submit(function() end), false
    future:add_done_callback(function() called = true end)
    local deadline = ml.now() + h.TIMEOUT
    while not called and ml.now() < deadline do ml.poll(0.1) end
    assert.is_true(called)
  end)

  it("runs in the order it was added, also on a settled future", function()
    local future, order = ex:submit(function() end), {}
    future:wait(h.TIMEOUT)
    for i = 1, 3 do
      future:add_done_callback(function() order[#order + 1] = i end)
    end
    h.eventually(function() ml.poll(0) return #order == 3 end)
    assert.same({ 1, 2, 3 }, order)
  end)

  it("may read the settled future", function()
    local future, seen = ex:submit(function() return 5 end), nil
    future:add_done_callback(function(f) seen = { (f:result()), f:wait() } end)
    h.eventually(function() ml.poll(0) return seen end)
    assert.same({ 5, true, 5 }, seen)
  end)

  it("runs on the loop, in its own state, when a job added it", function()
    local ran = h.gate()
    ex:submit(function(f_done)
      local state = h.state_id()
      ml.spawn(function() return 1 end):add_done_callback(function()
        f_done:open(state == h.state_id(), ml.in_job())
      end)
    end, ran):result(h.TIMEOUT)
    assert.same({ true, false }, { ran:pass() })
  end)

  it("hands its error to on_error, and the next one still runs", function()
    local log, ran = h.error_log(), false
    local future = ex:submit(function() end)
    future:add_done_callback(function() error "callback broke" end)
    future:add_done_callback(function() ran = true end)
    h.eventually(function() ml.poll(0) return ran end)
    local err, info = log:entry(1)
    assert.matches("callback broke", tostring(err))
    assert.is_string(info.kind)
    assert.equal(1, log:count())
  end)

  it("is not asking: the error is still reported", function()
    local log, called = h.error_log(), false
    do
      local future = ex:submit(function() error("unseen", 0) end)
      future:add_done_callback(function(f) called = f:done() end)
      h.eventually(function() ml.poll(0) return called end)
    end
    h.eventually(function() h.collect() return log:count() == 1 end)
    assert.equal("unseen", (log:entry(1)))
  end)

  it("must be a function", function()
    local future = ex:submit(function() end)
    h.misuse("number", function() future:add_done_callback(1) end)
    h.misuse("no value", function() future:add_done_callback() end)
    future:wait(h.TIMEOUT)
  end)
end)
