-- Law 5: cancelling raises at the wait, level-triggered, and leaks nothing.

local ml = require "moonloop"
local h = require "spec.support.helpers"

describe("cancel", function()
  local ex, started

  before_each(function()
    ex, started = ml.AsyncExecutor{ name = "cancel" }, h.gate()
  end)

  after_each(function()
    ml.on_error(nil)
    h.close(ex)
  end)

  it("before the start: the job never runs", function()
    local ran, future = false, nil
    ml.run(function()
      future = ml.spawn(function() ran = true end)
      assert(future:cancel "too early")
      ml.checkpoint()
      ml.checkpoint()
    end)
    assert.is_false(ran)
    assert.is_true(future:cancelled())
    assert.equal("too early", future:exception().reason)
  end)

  it("raises at the wait, with code and reason", function()
    local seen = h.gate()
    local future = ex:submit(function(s, g)
      s:open()
      local _, err = pcall(ml.sleep, 60)
      g:open(err.code, err.reason, ml.is_cancelled(err), tostring(err))
      error(err)
    end, started, seen)
    started:pass()
    assert.is_true(future:cancel "lunch")
    local code, reason, own, text = seen:pass()
    assert.same({ "cancelled", "lunch", true }, { code, reason, own })
    assert.is_string(text)
    future:wait(h.TIMEOUT)
    assert.is_true(future:cancelled())
  end)

  it("takes any value that crosses as the reason", function()
    local future = ex:submit(function(s) s:open() ml.sleep(60) end, started)
    started:pass()
    future:cancel{ because = { "of", "this" } }
    assert.same({ because = { "of", "this" } }, future:exception(h.TIMEOUT).reason)
  end)

  it("runs <close> variables, innermost first, with the error", function()
    local log = h.gate()
    local future = ex:submit(function(s, g)
      local order = {}
      local function resource(name)
        return setmetatable({}, { __close = function(_, e)
          order[#order + 1] = name .. " " .. e.code
          if name == "outer" then g:open(order) end
        end })
      end
      local _ <close> = resource "outer"
      local _ <close> = resource "inner"
      s:open()
      ml.sleep(60)
    end, started, log)
    started:pass()
    future:cancel()
    assert.same({ "inner cancelled", "outer cancelled" }, log:pass())
    future:wait(h.TIMEOUT)
  end)

  it("is level-triggered: each later wait raises again", function()
    local seen = h.gate()
    local future = ex:submit(function(s, g)
      s:open()
      local codes = {}
      for i = 1, 5 do
        local ok, err = pcall(ml.sleep, i == 1 and 60 or 0.0005)
        codes[i] = ok and "waited" or err.code
      end
      local ok, err = pcall(ml.checkpoint)
      codes[6] = ok and "waited" or err.code
      g:open(table.concat(codes, " "))
      ml.sleep(0.0005)
    end, started, seen)
    started:pass()
    future:cancel()
    assert.equal(("cancelled "):rep(6):sub(1, -2), seen:pass())
    future:wait(h.TIMEOUT)
    assert.is_true(future:cancelled())
  end)

  it("in a plain __close makes each wait raise again", function()
    local seen = h.gate()
    local future = ex:submit(function(s, g)
      local _ <close> = setmetatable({}, { __close = function()
        g:open(select(2, pcall(ml.sleep, 0.001)).code)
      end })
      s:open()
      ml.sleep(60)
    end, started, seen)
    started:pass()
    future:cancel()
    assert.equal("cancelled", seen:pass())
    future:wait(h.TIMEOUT)
  end)

  it("that was swallowed and a value returned is a value", function()
    local future = ex:submit(function(s)
      s:open()
      pcall(ml.sleep, 60)
      return 42
    end, started)
    started:pass()
    assert.is_true(future:cancel())
    assert.equal(42, future:result(h.TIMEOUT))
    assert.is_false(future:cancelled())
  end)

  it("whose clean-up raises something else fails with that", function()
    local future = ex:submit(function(s)
      local _ <close> = setmetatable({}, { __close = function() error("in clean-up", 0) end })
      s:open()
      ml.sleep(60)
    end, started)
    started:pass()
    future:cancel()
    assert.same({ nil, "in clean-up" }, { future:wait(h.TIMEOUT) })
    assert.is_false(future:cancelled())
  end)

  it("keeps the first reason", function()
    local future = ex:submit(function(s) s:open() ml.sleep(60) end, started)
    started:pass()
    future:cancel "first"
    future:cancel "second"
    assert.equal("first", future:exception(h.TIMEOUT).reason)
  end)

  it("after the end does nothing", function()
    local future = ex:submit(function() return "kept" end)
    future:wait(h.TIMEOUT)
    assert.is_false(future:cancel())
    assert.equal("kept", future:result(0))
    assert.is_false(future:cancelled())
  end)

  it("by the job itself raises at its next wait", function()
    local reached = h.gate()
    local future = ex:submit(function(g)
      assert(ml.current_job():cancel "done here")
      g:open()
      ml.sleep(0.0005)
      error "not reached"
    end, reached)
    reached:pass()
    future:wait(h.TIMEOUT)
    assert.is_true(future:cancelled())
  end)

  it("does not interrupt what does not wait", function()
    local future = ex:submit(function(s)
      s:open()
      h.spin(0.05)
      return "computed"
    end, started)
    started:pass()
    future:cancel()
    assert.equal("computed", future:result(h.TIMEOUT))
  end)

  it("leaves reading settled futures alone", function()
    local seen = h.gate()
    local future = ex:submit(function(s, g)
      local done = ml.spawn(function() return "read" end)
      done:wait()
      s:open()
      pcall(ml.sleep, 60)
      g:open(done:result(), (done:wait()), (done:exception()))
    end, started, seen)
    started:pass()
    future:cancel()
    assert.same({ "read", true }, { seen:pass() })
    future:wait(h.TIMEOUT)
  end)

  it("reaches a wait in nested coroutines and pcalls", function()
    local order = h.gate()
    local future = ex:submit(function(s, g)
      local list = {}
      coroutine.wrap(function()
        local inner = coroutine.create(function()
          s:open()
          ml.sleep(60)
        end)
        local ok, err = coroutine.resume(inner)
        list[1] = tostring(ok) .. " " .. err.code .. " " .. coroutine.status(inner)
        list[2] = select(2, pcall(ml.sleep, 60)).code
      end)()
      g:open(list)
    end, started, order)
    started:pass()
    future:cancel()
    assert.same({ "false cancelled dead", "cancelled" }, order:pass())
    future:wait(h.TIMEOUT)
  end)

  it("of a waiter leaves what it waits for, and other waiters, alone", function()
    local p = ml.promise()
    local one = ex:submit(function(f) return f:result() end, p.future)
    local two = ex:submit(function(f) return f:result() end, p.future)
    h.eventually(function() return ex:stats().parked == 2 end)
    one:cancel_and_wait(h.TIMEOUT)
    assert.is_true(one:cancelled())
    p:set_result "for two"
    assert.equal("for two", two:result(h.TIMEOUT))
  end)

  it("passed on by another job is a failure there, not a cancel", function()
    local child = ex:submit(function(s) s:open() ml.sleep(60) end, started)
    local parent = ex:submit(function(c)
      local _, err = pcall(c.result, c)
      assert(not ml.is_cancelled(err))
      error(err)
    end, child)
    started:pass()
    child:cancel "you"
    local _, err = parent:wait(h.TIMEOUT)
    assert.same({ "job_cancelled", "you" }, { err.code, err.reason })
    assert.is_false(parent:cancelled())
    assert.is_true(child:cancelled())
  end)

  it("works from another thread and from another job", function()
    local other = h.gate()
    local one = ex:submit(function(s) s:open() ml.sleep(60) end, started)
    local two = ex:submit(function(s) s:open() ml.sleep(60) end, other)
    started:pass()
    other:pass()
    assert.is_true(ml.to_thread(function(f) return f:cancel() end, one))
    assert.is_true(ex:submit(function(f) return f:cancel() end, two):result(h.TIMEOUT))
    one:wait(h.TIMEOUT)
    two:wait(h.TIMEOUT)
    assert.same({ true, true }, { one:cancelled(), two:cancelled() })
  end)

  it("and wait returns after the clean-up, when nothing runs any more", function()
    local p = ml.promise()
    local future = ex:submit(function(s, promise)
      local _ <close> = setmetatable({}, { __close = function() promise:set_result "cleaned" end })
      s:open()
      ml.sleep(60)
    end, started, p)
    started:pass()
    future:cancel_and_wait(h.TIMEOUT)
    assert.equal("cleaned", p.future:result(0))
    assert.is_true(future:done())
    assert.is_false(future:running())
  end)

  it("frees what was waited for: nothing is parked, no timer is left", function()
    local futures = {}
    for i = 1, 1000 do futures[i] = ex:submit(function() ml.sleep(3600) end) end
    h.eventually(function() return ex:stats().parked == 1000 end)
    for i = 1, 1000 do futures[i]:cancel() end
    for i = 1, 1000 do
      futures[i]:wait(h.TIMEOUT)
      assert.is_true(futures[i]:cancelled())
    end
    h.eventually(function() return ex:stats().parked == 0 end)
    assert.is_true(ex:shutdown{ timeout = h.TIMEOUT })
  end)

  it("right after submit settles every future, and shutdown does not hang", function()
    for _ = 1, 100 do
      local future = ex:submit(function() ml.sleep(60) end)
      assert.is_true(future:cancel())
      future:wait(h.TIMEOUT)
      assert.is_true(future:cancelled())
    end
    assert.is_true(ex:shutdown{ timeout = h.TIMEOUT })
  end)

  it("racing with completion gives one outcome, and says which", function()
    local pool <close> = ml.ThreadExecutor{ workers = 1 }
    for _ = 1, 100 do
      local p = ml.promise()
      local future = ex:submit(function(f) return f:result() end, p.future)
      local setter = pool:submit(function(promise) promise:set_result "value" end, p)
      local took = future:cancel()
      local ok, value = future:wait(h.TIMEOUT)
      setter:result(h.TIMEOUT)
      if not took then assert.is_true(ok) end
      assert.equal(not ok, future:cancelled())
      assert.equal(ok and "value" or "job_cancelled", ok and value or value.code)
    end
  end)

  it("is not reported as an error nobody asked for", function()
    local log = h.error_log()
    do
      local future = ex:submit(function(s) s:open() ml.sleep(60) end, started)
      started:pass()
      future:cancel()
      h.eventually(function() return future:done() end)
    end
    h.collect()
    ex:submit(function() collectgarbage() end):result(h.TIMEOUT)
    assert.equal(0, log:count())
  end)

  it("swallowed a hundred times stops the job for good", function()
    local future = ex:submit(function(s)
      s:open()
      while true do pcall(ml.sleep, 60) end
    end, started)
    started:pass()
    future:cancel()
    future:wait(h.TIMEOUT)
    assert.is_true(future:cancelled())
    assert.equal("alive", ex:submit(function() return "alive" end):result(h.TIMEOUT))
  end)

  it("does not starve the loop while it is being swallowed", function()
    local turns = ml.run(function()
      local n = 0
      local stubborn = ml.spawn(function()
        for _ = 1, 50 do pcall(ml.sleep, 60) end
      end)
      local counter = ml.spawn(function()
        while not stubborn:done() do
          n = n + 1
          ml.checkpoint()
        end
      end)
      ml.checkpoint()
      ml.checkpoint()
      stubborn:cancel()
      counter:result()
      return n
    end)
    assert.is_true(turns > 10)
  end)

  it("needs a reason that crosses", function()
    local future = ex:submit(function(s) s:open() ml.sleep(60) end, started)
    started:pass()
    assert.equal("crossing", h.raised(future.cancel, future, coroutine.create(print)).code)
    assert.is_true(future:cancel())
    future:wait(h.TIMEOUT)
  end)
end)

describe("is_cancelled and is_timeout", function()
  it("are true for their errors only", function()
    for _, value in ipairs{ false, 0, "cancelled", {}, { code = "closed" }, io.stdout } do
      assert.is_false(ml.is_cancelled(value))
      assert.is_false(ml.is_timeout(value))
    end
    assert.is_false(ml.is_cancelled(nil))
    local p = ml.promise()
    local _, timeout = p.future:wait(0)
    assert.same({ true, false }, { ml.is_timeout(timeout), ml.is_cancelled(timeout) })
    p.future:cancel()
    local _, theirs = p.future:wait(0)
    assert.same({ false, false }, { ml.is_timeout(theirs), ml.is_cancelled(theirs) })
  end)
end)
