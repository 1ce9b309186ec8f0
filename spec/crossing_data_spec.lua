-- Law 3: data crosses by copy, exactly.

local ml = require "moonloop"
local h = require "spec.support.helpers"
local sample = require "spec.support.sample"

describe("data crosses:", function()
  local ex

  setup(function()
    ex = ml.AsyncExecutor{ name = "data" }
  end)

  teardown(function()
    h.close(ex)
  end)

  -- To the loop's state and back.
  local function back(...)
    return ex:submit(function(...) return ... end, ...):result(h.TIMEOUT)
  end

  -- Asks the far side about a value.
  local function ask(f, ...)
    return ex:submit(f, ...):result(h.TIMEOUT)
  end

  it("nil and booleans, wherever they stand", function()
    local values = table.pack(nil, true, nil, false, nil)
    assert.same(values, table.pack(back(table.unpack(values, 1, values.n))))
  end)

  it("integers and floats with their subtype", function()
    for _, n in ipairs{ 0, 1, -1, 127, 128, -129, 65536, 1 << 40, math.mininteger,
                        math.maxinteger, 0.0, 1.0, 0.1, 1e308, 5e-324, math.huge, -math.huge } do
      local got = back(n)
      assert.equal(n, got)
      assert.equal(math.type(n), math.type(got))
    end
  end)

  it("NaN and negative zero", function()
    local nan, zero = back(0 / 0, -0.0)
    assert.is_true(nan ~= nan)
    assert.equal(-math.huge, 1 / zero)
  end)

  it("strings with NULs and any bytes", function()
    local bytes = {}
    for i = 0, 255 do bytes[#bytes + 1] = string.char(i) end
    local all = table.concat(bytes)
    assert.equal(all, back(all))
    assert.equal("", back "")
    assert.equal("a\0b\0", back "a\0b\0")
  end)

  it("large strings, exactly", function()
    local text = ("moonloop\0"):rep(7 * 1024 * 1024)
    assert.is_true(back(text) == text)
    assert.equal(#text, ask(function(s) return #s end, text))
  end)

  it("light userdata", function()
    local light = debug.upvalueid(function() return ex end, 1)
    assert.equal(light, back(light))
  end)

  it("tables, nested, with keys of many types", function()
    local t = { 1, 2, { 3, { 4 } }, [0] = "zero", [-1] = "minus", [1.5] = "half",
                [true] = "yes", [""] = "empty", ["a\0b"] = { x = false } }
    assert.same(t, back(t))
  end)

  it("tables as keys, and the same table as key and value", function()
    local key = { "key" }
    local got = back{ [key] = key }
    local k, v = next(got)
    assert.equal(k, v)
    assert.same({ "key" }, k)
  end)

  it("lists with holes and their values at the right places", function()
    local t = { 1, nil, 3, nil, nil, 6 }
    local got = back(t)
    for i = 1, 6 do assert.equal(t[i], got[i]) end
  end)

  it("cycles", function()
    local t = { name = "loop" }
    t.self, t.list = t, { t, { t } }
    local got = back(t)
    assert.equal(got, got.self)
    assert.equal(got, got.list[1])
    assert.equal(got, got.list[2][1])
  end)

  it("shared references, within and across arguments", function()
    local shared = {}
    local a, b, c = back({ shared }, shared, { { shared } })
    assert.equal(a[1], b)
    assert.equal(b, c[1][1])
  end)

  it("copies: the original is not touched", function()
    local t = { n = 1 }
    local got = ask(function(x) x.n = x.n + 1 x.new = true return x end, t)
    assert.same({ n = 1 }, t)
    assert.same({ n = 2, new = true }, got)
  end)

  it("metatables by name, when a loaded module holds them", function()
    local sum, same = ask(function(p)
      return p:sum(), getmetatable(p) == require("spec.support.sample").Point
    end, sample.point(3, 4))
    assert.same({ 7, true }, { sum, same })
    assert.equal(sample.Point, getmetatable(back(sample.point(1, 2))))
  end)

  it("other metatables by copy, one copy a message", function()
    local meta = { __index = { hello = function(self) return "hello " .. self.name end } }
    local a, b = setmetatable({ name = "a" }, meta), setmetatable({ name = "b" }, meta)
    local text, same = ask(function(x, y)
      return x:hello() .. " " .. y:hello(), getmetatable(x) == getmetatable(y)
    end, a, b)
    assert.same({ "hello a hello b", true }, { text, same })
    local got = back(a)
    assert.equal("hello a", got:hello())
    assert.not_equal(meta, getmetatable(got))
  end)

  it("metatables with __close and __gc, which work on the far side", function()
    local closed, collected = h.gate(), h.gate()
    ask(function(t, u) -- luacheck: ignore u
      do local _ <close> = t end
      u = nil
      for _ = 1, 3 do collectgarbage() end
    end, setmetatable({}, { __close = function() closed:open "closed" end }),
         setmetatable({}, { __gc = function() pcall(collected.open, collected, "gone") end }))
    assert.equal("closed", closed:pass())
    ask(function() collectgarbage() collectgarbage() end)
    assert.equal("gone", collected:pass())
  end)

  it("raw contents: metamethods and __metatable do not get in the way", function()
    local function boom() error "metamethod called" end
    local t = setmetatable({ 1, x = 2 }, { __pairs = boom, __len = boom, __metatable = "locked" })
    local one, x = ask(function(u) return rawget(u, 1), rawget(u, "x") end, t)
    assert.same({ 1, 2 }, { one, x })
    local proxy = setmetatable({}, { __index = function(_, k) return k .. "!" end })
    assert.equal("k!", ask(function(p) return p.k end, proxy))
  end)

  it("a thousand levels deep", function()
    local t = "bottom"
    for _ = 1, 1000 do t = { t } end
    local got = back(t)
    for _ = 1, 1000 do got = got[1] end
    assert.equal("bottom", got)
  end)

  it("deeper than that works or is refused by name, never worse", function()
    local t = "bottom"
    for _ = 1, 200000 do t = { t } end
    local ok, err = pcall(back, t)
    if not ok then assert.equal("crossing", err.code) end
    assert.equal(1, back(1))
  end)

  it("two hundred arguments and results", function()
    local list = {}
    for i = 1, 200 do list[i] = i end
    assert.same(list, { back(table.unpack(list)) })
  end)

  it("tables with a hundred thousand entries", function()
    local list = {}
    for i = 1, 100000 do list[i] = i end
    local sum, n = ask(function(t)
      local total = 0
      for _, v in ipairs(t) do total = total + v end
      return total, #t
    end, list)
    assert.same({ 5000050000, 100000 }, { sum, n })
  end)

  it("a value given twice stays one, as argument and in an upvalue", function()
    local t = {}
    assert.is_true(ask(function(u) return rawequal(t, u) end, t))
  end)
end)

describe("handles cross by reference:", function()
  it("futures, executors and promises are the same on the far side and back", function()
    local ex <close> = ml.AsyncExecutor{}
    local p = ml.promise()
    local e, q, f, n = ex:submit(function(a, b, c, t)
      b:set_result "set over there"
      return a, b, c, { a == t[1], b == t[2], c == t[3] }
    end, ex, p, p.future, { ex, p, p.future }):result(h.TIMEOUT)
    assert.is_true(e == ex and q == p and f == p.future)
    assert.same({ true, true, true }, n)
    assert.equal("set over there", p.future:result(0))
  end)

  it("a job's future of ml.run, pending, crosses as well", function()
    local ex <close> = ml.AsyncExecutor{}
    assert.equal("local", ml.run(function()
      local child = ml.spawn(function() ml.sleep(0.005) return "local" end)
      return ex:submit(function(f) return f:result() end, child):result(h.TIMEOUT)
    end))
  end)

  it("a settled one too, whatever its outcome, in the run and after it", function()
    local ex <close> = ml.AsyncExecutor{}
    local function look(f)
      local ok, value = f:wait(h.TIMEOUT)
      return ok, ok and value or (type(value) == "table" and value.code or value)
    end
    local futures = {}
    local function check()
      assert.same({ true, "fine" }, { ex:submit(look, futures[1]):result(h.TIMEOUT) })
      assert.same({ nil, "bad" }, { ex:submit(look, futures[2]):result(h.TIMEOUT) })
      assert.same({ nil, "job_cancelled" }, { ex:submit(look, futures[3]):result(h.TIMEOUT) })
      assert.same({ nil, "crossing" }, { ex:submit(look, futures[4]):result(h.TIMEOUT) })
    end
    local function make()
      futures = {
        ml.spawn(function() return "fine" end),
        ml.spawn(function() error("bad", 0) end),
        ml.spawn(function() ml.sleep(60) end),
        ml.spawn(function() return coroutine.create(print) end),
      }
      futures[3]:cancel()
      for i = 1, 4 do futures[i]:wait() end
    end
    ml.run(function() make() check() end)
    ml.run(make)
    check()
  end)

  it("a job of ml.run is cancelled from another state", function()
    local ex <close> = ml.AsyncExecutor{}
    local took, cancelled = ml.run(function()
      local child = ml.spawn(function() ml.sleep(60) end)
      ml.checkpoint()
      local future = ex:submit(function(f) return f:cancel() end, child)
      child:wait()
      return future:result(), child:cancelled()
    end)
    assert.same({ true, true }, { took, cancelled })
  end)
end)
