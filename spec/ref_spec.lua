-- References to functions: calls come back to the state that owns them.

local ml = require "moonloop"
local h = require "spec.support.helpers"

describe("ref", function()
  local ex, pool

  before_each(function()
    ex, pool = ml.AsyncExecutor{ name = "ref" }, ml.ThreadExecutor{ workers = 1 }
  end)

  after_each(function()
    ml.on_error(nil)
    h.close(ex)
    h.close(pool)
  end)

  it("is of any value that can be called", function()
    local sum = setmetatable({ n = 0 }, {
      __call = function(self, n) self.n = self.n + n return self.n end,
    })
    local add = ml.ref(sum)
    assert.equal(3, add(3))
    assert.equal(5, ex:submit(function(f) return f(2) end, add):result(h.TIMEOUT))
    assert.equal(5, sum.n)
    h.misuse("function expected, got table", function() ml.ref{} end)
  end)

  it("runs in its owner while that waits, and gives its values back", function()
    local calls = {}
    local progress = ml.ref(function(...)
      calls[#calls + 1] = table.pack(...)
      return #calls, nil, ml.in_job()
    end)
    local got = ex:submit(function(p)
      p(1, "of", 3)
      return table.pack(p(nil, { 2 }, nil))
    end, progress):result(h.TIMEOUT)
    assert.same(table.pack(2, nil, false), got)
    assert.same({ table.pack(1, "of", 3), table.pack(nil, { 2 }, nil) }, calls)
  end)

  it("runs on its owner's thread, also for a job's child", function()
    local function thread()
      local file <close> = assert(io.open "/proc/thread-self/stat")
      return file:read "n"
    end
    local mine = {}
    local call = ml.ref(function() return thread(), #mine end)
    mine[1] = "seen by the owner's function only"
    local id, n = ml.async_to_sync(function(f)
      return ml.spawn(function() return f() end):result()
    end)(call)
    assert.same({ thread(), 1 }, { id, n })
    assert.not_equal(id, ml.async_to_sync(thread)())
  end)

  it("runs in every wait of a sync state", function()
    local calls = 0
    local count = ml.ref(function() calls = calls + 1 return calls end)
    local function job(f) return f() end
    local function submit() return ex:submit(job, count) end
    local waits = {
      function() return submit():result(h.TIMEOUT) end,
      function() return select(2, submit():wait(h.TIMEOUT)) end,
      function() return (ml.complete_async_jobs(submit())):result() end,
      function() return ml.gather{ submit() }[1] end,
      function() return ml.wait{ submit() }[1]:result() end,
      function() return ml.as_completed{ submit() }():result() end,
      function() return ml.async_to_sync(job)(count) end,
      function() return ml.to_thread(job, count) end,
      function() return ml.group(function(g) return g:spawn(job, count):result() end) end,
      function()
        local items <close> = ml.generator{ function(f) coroutine.yield(f()) end, count }
        return select(2, items:next(h.TIMEOUT))
      end,
      function()
        local future = submit()
        while not future:done() do ml.poll(0.01) end
        return future:result()
      end,
      function()
        local future = submit()
        while not future:done() do ml.sleep(0.001) end
        return future:result()
      end,
    }
    for i, wait in ipairs(waits) do assert.equal(i, wait()) end
    assert.equal(#waits, calls)
  end)

  it("does not run while its owner does not wait", function()
    local called, asked = false, h.gate()
    local future = ex:submit(function(f, g)
      g:open()
      return f()
    end, ml.ref(function() called = true return "at last" end), asked)
    while not asked:is_open() do h.spin(0.001) end
    h.spin(0.005)
    assert.is_false(called)
    assert.equal("at last", future:result(h.TIMEOUT))
  end)

  it("is a plain call in its own state, which may wait there", function()
    local box = {}
    local same = ml.ref(function(x, ...) return x, ... end)
    assert.same(table.pack(box, nil), table.pack(same(box, nil)))
    assert.equal(box, (same(box)))
    ml.run(function()
      local waits = ml.ref(function(x) ml.sleep(0.001) return ml.in_job(), x end)
      assert.same({ true, 1 }, { waits(1) })
      assert.equal(box, h.raised(ml.ref(error), box))
    end)
  end)

  it("gives its errors to the caller, equal to what was raised", function()
    local got = ex:submit(function(f)
      local _, first = pcall(f, { code = "mine" })
      local _, second = pcall(f, false)
      local _, third = pcall(f, nil)
      return first, second, third.code
    end, ml.ref(error))
    assert.same({ { code = "mine" }, false, "nil_error" }, { got:result(h.TIMEOUT) })
    local fail = ml.ref(function() error "in the owner" end)
    local _, err = ex:submit(function(f) f() end, fail):wait(h.TIMEOUT)
    assert.matches("ref_spec.lua:%d+: in the owner", err)
  end)

  it("refuses what cannot cross, either way, and goes on", function()
    local f = ml.ref(function(x)
      if x == "result" then return coroutine.create(print) end
      if x == "error" then error{ coroutine.create(print) } end
      return x
    end)
    local codes = ex:submit(function(g)
      local codes = {}
      for i, x in ipairs{ "result", "error", coroutine.create(print) } do
        local _, err = pcall(g, x)
        codes[i] = err.code .. ": " .. tostring(err)
      end
      codes[4] = g "fine"
      return codes
    end, f):result(h.TIMEOUT)
    assert.matches("^crossing: result 1: a coroutine", codes[1])
    assert.matches("^crossing: .*a coroutine", codes[2])
    assert.matches("^crossing: argument 1: a coroutine", codes[3])
    assert.equal("fine", codes[4])
  end)

  it("is called from a worker thread, and from many jobs at once", function()
    local sum = 0
    local add = ml.ref(function(n) sum = sum + n return sum end)
    assert.equal(1, pool:submit(function(f) return f(1) end, add):result(h.TIMEOUT))
    local futures = {}
    for i = 1, 100 do
      futures[i] = (i % 2 == 0 and ex or pool):submit(function(f) f(1) end, add)
    end
    ml.complete_async_jobs(table.unpack(futures))
    assert.equal(101, sum)
  end)

  it("of a loop's state runs on the loop at once, and cannot wait", function()
    local release = h.gate()
    local box, started = h.gate(), h.gate()
    local owner = ex:submit(function(b, s, r)
      local calls = 0
      b:open(ml.ref(function(wait)
        calls = calls + 1
        if wait then ml.sleep(0) end
        return "on the loop", ml.in_job()
      end))
      h.hold(s, r)
      return calls
    end, box, started, release)
    started:pass()
    local f = box:pass()
    assert.same({ "on the loop", false }, { f() })
    assert.matches("on a loop's thread outside a job", h.raised(f, true))
    release:open()
    assert.equal(2, owner:result(h.TIMEOUT))
  end)

  it("may wait in a sync owner, where other calls come in meanwhile", function()
    local order = {}
    local inner = ml.ref(function() order[#order + 1] = "inner" end)
    local outer = ml.ref(function()
      order[#order + 1] = "outer"
      ex:submit(function(f) f() end, inner):result(h.TIMEOUT)
      order[#order + 1] = "outer again"
    end)
    ex:submit(function(f) f() end, outer):result(h.TIMEOUT)
    assert.same({ "outer", "inner", "outer again" }, order)
  end)

  it("goes on to other states as the same reference, and comes back as it", function()
    local f = ml.ref(function() return "called" end)
    local back, value = ex:submit(function(p, g)
      local value = p:submit(function(r) return r() end, g):result()
      return g, value
    end, pool, f):result(h.TIMEOUT)
    assert.equal("called", value)
    assert.is_true(back == f)
    assert.equal("called", back())
  end)

  it("whose owner is gone is an error at the caller", function()
    local brief = ml.ThreadExecutor{ workers = 1 }
    local f = brief:submit(function() return ml.ref(print) end):result(h.TIMEOUT)
    h.close(brief)
    local err = h.raised(f)
    assert.equal("abandoned", err.code)
    assert.matches("the state that owns the function is gone", tostring(err))
    local _, far = ex:submit(function(g) g() end, f):wait(h.TIMEOUT)
    assert.equal("abandoned", far.code)
  end)

  it("whose owner goes while a call waits is an error at the caller, too", function()
    local brief = ml.ThreadExecutor{ workers = 1 }
    local box, release, asked = h.gate(), h.gate(), h.gate()
    local owner = brief:submit(function(b, r)
      b:open(ml.ref(function() return "too late" end))
      while not r:is_open() do h.spin(0.001) end -- never waits
    end, box, release)
    local caller = ex:submit(function(f, a)
      a:open()
      return f()
    end, box:pass(), asked)
    asked:pass()
    h.eventually(function() return ex:stats().parked == 1 end)
    release:open()
    owner:wait(h.TIMEOUT)
    h.close(brief)
    local _, err = caller:wait(h.TIMEOUT)
    assert.equal("abandoned", err.code)
  end)

  it("that was not begun when its caller is cancelled is never run", function()
    local called, asked = false, h.gate()
    local caller = ex:submit(function(f, a)
      a:open()
      f()
    end, ml.ref(function() called = true end), asked)
    while not asked:is_open() do h.spin(0.001) end
    while ex:stats().parked == 0 do h.spin(0.001) end
    caller:cancel()
    while not caller:done() do h.spin(0.001) end
    ml.poll()
    assert.is_false(called)
    assert.is_true(caller:cancelled())
  end)

  it("whose caller is cancelled meanwhile fails for nobody: that is reported", function()
    local log, caller = h.error_log(), nil
    local f = ml.ref(function()
      caller:cancel()
      while not caller:done() do h.spin(0.001) end
      error("nobody asked", 0)
    end)
    caller = ex:submit(function(g) g() end, f)
    caller:wait(h.TIMEOUT)
    assert.is_true(caller:cancelled())
    h.eventually(function()
      ex:submit(function() collectgarbage() end):result(h.TIMEOUT)
      return log:count() > 0
    end, "the report")
    assert.equal("nobody asked", (log:entry(1)))
    assert.equal(1, log:count())
  end)

  it("does not stop the owner's wait with its errors", function()
    local f = ml.ref(function() error "theirs" end)
    assert.equal("mine", ex:submit(function(g)
      pcall(g)
      return "mine"
    end, f):result(h.TIMEOUT))
  end)

  it("is let go in its own state when no other has it any more", function()
    local weak = setmetatable({}, { __mode = "k" })
    do
      local value = {}
      local f = ml.ref(function() return value end)
      weak[value] = true
      ex:submit(function(g) return type(g()) end, f):result(h.TIMEOUT)
    end
    h.eventually(function()
      ex:submit(function() collectgarbage() end):result(h.TIMEOUT)
      h.collect()
      ml.poll()
      return next(weak) == nil
    end, "the function's end")
  end)

  it("takes a function only", function()
    h.misuse("ref.*function expected, got nil", function() ml.ref(nil) end)
    h.misuse("ref.*function expected, got table", function() ml.ref{} end)
    local f = ml.ref(print)
    assert.is_true(f == f) -- luacheck: ignore
    assert.is_false(f == ml.ref(print))
  end)
end)
