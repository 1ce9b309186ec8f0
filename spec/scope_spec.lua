-- Scopes of cancellation, in jobs and on threads alike: law 5.

local ml = require "moonloop"
local h = require "spec.support.helpers"

local function in_sync(f, ...) return f(...) end

for where, run in pairs{ ["in a job"] = ml.run, ["in a sync state"] = in_sync } do
  describe("scope " .. where, function()
    it("returns the values of its function, nils and count kept", function()
      assert.same(table.pack(nil, 2, nil), table.pack(run(ml.scope, function()
        ml.sleep(0.001)
        return nil, 2, nil
      end)))
      assert.same({ n = 0 }, table.pack(run(ml.scope, function() end)))
    end)

    it("gives its function a handle that tells how it stands", function()
      run(function()
        local kept
        ml.scope(function(s)
          kept = s
          assert.is_false(s.cancelled)
          assert.matches("^scope: .*open", tostring(s))
        end)
        assert.matches("left", tostring(kept))
        assert.is_false(kept:cancel())
        assert.is_false(kept.cancelled)
      end)
    end)

    it("absorbs its own cancel and says why it ended", function()
      run(function()
        local seen, handle
        local value, err = ml.scope(function(s)
          handle = s
          assert.is_true(s:cancel "enough")
          assert.is_false(s:cancel "again")
          seen = h.raised(ml.sleep, 60)
          error(seen)
        end)
        assert.is_nil(value)
        assert.equal(seen, err)
        assert.same({ "cancelled", "enough", true },
          { err.code, err.reason, ml.is_cancelled(err) })
        assert.matches("enough", tostring(err))
        assert.is_true(handle.cancelled)
        assert.matches("cancelled", tostring(handle))
      end)
    end)

    it("takes any value as the reason, nil too", function()
      run(function()
        local reason = setmetatable({}, { __tostring = function() return "my reason" end })
        local _, err = ml.scope(function(s) s:cancel(reason) ml.sleep(60) end)
        assert.equal(reason, err.reason)
        assert.matches("my reason", tostring(err))
        _, err = ml.scope(function(s) s:cancel() ml.sleep(60) end)
        assert.is_nil(err.reason)
        assert.matches("cancelled", tostring(err))
      end)
    end)

    it("raises its cancel at each wait, and lets go afterwards", function()
      run(function()
        local codes = {}
        ml.scope(function(s)
          s:cancel()
          for i = 1, 5 do codes[i] = h.raised(ml.sleep, 60).code end
          codes[6] = h.raised(ml.checkpoint).code
        end)
        assert.equal(("cancelled "):rep(6), table.concat(codes, " ") .. " ")
        ml.sleep(0)
        ml.checkpoint()
      end)
    end)

    it("lets values be values, cancelled or not", function()
      assert.equal(42, run(ml.scope, function(s)
        s:cancel()
        pcall(ml.sleep, 60)
        return 42
      end))
    end)

    it("passes other errors on as they are", function()
      run(function()
        local mine = { "mine" }
        assert.equal(mine, h.raised(ml.scope, function() error(mine) end))
        assert.is_false(h.raised(ml.scope, function() error(false) end))
        assert.equal("nil_error", h.raised(ml.scope, function() error(nil) end).code)
        assert.equal(mine, h.raised(ml.scope, function(s)
          s:cancel()
          local _ <close> = setmetatable({}, { __close = function() error(mine) end })
          ml.sleep(60)
        end))
      end)
    end)

    it("cancels the scopes in it, which do not absorb that", function()
      run(function()
        local inner_went_on = false
        local _, err = ml.scope(function(outer)
          ml.scope(function()
            outer:cancel "outer"
            ml.sleep(60)
          end)
          inner_went_on = true
        end)
        assert.is_false(inner_went_on)
        assert.equal("outer", err.reason)
      end)
    end)

    it("leaves the scopes around it alone", function()
      assert.equal("outer goes on", run(ml.scope, function(outer)
        local _, err = ml.scope(function(s) s:cancel "inner" ml.sleep(60) end)
        assert.equal("inner", err.reason)
        assert.is_false(outer.cancelled)
        ml.sleep(0)
        return "outer goes on"
      end))
    end)

    it("cancelled together with one around it ends that one", function()
      run(function()
        local inner_error
        local _, err = ml.scope(function(outer)
          ml.scope(function(inner)
            inner:cancel "inner"
            outer:cancel "outer"
            inner_error = h.raised(ml.sleep, 60)
            error(inner_error)
          end)
          error "not reached"
        end)
        assert.equal("outer", err.reason)
        assert.equal(err, inner_error)
      end)
    end)

    it("ends at its timeout", function()
      run(function()
        local handle
        local value, err = ml.scope(function(s) handle = s ml.sleep(60) end, { timeout = h.SHORT })
        assert.is_nil(value)
        assert.equal("timeout", err.code)
        assert.is_true(handle.cancelled)
        assert.matches("timed out", tostring(handle))
      end)
    end)

    it("moves its deadline: later, sooner, away, into the past", function()
      run(function()
        assert.equal("later", ml.scope(function(s)
          s:set_deadline(ml.now() + 60)
          ml.sleep(2 * h.SHORT)
          return "later"
        end, { timeout = h.SHORT }))
        assert.equal("removed", ml.scope(function(s)
          s:set_deadline(nil)
          ml.sleep(2 * h.SHORT)
          return "removed"
        end, { timeout = h.SHORT }))
        local ends = { ml.now() + h.SHORT, ml.now() - 1, 0, -1, ml.now() + 0.001 }
        for _, at in ipairs(ends) do
          local _, err = ml.scope(function(s)
            s:set_deadline(at)
            ml.sleep(60)
          end, { timeout = 50 })
          assert.equal("timeout", err.code)
        end
        assert.equal("timeout", select(2, ml.scope(function(s)
          h.raised(ml.sleep, 60)
          s:set_deadline(ml.now() + 60) -- too late
          ml.sleep(60)
        end, { timeout = 0.001 })).code)
        assert.equal("huge", ml.scope(function(s)
          s:set_deadline(math.huge)
          ml.sleep(0)
          return "huge"
        end))
      end)
    end)

    it("is told apart by deadline: each of nested ones ends its own", function()
      run(function()
        local log = {}
        local _, outer = ml.scope(function()
          local _, inner = ml.scope(function() ml.sleep(60) end, { timeout = 0.005 })
          log[1] = inner.code
          ml.sleep(60)
          log[2] = "not reached"
        end, { timeout = 0.03 })
        assert.same({ "timeout" }, log)
        assert.equal("timeout", outer.code)
        _, outer = ml.scope(function()
          ml.scope(function() ml.sleep(60) end, { timeout = 50 })
          log[2] = "not reached"
        end, { timeout = 0.005 })
        assert.same({ "timeout" }, log)
        assert.equal("timeout", outer.code)
      end)
    end)

    it("ends by the outermost deadline that passed while the thread was busy", function()
      run(function()
        local inner_went_on = false
        local _, err = ml.scope(function()
          ml.scope(function()
            h.spin(0.02)
            ml.sleep(60)
          end, { timeout = 0.005 })
          inner_went_on = true
          ml.sleep(60)
        end, { timeout = 0.01 })
        assert.equal("timeout", err.code)
        assert.is_false(inner_went_on)
      end)
    end)

    it("can be cancelled by a callback while it waits", function()
      run(function()
        local p = ml.promise()
        local _, err = ml.scope(function(s)
          p.future:add_done_callback(function() s:cancel "called back" end)
          ml.run_async_job(function(promise) promise:set_result() end, p)
          ml.sleep(60)
        end)
        assert.equal("called back", err.reason)
      end)
    end)

    it("can be cancelled by a finalizer", function()
      run(function()
        local _, err = ml.scope(function(s)
          setmetatable({}, { __gc = function() s:cancel "collected" end })
          h.collect()
          ml.sleep(60)
        end)
        assert.equal("collected", err.reason)
      end)
    end)

    it("refuses misuse, with the caller's line", function()
      run(function()
        h.misuse("scope: function expected, got nil", function() ml.scope() end)
        h.misuse("scope: function expected, got number", function() ml.scope(1) end)
        h.misuse("scope: function expected, got table", function() ml.scope{} end)
        h.misuse("unknown option 'deadline'", function() ml.scope(print, { deadline = 1 }) end)
        h.misuse("'timeout'.*negative", function() ml.scope(print, { timeout = -1 }) end)
        h.misuse("'timeout'.*nan", function() ml.scope(print, { timeout = 0 / 0 }) end)
        h.misuse("'timeout'.*got string", function() ml.scope(print, { timeout = "1" }) end)
        ml.scope(function(s)
          h.misuse("set_deadline.*got nan", function() s:set_deadline(0 / 0) end)
          h.misuse("set_deadline.*number expected, got table", function() s:set_deadline{} end)
          assert.equal("crossing", h.raised(ml.run_async_job, print, s).code)
        end)
        ml.sleep(0) -- no scope is left behind
      end)
    end)
  end)
end

describe("scope", function()
  it("is cancelled by another job of the loop, in nested coroutines too", function()
    ml.run(function()
      local handle, log = nil, {}
      local waiting = h.gate()
      local victim = ml.spawn(function()
        return select(2, ml.scope(function(s)
          handle = s
          coroutine.wrap(function()
            local _ <close> = setmetatable({}, { __close = function() log[1] = "closed" end })
            waiting:open()
            ml.sleep(60)
          end)()
        end))
      end)
      waiting:pass()
      assert.is_true(handle:cancel "from next door")
      assert.equal("from next door", victim:result(h.TIMEOUT).reason)
      assert.same({ "closed" }, log)
    end)
  end)

  it("lets the cancel of its job through", function()
    ml.run(function()
      local absorbed = false
      local waiting = h.gate()
      local job = ml.spawn(function()
        ml.scope(function()
          waiting:open()
          ml.sleep(60)
        end, { timeout = 50 })
        absorbed = true
      end)
      waiting:pass()
      job:cancel_and_wait(h.TIMEOUT)
      assert.is_true(job:cancelled())
      assert.is_false(absorbed)
    end)
  end)

  it("whose cancel is swallowed a hundred times ends its job for good", function()
    ml.run(function()
      local swallowed = 0
      local stubborn = ml.spawn(function()
        ml.scope(function(s)
          s:cancel()
          while true do
            pcall(ml.sleep, 60)
            swallowed = swallowed + 1
          end
        end)
      end)
      stubborn:wait(h.TIMEOUT)
      assert.is_true(stubborn:cancelled())
      assert.equal(100, swallowed)
    end)
  end)

  it("bounds a run on its thread", function()
    local cleaned = false
    local _, err = ml.scope(function()
      ml.run(function()
        local _ <close> = ml.defer(function()
          ml.sleep(0.001)
          cleaned = true
        end)
        ml.sleep(60)
      end)
    end, { timeout = h.SHORT })
    assert.equal("timeout", err.code)
    assert.is_true(cleaned)
    _, err = ml.scope(function(s)
      ml.run(function()
        s:cancel "from within"
        ml.sleep(60)
      end)
    end)
    assert.equal("from within", err.reason)
  end)

  it("bounds a poll on its thread", function()
    local _, err = ml.scope(function() ml.poll(60) end, { timeout = h.SHORT })
    assert.equal("timeout", err.code)
    assert.is_false(ml.scope(function() return ml.poll(0.001) end, { timeout = 50 }))
  end)

  it("that a worker's task left open is not the next task's", function()
    local pool <close> = ml.ThreadExecutor{ workers = 1 }
    pool:submit(function()
      local g = ml.group()
      g:cancel()
      rawset(_G, "kept", g)
    end):result(h.TIMEOUT)
    assert.equal("free", pool:submit(function()
      ml.sleep(0)
      return "free"
    end):result(h.TIMEOUT))
  end)

  it("around a run leaves callbacks there to do what they may", function()
    assert.equal("put", ml.timeout(h.TIMEOUT, ml.run, function()
      local q = ml.Queue()
      ml.spawn(function() end):add_done_callback(function() q:put "put" end)
      return q:get()
    end))
  end)

  it("dropped unfinished is no scope any more", function()
    for _, run in ipairs{ ml.run, in_sync } do
      run(function()
        do
          local g = ml.group()
          g:cancel()
          assert.equal("cancelled", h.raised(ml.sleep, 0).code)
        end
        h.collect()
        ml.sleep(0)
      end)
    end
  end)
end)

describe("cancel of a job", function()
  it("may come from a finalizer and from a callback", function()
    ml.run(function()
      local one = ml.spawn(ml.sleep, 60)
      local two = ml.spawn(ml.sleep, 60)
      ml.sleep(0)
      one:add_done_callback(function() two:cancel "called back" end)
      setmetatable({}, { __gc = function() one:cancel "collected" end })
      h.collect()
      assert.same({ "collected", "called back" },
        { one:exception(h.TIMEOUT).reason, two:exception(h.TIMEOUT).reason })
    end)
  end)
end)
