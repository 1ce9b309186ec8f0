-- Groups: no job outlives the block that started it, and no failure is lost.

local ml = require "moonloop"
local h = require "spec.support.helpers"

local function in_sync(f, ...) return f(...) end

-- Waits to be cancelled, and counts itself in the queue as that comes.
local function count_cancel(started, seen)
  local _ <close> = ml.defer(function(err) seen:put(err.code) end)
  started:put(true)
  ml.sleep(3600)
end

local function take(queue, n)
  local items = {}
  for i = 1, n do items[i] = assert(queue:get(h.TIMEOUT)) end
  return items
end

for where, run in pairs{ ["in a job"] = ml.run, ["in a sync state"] = in_sync } do
  describe("group " .. where, function()
    it("waits for its jobs, late ones too, and returns the body's values", function()
      run(function()
        local early, late
        local got = table.pack(ml.group(function(g)
          early = g:spawn(function(x) ml.sleep(0.001) return x end, 42)
          ml.sleep(0)
          late = g:spawn(function() ml.sleep(0.001) return 11 end)
          return 1, nil, 3, nil
        end))
        assert.same(table.pack(1, nil, 3, nil), got)
        assert.same({ 42, 11 }, { early:result(0), late:result(0) })
      end)
    end)

    it("waits for its jobs as the block of a <close> variable is left", function()
      run(function()
        local future
        do
          local g <close> = ml.group()
          future = g:spawn(function() ml.sleep(0.001) return "waited for" end)
        end
        assert.is_true(future:done())
        assert.equal("waited for", future:result())
      end)
    end)

    it("takes what spawn takes", function()
      run(function()
        ml.group(function(g)
          local named = g:spawn(ml.job{ function(x) return 2 * x end, 4, name = "named" })
          assert.equal("named", named.name)
          assert.equal(8, named:result())
          assert.equal(3, g:spawn("spec.support.sample:add", 1, 2):result(h.TIMEOUT))
        end)
      end)
    end)

    it("raises the failure of a job as it is, after the others were cancelled", function()
      run(function()
        local started, seen = ml.Queue(), ml.Queue()
        local body
        local err = h.raised(ml.group, function(g)
          for _ = 1, 3 do g:spawn(count_cancel, started, seen) end
          take(started, 3)
          g:spawn(function() error{ code = "mine" } end)
          body = h.raised(ml.sleep, 3600)
          error(body)
        end)
        assert.same({ code = "mine" }, err)
        assert.equal("cancelled", body.code)
        assert.same({ "cancelled", "cancelled", "cancelled" }, take(seen, 3))
        assert.equal(0, seen:size())
      end)
    end)

    it("raises it from a <close> variable too", function()
      run(function()
        local started, seen = ml.Queue(), ml.Queue()
        local err = h.raised(function()
          local g <close> = ml.group()
          g:spawn(count_cancel, started, seen)
          take(started, 1)
          g:spawn(error, "failed")
        end)
        assert.equal("failed", err)
        assert.equal(1, seen:size())
      end)
    end)

    it("raises the failure of its body, after the jobs were cancelled", function()
      run(function()
        local started, seen = ml.Queue(), ml.Queue()
        local mine = {}
        assert.equal(mine, h.raised(ml.group, function(g)
          g:spawn(count_cancel, started, seen)
          take(started, 1)
          error(mine)
        end))
        assert.equal(1, seen:size())
        assert.is_false(h.raised(ml.group, function() error(false) end))
        assert.equal("nil_error", h.raised(ml.group, function() error(nil) end).code)
      end)
    end)

    it("raises one error for several failures, in the order in which they failed", function()
      run(function()
        local started, gates = ml.Queue(), { h.gate(), h.gate() }
        local function clean_up_and_fail(queue, gate, text)
          local _ <close> = ml.defer(function()
            gate:pass()
            error(text, 0)
          end)
          queue:put(true)
          ml.sleep(3600)
        end
        local err = h.raised(ml.group, function(g)
          local second = g:spawn(clean_up_and_fail, started, gates[2], "second")
          local first = g:spawn(clean_up_and_fail, started, gates[1], "first")
          take(started, 2)
          g:spawn(error, { "trigger" })
          assert(not pcall(ml.sleep, 3600))
          ml.shield(function()
            gates[1]:open()
            first:wait(h.TIMEOUT)
            gates[2]:open()
            second:wait(h.TIMEOUT)
          end)
          error("body", 0)
        end)
        assert.equal("group", err.code)
        assert.same({ { "trigger" }, "first", "second", "body" }, err.errors)
        assert.matches("^4 jobs of the group failed: .*; first; second; body$", tostring(err))
      end)
    end)

    it("does not count cancelled jobs as failures", function()
      run(function()
        local started, seen = ml.Queue(), ml.Queue()
        assert.equal("fine", ml.group(function(g)
          local one = g:spawn(count_cancel, started, seen)
          g:spawn(function() ml.sleep(0) end)
          take(started, 1)
          one:cancel()
          one:wait(h.TIMEOUT)
          return "fine"
        end))
      end)
    end)

    it("is cancelled as a whole, with a reason, and absorbs that", function()
      run(function()
        local started, seen = ml.Queue(), ml.Queue()
        local child
        local value, err = ml.group(function(g)
          child = g:spawn(count_cancel, started, seen)
          take(started, 1)
          assert.is_true(g:cancel "enough")
          ml.sleep(3600)
        end)
        assert.is_nil(value)
        assert.same({ "cancelled", "enough" }, { err.code, err.reason })
        assert.is_true(child:cancelled())
        assert.equal("enough", child:exception().reason)
        assert.equal("value", ml.group(function(g)
          g:cancel()
          return "value"
        end))
        ml.sleep(0)
      end)
    end)

    it("that was cancelled gives cancelled futures for jobs that never run", function()
      run(function()
        local ran = ml.Queue()
        local future
        ml.group(function(g)
          g:cancel()
          future = g:spawn(function(q) q:put "ran" end, ran)
          assert.is_true(future:cancelled())
          h.misuse("job expected", function() g:spawn(1) end)
        end)
        assert.equal("job_cancelled", future:exception().code)
        assert.equal(0, ran:size())
      end)
    end)

    it("that has finished refuses jobs, and is not cancelled any more", function()
      run(function()
        local kept
        ml.group(function(g) kept = g end)
        h.misuse("spawn: the group has finished", function() kept:spawn(print) end)
        assert.is_false(kept:cancel())
      end)
    end)

    it("ends a group within it with a failure of its own", function()
      run(function()
        local started, seen = ml.Queue(), ml.Queue()
        local err = h.raised(ml.group, function(outer)
          ml.group(function(inner)
            inner:spawn(count_cancel, started, seen)
            take(started, 1)
            outer:spawn(error, "outer")
            ml.sleep(3600)
          end)
          error "not reached"
        end)
        assert.equal("outer", err)
        assert.equal(1, seen:size())
        err = h.raised(ml.group, function(outer)
          outer:spawn(count_cancel, started, seen)
          ml.group(function(inner) inner:spawn(error, "inner") end)
        end)
        assert.equal("inner", err)
      end)
    end)

    it("refuses misuse, with the caller's line", function()
      run(function()
        h.misuse("group: function expected, got number", function() ml.group(1) end)
        ml.group(function(g)
          h.misuse("spawn: group expected, got function", function() g.spawn(print) end)
          h.misuse("cancel: group expected, got nil", function() g.cancel() end)
          h.misuse("job expected.*got no value", function() g:spawn() end)
          assert.equal("crossing", h.raised(ml.run_async_job, print, g).code)
        end)
      end)
    end)
  end)
end

describe("group in a job", function()
  it("has jobs that start jobs, and ends with the failure of one of them", function()
    ml.run(function()
      local heads = 0
      local err = h.raised(ml.timeout, h.TIMEOUT, ml.group, function(g)
        local function head(depth)
          heads = heads + 1
          if depth == 6 then error("cut", 0) end
          g:spawn(head, depth + 1)
          g:spawn(head, depth + 1)
          ml.sleep(0)
          g:spawn(head, depth)
          ml.sleep(3600)
        end
        g:spawn(head, 1)
      end)
      -- Others of the same depth may have been cut before the first was missed.
      local errors = err.code == "group" and err.errors or { err }
      for _, e in ipairs(errors) do assert.equal("cut", e) end
      assert.is_true(heads > 6)
    end)
  end)

  it("ends though a job starts others after the failure, while it is being left", function()
    ml.run(function()
      local late
      local err = h.raised(ml.group, function(g)
        g:spawn(function()
          local _ <close> = ml.defer(function()
            late = g:spawn(function() ml.sleep(3600) end)
          end)
          ml.sleep(3600)
        end)
        g:spawn(error, "failed")
      end)
      assert.equal("failed", err)
      assert.is_true(late:cancelled())
    end)
  end)

  it("whose owner is cancelled cancels all, waits for them, and passes the cancel on", function()
    ml.run(function()
      local started, seen = ml.Queue(), ml.Queue()
      local body, after
      local owner = ml.spawn(function()
        local ok, err = pcall(ml.group, function(g)
          for _ = 1, 5 do g:spawn(count_cancel, started, seen) end
          body = h.raised(ml.sleep, 3600)
          error(body)
        end)
        after = { ok, err == body, seen:size() }
        error(err)
      end)
      take(started, 5)
      owner:cancel "from outside"
      owner:wait(h.TIMEOUT)
      assert.is_true(owner:cancelled())
      assert.equal("from outside", body.reason)
      assert.same({ false, true, 5 }, after)
    end)
  end)

  it("whose owner is cancelled while it leaves does the same", function()
    for _, close_form in ipairs{ true, false } do
      ml.run(function()
        local started, seen = ml.Queue(), ml.Queue()
        local owner = ml.spawn(function()
          if close_form then
            local g <close> = ml.group()
            g:spawn(count_cancel, started, seen)
          else
            ml.group(function(g) g:spawn(count_cancel, started, seen) end)
          end
        end)
        take(started, 1)
        ml.checkpoint()
        owner:cancel()
        owner:wait(h.TIMEOUT)
        assert.is_true(owner:cancelled())
        assert.equal(1, seen:size())
      end)
    end
  end)

  it("lets a failure win over a cancel, which comes back at the next wait", function()
    ml.run(function()
      local ready, log = h.gate(), {}
      local owner = ml.spawn(function()
        log[1] = h.raised(ml.group, function(g)
          g:spawn(function()
            local _ <close> = ml.defer(function() error("in clean-up", 0) end)
            ready:open()
            ml.sleep(3600)
          end)
          ml.sleep(3600)
        end)
        log[2] = h.raised(ml.sleep, 0).reason
        ml.sleep(0)
      end)
      ready:pass()
      owner:cancel "me"
      owner:wait(h.TIMEOUT)
      assert.same({ "in clean-up", "me" }, log)
      assert.is_true(owner:cancelled())
    end)
  end)

  it("has one failure for each clean-up that raises, nested groups nested ones", function()
    ml.run(function()
      local function fail(text)
        local _ <close> = ml.defer(function() error(text, 0) end)
        ml.sleep(3600)
      end
      local err = h.raised(ml.group, function(outer)
        outer:spawn(function()
          ml.group(function(inner)
            inner:spawn(fail, "a")
            inner:spawn(fail, "b")
          end)
        end)
        for _ = 1, 3 do ml.checkpoint() end
        error("c", 0)
      end)
      assert.same({ "c", "group" }, { err.errors[1], err.errors[2].code })
      local inner = err.errors[2].errors
      table.sort(inner)
      assert.same({ "a", "b" }, inner)
    end)
  end)

  it("takes another job's cancel that is passed on for a failure", function()
    ml.run(function()
      local other = ml.spawn(function() ml.sleep(3600) end)
      local err = h.raised(ml.group, function(g)
        g:spawn(function() other:result() end)
        other:cancel()
      end)
      assert.equal("job_cancelled", err.code)
    end)
  end)

  it("keeps nobody from spawning outside of it", function()
    ml.run(function()
      local stray
      h.raised(ml.group, function(g)
        g:spawn(function()
          stray = ml.spawn(function() ml.sleep(0.001) return "unharmed" end)
          error "failed"
        end)
      end)
      assert.equal("unharmed", stray:result(h.TIMEOUT))
    end)
  end)

  it("keeps the traceback of the job that failed", function()
    ml.run(function()
      local waiter = ml.spawn(function()
        ml.group(function(g)
          g:spawn(function() error "deep down" end)
        end)
      end)
      waiter:wait(h.TIMEOUT)
      assert.matches("group_spec.lua:%d+: in function.*awaited by", waiter:traceback())
    end)
  end)
end)
