-- Law 3: functions cross by code with their upvalues, modules by name.

local ml = require "moonloop"
local h = require "spec.support.helpers"
local sample = require "spec.support.sample"

local at_top_level = "an upvalue of this file"

describe("functions cross:", function()
  local ex

  setup(function()
    ex = ml.AsyncExecutor{ name = "code" }
  end)

  teardown(function()
    ml.on_error(nil)
    h.close(ex)
  end)

  local function ask(f, ...)
    return ex:submit(f, ...):result(h.TIMEOUT)
  end

  it("with the values of their upvalues, nested ones too", function()
    local a, t = 1, { 2 }
    local function inner() return a + t[1] end
    local n, text = ask(function() return inner() * 10, at_top_level end)
    assert.same({ 30, at_top_level }, { n, text })
  end)

  it("as arguments, in tables and as results", function()
    local add = ask(function(f, t) return function(x) return f(x) + t.g(x) end end,
                    function(x) return x + 1 end, { g = function(x) return 2 * x end })
    assert.equal(16, add(5))
  end)

  it("with upvalues shared by the functions of one message", function()
    local n = 0
    local function up() n = n + 1 end
    local function get() return n end
    assert.equal(2, ask(function() up() up() return get() end))
    assert.equal(1, ask(function(t) t.up() return t.get() end, { up = up, get = get }))
    local f, g = ask(function()
      local m = 0
      return function() m = m + 1 end, function() return m end
    end)
    f()
    assert.equal(1, g())
    assert.equal(0, n)
  end)

  it("without sharing upvalues between messages", function()
    local n = 0
    local function tick() n = n + 1 return n end
    assert.same({ 1, 1 }, { ask(tick), ask(tick) })
    n = 5
    assert.equal(6, ask(tick))
  end)

  it("that call themselves and each other", function()
    local function factorial(n) return n <= 1 and 1 or n * factorial(n - 1) end
    assert.equal(3628800, ask(factorial, 10))
    local is_odd
    local function is_even(n) return n == 0 or is_odd(n - 1) end
    function is_odd(n) return n ~= 0 and is_even(n - 1) end
    assert.is_true(ask(is_even, 10))
  end)

  it("held by tables they hold", function()
    local object = { n = 41 }
    function object.next() return object.n + 1 end
    assert.equal(42, ask(function(o) return o.next() end, object))
  end)

  it("with variable arguments and many constants", function()
    local source = { "local a = ... return 0" }
    for i = 1, 400 do source[#source + 1] = ("+ (a == %d and %d or 0)"):format(i, i * i) end
    assert.equal(90000, ask(load(table.concat(source, " ")), 300))
    assert.equal(3, ask(function(...) return select("#", ...) end, nil, nil, nil))
  end)

  it("with their line numbers, for errors", function()
    local ok, err = ex:submit(function() error "here" end):wait(h.TIMEOUT)
    assert.is_nil(ok)
    assert.matches("crossing_code_spec%.lua:%d+: here", err)
  end)

  it("many times over, each with its own upvalues", function()
    local futures = {}
    for i = 1, 300 do
      futures[i] = ex:submit(function(k) return i + k end, 1000)
    end
    for i = 1, 300 do assert.equal(1000 + i, futures[i]:result(h.TIMEOUT)) end
  end)

  it("as the same function when one message holds it twice", function()
    local function f() end
    assert.is_true(ask(function(a, b) return a == b.f end, f, { f = f }))
  end)

  it("when they came from another state themselves", function()
    local pool <close> = ml.ThreadExecutor{ workers = 1 }
    local n = 20
    local f = ask(function(g) return function() return g() + 1 end end, function() return n end)
    assert.equal(21, pool:submit(f):result(h.TIMEOUT))
  end)

  it("made by async_to_sync and sync_to_async, as their job", function()
    local double = ml.async_to_sync(function(x) return 2 * x end)
    local shout = ml.sync_to_async(function(s) return s .. "!" end)
    assert.same({ 4, "hey!" }, { ask(function() return double(2), shout "hey" end) })
    assert.equal(6, ask(function(f) return f(3) end, double))
  end)
end)

describe("globals", function()
  local ex

  setup(function()
    ex = ml.AsyncExecutor{ name = "globals" }
  end)

  teardown(function()
    rawset(_G, "spec_global", nil)
    h.close(ex)
  end)

  local function ask(f, ...)
    return ex:submit(f, ...):result(h.TIMEOUT)
  end

  it("are those of the far side", function()
    rawset(_G, "spec_global", "of this state")
    assert.is_nil(ask(function() return spec_global end)) -- luacheck: ignore
    ask(function() spec_global = "of the loop" end) -- luacheck: ignore
    assert.equal("of the loop", ask(function() return spec_global end)) -- luacheck: ignore
    assert.equal("of this state", rawget(_G, "spec_global"))
    ask(function() spec_global = nil end) -- luacheck: ignore
  end)

  it("as a table become the far side's globals table", function()
    assert.is_true(ask(function(g, t) return g == _G and t.env == _G end, _G, { env = _G }))
    assert.equal(_G, ask(function() return _G end))
  end)

  it("that are an upvalue named _ENV become the far side's, whatever it holds", function()
    local sandbox = { tostring = function() return "sandboxed" end }
    local f = load("return tostring(1)", "=sandboxed", "t", sandbox)
    assert.equal("sandboxed", f())
    assert.equal("1", ask(f))
  end)

  it("of the standard library cross by name", function()
    assert.is_true(ask(function(p, f, s)
      return p == print and f == string.format and s == string
    end, print, string.format, string))
    assert.equal(string.format, ask(function() return string.format end))
    assert.equal("x", ask(string.lower, "X"))
  end)

  it("that are the program's own cross as data and code", function()
    rawset(_G, "spec_global", function() return "code" end)
    local text, known = ask(function(f) return f(), rawget(_G, "spec_global") ~= nil end,
                            rawget(_G, "spec_global"))
    assert.same({ "code", false }, { text, known })
  end)
end)

describe("modules cross by name:", function()
  local ex

  setup(function()
    ex = ml.AsyncExecutor{ name = "modules" }
  end)

  teardown(function()
    package.loaded["spec only here"] = nil
    h.close(ex)
  end)

  local function ask(f, ...)
    return ex:submit(f, ...):result(h.TIMEOUT)
  end

  it("the module, required on the far side", function()
    assert.is_true(ask(function(m, loaded)
      return m == package.loaded[loaded] and m == sample
    end, sample, "spec.support.sample"))
    assert.equal(sample, ask(function() return require "spec.support.sample" end))
  end)

  it("its fields, one level", function()
    local add, point, nested = ask(function(a, b, c)
      local m = require "spec.support.sample"
      return a == m.add, b == m.Point, c == m.nested
    end, sample.add, sample.Point, sample.nested)
    assert.same({ true, true, true }, { add, point, nested })
  end)

  it("state changed on the far side stays there", function()
    ask(function() sample.limit = 99 end)
    assert.equal(99, ask(function() return sample.limit end))
    assert.equal(7, sample.limit)
    ask(function() sample.limit = 7 end)
  end)

  it("moonloop itself", function()
    assert.is_true(ask(function() return ml == require "moonloop" and ml.in_job() end))
  end)

  it("io.stdin, io.stdout and io.stderr", function()
    assert.is_true(ask(function(a, b, c)
      return a == io.stdin and b == io.stdout and c == io.stderr
    end, io.stdin, io.stdout, io.stderr))
    assert.equal(io.stdout, ask(function() return io.stdout end))
  end)

  it("one that the far side cannot load settles the future with that error", function()
    package.loaded["spec only here"] = { f = function() return 1 end }
    local ok, err = ex:submit(package.loaded["spec only here"].f):wait(h.TIMEOUT)
    assert.is_nil(ok)
    assert.matches("spec only here", tostring(err))
    ok, err = ex:submit(function() end, package.loaded["spec only here"]):wait(h.TIMEOUT)
    assert.is_nil(ok)
    assert.matches("spec only here", tostring(err))
    assert.equal(1, ask(function() return 1 end))
  end)
end)
