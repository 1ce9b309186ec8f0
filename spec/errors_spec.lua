-- Law 6: errors are values and are never lost.

local ml = require "moonloop"
local h = require "spec.support.helpers"

-- The line of the caller.
local function here()
  return debug.getinfo(2, "l").currentline
end

describe("an error", function()
  local ex

  before_each(function()
    ex = ml.AsyncExecutor{ name = "errors" }
  end)

  after_each(function()
    h.close(ex)
  end)

  it("of any value arrives equal to what was raised", function()
    local values = { "text", 42, 1.5, false, true, { code = 1, list = { 1, { 2 } } } }
    for i = 1, #values do
      local future = ex:submit(function(v) error(v, 0) end, values[i])
      local ok, err = future:wait(h.TIMEOUT)
      assert.is_nil(ok)
      assert.same(values[i], err)
      assert.same(values[i], h.raised(future.result, future))
      assert.same(values[i], future:exception())
    end
  end)

  it("of nil becomes an error that says so", function()
    local _, err = ex:submit(function() error(nil) end):wait(h.TIMEOUT)
    assert.equal("nil_error", err.code)
    assert.matches("nil", tostring(err))
    local in_run = h.raised(ml.run, function() error() end)
    assert.equal("nil_error", in_run.code)
  end)

  it("keeps its metatable and methods", function()
    local class = { __tostring = function(e) return "E: " .. e.text end }
    local _, err = ex:submit(function() error(setmetatable({ text = "x" }, class)) end)
      :wait(h.TIMEOUT)
    assert.equal("E: x", tostring(err))
  end)

  it("that cannot cross arrives as crossing, with path and text", function()
    local _, err = ex:submit(function()
      error({ inner = { coroutine.create(print) } })
    end):wait(h.TIMEOUT)
    assert.equal("crossing", err.code)
    assert.matches("error.inner[1]: a coroutine cannot cross states", tostring(err), 1, true)
  end)

  it("of the runtime names its line", function()
    local line = here() + 1
    local _, err = ex:submit(function() return (nil).x end):wait(h.TIMEOUT)
    assert.matches("errors_spec%.lua:" .. line .. ": attempt to index a nil value", err)
  end)

  it("keeps its traceback on its way out of scopes", function()
    local line
    local function inner()
      line = here() + 1
      error("boom", 0)
    end
    local function outer() ml.timeout(h.TIMEOUT, function() inner() return 1 end) end
    local future = ml.run(function()
      local future = ml.spawn(function() ml.shield(outer) end)
      future:wait()
      return future
    end)
    assert.matches("errors_spec%.lua:" .. line .. ":", future:traceback())
  end)

  it("raised anew with a text that was caught before has its own traceback", function()
    local first, second
    local future = ml.run(function()
      local future = ml.spawn(function()
        local ok, err = pcall(ml.timeout, h.TIMEOUT, function()
          first = here() + 1
          error("boom", 0)
        end)
        assert(not ok and err == "boom")
        second = here() + 1
        error("boom", 0)
      end)
      future:wait()
      return future
    end)
    assert.matches("errors_spec%.lua:" .. second .. ":", future:traceback())
    assert.not_matches("errors_spec%.lua:" .. first .. ":", future:traceback())
  end)

  it("of a stack overflow fails the job, and the loop goes on", function()
    local function endless() return 1 + endless() end
    local _, err = ex:submit(endless):wait(h.TIMEOUT)
    assert.matches("stack overflow", tostring(err))
    assert.equal(1, ex:submit(function() return 1 end):result(h.TIMEOUT))
  end)

  it("of a loop state out of memory fails the job, and the loop goes on", function()
    if h.checking() then return end -- a sanitizer needs more than any limit
    local out, code = h.run_script([[
      local ml = require "moonloop"
      local ex = ml.AsyncExecutor{}
      local function alive() return ex:submit(function() return "alive" end):result(20) end
      for _, hungry in ipairs{
        function() return #("x"):rep(1 << 30) end,
        function() local t = {} while true do t[#t + 1] = { ("x"):rep(1 << 20) .. #t } end end,
        function() local s = ("x"):rep(1 << 20) while true do s = s .. s end end,
      } do
        local ok, err = ex:submit(hungry):wait(20)
        print(ok, (tostring(err):find "memory" ~= nil), alive())
      end
    ]], { memory = 300000, seconds = 60 })
    assert.equal(("nil\ttrue\talive\n"):rep(3), out)
    assert.equal(0, code)
  end)

  it("of a loop state full of jobs fails the job, and shutdown settles the rest", function()
    if h.checking() then return end
    local out, code = h.run_script([[
      local ml = require "moonloop"
      local ex = ml.AsyncExecutor{}
      local future = ex:submit(function()
        while true do ml.spawn(function() ml.sleep(60) end) end
      end)
      local ok, err = future:wait(20)
      print(ok, (tostring(err):find "memory" ~= nil))
      print(ex:shutdown{ cancel = true, timeout = 60 }) -- it collects garbage again and again
    ]], { memory = 300000, seconds = 100 })
    assert.matches("^nil\ttrue\n", out)
    assert.matches("\ntrue\n$", out)
    assert.is_nil(out:find "\nok\n") -- what is reported meanwhile is that memory ran out
    assert.equal(0, code)
  end)

  it("of a C function used as a job arrives as well", function()
    local _, err = ex:submit(tonumber):wait(h.TIMEOUT)
    assert.matches("bad argument #1", err)
  end)

  it("made by moonloop has code, message and text, and assert raises it whole", function()
    local p = ml.promise()
    local _, err = p.future:wait(0)
    assert.equal("timeout", err.code)
    assert.is_string(err.message)
    assert.matches(err.message, tostring(err), 1, true)
    local _, raised = pcall(_G.assert, p.future:wait(0))
    assert.equal("timeout", raised.code)
    p:set_result()
  end)
end)

describe("a traceback", function()
  local ex

  before_each(function()
    ex = ml.AsyncExecutor{ name = "tracebacks" }
  end)

  after_each(function()
    h.close(ex)
  end)

  it("joins the failing job and the line that submitted it", function()
    local failing = here() + 1
    local function fails() error "deep" end
    local submitting = here() + 1
    local future = ex:submit(function() fails() end)
    future:wait(h.TIMEOUT)
    assert.matches("errors_spec%.lua:" .. failing .. "%D", future:traceback())
    assert.matches("errors_spec%.lua:" .. submitting .. "%D", future:traceback())
  end)

  it("joins the jobs that waited for it", function()
    local asking = h.gate()
    local future = ex:submit(function(line)
      local child = ml.spawn(ml.job{ function() ml.checkpoint() error "inner" end, name = "kid" })
      line:open(debug.getinfo(1, "l").currentline + 1)
      local value = child:result()
      return value
    end, asking)
    local line = asking:pass()
    assert.matches("inner", select(2, future:wait(h.TIMEOUT)))
    local text = future:traceback()
    assert.matches("kid", text)
    assert.matches("errors_spec%.lua:" .. line .. "%D", text)
  end)

  it("shows where in nested coroutines it failed", function()
    local failing = h.gate()
    local future = ex:submit(function(line)
      coroutine.wrap(function()
        ml.checkpoint()
        line:open(debug.getinfo(1, "l").currentline + 1)
        error "in a coroutine"
      end)()
    end, failing)
    future:wait(h.TIMEOUT)
    assert.matches("errors_spec%.lua:" .. failing:pass() .. "%D", future:traceback())
  end)

  it("is there for errors that are no strings", function()
    local future = ex:submit(function() error{ code = 1 } end)
    future:wait(h.TIMEOUT)
    assert.matches("errors_spec%.lua:%d+", future:traceback())
  end)

  it("comes with an error that leaves ml.run in a script", function()
    local out, code = h.run_script [[
      local ml = require "moonloop"
      local function inner() error "out of run" end
      ml.run(function() inner() end)
    ]]
    assert.matches("out of run", out)
    assert.matches("stack traceback", out)
    assert.equal(1, code)
  end)
end)

describe("an error nobody asked for", function()
  local ex, log

  before_each(function()
    ex, log = ml.AsyncExecutor{ name = "unasked" }, h.error_log()
  end)

  after_each(function()
    ml.on_error(nil)
    h.close(ex)
  end)

  -- Everything that would be reported by now has been.
  local function settle()
    h.collect()
    ex:submit(function() collectgarbage() collectgarbage() end):result(h.TIMEOUT)
    ml.poll(0)
  end

  local function fail(value)
    local future = ex:submit(ml.job{ function(v) error(v, 0) end, value, name = "failing" })
    h.eventually(function() return future:done() end)
    return future
  end

  it("is reported once when its last handle goes", function()
    do fail "lost" end
    h.eventually(function() h.collect() return log:count() > 0 end)
    local err, info = log:entry(1)
    assert.equal("lost", err)
    assert.equal("failing", info.name)
    assert.is_string(info.kind)
    assert.matches("errors_spec%.lua:%d+", info.traceback)
    assert.matches("errors_spec%.lua:%d+", info.submitted_at)
    settle()
    assert.equal(1, log:count())
  end)

  it("is reported when the handle was dropped before the end", function()
    local gate = h.gate()
    ex:submit(function(g) g:pass() error("dropped", 0) end, gate)
    h.collect()
    gate:open()
    assert.equal("dropped", (log:entry(1)))
    settle()
    assert.equal(1, log:count())
  end)

  it("is not reported while someone may still ask", function()
    local future = fail "later"
    settle()
    assert.equal(0, log:count())
    assert.equal("later", future:exception())
  end)

  it("is not one that was asked for by result, wait or exception", function()
    do
      pcall(function() fail("a"):result() end)
      fail("b"):wait()
      fail("c"):exception()
    end
    settle()
    assert.equal(0, log:count())
  end)

  it("is one that only done looked at", function()
    do assert.is_true(fail("only looked"):done()) end
    h.eventually(function() h.collect() return log:count() == 1 end)
  end)

  it("is one that was only waited for", function()
    local function lose(n) error("lost " .. n, 0) end
    do
      ml.complete_async_jobs(ml.job{ lose, 1 })
      ml.wait({ ex:submit(lose, 2) }, { timeout = h.TIMEOUT })
      for _ in ml.as_completed({ ex:submit(lose, 3) }, h.TIMEOUT) do end
    end
    h.eventually(function() h.collect() return log:count() == 3 end)
    local errors = {}
    for i = 1, 3 do errors[i] = log:entry(i) end
    table.sort(errors)
    assert.same({ "lost 1", "lost 2", "lost 3" }, errors)
  end)

  it("is none where the job was fine or cancelled", function()
    do
      ex:submit(function() return 1 end)
      ex:submit(function() ml.sleep(60) end):cancel()
    end
    settle()
    settle()
    assert.equal(0, log:count())
  end)

  it("of a spawned job is reported as well", function()
    ex:submit(function()
      ml.spawn(function() error("spawned", 0) end)
      ml.checkpoint()
      ml.checkpoint()
      collectgarbage()
      collectgarbage()
    end):result(h.TIMEOUT)
    assert.equal("spawned", (log:entry(1)))
  end)

  it("of a spawned job is reported by a loop that has nothing else to do", function()
    ex:submit(function()
      ml.spawn(function() error("spawned", 0) end)
    end):result(h.TIMEOUT)
    assert.equal("spawned", (log:entry(1)))
    ml.run(function()
      ml.spawn(function() error("in this state", 0) end)
      assert.equal("in this state", (log:entry(2)))
    end)
  end)

  it("of a promise is reported as well, unless it was abandoned", function()
    do
      ml.promise():set_error "failed by hand"
      local dropped, asked = ml.promise().future, ml.promise()
      asked:set_error "asked for"
      assert.equal("asked for", asked.future:exception())
      h.eventually(function() h.collect() return dropped:done() end)
    end
    h.eventually(function() h.collect() return log:count() > 0 end)
    assert.equal("failed by hand", (log:entry(1)))
    settle()
    assert.equal(1, log:count())
  end)

  it("of a job that could not be loaded is reported once", function()
    do
      local future = ex:submit "spec.support.absent:f"
      h.eventually(function() return future:done() end)
    end
    settle()
    local err, info = log:entry(1)
    assert.matches("module 'spec.support.absent' not found", tostring(err))
    assert.equal("spec.support.absent:f", info.name)
    settle()
    assert.equal(1, log:count())
  end)

  it("still held at the shutdown of its executor stays with its future", function()
    local future = fail "kept"
    h.close(ex)
    assert.equal("kept", future:exception())
    assert.equal(0, log:count())
  end)
end)

describe("on_error", function()
  after_each(function()
    ml.on_error(nil)
  end)

  it("returns the handler before, and nil restores the default", function()
    local function first() end
    local function second() end
    ml.on_error(nil)
    assert.is_nil(ml.on_error(first))
    assert.is_function(ml.on_error(second))
    assert.is_function(ml.on_error(nil))
    assert.is_nil(ml.on_error(nil))
  end)

  it("may be any value that can be called", function()
    local heard = h.gate()
    local handler = setmetatable({ heard = heard },
                                 { __call = function(self, err) self.heard:open(err) end })
    ml.on_error(handler)
    assert.equal(handler, ml.on_error(handler))
    ml.promise():set_error "by hand"
    h.collect()
    assert.equal("by hand", heard:pass())
  end)

  it("refuses what is no function", function()
    h.misuse("number", function() ml.on_error(1) end)
    h.misuse("table", function() ml.on_error{} end)
  end)

  it("refuses a handler that cannot cross", function()
    local co = coroutine.create(print)
    assert.equal("crossing", h.raised(ml.on_error, function() return co end).code)
  end)

  it("that fails itself hides neither error and stops nothing", function()
    local out, code = h.run_script [[
      local ml = require "moonloop"
      ml.on_error(function() error "handler broke" end)
      local ex <close> = ml.AsyncExecutor{}
      do ex:submit(function() error "job broke" end) end
      for _ = 1, 20 do
        collectgarbage()
        ex:submit(function() collectgarbage() end):result(10)
      end
      print(ex:submit(function() return "alive" end):result(10))
    ]]
    assert.matches("alive", out)
    assert.matches("job broke", out)
    assert.matches("handler broke", out)
    assert.equal(0, code)
  end)

  it("by default prints one clear block to stderr", function()
    local out, code = h.run_script [[
      local ml = require "moonloop"
      local ex <close> = ml.AsyncExecutor{ name = "printer" }
      do ex:submit(ml.job{ function() error "for stderr" end, name = "noisy" }) end
      for _ = 1, 20 do
        collectgarbage()
        ex:submit(function() collectgarbage() end):result(10)
      end
    ]]
    assert.equal(1, select(2, out:gsub("for stderr", "")))
    assert.matches("noisy", out)
    assert.matches("traceback", out)
    assert.equal(0, code)
  end)

  it("by default also reports at the end of the process", function()
    local out = h.run_script [[
      local ml = require "moonloop"
      kept = ml.run_async_job(function() error "held to the end" end)
      while not kept:done() do ml.sleep(0.001) end
    ]]
    assert.equal(1, select(2, out:gsub("held to the end", "")))
  end)
end)
