-- timeout, wait_for and move_on_after: bounds on anything that waits.

local ml = require "moonloop"
local h = require "spec.support.helpers"

local function in_sync(f, ...) return f(...) end

for where, run in pairs{ ["in a job"] = ml.run, ["in a sync state"] = in_sync } do
  describe("timeout " .. where, function()
    it("returns the values of what ends in time, and passes arguments", function()
      local function echo(...)
        ml.sleep(0.001)
        return ...
      end
      for _, bound in ipairs{ ml.timeout, ml.wait_for, ml.move_on_after } do
        assert.same(table.pack(1, nil, 3, nil), table.pack(run(bound, 50, echo, 1, nil, 3, nil)))
      end
    end)

    it("raises or returns an error with code timeout", function()
      run(function()
        for _, bound in ipairs{ ml.timeout, ml.wait_for } do
          local err = h.raised(bound, 0.01, ml.sleep, 60)
          assert.is_true(ml.is_timeout(err))
          assert.is_false(ml.is_cancelled(err))
          assert.equal("timeout after 0.01 s", tostring(err))
        end
        local value, err = ml.move_on_after(0.01, ml.sleep, 60)
        assert.is_nil(value)
        assert.equal("timeout", err.code)
      end)
    end)

    it("is seen as a cancel by what it ends", function()
      run(function()
        local seen
        h.raised(ml.timeout, 0.001, function()
          seen = h.raised(ml.sleep, 60)
          error(seen)
        end)
        assert.same({ "cancelled", "timeout" }, { seen.code, seen.reason })
        assert.matches("deadline", tostring(seen))
      end)
    end)

    it("has no limit with nil", function()
      run(function()
        assert.equal("done", ml.timeout(nil, function() ml.sleep(0.001) return "done" end))
        assert.equal("done", ml.move_on_after(nil, function() ml.sleep(0.001) return "done" end))
        assert.equal("done", ml.timeout(math.huge, function() ml.sleep(0.001) return "done" end))
      end)
    end)

    it("of 0 lets it run to its first wait", function()
      run(function()
        local steps = {}
        assert.equal("timeout", h.raised(ml.timeout, 0, function()
          steps[1] = "began"
          ml.sleep(0)
          steps[2] = "went on"
        end).code)
        assert.same({ "began" }, steps)
        assert.equal("no wait", ml.timeout(0, function() return "no wait" end))
        assert.equal("no wait", ml.move_on_after(0, function() return "no wait" end))
        assert.equal("settled", ml.timeout(0, function()
          local p = ml.promise()
          p:set_result "settled"
          return p.future:result()
        end))
      end)
    end)

    it("raises after the clean-up", function()
      run(function()
        local cleaned = false
        h.raised(ml.timeout, 0.001, function()
          local _ <close> = ml.defer(function()
            ml.sleep(0.01)
            cleaned = true
          end)
          ml.sleep(60)
        end)
        assert.is_true(cleaned)
      end)
    end)

    it("gives the value of what will not be cancelled", function()
      run(function()
        local function stubborn()
          pcall(ml.sleep, 60)
          return 42
        end
        assert.equal(42, ml.timeout(0.001, stubborn))
        assert.equal(42, ml.move_on_after(0.001, stubborn))
      end)
    end)

    it("passes on the errors of what it bounds, before and after the deadline", function()
      run(function()
        local mine = { "mine" }
        assert.equal(mine, h.raised(ml.timeout, 50, function() error(mine) end))
        assert.equal(mine, h.raised(ml.move_on_after, 50, function() error(mine) end))
        assert.equal(mine, h.raised(ml.timeout, 0.001, function()
          pcall(ml.sleep, 60)
          error(mine)
        end))
        assert.is_false(h.raised(ml.timeout, 50, error, false))
      end)
    end)

    it("does not take the timeout of a wait for its own", function()
      run(function()
        local p = ml.promise()
        local err = h.raised(ml.move_on_after, 50, p.future.result, p.future, 0.001)
        assert.equal("timeout", err.code)
        assert.matches("waiting for", tostring(err))
      end)
    end)

    it("nests: each ends its own, the outer one more", function()
      run(function()
        local log = {}
        local _, outer = ml.move_on_after(0.03, function()
          local ok, err = pcall(ml.timeout, 0.001, ml.sleep, 60)
          log[1] = tostring(ok) .. " " .. err.code
          ml.timeout(50, ml.sleep, 60)
          log[2] = "not reached"
        end)
        assert.same({ "false timeout" }, log)
        assert.equal("timeout", outer.code)
      end)
    end)

    it("leaves nothing behind: what comes after is not cancelled", function()
      run(function()
        for _ = 1, 10 do
          ml.move_on_after(0.0001, ml.sleep, 60)
          ml.sleep(0)
          ml.checkpoint()
        end
        for _ = 1, 10000 do ml.timeout(3600, math.abs, 1) end
      end)
    end)

    it("over a future leaves its job alone", function()
      run(function()
        local ex <close> = ml.AsyncExecutor{}
        local started, release = h.gate(), h.gate()
        local future = ex:submit(h.hold, started, release)
        started:pass()
        h.raised(ml.timeout, h.SHORT, future.result, future)
        assert.is_false(future:done())
        release:open "kept"
        assert.equal("kept", future:result(h.TIMEOUT))
      end)
    end)

    it("over a call of one's own cancels it and waits for its clean-up", function()
      run(function()
        local started, cleaned = h.gate(), h.gate()
        local call = ml.async_to_sync(function(s, c)
          local _ <close> = ml.defer(function()
            ml.sleep(0.01)
            c:open()
          end)
          s:open()
          ml.sleep(60)
        end)
        assert.equal("timeout", h.raised(ml.timeout, h.SHORT, call, started, cleaned).code)
        -- Not even begun it may be, on a busy machine.
        if started:is_open() then assert.is_true(cleaned:is_open()) end
      end)
    end)

    it("over a function on a thread returns at once, and drops its outcome", function()
      run(function()
        local started, release, ended = h.gate(), h.gate(), h.gate()
        local err = h.raised(ml.timeout, h.SHORT, ml.to_thread, function(s, r, e)
          s:open()
          r:pass()
          e:open()
          error "for nobody"
        end, started, release, ended)
        assert.equal("timeout", err.code)
        release:open()
        if started:is_open() then ended:pass() end
      end)
    end)

    it("over a list of jobs cancels what the list would cancel", function()
      run(function()
        local ex <close> = ml.AsyncExecutor{}
        local release = h.gate()
        local function pass(gate) return gate:pass() end
        local gathered = { ex:submit(pass, release), ex:submit(pass, release) }
        h.raised(ml.timeout, h.SHORT, ml.gather, gathered)
        assert.same({ true, true }, { gathered[1]:cancelled(), gathered[2]:cancelled() })
        local completed = ex:submit(pass, release)
        h.raised(ml.timeout, h.SHORT, ml.complete_async_jobs, completed)
        assert.is_false(completed:done())
        release:open "still there"
        assert.equal("still there", completed:result(h.TIMEOUT))
      end)
    end)

    it("refuses misuse, with the caller's line", function()
      run(function()
        for name, bound in pairs{ timeout = ml.timeout, move_on_after = ml.move_on_after } do
          h.misuse("must not be negative, got %-1", function() bound(-1, print) end)
          h.misuse("number of seconds expected, got nan", function() bound(0 / 0, print) end)
          h.misuse("number of seconds expected, got table", function() bound({}, print) end)
          h.misuse(name .. ": function expected, got nil", function() bound(1) end)
          h.misuse(name .. ": function expected, got string", function() bound(1, "f") end)
        end
        ml.sleep(0) -- no scope is left behind
      end)
    end)

    it("takes whatever can be called", function()
      run(function()
        local callable = setmetatable({}, { __call = function(_, x) return x end })
        assert.equal(1, ml.timeout(50, callable, 1))
        assert.equal(2, ml.timeout(50, ml.ref(function(x) return x end), 2))
      end)
    end)
  end)
end

describe("timeout in a job", function()
  it("passes the cancel of the job on, after the clean-up", function()
    ml.run(function()
      local waiting, log = h.gate(), {}
      local job = ml.spawn(function()
        local ok, err = pcall(ml.timeout, 50, function()
          local _ <close> = ml.defer(function()
            ml.sleep(0.001)
            log[1] = "cleaned"
          end)
          waiting:open()
          ml.sleep(60)
        end)
        log[2] = tostring(ok) .. " " .. err.code .. " " .. tostring(ml.is_cancelled(err))
        error(err)
      end)
      waiting:pass()
      job:cancel_and_wait(h.TIMEOUT)
      assert.same({ "cleaned", "false cancelled true" }, log)
      assert.is_true(job:cancelled())
    end)
  end)

  it("ends each of many at its own time", function()
    ml.run(function()
      local jobs, order = {}, {}
      for i = 1, 5 do
        jobs[i] = ml.spawn(function()
          ml.move_on_after((6 - i) * 0.01, ml.sleep, 60)
          order[#order + 1] = 6 - i
        end)
      end
      ml.complete_async_jobs(table.unpack(jobs))
      assert.same({ 1, 2, 3, 4, 5 }, order)
    end)
  end)

  it("leaves no timer that would keep the loop", function()
    local before = ml.now()
    ml.run(function()
      for _ = 1, 10000 do ml.timeout(h.TIMEOUT, ml.checkpoint) end
    end)
    assert.is_true(ml.now() - before < h.TIMEOUT)
  end)

  it("reaches into a generator, whose next pull gets the item", function()
    ml.run(function()
      local release = h.gate()
      local items <close> = ml.generator{ function(gate) coroutine.yield(gate:pass()) end, release }
      assert.equal("timeout", h.raised(ml.timeout, h.SHORT, items.next, items).code)
      release:open "kept"
      assert.same({ true, "kept" }, { items:next(h.TIMEOUT) })
    end)
  end)
end)
