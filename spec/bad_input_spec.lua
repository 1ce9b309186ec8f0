-- Bad input and faults that other files do not hold: each gives an error that
-- names what and where, nothing hangs, and every future settles.

local ml = require "moonloop"
local h = require "spec.support.helpers"

describe("a fault", function()
  local ex, log

  before_each(function()
    ex, log = ml.AsyncExecutor{ name = "faults" }, h.error_log()
  end)

  after_each(function()
    ml.on_error(nil)
    h.close(ex)
  end)

  local function alive()
    return ex:submit(function() ml.sleep(0.0005) return "alive" end):result(h.TIMEOUT)
  end

  it("in __close of a job is its outcome", function()
    local future = ex:submit(function()
      local _ <close> = setmetatable({}, { __close = function() error("close broke", 0) end })
      return 1
    end)
    assert.same({ nil, "close broke" }, { future:wait(h.TIMEOUT) })
    assert.equal("alive", alive())
  end)

  it("in __close while another error passes takes its place, as in Lua", function()
    local future = ex:submit(function()
      local _ <close> = setmetatable({}, { __close = function() error("second", 0) end })
      error("first", 0)
    end)
    assert.same({ nil, "second" }, { future:wait(h.TIMEOUT) })
  end)

  it("in __gc leaves the job and the loop alone", function()
    local out, code = h.run_script [[
      local ml = require "moonloop"
      local ex <close> = ml.AsyncExecutor{}
      print(ex:submit(function()
        warn "@on"
        setmetatable({}, { __gc = function() error "gc broke" end })
        collectgarbage()
        ml.sleep(0.001)
        return "job goes on"
      end):result(10))
      print(ex:submit(function() return "alive" end):result(10))
    ]]
    assert.matches("job goes on\nalive\n", out)
    assert.equal(0, code)
  end)

  it("in __gc at the end of a loop's state keeps the exit code", function()
    local _, code = h.run_script [[
      local ml = require "moonloop"
      local ex = ml.AsyncExecutor{}
      ex:submit(function()
        kept = setmetatable({}, { __gc = function() error "gc broke at the end" end })
      end):result(10)
      ex:shutdown()
      os.exit(4, true)
    ]]
    assert.equal(4, code)
  end)

  it("in a callback on a loop goes to on_error, and the loop goes on", function()
    ex:submit(function()
      local child = ml.spawn(function() return 1 end)
      child:add_done_callback(function() error("callback broke", 0) end)
      child:result()
    end):result(h.TIMEOUT)
    assert.equal("callback broke", (log:entry(1)))
    assert.equal("alive", alive())
    assert.equal(1, log:count())
  end)

  it("in a __tostring of an error hurts nobody", function()
    local _, err = ex:submit(function()
      error(setmetatable({ n = 1 }, { __tostring = function() error "tostring broke" end }))
    end):wait(h.TIMEOUT)
    assert.equal(1, rawget(err, "n"))
    do
      ex:submit(function()
        error(setmetatable({}, { __tostring = function() error "tostring broke" end }))
      end)
    end
    h.eventually(function() h.collect() return log:count() == 1 end)
    assert.is_table((log:entry(1)))
    assert.equal("alive", alive())
  end)

  it("in the message handler of xpcall does not end the job", function()
    assert.is_false(ex:submit(function()
      local ok = xpcall(error, function() error "again" end, "x")
      ml.sleep(0.0005)
      return ok
    end):result(h.TIMEOUT))
  end)
end)

describe("a wait on a loop's thread outside a job", function()
  it("raises at once and says so; the loop goes on", function()
    local ex <close> = ml.AsyncExecutor{}
    local seen = h.gate()
    ex:submit(function(g)
      local child, p = ml.spawn(function() return 1 end), ml.promise()
      child:add_done_callback(function()
        local errors = {}
        for i, wait in ipairs{
          function() ml.sleep(0.001) end,
          function() g:pass() end,
          function() ml.checkpoint() end,
          function() p.future:wait() end,
          function() ml.to_thread(print) end,
        } do
          local ok, err = pcall(wait)
          errors[i] = ok and i .. ": it waited" or tostring(err)
        end
        p:set_result()
        g:open(errors)
      end)
    end, seen)
    local errors = seen:pass()
    assert.equal(5, #errors)
    for _, text in ipairs(errors) do
      assert.matches("outside a job", text)
      assert.matches("%.lua:%d+: ", text)
    end
    assert.equal(1, ex:submit(function() return 1 end):result(h.TIMEOUT))
  end)
end)

describe("misuse", function()
  it("of a method on something else names what was expected", function()
    local ex <close> = ml.AsyncExecutor{}
    for _, name in ipairs{ "shutdown", "stats", "jobs" } do
      h.misuse("executor", function() ex[name]({}) end)
      h.misuse("executor", function() ex[name]() end)
    end
    for _, name in ipairs{ "submit", "try_submit", "map", "sync_to_async" } do
      h.misuse("executor", function() ex[name]({}, print, {}) end)
      h.misuse("executor", function() ex[name](nil, print, {}) end)
    end
    local p = ml.promise()
    h.misuse("promise", function() p.set_result({}, 1) end)
    p:set_result()
  end)

  it("of a constructor names the option table", function()
    for _, make in ipairs{ ml.AsyncExecutor, ml.ThreadExecutor } do
      h.misuse("number", function() make(4) end)
      h.misuse("string", function() make "four" end)
    end
  end)

  it("raises the same way in a job", function()
    ml.run(function()
      h.misuse("number", function() ml.spawn(1) end)
      h.misuse("number", function() ml.promise().future:wait "x" end)
      h.misuse("n[ao][nt]", function() ml.sleep(0 / 0) end)
    end)
  end)

  it("of poll is refused", function()
    h.misuse("", function() ml.poll "x" end)
    h.misuse("", function() ml.poll(-1) end)
  end)
end)

describe("a submit after shutdown", function()
  it("raises closed from a job, a worker and this state alike", function()
    local gone = ml.AsyncExecutor{ name = "gone" }
    gone:shutdown{ timeout = h.TIMEOUT }
    local function code(executor)
      local _, err = pcall(executor.submit, executor, function() end)
      return err.code
    end
    assert.equal("closed", code(gone))
    assert.equal("closed", ml.run(code, gone))
    assert.equal("closed", ml.to_thread(code, gone))
    local map = pcall(function() return gone:map(function() end, { 1 })() end)
    assert.is_false(map)
    assert.equal("closed", h.raised(gone.sync_to_async, gone, function() end).code)
  end)

  it("still answers stats and jobs", function()
    local gone = ml.AsyncExecutor{}
    gone:submit(function() end):result(h.TIMEOUT)
    gone:shutdown{ timeout = h.TIMEOUT }
    assert.equal(1, gone:stats().finished)
    assert.same({}, gone:jobs())
  end)
end)

describe("a future of a loop that is gone", function()
  it("keeps its outcome for every state", function()
    local ex = ml.AsyncExecutor{}
    local future = ex:submit(function() return { "kept" } end)
    future:wait(h.TIMEOUT)
    h.close(ex)
    assert.same({ "kept" }, future:result())
    assert.same({ "kept" }, ml.to_thread(function(f) return f:result() end, future))
    assert.is_false(future:cancel())
  end)
end)
