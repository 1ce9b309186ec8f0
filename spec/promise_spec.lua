-- Promises: futures settled by hand, from any state, once.

local ml = require "moonloop"
local h = require "spec.support.helpers"

describe("a promise", function()
  it("gives its values to whoever waits for its future", function()
    local p = ml.promise()
    assert.is_false(p.future:done())
    p:set_result(nil, 2, nil)
    assert.same(table.pack(nil, 2, nil), table.pack(p.future:result(0)))
  end)

  it("has one future", function()
    local p = ml.promise()
    assert.is_true(p.future == p.future)
    p:set_result()
  end)

  it("fails its future with any value", function()
    for _, value in ipairs{ "text", { code = 1 }, 42, false } do
      local p = ml.promise()
      p:set_error(value)
      local ok, err = p.future:wait(0)
      assert.is_nil(ok)
      assert.same(value, err)
    end
  end)

  it("turns set_error(nil) into an error that says so", function()
    local p = ml.promise()
    p:set_error(nil)
    assert.equal("nil_error", select(2, p.future:wait(0)).code)
  end)

  it("is settled once: a second time raises, the first outcome stays", function()
    local p = ml.promise()
    p:set_result(1)
    h.misuse("settled", function() p:set_result(2) end)
    h.misuse("settled", function() p:set_error "late" end)
    assert.equal(1, p.future:result(0))
  end)

  it("is settled from another state", function()
    local ex <close> = ml.AsyncExecutor{}
    local p, q = ml.promise(), ml.promise()
    ex:submit(function(a) a:set_result{ "from", "a loop" } end, p)
    ml.run_in_executor(nil, function(a) a:set_error{ "from", "a thread" } end, q)
    assert.same({ "from", "a loop" }, p.future:result(h.TIMEOUT))
    assert.same({ nil, { "from", "a thread" } }, { q.future:wait(h.TIMEOUT) })
  end)

  it("wakes a job that waits for it", function()
    local ex <close> = ml.AsyncExecutor{}
    local p = ml.promise()
    local waiter = ex:submit(function(f) return f:result() end, p.future)
    h.eventually(function() return ex:stats().parked == 1 end)
    p:set_result "up"
    assert.equal("up", waiter:result(h.TIMEOUT))
  end)

  it("wakes a job of the same loop", function()
    assert.equal("up", ml.run(function()
      local p = ml.promise()
      ml.spawn(function() p:set_result "up" end)
      return p.future:result()
    end))
  end)

  it("dropped unsettled fails its future as abandoned", function()
    local future = ml.promise().future
    h.collect()
    local ok, err = future:wait(h.TIMEOUT)
    assert.is_nil(ok)
    assert.equal("abandoned", err.code)
  end)

  it("dropped together with its future bothers nobody", function()
    local log = h.error_log()
    do ml.promise() end
    do local _ = ml.promise().future end
    h.collect()
    ml.poll(0)
    assert.equal(0, log:count())
    ml.on_error(nil)
  end)

  it("dropped in every state fails its future as abandoned", function()
    local p = ml.promise()
    local future, started, release = p.future, h.gate(), h.gate()
    local ex <close> = ml.AsyncExecutor{}
    local holder = ex:submit(function(q, s, r)
      s:open()
      r:pass()
      return q.future:done()
    end, p, started, release)
    started:pass()
    p = nil -- luacheck: ignore
    h.collect()
    assert.is_false(future:done())
    release:open()
    assert.is_false(holder:result(h.TIMEOUT))
    ex:submit(function() collectgarbage() collectgarbage() end):result(h.TIMEOUT)
    assert.equal("abandoned", select(2, future:wait(h.TIMEOUT)).code)
  end)

  it("that went to a job which failed without it is abandoned, though that loop rests", function()
    local ex <close> = ml.AsyncExecutor{}
    local future
    do
      local p = ml.promise()
      future = p.future
      local job = ex:submit(function() error("no reply", 0) end, p)
    assert.equal("no reply", job:exception(h.TIMEOUT))
    end
    h.collect()
    assert.equal("abandoned", future:exception(h.TIMEOUT).code)
  end)

  it("may be cancelled by whoever holds its future, and stays so", function()
    local p = ml.promise()
    assert.is_true(p.future:cancel "changed my mind")
    pcall(p.set_result, p, 1)
    local ok, err = p.future:wait(0)
    assert.is_nil(ok)
    assert.same({ "job_cancelled", "changed my mind" }, { err.code, err.reason })
    assert.is_true(p.future:cancelled())
    assert.is_false(p.future:cancel())
  end)

  it("never turns what cannot cross into nil", function()
    local p = ml.promise()
    local ok, err = pcall(p.set_result, p, 1, { coroutine.create(print) })
    if ok then
      ok, err = p.future:wait(h.TIMEOUT)
    end
    assert.is_falsy(ok)
    assert.equal("crossing", err.code)
    assert.matches("result 2[1]: a coroutine cannot cross states", tostring(err), 1, true)
    pcall(p.set_result, p)
  end)

  it("races fairly: of two threads that settle it one wins, one is told", function()
    local pool <close> = ml.ThreadExecutor{ workers = 2 }
    for _ = 1, 50 do
      local p, go = ml.promise(), h.gate()
      local function settle(promise, gate, n)
        gate:pass()
        return (pcall(promise.set_result, promise, n))
      end
      local a, b = pool:submit(settle, p, go, 1), pool:submit(settle, p, go, 2)
      go:open()
      local first, second = a:result(h.TIMEOUT), b:result(h.TIMEOUT)
      assert.is_true(first ~= second)
      assert.equal(first and 1 or 2, p.future:result(0))
    end
  end)
end)
