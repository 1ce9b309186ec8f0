-- The coroutine functions that moonloop replaces behave as Lua's do, in and out
-- of jobs, and never show a wait.

local ml = require "moonloop"
local h = require "spec.support.helpers"

local create, resume, yield = coroutine.create, coroutine.resume, coroutine.yield

-- Each line is a promise of the Lua manual; run outside and inside a job.
local stock = {
  ["resume passes values both ways"] = function()
    local co = create(function(a, ...)
      local b, c = yield(a, select("#", ...))
      return b, c
    end)
    assert.same({ true, 1, 2 }, { resume(co, 1, nil, nil) })
    assert.same(table.pack(true, nil, 3), table.pack(resume(co, nil, 3)))
    assert.equal("dead", coroutine.status(co))
    assert.same({ false, "cannot resume dead coroutine" }, { resume(co) })
  end,

  ["status tells suspended, running, normal and dead"] = function()
    local outer
    outer = create(function()
      assert.equal("running", coroutine.status(outer))
      coroutine.wrap(function() assert.equal("normal", coroutine.status(outer)) end)()
    end)
    assert.equal("suspended", coroutine.status(outer))
    assert(resume(outer))
    assert.equal("dead", coroutine.status(outer))
  end,

  ["an error ends a coroutine and reaches resume as it was"] = function()
    local problem = {}
    local co = create(function() error(problem) end)
    local ok, err = resume(co)
    assert.is_false(ok)
    assert.equal(problem, err)
    assert.equal("dead", coroutine.status(co))
  end,

  ["wrap raises a coroutine's error with the place of the call"] = function()
    local err = h.raised(coroutine.wrap(function() error "inner" end))
    assert.matches("coroutine_spec%.lua:%d+: inner", err)
    local dead = coroutine.wrap(function() end)
    dead()
    assert.matches("cannot resume dead coroutine", h.raised(dead))
  end,

  ["close ends a suspended coroutine and runs __close"] = function()
    local closed
    local co = create(function()
      local _ <close> = setmetatable({}, { __close = function() closed = true end })
      yield()
    end)
    resume(co)
    assert.is_true(coroutine.close(co))
    assert.is_true(closed)
    assert.equal("dead", coroutine.status(co))
  end,

  ["close gives the error of a __close"] = function()
    local co = create(function()
      local _ <close> = setmetatable({}, { __close = function() error("in close", 0) end })
      yield()
    end)
    resume(co)
    assert.same({ false, "in close" }, { coroutine.close(co) })
  end,

  ["close refuses a running and a normal coroutine"] = function()
    local outer
    outer = create(function()
      local _, running = pcall(coroutine.close, outer)
      local normal
      coroutine.wrap(function() normal = select(2, pcall(coroutine.close, outer)) end)()
      return running, normal
    end)
    local _, running, normal = resume(outer)
    assert.matches("cannot close a running coroutine", running)
    assert.matches("cannot close a normal coroutine", normal)
  end,

  ["resume refuses a running and a normal coroutine"] = function()
    local outer
    outer = create(function()
      local running = table.pack(resume(outer))
      local normal
      coroutine.wrap(function() normal = table.pack(resume(outer)) end)()
      return running[2], normal[2]
    end)
    assert.same({ true, "cannot resume non-suspended coroutine",
                  "cannot resume non-suspended coroutine" }, { resume(outer) })
  end,

  ["running and isyieldable know a coroutine"] = function()
    local co, main, yieldable
    co = create(function()
      main = select(2, coroutine.running())
      yieldable = coroutine.isyieldable()
      return coroutine.running()
    end)
    assert.equal(co, select(2, resume(co)))
    assert.is_false(main)
    assert.is_true(yieldable)
  end,

  ["yield passes through pcall and metamethods"] = function()
    local object = setmetatable({}, { __add = function(_, b) return yield(b) end })
    local co = create(function() return pcall(function() return object + 1 end) end)
    assert.same({ true, 1 }, { resume(co) })
    assert.same({ true, true, "answer" }, { resume(co, "answer") })
  end,

  ["arguments that are no coroutine are refused by name"] = function()
    assert.matches("bad argument #1 to 'resume'", h.raised(function() coroutine.resume(1) end))
    assert.matches("bad argument #1 to 'wrap'", h.raised(function() coroutine.wrap(1) end))
    assert.matches("bad argument #1 to 'close'", h.raised(function() coroutine.close() end))
  end,

  ["many values pass"] = function()
    local co = create(function(...) return yield(...) end)
    local values = {}
    for i = 1, 200 do values[i] = i end
    assert.equal(201, select("#", resume(co, table.unpack(values))))
    assert.equal(201, select("#", resume(co, table.unpack(values))))
  end,
}

describe("the coroutine library", function()
  for promise, check in pairs(stock) do
    it("outside jobs: " .. promise, function() check() end)
    it("in a job: " .. promise, function() ml.run(check) end)
  end

  it("raises outside a coroutine as Lua says", function()
    local out = h.run_script [[
      require "moonloop"
      print(select(2, pcall(coroutine.yield)))
      print(select(2, coroutine.running()), coroutine.isyieldable())
    ]]
    assert.equal("attempt to yield from outside a coroutine\ntrue\tfalse\n", out)
  end)
end)

describe("a coroutine inside a wait", function()
  it("is normal, and resuming or closing it fails as Lua says", function()
    local status, resumed, closed, value = ml.run(function()
      local gate = ml.promise()
      local co = create(function() return gate.future:result() end)
      local owner = ml.spawn(function() return select(2, coroutine.resume(co)) end)
      ml.checkpoint()
      ml.checkpoint()
      local s = coroutine.status(co)
      local _, r = coroutine.resume(co)
      local _, c = pcall(coroutine.close, co)
      gate:set_result "untouched"
      return s, r, c, owner:result()
    end)
    assert.equal("normal", status)
    assert.equal("cannot resume non-suspended coroutine", resumed)
    assert.matches("cannot close a normal coroutine", closed)
    assert.equal("untouched", value)
  end)

  it("made by wrap refuses a second caller", function()
    local err, value = ml.run(function()
      local gate = ml.promise()
      local f = coroutine.wrap(function() return gate.future:result() end)
      local owner = ml.spawn(function() return f() end)
      ml.checkpoint()
      ml.checkpoint()
      local e = select(2, pcall(f))
      gate:set_result "mine"
      return e, owner:result()
    end)
    assert.matches("cannot resume non%-suspended coroutine", err)
    assert.equal("mine", value)
  end)

  it("gets the cancel of its job as an error at the wait", function()
    local seen, cancelled = ml.run(function()
      local caught
      local job = ml.spawn(function()
        coroutine.wrap(function()
          local _, e = pcall(ml.sleep, 60)
          caught = e
          error(e)
        end)()
      end)
      ml.checkpoint()
      ml.checkpoint()
      job:cancel_and_wait(h.TIMEOUT)
      return caught.code, job:cancelled()
    end)
    assert.same({ "cancelled", true }, { seen, cancelled })
  end)
end)

describe("a raw coroutine.yield", function()
  it("in a job raises, and the job goes on", function()
    local err, after = ml.run(function()
      local _, e = pcall(coroutine.yield, 1)
      ml.sleep(0.0005)
      return e, "on"
    end)
    assert.matches("yield", tostring(err))
    assert.equal("on", after)
  end)

  it("uncaught fails the job and nothing else", function()
    local ex <close> = ml.AsyncExecutor{}
    local ok, err = ex:submit(function() coroutine.yield "leak" end):wait(h.TIMEOUT)
    assert.is_nil(ok)
    assert.matches("yield", tostring(err))
    assert.equal(1, ex:submit(function() return 1 end):result(h.TIMEOUT))
  end)
end)

describe("an older copy of a coroutine function", function()
  local function script(body)
    return ([[
      local old = { resume = coroutine.resume, wrap = coroutine.wrap, yield = coroutine.yield }
      local ml = require "moonloop"
      local ok, err = pcall(ml.run, function()
        %s
      end)
      if not ok then print("run raised", err) end
    ]]):format(body)
  end

  it("resume: a wait under it raises clearly and leaks no value", function()
    local out, code = h.run_script(script [[
      local co = coroutine.create(function() ml.sleep(0.001) end)
      local ok, err = old.resume(co)
      print(ok, type(err), coroutine.status(co))
      print(tostring(err):find("resume", 1, true) ~= nil)
      ml.sleep(0.001)
      print "goes on"
    ]])
    assert.equal("false\tstring\tdead\ntrue\ngoes on\n", out)
    assert.equal(0, code)
  end)

  it("wrap: a wait under it raises clearly and leaks no value", function()
    local out = h.run_script(script [[
      local n, err = 0
      local ok, e = pcall(function()
        for v in old.wrap(function() ml.sleep(0.001) coroutine.yield "item" end) do n = n + 1 end
      end)
      print(ok, n, type(e))
      ml.sleep(0.001)
      print "goes on"
    ]])
    assert.equal("false\t0\tstring\ngoes on\n", out)
  end)

  it("works as ever where nothing waits", function()
    local out = h.run_script(script [[
      local co = coroutine.create(function(a) return old.yield(a) end)
      print(old.resume(co, 1))
      print(coroutine.resume(co, 2))
    ]])
    assert.equal("true\t1\ntrue\t2\n", out)
  end)
end)
