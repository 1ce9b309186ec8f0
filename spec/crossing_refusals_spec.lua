-- Law 3: what does not cross is refused with the path to it, never silently nil.

local ml = require "moonloop"
local h = require "spec.support.helpers"

local REFUSED = "cannot cross states"

describe("crossing refuses", function()
  local ex, co

  setup(function()
    ex = ml.AsyncExecutor{ name = "refusals" }
    co = coroutine.create(print)
  end)

  teardown(function()
    h.close(ex)
  end)

  -- The text of the refusal when `...` is submitted.
  local function refusal(...)
    local err = h.raised(ex.submit, ex, ...)
    assert.equal("crossing", err.code)
    assert.equal(err.message, tostring(err))
    return err.message
  end

  local function has(text, message)
    assert.is_true(message:find(text, 1, true) ~= nil, message)
  end

  local function nothing() end

  it("a coroutine, with the whole path", function()
    local log = coroutine.create(print)
    local handlers = { nothing, nothing, function() return log end }
    has("argument 2.conf.handlers[3] (upvalue 'log'): a coroutine cannot cross states",
        refusal(nothing, 1, { conf = { handlers = handlers } }))
  end)

  it("an argument, counted as the job's own", function()
    has("argument 1: a coroutine cannot cross states", refusal(nothing, co))
    has("argument 3[2]: a coroutine cannot cross states", refusal(nothing, 1, 2, { 1, co }))
  end)

  it("an upvalue of the job", function()
    local bad = co
    local message = refusal(function() return bad end)
    has("(upvalue 'bad'): a coroutine", message)
    has(REFUSED, message)
  end)

  it("an upvalue of an upvalue", function()
    local deep = co
    local function inner() return deep end
    has("(upvalue 'deep')", refusal(function() return inner() end))
  end)

  it("odd keys, quoted", function()
    has('argument 1["odd key"]: ', refusal(nothing, { ["odd key"] = co }))
    has("argument 1[1.5]: ", refusal(nothing, { [1.5] = co }))
    has("argument 1[true].x[2]: ", refusal(nothing, { [true] = { x = { 0, co } } }))
  end)

  it("a key", function()
    has(REFUSED, refusal(nothing, { [co] = 1 }))
  end)

  it("what is in a metatable", function()
    local message = refusal(nothing, setmetatable({}, { __index = co }))
    has("__index", message)
    has(REFUSED, message)
  end)

  it("an open file", function()
    local file <close> = assert(io.tmpfile())
    has("argument 1.out: ", refusal(nothing, { out = file }))
    has(REFUSED, refusal(nothing, file))
  end)

  it("a C function that no module holds", function()
    has("argument 1: ", refusal(nothing, coroutine.wrap(nothing)))
    has(REFUSED, refusal(nothing, ("x"):gmatch "x"))
  end)

  it("an argument in ml.job and behind extra ones", function()
    has("argument 1: ", refusal(ml.job{ nothing, co }))
    has("argument 2: ", refusal(ml.job{ nothing, 1 }, co))
  end)

  it("at the submit: nothing runs, and the executor goes on", function()
    local before = ex:stats().submitted
    refusal(nothing, co)
    assert.equal(before, ex:stats().submitted)
    assert.equal(1, ex:submit(function() return 1 end):result(h.TIMEOUT))
  end)

  it("a result: the future fails with its path", function()
    local cases = {
      ["result 1: a coroutine"] = function() return coroutine.create(print) end,
      ["result 2.list[1]: a coroutine"] = function()
        return 1, { list = { coroutine.create(print) } }
      end,
      ["(upvalue 'bad'): a coroutine"] = function()
        local bad = coroutine.create(print)
        return function() return bad end
      end,
    }
    for text, f in pairs(cases) do
      local ok, err = ex:submit(f):wait(h.TIMEOUT)
      assert.is_nil(ok)
      assert.equal("crossing", err.code)
      has(text, err.message)
      has(REFUSED, err.message)
    end
  end)

  it("an argument given by a job to another executor, raised in that job", function()
    local other <close> = ml.AsyncExecutor{}
    local code, message = ex:submit(function(o)
      local _, err = pcall(o.submit, o, function() end, coroutine.create(print))
      return err.code, err.message
    end, other):result(h.TIMEOUT)
    assert.equal("crossing", code)
    has("argument 1: a coroutine cannot cross states", message)
  end)

  it("wherever values cross: to_thread, run_async_job, async_to_sync, init, cancel", function()
    for _, f in ipairs{
      function() ml.to_thread(nothing, co) end,
      function() ml.run_async_job(nothing, co) end,
      function() ml.async_to_sync(nothing)(co) end,
      function() ml.run_in_executor(nil, nothing, co) end,
      function() ml.AsyncExecutor{ init = function() return co end } end,
    } do
      assert.equal("crossing", h.raised(f).code)
    end
  end)

  it("nothing in ml.run and spawn, where nothing is copied", function()
    local value, file <close> = coroutine.create(print), assert(io.tmpfile())
    local a, b = ml.run(function(x, y)
      return ml.spawn(function(v, w) return v, w end, x, y):result()
    end, value, file)
    assert.equal(value, a)
    assert.equal(file, b)
  end)

  it("a table that changes nothing: a failed crossing leaves values intact", function()
    local t = { 1, 2, { co } }
    refusal(nothing, t)
    assert.same({ 1, 2, { co } }, t)
  end)
end)

describe("a crossing of much", function()
  it("64 MiB each way stays exact and bounded in memory", function()
    local out, code = h.run_script([[
      local ml = require "moonloop"
      local function peak()
        local file <close> = assert(io.open "/proc/self/status")
        return tonumber(file:read("a"):match "VmHWM:%s*(%d+)") // 1024
      end
      local ex <close> = ml.AsyncExecutor{}
      local text = ("0123456789abcdef"):rep(4 * 1024 * 1024)
      for _ = 1, 5 do
        local back = ex:submit(function(s) return s end, text):result(60)
        assert(back == text)
        back = nil
        collectgarbage()
        ex:submit(function() collectgarbage() end):result(60)
      end
      print("exact", (peak() < 64 * 9 or ...) and "bounded" or peak())
    ]], { h.checking() and "any" or nil, seconds = 90 })
    assert.same({ "exact\tbounded\n", 0 }, { out, code })
  end)

  it("a hundred thousand small jobs leaves memory flat", function()
    local out, code = h.run_script([[
      local ml = require "moonloop"
      local function rss()
        local file <close> = assert(io.open "/proc/self/status")
        return tonumber(file:read("a"):match "VmRSS:%s*(%d+)") / 1024
      end
      local ex <close> = ml.AsyncExecutor{}
      local function round(n)
        for _ = 1, n // 100 do
          local futures = {}
          for i = 1, 100 do futures[i] = ex:submit(function(t) return { t.n } end, { n = i }) end
          for i = 1, 100 do assert(futures[i]:result(60)[1] == i) end
        end
        collectgarbage()
        collectgarbage()
      end
      round(20000)
      local before = rss()
      round(80000)
      print((rss() - before < 16 or ...) and "flat" or rss() - before)
    ]], { h.checking() and "any" or nil, seconds = 90 })
    assert.same({ "flat\n", 0 }, { out, code })
  end)
end)
