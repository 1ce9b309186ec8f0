-- Bounded fan-out: map, each and an executor's map.

local ml = require "moonloop"
local h = require "spec.support.helpers"

local function numbers(n)
  local list = {}
  for i = 1, n do list[i] = i end
  return list
end

describe("map", function()
  it("returns results in order", function()
    local results, errors = ml.map(numbers(20), function(n) ml.checkpoint() return n * n end)
    for i = 1, 20 do assert.equal(i * i, results[i]) end
    assert.same({}, errors)
  end)

  it("in a job runs in the same state, at most limit at once", function()
    local running, most = 0, 0
    local results = ml.run(function()
      return (ml.map(numbers(10), function(n)
        running = running + 1
        most = math.max(most, running)
        ml.sleep(0.002)
        running = running - 1
        return n
      end, { limit = 3 }))
    end)
    assert.same(numbers(10), results)
    assert.equal(3, most)
  end)

  it("raises nothing and collects errors by position", function()
    local results, errors = ml.map(numbers(4), function(n)
      if n % 2 == 0 then error("even " .. n, 0) end
      return n
    end, { limit = 2 })
    assert.same({ 1, 3 }, { results[1], results[3] })
    assert.same({ "even 2", "even 4" }, { errors[2], errors[4] })
    assert.is_nil(results[2] or results[4] or errors[1] or errors[3])
  end)

  it("takes what spawn takes", function()
    local callable = setmetatable({}, { __call = function(_, n) return n + 1 end })
    for _, job in ipairs { "math:abs", ml.job { math.abs, name = "abs" }, callable } do
      assert.equal(job == callable and 2 or 1, ml.map({ 1 }, job)[1])
      for item, value in ml.each({ 1 }, job) do
        assert.same({ 1, job == callable and 2 or 1 }, { item, value })
      end
    end
  end)

  it("takes an empty list", function()
    assert.same({ {}, {} }, { ml.map({}, print) })
  end)

  it("cancelled, cancels what it started", function()
    local started, ended = 0, 0
    ml.run(function()
      local mapper = ml.spawn(function()
        ml.map(numbers(10), function()
          started = started + 1
          local _ <close> = setmetatable({}, { __close = function() ended = ended + 1 end })
          ml.sleep(60)
        end, { limit = 2 })
      end)
      h.eventually(function() return started == 2 end)
      mapper:cancel_and_wait(h.TIMEOUT)
      assert(mapper:cancelled())
    end)
    assert.same({ 2, 2 }, { started, ended })
  end)

  it("refuses bad arguments and options, named", function()
    h.misuse("number", function() ml.map(1, print) end)
    h.misuse("list or iterator expected, got userdata", function() ml.map(ml.Queue(), print) end)
    local it = ml.each({}, print)
    h.misuse("close: iterator of map or each expected, got nil", function() it.close() end)
    h.misuse("number", function() ml.map({}, 1) end)
    h.misuse("limt", function() ml.map({}, print, { limt = 1 }) end)
    for _, bad in ipairs{ 0, -1, 1.5, "two" } do
      h.misuse("limit", function() ml.map({ 1 }, print, { limit = bad }) end)
    end
  end)
end)

describe("each", function()
  it("gives each item and what f returned, as they finish", function()
    local seen = ml.run(function()
      local list = {}
      for item, a, b in ml.each({ 0.03, 0.001 }, function(s) ml.sleep(s) return s, "ok" end) do
        list[#list + 1] = { item, a, b }
      end
      return list
    end)
    assert.same({ { 0.001, 0.001, "ok" }, { 0.03, 0.03, "ok" } }, seen)
  end)

  it("gives items whose f returned nothing too", function()
    local n = 0
    for item, nothing in ml.each(numbers(5), function() end) do
      assert.is_number(item)
      assert.is_nil(nothing)
      n = n + 1
    end
    assert.equal(5, n)
  end)

  it("keeps to its limit", function()
    local running, most, n = 0, 0, 0
    ml.run(function()
      for _ in ml.each(numbers(10), function()
        running = running + 1
        most = math.max(most, running)
        ml.sleep(0.002)
        running = running - 1
      end, { limit = 2 }) do
        n = n + 1
      end
    end)
    assert.same({ 2, 10 }, { most, n })
  end)

  it("raises f's error at its turn", function()
    local seen = {}
    local err = h.raised(ml.run, function()
      for item in ml.each({ "a", "b", "c" }, function(x)
        if x == "b" then error("b broke", 0) end
        return x
      end, { limit = 1 }) do
        seen[#seen + 1] = item
      end
    end)
    assert.equal("b broke", err)
    assert.same({ "a" }, seen)
  end)

  it("left early, cancels the rest and waits for it", function()
    local started, ended = 0, 0
    ml.run(function()
      local items <close> = ml.each(numbers(8), function(n)
        started = started + 1
        local _ <close> = setmetatable({}, { __close = function() ended = ended + 1 end })
        if n > 1 then ml.sleep(60) end
      end, { limit = 3 })
      assert(items() == 1)
    end)
    assert.is_true(started < 8)
    assert.equal(started, ended)
  end)

  it("works in a sync state", function()
    local sum = 0
    for item, double in ml.each(numbers(6), function(n) return 2 * n end, { limit = 2 }) do
      assert.equal(2 * item, double)
      sum = sum + double
    end
    assert.equal(42, sum)
  end)
end)

describe("an executor's map", function()
  local ex

  before_each(function()
    ex = ml.AsyncExecutor{ name = "mapper" }
  end)

  after_each(function()
    h.close(ex)
  end)

  it("gives results in order, one call per item", function()
    local list = {}
    for a, b in ex:map(function(n) return n, n * n end, numbers(40)) do
      list[#list + 1] = { a, b }
    end
    assert.equal(40, #list)
    for i = 1, 40 do assert.same({ i, i * i }, list[i]) end
    assert.equal(40, ex:stats().submitted)
  end)

  it("is lazy: an endless iterator is pulled only a window ahead", function()
    local pulled = 0
    local function endless()
      pulled = pulled + 1
      return pulled
    end
    local results <close> = ex:map(function(n) return n end, endless, { window = 4 })
    for i = 1, 10 do
      assert.equal(i, (results()))
      assert.is_true(pulled <= i + 4, "pulled " .. pulled .. " for " .. i)
    end
  end)

  it("never has more than its window in flight", function()
    local gate = h.gate()
    local results <close> = ex:map(function(n) gate:pass() return n end, numbers(10),
                                   { window = 3 })
    local opener = ml.run_in_executor(nil, function(e, g)
      h.eventually(function() return e:stats().parked >= 3 end)
      local submitted = e:stats().submitted
      g:open()
      return submitted
    end, ex, gate)
    assert.equal(1, (results()))
    assert.equal(3, opener:result(h.TIMEOUT))
  end)

  it("raises an item's error at its turn, and then has ended", function()
    local list = {}
    local results = ex:map(function(n)
      if n == 3 then error("third", 0) end
      return n
    end, numbers(5))
    local err = h.raised(function()
      for n in results do list[#list + 1] = n end
    end)
    assert.equal("third", err)
    assert.same({ 1, 2 }, list)
    assert.is_nil((results()))
  end)

  it("closed early, cancels what is outstanding", function()
    local gate = h.gate()
    do
      local results <close> = ex:map(function(n)
        if n > 1 then gate:pass() end
        return n
      end, numbers(6), { window = 3 })
      assert.equal(1, (results()))
    end
    h.eventually(function() return ex:stats().parked == 0 and #ex:jobs() == 0 end)
    assert.is_true(ex:stats().cancelled >= 1)
    gate:open()
  end)

  it("past its timeout raises at that item", function()
    local gate = h.gate()
    local results <close> = ex:map(function(n)
      if n > 1 then gate:pass() end
      return n
    end, numbers(3), { timeout = 0.5 })
    assert.equal(1, (results()))
    assert.is_true(ml.is_timeout(h.raised(results)))
    gate:open()
  end)

  it("past its timeout cancels what is in flight and submits no more", function()
    local gate, ran = h.gate(), ml.Semaphore(0)
    local results <close> = ex:map(function(n)
      ran:release()
      if n > 1 then gate:pass() end
      return n
    end, numbers(8), { timeout = 0.1, window = 3 })
    assert.equal(1, (results()))
    assert.is_true(ml.is_timeout(h.raised(results)))
    assert.is_nil((results()))
    local stats = ex:stats()
    assert.same({ 4, 1, 3 }, { stats.submitted, stats.finished, stats.cancelled })
    assert.is_true(ran:value() <= 4)
    gate:open()
  end)

  it("runs what its window took, though nobody iterates", function()
    local ran = ml.Semaphore(0)
    local results <close> = ex:map(function(n) ran:release() return n end, numbers(5))
    assert.is_true(ex:shutdown{ timeout = h.TIMEOUT })
    assert.equal(5, ran:value())
    for i = 1, 5 do assert.equal(i, (results())) end
  end)

  it("works on a ThreadExecutor and in a job", function()
    local pool <close> = ml.ThreadExecutor{ workers = 2 }
    local list = ex:submit(function(p, items)
      local squares = {}
      for n in p:map(function(i) return i * i end, items) do squares[#squares + 1] = n end
      return squares
    end, pool, numbers(5)):result(h.TIMEOUT)
    assert.same({ 1, 4, 9, 16, 25 }, list)
  end)

  it("passes an error of its iterator on", function()
    local function source() error("source broke", 0) end
    assert.equal("source broke", h.raised(function()
      local results = ex:map(function(n) return n end, source)
      results()
    end))
  end)

  it("refuses bad arguments and options, named", function()
    h.misuse("number", function() ex:map(1, {}) end)
    h.misuse("number", function() ex:map(print, 1) end)
    h.misuse("widnow", function() ex:map(print, {}, { widnow = 1 }) end)
    for _, bad in ipairs{ 0, -1, 1.5, "two" } do
      h.misuse("window", function() ex:map(print, {}, { window = bad }) end)
    end
  end)
end)
