-- Time slices: a job that computes lets others have their turn.

local ml = require "moonloop"
local h = require "spec.support.helpers"

-- Computes until the gate is open, without a wait.
local function compute(gate)
  local deadline, rounds = ml.now() + h.TIMEOUT, 0
  while not gate:is_open() and ml.now() < deadline do
    rounds = rounds + 1
    math.random()
  end
  return gate:is_open(), rounds
end

describe("preempt_ms", function()
  local ex

  before_each(function() ex = ml.AsyncExecutor{ preempt_ms = 2, blocked_ms = 0 } end)
  after_each(function() h.close(ex) end)

  it("lets a job run that was submitted after one that computes", function()
    local gate = h.gate()
    local long = ex:submit(compute, gate)
    ex:submit(function(g) g:open() end, gate):result(h.TIMEOUT)
    assert.is_true((long:result(h.TIMEOUT)))
  end)

  it("lets timers and I/O have their turn", function()
    local gate = h.gate()
    local waiting = h.gate()
    local sleeper = ex:submit(function(w, g)
      w:open()
      ml.sleep(0.01)
      g:open()
    end, waiting, gate)
    waiting:pass()
    assert.is_true((ex:submit(compute, gate):result(h.TIMEOUT)))
    sleeper:result(h.TIMEOUT)
  end)

  it("goes on where it was: in pcall, metamethods, iterators and goto", function()
    local gate = h.gate()
    local long = ex:submit(function(g)
      local meta = setmetatable({}, { __index = function(_, k)
        local sum = 0
        for i = 1, 100 do sum = sum + i end
        return sum + k
      end, __lt = function(a, b) return rawlen(a) < rawlen(b) end })
      local deadline, n = ml.now() + h.TIMEOUT, 0
      ::again::
      n = n + 1
      assert(meta[n] == 5050 + n)
      local less = meta < meta
      assert(not less)
      local ok, err = pcall(error, { n })
      assert(not ok and err[1] == n)
      local a, b, c = select(2, pcall(function(...) return ... end, 1, nil, 3))
      assert(a == 1 and b == nil and c == 3)
      local items = {}
      for k, v in pairs{ x = n, y = -n } do items[k] = v end
      assert(items.x == n and items.y == -n)
      assert(("%d"):format(n) == tostring(n))
      if not g:is_open() and ml.now() < deadline then goto again end
      return n
    end, gate)
    local turns = 0
    for _ = 1, 20 do
      ex:submit(function() end):result(h.TIMEOUT)
      turns = turns + 1
    end
    gate:open()
    assert.is_true(long:result(h.TIMEOUT) > 0)
    assert.equal(20, turns)
  end)

  it("ends no slice inside a coroutine of the user's: its values are its own", function()
    local gate = h.gate()
    local long = ex:submit(function(g)
      local deadline, rounds = ml.now() + h.TIMEOUT, 0
      while not g:is_open() and ml.now() < deadline do
        local co = coroutine.wrap(function(...)
          local sum = 0
          for i = 1, 20000 do sum = sum + i % 3 end
          local back = coroutine.yield(sum, ...)
          for i = 1, 20000 do sum = sum + i % 3 end
          return sum, back
        end)
        local sum, x, y = co("x", "y")
        assert(sum == 20001 and x == "x" and y == "y" or error(sum))
        local twice, back = co("back")
        assert(twice == 40002 and back == "back" or error(twice))
        rounds = rounds + 1
      end
      return rounds
    end, gate)
    for _ = 1, 10 do ex:submit(function() end):result(h.TIMEOUT) end
    gate:open()
    assert.is_true(long:result(h.TIMEOUT) > 0)
  end)

  it("waits until Lua can yield again", function()
    local gate = h.gate()
    local long = ex:submit(function(g)
      local deadline = ml.now() + h.TIMEOUT
      while not g:is_open() and ml.now() < deadline do
        local list = {}
        for i = 1, 500 do list[i] = (i * 7919) % 503 end
        table.sort(list, function(a, b) return a < b end)
        for i = 2, #list do assert(list[i - 1] <= list[i]) end
        assert(("abc"):gsub("%w", function(c) return c:upper() end) == "ABC")
      end
      return g:is_open()
    end, gate)
    for _ = 1, 5 do ex:submit(function() end):result(h.TIMEOUT) end
    gate:open()
    assert.is_true(long:result(h.TIMEOUT))
  end)

  it("is shown as ready, and cannot be resumed by others", function()
    local gate, shared = h.gate(), h.gate()
    local long = ex:submit(function(s, g, f)
      rawset(_G, "long_job", (coroutine.running()))
      s:open()
      return (f(g))
    end, shared, gate, compute)
    shared:pass()
    local status, ok, err = ex:submit(function()
      local co = rawget(_G, "long_job")
      return coroutine.status(co), coroutine.resume(co)
    end):result(h.TIMEOUT)
    assert.same({ "normal", false, "cannot resume non-suspended coroutine" }, { status, ok, err })
    local list = ex:jobs()
    gate:open()
    assert.is_true(long:result(h.TIMEOUT))
    assert.equal("ready", list[1].state)
  end)

  it("lets a job be cancelled at its next wait", function()
    local started = h.gate()
    local long = ex:submit(function(s)
      s:open()
      local deadline = ml.now() + h.TIMEOUT
      while ml.now() < deadline do
        local until_then = ml.now() + 0.02
        while ml.now() < until_then do math.random() end
        ml.checkpoint()
      end
    end, started)
    started:pass()
    assert.is_true(long:cancel())
    assert.equal("job_cancelled", h.raised(long.result, long, h.TIMEOUT).code)
  end)

  it("stops a job for good that never waits, ten seconds after its cancel", function()
    local closed = ml.Event()
    local endless = ex:submit(function(event)
      local _ <close> = setmetatable({}, { __close = function() event:set() end })
      h.compute()
    end, closed)
    local limited = ex:submit(ml.job{ h.compute, timeout = 0.001 })
    while not endless:running() do ml.sleep(0.001) end
    endless:cancel()
    assert.equal("job_cancelled", h.raised(endless.result, endless, 4 * h.TIMEOUT).code)
    assert.is_true(closed:wait(h.TIMEOUT))
    assert.equal("timeout", h.raised(limited.result, limited, 4 * h.TIMEOUT).code)
  end)

  it("works with generators", function()
    local gate = h.gate()
    local items <close> = ex:generator{ function(g)
      for i = 1, 3 do
        local until_then = ml.now() + 0.01
        while ml.now() < until_then do math.random() end
        coroutine.yield(i)
      end
      g:open()
    end, gate }
    local got = {}
    for i in items do got[#got + 1] = i end
    assert.same({ 1, 2, 3 }, got)
  end)

  it("of one job is its own affair", function()
    local plain <close> = ml.AsyncExecutor{ blocked_ms = 0 }
    local gate = h.gate()
    local long = plain:submit(ml.job{ compute, gate, preempt_ms = 2, name = "sliced" })
    plain:submit(function(g) g:open() end, gate):result(h.TIMEOUT)
    assert.is_true((long:result(h.TIMEOUT)))
    assert.equal("sliced", long.name)
  end)

  it("of a spawned job works in ml.run", function()
    local gate, order = h.gate(), {}
    ml.run(function()
      local long = ml.spawn(ml.job{ function()
        local done = compute(gate)
        order[#order + 1] = "ends"
        return done
      end, preempt_ms = 2 })
      ml.spawn(function()
        order[#order + 1] = "between"
        gate:open()
      end)
      assert.is_true(long:result(h.TIMEOUT))
    end)
    assert.same({ "between", "ends" }, order)
  end)

  it("is not there unless asked for: a job is alone between its waits", function()
    local plain <close> = ml.AsyncExecutor{ blocked_ms = 0 }
    local started = h.gate()
    local long = plain:submit(function(s)
      s:open()
      local until_then = ml.now() + 0.1
      local before = rawget(_G, "ran")
      while ml.now() < until_then do math.random() end
      return before == rawget(_G, "ran")
    end, started)
    started:pass()
    local other = plain:submit(function() rawset(_G, "ran", true) end)
    assert.is_true(long:result(h.TIMEOUT))
    other:result(h.TIMEOUT)
  end)

  it("is misuse if it is no time", function()
    h.misuse("preempt_ms", function() ml.AsyncExecutor{ preempt_ms = 0 / 0 } end)
    h.misuse("preempt_ms", function() ml.job{ print, preempt_ms = "often" } end)
    h.misuse("preempt_ms", function() ml.job{ print, preempt_ms = -1 } end)
  end)
end)
