-- Law 2: a job may wait wherever Lua can yield, and where Lua cannot, the
-- error names the function in the way.

local ml = require "moonloop"
local h = require "spec.support.helpers"

-- A real wait: it always parks, and gives its argument back.
local function wait_for(value)
  ml.sleep(0.0005)
  return value
end

describe("a job may wait", function()
  it("in pcall", function()
    assert.same({ true, 1, 2 }, { ml.run(function()
      return pcall(function(a) return wait_for(a), 2 end, 1)
    end) })
  end)

  it("in pcall before an error", function()
    assert.same({ false, "after the wait" }, { ml.run(function()
      return pcall(function() error(wait_for("after the wait"), 0) end)
    end) })
  end)

  it("in pcall in pcall in pcall", function()
    assert.same({ true, true, true, "deep" }, { ml.run(function()
      return pcall(pcall, pcall, wait_for, "deep")
    end) })
  end)

  it("in xpcall, whose handler sees an error raised after it", function()
    assert.same({ false, "handled E" }, { ml.run(function()
      return xpcall(function() error(wait_for("E"), 0) end, function(e) return "handled " .. e end)
    end) })
  end)

  it("as the protected function itself", function()
    assert.same({ true }, { ml.run(function() return pcall(ml.sleep, 0.0005) end) })
  end)

  local binary = {
    __add = function(a, b) return a + b end,
    __sub = function(a, b) return a - b end,
    __mul = function(a, b) return a * b end,
    __div = function(a, b) return a / b end,
    __mod = function(a, b) return a % b end,
    __pow = function(a, b) return a ^ b end,
    __idiv = function(a, b) return a // b end,
    __band = function(a, b) return a & b end,
    __bor = function(a, b) return a | b end,
    __bxor = function(a, b) return a ~ b end,
    __shl = function(a, b) return a << b end,
    __shr = function(a, b) return a >> b end,
    __concat = function(a, b) return a .. b end,
    __call = function(a, b) return a(b) end,
    __index = function(a, b) return a[b] end,
  }
  local unary = {
    __unm = function(a) return -a end,
    __bnot = function(a) return ~a end,
    __len = function(a) return #a end,
  }
  local comparing = {
    __eq = function(a, b) return a == b end,
    __lt = function(a, b) return a < b end,
    __le = function(a, b) return a <= b end,
  }

  it("in metamethods of arithmetic, concatenation, call and index", function()
    for event, use in pairs(binary) do
      local function answer() return wait_for("from " .. event) end
      local object = setmetatable({}, { [event] = answer })
      assert.equal("from " .. event, ml.run(use, object, 2))
    end
  end)

  it("in metamethods of unary operators", function()
    for event, use in pairs(unary) do
      local function answer() return wait_for("from " .. event) end
      local object = setmetatable({}, { [event] = answer })
      assert.equal("from " .. event, ml.run(use, object))
    end
  end)

  it("in metamethods of comparison", function()
    for event, use in pairs(comparing) do
      for _, answer in ipairs{ true, false } do
        local meta = { [event] = function() return wait_for(answer) end }
        assert.equal(answer, ml.run(use, setmetatable({}, meta), setmetatable({}, meta)), event)
      end
    end
  end)

  it("in __newindex", function()
    local stored = {}
    ml.run(function()
      local t = setmetatable({}, { __newindex = function(_, k, v) stored[k] = wait_for(v) end })
      t.key = "value"
    end)
    assert.same({ key = "value" }, stored)
  end)

  it("in __pairs and in the iterator it returns", function()
    local object = setmetatable({}, { __pairs = function()
      local n = wait_for(0)
      return function()
        n = wait_for(n + 1)
        return n <= 3 and n or nil, n * 10
      end
    end })
    local seen = ml.run(function()
      local list = {}
      for _, v in pairs(object) do list[#list + 1] = v end
      return list
    end)
    assert.same({ 10, 20, 30 }, seen)
  end)

  it("in the body of a loop over a stock iterator", function()
    local words = ml.run(function()
      local list = {}
      for word in ("a b c"):gmatch "%a" do list[#list + 1] = wait_for(word) end
      for _, v in ipairs{ "d" } do list[#list + 1] = wait_for(v) end
      for _, c in utf8.codes "e" do list[#list + 1] = wait_for(utf8.char(c)) end
      return table.concat(list)
    end)
    assert.equal("abcde", words)
  end)

  it("in __close, however the block is left", function()
    local closed = {}
    local function resource(name)
      return setmetatable({}, { __close = function() closed[#closed + 1] = wait_for(name) end })
    end
    ml.run(function()
      do local _ <close> = resource "end" end
      for i = 1, 2 do
        local _ <close> = resource "break"
        if i == 1 then break end
      end
      assert((function() local _ <close> = resource "return" return "r" end)() == "r")
      pcall(function() local _ <close> = resource "error" error "x" end)
      local _ <close> = resource "job's end"
    end)
    assert.same({ "end", "break", "return", "error", "job's end" }, closed)
  end)

  it("in __close while an error leaves the job", function()
    local closed
    local err = h.raised(ml.run, function()
      local _ <close> = setmetatable({}, { __close = function(_, e) closed = wait_for(e) end })
      error("uncaught", 0)
    end)
    assert.same({ "uncaught", "uncaught" }, { err, closed })
  end)

  it("in chunks from load and dofile", function()
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write "local wait_for = ... or package.loaded.spec_wait return wait_for 'dofile'"
    file:close()
    package.loaded.spec_wait = wait_for
    local a, b = ml.run(function()
      return load("return (...)('load')")(wait_for), dofile(path)
    end)
    package.loaded.spec_wait = nil
    os.remove(path)
    assert.same({ "load", "dofile" }, { a, b })
  end)

  it("as an argument of a C function and in a table constructor", function()
    assert.same({ 3, "x", "y" }, ml.run(function()
      return { math.max(wait_for(1), wait_for(3)), wait_for "x", wait_for "y" }
    end))
  end)

  it("in its own coroutines, which never see it", function()
    local seen = ml.run(function()
      local co = coroutine.create(function(a)
        local b = coroutine.yield(wait_for(a))
        wait_for()
        return wait_for(b), "end"
      end)
      local list = { { coroutine.resume(co, 1) }, { coroutine.resume(co, 2) } }
      list[3] = { coroutine.status(co) }
      return list
    end)
    assert.same({ { true, 1 }, { true, 2, "end" }, { "dead" } }, seen)
  end)

  it("in coroutine.wrap, as an iterator that waits", function()
    local list = ml.run(function()
      local items = {}
      for a, b in coroutine.wrap(function()
        for i = 1, 3 do coroutine.yield(wait_for(i), i * i) end
      end) do
        items[#items + 1] = a + b + wait_for(0)
      end
      return items
    end)
    assert.same({ 2, 6, 12 }, list)
  end)

  it("in coroutines nested in coroutines, pcall and metamethods between", function()
    local function nest(depth)
      if depth == 0 then return wait_for "bottom" end
      local object = setmetatable({}, { __index = function()
        local co = coroutine.create(nest)
        local ok, value = select(2, pcall(coroutine.resume, co, depth - 1))
        assert(ok)
        return value
      end })
      return object.field
    end
    assert.equal("bottom", ml.run(nest, 20))
  end)

  it("in a coroutine that one job starts and another goes on with", function()
    assert.same({ "first", "second" }, { ml.run(function()
      local co = coroutine.create(function()
        coroutine.yield(wait_for "first")
        return wait_for "second"
      end)
      local a = ml.spawn(function() return select(2, coroutine.resume(co)) end):result()
      local b = ml.spawn(function() return select(2, coroutine.resume(co)) end):result()
      return a, b
    end) })
  end)

  it("for another job's result, a list and a thread, all in one coroutine", function()
    local ex <close> = ml.AsyncExecutor{}
    assert.same({ 1, 2, 3 }, ex:submit(function()
      return coroutine.wrap(function()
        local a = ml.spawn(function() ml.sleep(0.0005) return 1 end):result()
        local b = ml.gather{ function() ml.sleep(0.0005) return 2 end }
        return { a, b[1], ml.to_thread(function() return 3 end) }
      end)()
    end):result(h.TIMEOUT))
  end)
end)

describe("where Lua cannot yield, a wait", function()
  -- Runs `f(refused)` as a job; `refused()` tries to wait there and returns the
  -- error. The job must be able to wait afterwards.
  local function message(f)
    local err, after = ml.run(function()
      local caught
      f(function()
        local ok, e = pcall(function() ml.sleep(0.001) end)
        caught = caught or (ok and "it waited" or e)
      end)
      return caught, wait_for "goes on"
    end)
    assert.equal("goes on", after)
    return tostring(err)
  end

  it("in table.sort names it", function()
    assert.matches("table%.sort", message(function(refused)
      table.sort({ 2, 1 }, function(a, b) refused() return a < b end)
    end))
  end)

  it("in string.gsub names it", function()
    assert.matches("gsub", message(function(refused)
      ("x"):gsub("x", function() refused() end)
    end))
  end)

  it("in require names it", function()
    local text = message(function(refused)
      package.preload["spec waits at load"] = function() refused() return true end
      require "spec waits at load"
    end)
    package.preload["spec waits at load"] = nil
    package.loaded["spec waits at load"] = nil
    assert.matches("require", text)
  end)

  it("in __gc names it", function()
    assert.matches("__gc", message(function(refused)
      setmetatable({}, { __gc = function() refused() end })
      collectgarbage()
      collectgarbage()
    end))
  end)

  it("in __tostring names tostring", function()
    assert.matches("tostring", message(function(refused)
      tostring(setmetatable({}, { __tostring = function() refused() return "" end }))
    end))
  end)

  it("in an error handler names xpcall", function()
    assert.matches("xpcall", message(function(refused)
      xpcall(error, function() refused() end)
    end))
  end)

  it("in __close run by coroutine.close says so", function()
    assert.matches("clos", message(function(refused)
      local co = coroutine.create(function()
        local _ <close> = setmetatable({}, { __close = function() refused() end })
        coroutine.yield()
      end)
      coroutine.resume(co)
      coroutine.close(co)
    end))
  end)

  it("in a coroutine inside such a function is refused as well", function()
    assert.matches("table%.sort", message(function(refused)
      table.sort({ 2, 1 }, function(a, b)
        coroutine.wrap(function() refused() end)()
        return a < b
      end)
    end))
  end)

  it("points at the caller's line", function()
    assert.matches("await_anywhere_spec%.lua:%d+", message(function(refused)
      table.sort({ 2, 1 }, function(a, b) refused() return a < b end)
    end))
  end)

  it("has no effect when it is refused", function()
    local ex <close> = ml.AsyncExecutor{}
    local p = ml.promise()
    local waiter = ex:submit(function(future)
      local refusals = 0
      table.sort({ 2, 1 }, function(a, b)
        if not pcall(future.result, future) then refusals = refusals + 1 end
        if not pcall(future.result, future, { timeout = 0.001, cancel = true }) then
          refusals = refusals + 1
        end
        return a < b
      end)
      return refusals > 1 and future:result()
    end, p.future)
    h.eventually(function() return ex:stats().parked == 1 end)
    assert.is_false(p.future:done())
    p:set_result "intact"
    assert.equal("intact", waiter:result(h.TIMEOUT))
  end)

  it("that is refused does not submit what it would have waited for", function()
    local gate = h.gate()
    local call = ml.async_to_sync(function(g) g:open() end)
    ml.run(function()
      table.sort({ 2, 1 }, function(a, b)
        assert(not pcall(call, gate))
        assert(not pcall(ml.gather, { function() gate:open() end }))
        return a < b
      end)
      ml.checkpoint()
      ml.run_async_job(function() end):result(h.TIMEOUT)
    end)
    assert.is_false(gate:is_open())
    gate:open()
  end)

  it("that has nothing to wait for is none", function()
    assert.equal(5, ml.run(function()
      local done = ml.spawn(function() return 5 end)
      done:wait()
      local value
      table.sort({ 2, 1 }, function(a, b) value = done:result() return a < b end)
      return value
    end))
  end)

  it("is fine in a sync state, which blocks", function()
    local list = { 3, 1, 2 }
    table.sort(list, function(a, b) return wait_for(a < b) end)
    assert.same({ 1, 2, 3 }, list)
    assert.equal("A!", (("a"):gsub("a", function(s) return wait_for(s:upper() .. "!") end)))
  end)
end)
