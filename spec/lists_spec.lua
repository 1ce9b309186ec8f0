-- gather, wait, as_completed: many futures at once.

local ml = require "moonloop"
local h = require "spec.support.helpers"

local function values(...)
  local list = {}
  for i, future in ipairs{ ... } do list[i] = future:result(0) end
  return list
end

describe("gather", function()
  it("returns first values in argument order, and no errors", function()
    local results, errors = ml.gather{
      function() ml.sleep(0.02) return "slow", "second value" end,
      function() return "fast" end,
      ml.run_async_job(function() return "future" end),
    }
    assert.same({ "slow", "fast", "future" }, results)
    assert.same({}, errors)
  end)

  it("takes nothing", function()
    assert.same({ {}, {} }, { ml.gather{} })
  end)

  it("repeats the value of a future given twice", function()
    local future = ml.run_async_job(function() return 1 end)
    assert.same({ 1, 1 }, (ml.gather{ future, future }))
  end)

  it("in a job spawns what it is given, in the same state", function()
    local n = 0
    local function tick() n = n + 1 return n end
    assert.same({ 1, 2, 3 }, ml.run(function() return (ml.gather{ tick, tick, tick }) end))
    assert.equal(3, n)
  end)

  it("takes all kinds of jobs, and says where they were spawned", function()
    local results, place = ml.run(function()
      local results = ml.gather{
        ml.job{ function(...) return select("#", ...), ... end, 1, nil, n = 3 },
        "string:rep",
        coroutine.create(function() return "coroutine" end),
        function() end,
        function() return nil, "second" end,
        function() return ml.jobs()[1].submitted_at end,
        ml.spawn(function() return "future" end),
        return_errors = true,
      }
      return results, debug.getinfo(1, "l").currentline - 2
    end)
    assert.same({ 2, nil, "coroutine", nil, nil, results[6], "future" }, results)
    assert.matches(":%d+$", results[6])
    assert.is_true(math.tointeger(results[6]:match "%d+$") <= place)
  end)

  it("takes a list whose metamethods wait", function()
    local list = setmetatable({}, {
      __len = function() return 2 end,
      __index = function(_, i) ml.sleep(0.001) return function() return i * 10 end end,
    })
    assert.same({ 10, 20 }, ml.run(function() return (ml.gather(list)) end))
  end)

  it("gives the values of a long list, some of them not there", function()
    local sum, count = 0, 0
    local results = ml.run(function()
      local list = {}
      for i = 1, 1000 do
        list[i] = function()
          if i % 10 == 0 then ml.checkpoint() end
          if i % 3 ~= 0 then return i, "second" end
        end
      end
      return (ml.gather(list))
    end)
    for i, value in pairs(results) do
      assert(i == value and i % 3 ~= 0)
      sum, count = sum + value, count + 1
    end
    assert.same({ 500500 - 3 * 333 * 334 // 2, 667 }, { sum, count })
  end)

  it("raises the first failure and cancels the rest, after their clean-up", function()
    local cleaned, others = 0, {}
    local err = ml.run(function()
      local function patient()
        local _ <close> = setmetatable({}, { __close = function() cleaned = cleaned + 1 end })
        ml.sleep(60)
      end
      others = { ml.spawn(patient), ml.spawn(patient) }
      local failing = ml.spawn(function() ml.checkpoint() error("first", 0) end)
      return select(2, pcall(ml.gather, { others[1], failing, others[2] }))
    end)
    assert.equal("first", err)
    assert.equal(2, cleaned)
    assert.is_true(others[1]:cancelled() and others[2]:cancelled())
  end)

  it("collects errors by position when asked to", function()
    local results, errors = ml.gather{
      function() return "a" end,
      function() error("b", 0) end,
      function() ml.current_job():cancel() ml.sleep(60) end,
      function() return "d" end,
      return_errors = true,
    }
    assert.same({ "a", "d", "b", "job_cancelled" },
                { results[1], results[4], errors[2], errors[3].code })
    assert.is_nil(results[2] or results[3] or errors[1] or errors[4])
  end)

  it("cancels all it was given when its job is cancelled", function()
    local after, children = false, {}
    ml.run(function()
      for i = 1, 3 do children[i] = ml.spawn(function() ml.sleep(60) end) end
      local gatherer = ml.spawn(function()
        ml.gather(children)
        after = true
      end)
      ml.checkpoint()
      ml.checkpoint()
      gatherer:cancel_and_wait(h.TIMEOUT)
      assert(gatherer:cancelled())
      for i = 1, 3 do assert(children[i]:cancelled()) end
    end)
    assert.is_false(after)
  end)

  it("fails with what cancelled one of its futures", function()
    local p = ml.promise()
    p.future:cancel()
    assert.equal("job_cancelled", h.raised(ml.gather, { p.future }).code)
  end)

  it("refuses what is no list of jobs", function()
    h.misuse("number", function() ml.gather(1) end)
    h.misuse("number", function() ml.gather{ 1 } end)
    h.misuse("gather: unknown option 'return_error'", function()
      ml.gather{ print, return_error = true }
    end)
    h.misuse("unknown option 'true'", function() ml.gather{ [true] = print } end)
  end)
end)

describe("wait", function()
  local p, q

  before_each(function()
    p, q = ml.promise(), ml.promise()
  end)

  after_each(function()
    if not p.future:done() then p:set_result() end
    if not q.future:done() then q:set_result() end
  end)

  it("returns when all are done, whatever became of them", function()
    p:set_result(1)
    q:set_error "bad"
    local done, pending = ml.wait({ p.future, q.future }, { timeout = h.TIMEOUT })
    assert.same({ 2, 0 }, { #done, #pending })
  end)

  it("returns at the first one done", function()
    local waiter = ml.run_async_job(function(a, b)
      local done, pending = ml.wait({ a, b }, { return_when = "first" })
      return #done, done[1] == b, #pending, pending[1] == a
    end, p.future, q.future)
    q:set_result()
    assert.same({ 1, true, 1, true }, { waiter:result(h.TIMEOUT) })
  end)

  it("returns at once if one is done already", function()
    q:set_error "bad"
    local done, pending = ml.wait({ p.future, q.future }, { return_when = "first", timeout = 0 })
    assert.same({ 1, 1 }, { #done, #pending })
    assert.is_true(done[1] == q.future and pending[1] == p.future)
  end)

  it("returns at the first error, and the slow one is left alone", function()
    local r = ml.promise()
    p:set_result(1)
    q:set_error "bad"
    local done, pending = ml.wait({ p.future, q.future, r.future },
                                  { return_when = "first_error", timeout = h.TIMEOUT })
    assert.same({ 2, 1 }, { #done, #pending })
    assert.is_true(pending[1] == r.future)
    assert.is_false(r.future:done())
    r:set_result()
  end)

  it("with first_error and none failing waits for all", function()
    p:set_result(1)
    q:set_result(2)
    local done = ml.wait({ p.future, q.future }, { return_when = "first_error" })
    assert.equal(2, #done)
  end)

  it("at its timeout returns both lists and raises nothing", function()
    p:set_result(1)
    local done, pending = ml.wait({ p.future, q.future }, { timeout = h.SHORT })
    assert.same({ 1, 1 }, { #done, #pending })
    assert.is_true(done[1] == p.future and pending[1] == q.future)
    q:set_result "later"
    assert.equal("later", q.future:result(0))
  end)

  it("with a timeout of zero looks and does not wait", function()
    local done, pending = ml.wait({ p.future, q.future }, { timeout = 0 })
    assert.same({ 0, 2 }, { #done, #pending })
  end)

  it("counts a future given twice once", function()
    p:set_result()
    local done, pending = ml.wait({ p.future, p.future, q.future }, { timeout = 0 })
    assert.same({ 1, 1 }, { #done, #pending })
  end)

  it("takes an empty list", function()
    local done, pending = ml.wait{}
    assert.same({ 0, 0 }, { #done, #pending })
  end)

  it("cancels nothing when its own job is cancelled", function()
    local ex <close> = ml.AsyncExecutor{}
    local waiter = ex:submit(function(f) ml.wait{ f } end, p.future)
    h.eventually(function() return ex:stats().parked == 1 end)
    waiter:cancel_and_wait(h.TIMEOUT)
    assert.is_true(waiter:cancelled())
    assert.is_false(p.future:done())
  end)

  it("is woken by an executor that shuts down with cancel", function()
    for _, when in ipairs{ "first", "all" } do
      local ex = ml.AsyncExecutor{}
      local futures, waiting = {}, h.gate()
      for i = 1, 3 do futures[i] = ex:submit(function() ml.sleep(60) end) end
      local waiter = ml.run_in_executor(nil, function(list, mode, gate)
        gate:open()
        local done = ml.wait(list, { return_when = mode })
        return #done, #ml.wait(list, { timeout = h.TIMEOUT })
      end, futures, when, waiting)
      waiting:pass()
      ex:shutdown{ cancel = true, timeout = h.TIMEOUT }
      local woken_with, all = waiter:result(h.TIMEOUT)
      assert.is_true(woken_with >= (when == "first" and 1 or 3))
      assert.equal(3, all)
    end
  end)

  it("refuses a bad mode, a bad option and what is no list of futures", function()
    h.misuse("return_when", function() ml.wait({ p.future }, { return_when = "some" }) end)
    h.misuse("retrun_when", function() ml.wait({ p.future }, { retrun_when = "all" }) end)
    h.misuse("timeout", function() ml.wait({ p.future }, { timeout = "x" }) end)
    h.misuse("number", function() ml.wait(1) end)
    h.misuse("number", function() ml.wait{ p.future, 5 } end)
    h.misuse("function", function() ml.wait{ function() end } end)
  end)
end)

describe("as_completed", function()
  it("gives futures in the order they finish", function()
    local p, q, r = ml.promise(), ml.promise(), ml.promise()
    local list = {}
    r:set_result "r"
    for future in ml.as_completed{ p.future, q.future, r.future } do
      list[#list + 1] = future:result(0)
      if list[#list] == "r" then q:set_result "q" end
      if list[#list] == "q" then p:set_result "p" end
    end
    assert.same({ "r", "q", "p" }, list)
  end)

  it("gives failed and cancelled ones too", function()
    local p, q = ml.promise(), ml.promise()
    p:set_error "bad"
    q.future:cancel()
    local n = 0
    for future in ml.as_completed{ p.future, q.future } do
      assert.is_nil((future:wait(0)))
      n = n + 1
    end
    assert.equal(2, n)
  end)

  it("counts a future given twice once, and ends at once for none", function()
    local p, n = ml.promise(), 0
    p:set_result()
    for _ in ml.as_completed{ p.future, p.future } do n = n + 1 end
    for _ in ml.as_completed{} do n = n + 1 end
    assert.equal(1, n)
  end)

  it("past its timeout raises how many are unfinished", function()
    local p, q, seen = ml.promise(), ml.promise(), {}
    p:set_result "p"
    local err = h.raised(function()
      for future in ml.as_completed({ p.future, q.future }, h.SHORT) do
        seen[#seen + 1] = future:result(0)
      end
    end)
    assert.same({ "p" }, seen)
    assert.is_true(ml.is_timeout(err))
    assert.matches("1 of 2 unfinished", tostring(err))
    assert.is_false(q.future:done())
    q:set_result()
  end)

  it("works in a job", function()
    assert.same({ 2, 1 }, ml.run(function()
      local a = ml.spawn(function() ml.sleep(0.02) return 1 end)
      local b = ml.spawn(function() return 2 end)
      local list = {}
      for future in ml.as_completed{ a, b } do list[#list + 1] = future:result() end
      return list
    end))
  end)

  it("refuses what is no list of futures and no timeout", function()
    h.misuse("number", function() ml.as_completed(1) end)
    h.misuse("number", function() ml.as_completed{ 1 } end)
    h.misuse("number", function() ml.as_completed({}, "x") end)
  end)
end)

describe("a list of futures of many states", function()
  it("may be gathered, waited for and completed by any of them", function()
    local ex <close> = ml.AsyncExecutor{ loops = 2 }
    local futures = {}
    for i = 1, 6 do futures[i] = ex:submit(function(n) ml.checkpoint() return n end, i) end
    futures[7] = ml.run_in_executor(nil, function() return 7 end)
    assert.same({ 1, 2, 3, 4, 5, 6, 7 }, (ml.gather(futures)))
    assert.same({ 1, 2, 3, 4, 5, 6, 7 }, values(ml.complete_async_jobs(table.unpack(futures))))
    assert.equal(7, ex:submit(function(list) return #ml.wait(list) end, futures):result(h.TIMEOUT))
  end)
end)
