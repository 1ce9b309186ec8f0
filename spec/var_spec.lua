-- Context variables: a job starts with a copy of its submitter's.

local ml = require "moonloop"
local h = require "spec.support.helpers"

describe("var", function()
  local ex, pool, v

  before_each(function()
    ex, pool = ml.AsyncExecutor{ name = "var" }, ml.ThreadExecutor{ workers = 1 }
    v = ml.var "default"
  end)

  after_each(function()
    h.close(ex)
    h.close(pool)
  end)

  it("has its default until it is set, nil and false included", function()
    assert.equal("default", v:get())
    assert.is_nil(ml.var():get())
    v:set "set"
    assert.equal("set", v:get())
    v:set(false)
    assert.is_false(v:get())
    v:set(nil)
    assert.is_nil(v:get())
  end)

  it("with runs a function with another value, and sets the old one again", function()
    v:set "before"
    assert.same(table.pack("within", nil, 1, nil), table.pack(v:with("within", function(...)
      return v:get(), ...
    end, nil, 1, nil)))
    assert.equal("before", v:get())
    local mine = {}
    assert.equal(mine, h.raised(v.with, v, "within", error, mine))
    assert.equal("before", v:get())
    v:with("within", v.set, v, "changed")
    assert.equal("before", v:get())
  end)

  it("with leaves the other variables alone", function()
    local other = ml.var "other's default"
    v:with("within", function() other:set "stays" end)
    assert.equal("stays", other:get())
    assert.equal("default", v:get())
  end)

  it("with waits, and its value is the job's meanwhile", function()
    ml.run(function()
      local waiting, release, seen = h.gate(), h.gate(), {}
      local one = ml.spawn(function()
        v:with("one", function()
          h.hold(waiting, release)
          seen.one = v:get()
        end)
        seen.after = v:get()
      end)
      waiting:pass()
      seen.two = v:get()
      release:open()
      one:result(h.TIMEOUT)
      assert.same({ one = "one", two = "default", after = "default" }, seen)
    end)
  end)

  it("is a snapshot at spawn, the very same value", function()
    ml.run(function()
      local box = { "box" }
      v:set(box)
      local child = ml.spawn(function()
        local first = v:get()
        ml.sleep(0)
        return first, v:get()
      end)
      v:set "later"
      local first, second = child:result(h.TIMEOUT)
      assert.equal(box, first)
      assert.equal(box, second)
      assert.equal("later", v:get())
    end)
  end)

  it("does not leak back, nor to siblings, and goes on to grandchildren", function()
    ml.run(function()
      v:set "parent"
      local values = {}
      local child = ml.spawn(function()
        v:set "child"
        ml.sleep(0)
        values.grandchild = ml.spawn(function() return v:get() end):result(h.TIMEOUT)
        values.child = v:get()
      end)
      local sibling = ml.spawn(function()
        ml.sleep(0.001)
        return v:get()
      end)
      child:result(h.TIMEOUT)
      values.sibling = sibling:result(h.TIMEOUT)
      values.parent = v:get()
      assert.same({ grandchild = "child", child = "child", sibling = "parent", parent = "parent" },
        values)
    end)
  end)

  it("crosses with a submit, as a copy, to jobs and threads", function()
    v:set{ id = 7 }
    for _, executor in ipairs{ ex, pool } do
      local id = executor:submit(function(var)
        ml.sleep(0)
        local id = var:get().id
        var:get().id = "written on the far side"
        var:set "far"
        return id
      end, v):result(h.TIMEOUT)
      assert.equal(7, id)
      assert.equal(7, v:get().id)
    end
  end)

  it("crosses with every kind of call", function()
    v:set "mine"
    local function get(var) return var:get() end
    assert.equal("mine", ml.run_async_job(get, v):result(h.TIMEOUT))
    assert.equal("mine", ml.async_to_sync(get)(v))
    assert.equal("mine", ml.to_thread(get, v))
    assert.equal("mine", ml.sync_to_async(get)(v))
    assert.equal("mine", ml.run_in_executor(pool, get, v):result(h.TIMEOUT))
    assert.equal("mine", ml.run(get, v))
    assert.same({ "mine" }, (ml.gather{ ml.job{ get, v } }))
    assert.same({ "mine" }, (ml.map({ v }, get)))
    ml.group(function(g) assert.equal("mine", g:spawn(get, v):result(h.TIMEOUT)) end)
    local items <close> = ml.generator{ function(var) coroutine.yield(var:get()) end, v }
    assert.same({ true, "mine" }, { items:next(h.TIMEOUT) })
  end)

  it("goes on from thread to job to thread", function()
    v:set "all the way"
    local function get(var) return var:get() end
    assert.equal("all the way", ex:submit(function(p, var, f)
      return p:submit(function(...) return ml.run_async_job(...):result() end, f, var):result()
    end, pool, v, get):result(h.TIMEOUT))
  end)

  it("is the same variable in every state that it reaches", function()
    v:set "upvalue"
    assert.equal("upvalue", ex:submit(function() return v:get() end):result(h.TIMEOUT))
    local back = ex:submit(function(var) return var end, v):result(h.TIMEOUT)
    assert.equal("upvalue", back:get())
    local theirs = ex:submit(function() return ml.var "theirs" end):result(h.TIMEOUT)
    assert.equal("theirs", theirs:get())
    theirs:set "set here"
    assert.equal("upvalue", v:get())
    assert.equal("set here",
      ex:submit(function(var) return var:get() end, theirs):result(h.TIMEOUT))
  end)

  it("is its own for each thread, and does not stay on a worker for the next task", function()
    pool:submit(function(var) var:set "left behind" end, v):result(h.TIMEOUT)
    assert.equal("default",
      pool:submit(function(var) return var:get() end, v):result(h.TIMEOUT))
    assert.equal("default", v:get())
  end)

  it("of a job is not that of the thread whose loop it is on", function()
    v:set "thread"
    ml.run(function()
      assert.equal("thread", v:get())
      v:set "job"
    end)
    assert.equal("thread", v:get())
  end)

  it("is one for all coroutines of a job", function()
    ml.run(function()
      coroutine.wrap(function() v:set "in a coroutine" end)()
      assert.equal("in a coroutine", v:get())
    end)
  end)

  it("that cannot cross is refused as it crosses, and only then", function()
    v:set(coroutine.create(print))
    ml.run(function()
      assert.equal("thread", ml.spawn(function() return type(v:get()) end):result(h.TIMEOUT))
      local err = h.raised(ex.submit, ex, print)
      assert.equal("crossing", err.code)
      assert.matches("^context variable %(made at spec/var_spec.lua:%d+%): " ..
        "a coroutine cannot cross states", tostring(err))
      v:set{ log = { print, coroutine.create(print) } }
      err = h.raised(ex.submit, ex, print)
      assert.matches("^context variable %(made at [^)]*%)%.log%[2%]: a coroutine", tostring(err))
    end)
    for _, call in ipairs{ ml.run_async_job, ml.to_thread, ml.async_to_sync(print) } do
      assert.equal("crossing", h.raised(call, print).code)
    end
    v:set(nil)
    assert.equal("crosses", ex:submit(function() return "crosses" end):result(h.TIMEOUT))
    assert.equal(0, ex:stats().parked)
  end)

  it("that cannot cross and was set for a while only is no trouble after that", function()
    v:with(coroutine.create(print), function()
      assert.equal("crossing", h.raised(ex.submit, ex, print).code)
    end)
    assert.is_true(ex:submit(function() return true end):result(h.TIMEOUT))
  end)

  it("ends with its job: a thousand jobs keep nothing", function()
    ml.run(function()
      local weak = setmetatable({}, { __mode = "v" })
      local futures = {}
      for i = 1, 1000 do
        futures[i] = ml.spawn(function()
          local value = {}
          weak[i] = value
          v:set(value)
          ml.sleep(0)
        end)
      end
      ml.complete_async_jobs(table.unpack(futures))
      h.collect()
      assert.is_nil(next(weak))
    end)
  end)

  it("is the same one when it comes back", function()
    local back = ml.run_async(function(w) return w end, v):result(h.TIMEOUT)
    assert.is_true(back == v)
    assert.is_false(ml.var() == v)
    assert.is_false(v == {})
    v:set "by one"
    assert.equal("by one", back:get())
  end)

  it("refuses misuse, with the caller's line", function()
    h.misuse("get: variable expected, got nil", function() v.get() end)
    h.misuse("set: variable expected, got number", function() v.set(1) end)
    h.misuse("with: variable expected, got function", function() v.with(print) end)
    h.misuse("with: function expected, got nil", function() v:with(1) end)
    h.misuse("with: function expected, got table", function() v:with(1, {}) end)
    local called = setmetatable({}, { __call = function(_, x) return v:get(), x end })
    assert.same({ 1, 2 }, { v:with(1, called, 2) })
  end)
end)
