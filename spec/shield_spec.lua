-- Clean-up that waits: shield, and defer with its deadline.

local ml = require "moonloop"
local h = require "spec.support.helpers"

local function in_sync(f, ...) return f(...) end

for where, run in pairs{ ["in a job"] = ml.run, ["in a sync state"] = in_sync } do
  describe("shield " .. where, function()
    it("is a call: arguments, values and errors pass", function()
      run(function()
        assert.same(table.pack(1, nil), table.pack(ml.shield(function(...) return ... end, 1, nil)))
        local mine = {}
        assert.equal(mine, h.raised(ml.shield, error, mine))
        assert.is_false(h.raised(ml.shield, error, false))
        h.misuse("shield: function expected, got nil", function() ml.shield() end)
      end)
    end)

    it("keeps a cancel out, which is raised at the next wait", function()
      run(function()
        local log = {}
        local _, err = ml.scope(function(s)
          s:cancel "outside"
          log[1] = ml.shield(function()
            ml.sleep(0.001)
            ml.checkpoint()
            return "went through"
          end)
          ml.sleep(60)
          log[2] = "not reached"
        end)
        assert.same({ "went through" }, log)
        assert.equal("outside", err.reason)
      end)
    end)

    it("keeps a deadline out, and what it runs ends", function()
      run(function()
        local ended = false
        local err = h.raised(ml.timeout, 0.001, function()
          ml.shield(function()
            ml.sleep(0.01)
            ended = true
          end)
          ml.sleep(60)
        end)
        assert.is_true(ended)
        assert.equal("timeout", err.code)
      end)
    end)

    it("lets the scopes in it work", function()
      run(function()
        local inner, err
        local _, outer = ml.scope(function(s)
          s:cancel "outside"
          ml.shield(function()
            inner = select(2, ml.scope(function(i) i:cancel "inside" ml.sleep(60) end))
            err = select(2, ml.move_on_after(0.001, ml.sleep, 60))
            ml.shield(ml.sleep, 0)
            ml.sleep(0)
          end)
          ml.sleep(60)
        end)
        assert.same({ "inside", "timeout", "outside" }, { inner.reason, err.code, outer.reason })
      end)
    end)

    it("lets a __close wait", function()
      run(function()
        local log = {}
        ml.scope(function(s)
          local _ <close> = setmetatable({}, { __close = function()
            log[1] = pcall(ml.sleep, 0)
            log[2] = pcall(ml.shield, ml.sleep, 0.001)
            log[3] = pcall(ml.sleep, 0)
          end })
          s:cancel()
          ml.sleep(60)
        end)
        assert.same({ false, true, false }, log)
      end)
    end)
  end)

  describe("defer " .. where, function()
    it("runs its function as the block is left, with the error if there is one", function()
      run(function()
        local seen = {}
        do
          local _ <close> = ml.defer(function(...) seen = table.pack(...) end)
        end
        assert.same({ n = 1 }, seen)
        local mine = {}
        assert.equal(mine, h.raised(function()
          local _ <close> = ml.defer(function(err) seen = err end)
          error(mine)
        end))
        assert.equal(mine, seen)
      end)
    end)

    it("may wait under a cancel, innermost first", function()
      run(function()
        local log = {}
        local _, err = ml.scope(function(s)
          local _ <close> = ml.defer(function(e)
            ml.sleep(0.001)
            log[#log + 1] = "outer " .. e.code
          end)
          local _ <close> = ml.defer(function(e)
            ml.sleep(0.001)
            log[#log + 1] = "inner " .. e.code
          end)
          s:cancel()
          ml.sleep(60)
        end)
        assert.same({ "inner cancelled", "outer cancelled" }, log)
        assert.equal("cancelled", err.code)
      end)
    end)

    it("that raises gives the error on, after the other clean-up", function()
      run(function()
        local log = {}
        local err = h.raised(ml.scope, function(s)
          local _ <close> = ml.defer(function(e) log[1] = e end)
          local _ <close> = ml.defer(function() error("broken", 0) end)
          s:cancel()
          ml.sleep(60)
        end)
        assert.equal("broken", err)
        assert.same({ "broken" }, log)
      end)
    end)

    it("refuses at once what is no function", function()
      run(function()
        h.misuse("defer: function expected, got nil", function()
          local _ <close> = ml.defer()
        end)
      end)
    end)
  end)
end

describe("shield", function()
  local ex, started

  before_each(function() ex, started = ml.AsyncExecutor{ name = "shield" }, h.gate() end)
  after_each(function() h.close(ex) end)

  it("keeps the cancel of the job out until it is left", function()
    local release, log = h.gate(), h.gate()
    local future = ex:submit(function(s, r, l)
      local inside = ml.shield(function()
        s:open()
        return r:pass()
      end)
      l:open(inside, h.raised(ml.sleep, 60).reason)
      ml.sleep(60)
    end, started, release, log)
    started:pass()
    assert.is_true(future:cancel "why")
    assert.is_nil((future:wait(h.SHORT)))
    release:open "inside"
    assert.same({ "inside", "why" }, { log:pass() })
    future:wait(h.TIMEOUT)
    assert.is_true(future:cancelled())
  end)

  it("gives the value of a job that never waits again", function()
    local release = h.gate()
    local future = ex:submit(function(s, r)
      return ml.shield(h.hold, s, r)
    end, started, release)
    started:pass()
    future:cancel()
    release:open "a value after all"
    assert.equal("a value after all", future:result(h.TIMEOUT))
    assert.is_false(future:cancelled())
  end)

  it("holds through layers of jobs, threads and calls", function()
    local release, ended = h.gate(), h.gate()
    local outer = ex:submit(function(s, r, e)
      ml.shield(function()
        ml.to_thread(function(...)
          local call = ml.async_to_sync(function(s2, r2, e2)
            local value = coroutine.wrap(function() return h.hold(s2, r2) end)()
            e2:open(value)
          end)
          return call(...)
        end, s, r, e)
      end)
      ml.sleep(60)
    end, started, release, ended)
    started:pass()
    outer:cancel()
    release:open "reached the end"
    assert.equal("reached the end", ended:pass())
    outer:wait(h.TIMEOUT)
    assert.is_true(outer:cancelled())
  end)

  it("passes on the cancel of what it waits for, as another job's", function()
    local inner = ex:submit(function(s) s:open() ml.sleep(60) end, started)
    local outer = ex:submit(function(f) return ml.shield(f.result, f) end, inner)
    started:pass()
    inner:cancel "inner"
    local _, err = outer:wait(h.TIMEOUT)
    assert.same({ "job_cancelled", "inner" }, { err.code, err.reason })
  end)

  it("keeps the cancel of a worker's task out", function()
    local pool <close> = ml.ThreadExecutor{ workers = 1 }
    local release, log = h.gate(), h.gate()
    local future = pool:submit(function(s, r, l)
      local inside = ml.shield(function()
        s:open()
        return r:pass()
      end)
      l:open(inside, h.raised(ml.sleep, 60).code)
    end, started, release, log)
    started:pass()
    future:cancel()
    release:open "inside"
    assert.same({ "inside", "cancelled" }, { log:pass() })
    future:wait(h.TIMEOUT)
  end)
end)

describe("defer", function()
  local ex, started

  before_each(function() ex, started = ml.AsyncExecutor{ name = "defer" }, h.gate() end)
  after_each(function() h.close(ex) end)

  it("is waited for by who cancels and waits", function()
    local log = h.gate()
    local future = ex:submit(function(s, l)
      local _ <close> = ml.defer(function()
        ml.sleep(0.01)
        l:open "cleaned"
      end)
      s:open()
      ml.sleep(60)
    end, started, log)
    started:pass()
    future:cancel_and_wait(h.TIMEOUT)
    assert.is_true(log:is_open())
    assert.is_true(future:cancelled())
  end)

  it("is not cut short by more cancels, and may wait for jobs of its own", function()
    local cleaning, release, log = h.gate(), h.gate(), h.gate()
    local future = ex:submit(function(s, c, r, l)
      local _ <close> = ml.defer(function()
        local failing = ml.spawn(function() error("child", 0) end)
        local _, err = failing:wait()
        l:open(ml.spawn(function() return h.hold(c, r) end):result(), err)
      end)
      s:open()
      ml.sleep(60)
    end, started, cleaning, release, log)
    started:pass()
    future:cancel()
    cleaning:pass()
    future:cancel "again"
    release:open "all of it"
    assert.same({ "all of it", "child" }, { log:pass() })
    future:wait(h.TIMEOUT)
    assert.is_true(future:cancelled())
  end)

  it("gives a job whose clean-up raises that outcome", function()
    local future = ex:submit(function(s)
      local _ <close> = ml.defer(function() error("broken", 0) end)
      s:open()
      ml.sleep(60)
    end, started)
    started:pass()
    future:cancel()
    assert.same({ nil, "broken" }, { future:wait(h.TIMEOUT) })
  end)

  it("that never ends is ended after 5 s; in a job that swallows that, for good", function()
    local pool <close> = ml.ThreadExecutor{ workers = 1 }
    local function never()
      local _ <close> = ml.defer(function() ml.sleep(3600) end)
    end
    local before = ml.now()
    local stubborn = ex:submit(function()
      local _ <close> = ml.defer(function()
        while true do pcall(ml.sleep, 3600) end
      end)
    end)
    local futures = { ex:submit(never), pool:submit(never) }
    for _, future in ipairs(futures) do
      local _, err = future:wait(h.TIMEOUT)
      assert.equal("timeout", err.code)
      assert.equal("timeout after 5 s", tostring(err))
    end
    stubborn:wait(h.TIMEOUT)
    assert.is_true(stubborn:cancelled())
    local took = ml.now() - before
    assert.is_true(took >= 5 and took < 10, tostring(took))
  end)

  it("that raises in a job which run left behind is reported, and run goes on", function()
    local log = h.error_log()
    assert.equal("value", ml.run(function()
      ml.spawn(function()
        local _ <close> = ml.defer(function() error("left behind", 0) end)
        started:open()
        ml.sleep(3600)
      end)
      started:pass()
      return "value"
    end))
    h.collect()
    assert.equal("left behind", (log:entry(1)))
    ml.on_error(nil)
  end)

  it("cannot wait where coroutine.close runs it, and says so", function()
    assert.matches("being closed", ml.run(function()
      local co = coroutine.create(function()
        local _ <close> = ml.defer(function() ml.sleep(0) end)
        coroutine.yield()
      end)
      coroutine.resume(co)
      local _, err = coroutine.close(co)
      return tostring(err)
    end))
  end)
end)
