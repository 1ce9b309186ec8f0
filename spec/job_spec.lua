-- What may be submitted: functions, names, fresh coroutines and ml.job.

local ml = require "moonloop"
local h = require "spec.support.helpers"

describe("a job", function()
  local ex

  before_each(function()
    ex = ml.AsyncExecutor{ name = "jobs" }
  end)

  after_each(function()
    h.close(ex)
  end)

  local function count(...)
    return select("#", ...), ...
  end

  it("may be a function, and extra arguments follow", function()
    assert.equal(7, ex:submit(function(a, b) return a + b end, 3, 4):result(h.TIMEOUT))
  end)

  it("gets nils and the count of its arguments as they were", function()
    local got = table.pack(ex:submit(count, 1, nil, 3, nil):result(h.TIMEOUT))
    assert.same(table.pack(4, 1, nil, 3, nil), got)
    assert.same(table.pack(0), table.pack(ex:submit(count):result(h.TIMEOUT)))
  end)

  it("may be a module's function by name", function()
    assert.equal("ABC", ex:submit("string:upper", "abc"):result(h.TIMEOUT))
    assert.equal(5, ex:submit("spec.support.sample:add", 2, 3):result(h.TIMEOUT))
  end)

  it("may be a function deeper in a module by name", function()
    assert.equal(8, ex:submit("spec.support.sample:nested.double", 4):result(h.TIMEOUT))
  end)

  it("may be a coroutine that was not started", function()
    local co = coroutine.create(function(a) ml.sleep(0) return a, "end" end)
    assert.same({ "arg", "end" }, { ex:submit(co, "arg"):result(h.TIMEOUT) })
  end)

  it("may be a callable table, or a ref", function()
    local times = setmetatable({ 7 }, { __call = function(self, x) return self[1] * x end })
    assert.equal(42, ex:submit(times, 6):result(h.TIMEOUT))
    local calls = 0
    local ref = ml.ref(function(n) calls = calls + n return calls end)
    assert.equal(3, ex:submit(ref, 3):result(h.TIMEOUT))
    assert.equal(5, ml.to_thread(ref, 2))
    assert.equal(5, calls)
  end)

  it("may be ml.job with arguments and a name", function()
    local future = ex:submit(ml.job{ count, "a", "b", name = "counting" })
    assert.same({ 2, "a", "b" }, { future:result(h.TIMEOUT) })
    assert.equal("counting", future.name)
  end)

  it("adds extra arguments after those of ml.job", function()
    assert.same({ 3, 1, 2, 3 }, { ex:submit(ml.job{ count, 1, 2 }, 3):result(h.TIMEOUT) })
  end)

  it("keeps trailing nils of ml.job with n", function()
    local future = ex:submit(ml.job{ count, 1, nil, n = 3 })
    assert.same(table.pack(2, 1, nil), table.pack(future:result(h.TIMEOUT)))
  end)

  it("may name its function in ml.job by module too", function()
    local job = ml.job{ "spec.support.sample:add", 1, 2 }
    assert.equal(3, ex:submit(job):result(h.TIMEOUT))
  end)

  it("of ml.job may be submitted many times", function()
    local job = ml.job{ function(a) return a + 1 end, 1 }
    assert.equal(2, ex:submit(job):result(h.TIMEOUT))
    assert.equal(2, ex:submit(job):result(h.TIMEOUT))
  end)

  it("with a timeout raises it at its wait", function()
    local future = ex:submit(ml.job{ function() ml.sleep(60) end, timeout = h.SHORT })
    local ok, err = future:wait(h.TIMEOUT)
    assert.is_nil(ok)
    assert.equal("timeout", err.code)
  end)

  it("within its timeout is left alone", function()
    local future = ex:submit(ml.job{ function() ml.sleep(0.001) return 1 end, timeout = 60 })
    assert.equal(1, future:result(h.TIMEOUT))
  end)

  it("has the time of its timeout from its start on, not from its spawn", function()
    local got = ml.run(function()
      local nap = function() ml.sleep(0.001) return "in time" end
      local future = ml.spawn(ml.job{ nap, timeout = 0.2 })
      h.spin(0.3)
      return future:result(h.TIMEOUT)
    end)
    assert.equal("in time", got)
  end)

  it("with slices of its own names its arguments as they are", function()
    local job = ml.job{ print, 1, preempt_ms = 5 }
    local err = h.raised(ex.submit, ex, job, { coroutine.create(print) })
    assert.matches("^argument 2%[1%]: a coroutine", err.message)
    assert.equal(3, ex:submit(ml.job{ math.max, 1, preempt_ms = 5 }, 3):result(h.TIMEOUT))
  end)

  it("is a copy: it sees the values of its submit, and changes stay there", function()
    local n, list = 1, { 1 }
    local release = h.gate()
    local future = ex:submit(function(gate)
      gate:pass()
      n = n + 1
      list[#list + 1] = n
      return n, #list
    end, release)
    n, list[2] = 10, 10
    release:open()
    assert.same({ 2, 2 }, { future:result(h.TIMEOUT) })
    assert.same({ 10, 2 }, { n, #list })
  end)

  it("has its own upvalues each time it is submitted", function()
    local n = 0
    local function tick() n = n + 1 return n end
    for _ = 1, 3 do assert.equal(1, ex:submit(tick):result(h.TIMEOUT)) end
  end)

  it("knows itself: in_job and current_job", function()
    local started, release = h.gate(), h.gate()
    local future = ex:submit(function(s, r)
      s:open(ml.in_job(), ml.current_job())
      r:pass()
    end, started, release)
    local inside, current = started:pass()
    assert.is_true(inside)
    assert.is_true(current == future)
    release:open()
    future:wait(h.TIMEOUT)
  end)

  it("keeps running when every handle of it is dropped", function()
    local started, release, ended = h.gate(), h.gate(), h.gate()
    ex:submit(function(s, r, e) s:open() r:pass() e:open "done" end, started, release, ended)
    started:pass()
    h.collect()
    release:open()
    assert.equal("done", ended:pass())
  end)

  it("may submit to its own executor and wait for it", function()
    local got = ex:submit(function(executor, timeout)
      return executor:submit(function() return ml.in_job() end):result(timeout)
    end, ex, h.TIMEOUT):result(h.TIMEOUT)
    assert.is_true(got)
  end)
end)

describe("what is no job", function()
  local ex

  before_each(function()
    ex = ml.AsyncExecutor{ name = "no jobs" }
  end)

  after_each(function()
    h.close(ex)
  end)

  it("is refused by submit at the caller's line, saying what came", function()
    h.misuse("number", function() ex:submit(1) end)
    h.misuse("boolean", function() ex:submit(true) end)
    h.misuse("table", function() ex:submit({}) end)
    h.misuse("nil", function() ex:submit(nil) end)
    h.misuse("no value", function() ex:submit() end)
    h.misuse("no colon in it", function() ex:submit "no colon in it" end)
    assert.equal(0, ex:stats().submitted)
  end)

  it("is refused by ml.job", function()
    h.misuse("nil", function() ml.job{} end)
    h.misuse("number", function() ml.job{ 1 } end)
    h.misuse("number", function() ml.job(1) end)
  end)

  it("is an unknown option of ml.job, named", function()
    h.misuse("nmae", function() ml.job{ print, nmae = "typo" } end)
    h.misuse("name", function() ml.job{ print, name = {} } end)
    h.misuse("timeout", function() ml.job{ print, timeout = "1s" } end)
  end)

  it("is a started coroutine, and says so", function()
    local co = coroutine.create(function() coroutine.yield() end)
    coroutine.resume(co)
    h.misuse("coroutine.*started", function() ex:submit(co) end)
    local over = coroutine.create(function() end)
    coroutine.resume(over)
    h.misuse("coroutine", function() ex:submit(over) end)
    coroutine.wrap(function()
      h.misuse("coroutine.*started", function() ex:submit(coroutine.running()) end)
    end)()
  end)

  it("is an unknown module: the future fails and names it", function()
    local ok, err = ex:submit("spec.support.absent:f"):wait(h.TIMEOUT)
    assert.is_nil(ok)
    assert.matches("spec%.support%.absent", tostring(err))
  end)

  it("is an unknown field of a module: the future fails and names it", function()
    local ok, err = ex:submit("spec.support.sample:nested.triple"):wait(h.TIMEOUT)
    assert.is_nil(ok)
    assert.matches("spec%.support%.sample", tostring(err))
    assert.matches("nested%.triple", tostring(err))
    ok, err = ex:submit("spec.support.sample:absent.deep.field"):wait(h.TIMEOUT)
    assert.is_nil(ok)
    assert.matches("absent", tostring(err))
  end)

  it("is a field that is no function: the future fails and says so", function()
    local ok, err = ex:submit("spec.support.sample:limit"):wait(h.TIMEOUT)
    assert.is_nil(ok)
    assert.matches("limit", tostring(err))
    assert.matches("number", tostring(err))
  end)

  it("is a module that does not load: the future fails with its error", function()
    local ok, err = ex:submit("spec.support.broken:f"):wait(h.TIMEOUT)
    assert.is_nil(ok)
    assert.matches("broken on purpose", tostring(err))
  end)
end)
