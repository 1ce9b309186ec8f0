-- AsyncExecutor: loop threads, their states, backpressure and the way out.

local ml = require "moonloop"
local h = require "spec.support.helpers"

describe("an AsyncExecutor", function()
  it("runs jobs on one thread of its own, in one state of its own", function()
    ml.AsyncExecutor{}:shutdown() -- threads that watch the loops stay, from the first one on
    local before = h.threads()
    local ex <close> = ml.AsyncExecutor{ name = "one" }
    local first = ex:submit(h.state_id):result(h.TIMEOUT)
    assert.equal(before + 1, h.threads())
    assert.equal(first, ex:submit(h.state_id):result(h.TIMEOUT))
    assert.not_equal(first, h.state_id())
  end)

  it("spreads jobs over loops=n threads, a state each", function()
    local before = h.threads()
    local ex <close> = ml.AsyncExecutor{ loops = 2 }
    local futures, states, n = {}, {}, 0
    for i = 1, 16 do futures[i] = ex:submit(h.state_id) end
    for i = 1, 16 do
      local id = futures[i]:result(h.TIMEOUT)
      n = n + (states[id] and 0 or 1)
      states[id] = true
    end
    assert.equal(2, n)
    assert.equal(before + 2, h.threads())
    assert.equal(2, ex:stats().loops)
  end)

  it("runs many parked jobs at once", function()
    local ex <close> = ml.AsyncExecutor{}
    local gate, futures = h.gate(), {}
    for i = 1, 500 do
      futures[i] = ex:submit(function(g, n) return g:pass() + n end, gate, i)
    end
    h.eventually(function() return ex:stats().parked == 500 end, "500 parked jobs")
    gate:open(1000)
    for i = 1, 500 do assert.equal(1000 + i, futures[i]:result(h.TIMEOUT)) end
  end)

  it("has a name, which tostring shows", function()
    local ex <close> = ml.AsyncExecutor{ name = "kitchen" }
    assert.matches("kitchen", tostring(ex))
  end)

  it("gives its threads its name, as much of it as the system takes", function()
    local function thread_name()
      local file <close> = assert(io.open "/proc/thread-self/comm")
      return file:read "l"
    end
    local one <close> = ml.AsyncExecutor{ name = "kitchen" }
    assert.equal("kitchen", one:submit(thread_name):result(h.TIMEOUT))
    local two <close> = ml.AsyncExecutor{ name = "kitchen of renown", loops = 2 }
    local pool <close> = ml.ThreadExecutor{ name = "kitchen of renown", workers = 2 }
    for _, executor in ipairs{ two, pool } do
      local name = executor:submit(thread_name):result(h.TIMEOUT)
      assert.matches("^kitchen of%-%d$", name)
    end
  end)

  it("brings package.path, package.cpath and package.preload along", function()
    local path, cpath = package.path, package.cpath
    package.path = path .. ";/nowhere/spec/?.lua"
    package.cpath = cpath .. ";/nowhere/spec/?.so"
    package.preload["spec preloaded"] = function(name) return { name = name } end
    local ex <close> = ml.AsyncExecutor{}
    package.path, package.cpath = path, cpath
    package.preload["spec preloaded"] = nil
    local p, c, name = ex:submit(function()
      return package.path, package.cpath, require("spec preloaded").name
    end):result(h.TIMEOUT)
    assert.equal(path .. ";/nowhere/spec/?.lua", p)
    assert.equal(cpath .. ";/nowhere/spec/?.so", c)
    assert.equal("spec preloaded", name)
  end)

  it("has modules that tell where their code is, as those of the first state do", function()
    local function places()
      local all = {}
      for name, f in pairs(require "moonloop.lists") do
        local info = type(f) == "function" and debug.getinfo(f, "S")
        if info and info.what == "Lua" then all[name] = info.source .. ":" .. info.linedefined end
      end
      return all
    end
    local here = places()
    assert.equal("@moonloop/lists.lua:", here.gather:match("^%D*"))
    local ex <close> = ml.AsyncExecutor{}
    assert.same(here, ex:submit(places):result(h.TIMEOUT))
  end)

  it("refuses unknown options and bad values, named", function()
    h.misuse("lops", function() ml.AsyncExecutor{ lops = 2 } end)
    for _, bad in ipairs{ 0, -1, 1.5, "two", {} } do
      h.misuse("loops", function() ml.AsyncExecutor{ loops = bad } end)
      h.misuse("max_pending", function() ml.AsyncExecutor{ max_pending = bad } end)
    end
    h.misuse("name", function() ml.AsyncExecutor{ name = {} } end)
    h.misuse("init", function() ml.AsyncExecutor{ init = 1 } end)
  end)

  it("crosses by reference: a job gets the same executor", function()
    local ex <close> = ml.AsyncExecutor{}
    local other <close> = ml.AsyncExecutor{}
    assert.is_true(ex == other:submit(function(e) return e end, ex):result(h.TIMEOUT))
    assert.is_false(ex == other)
    local here = ex:submit(h.state_id):result(h.TIMEOUT)
    local there = other:submit(function(e, id) return e:submit(id):result() end, ex, h.state_id)
    assert.equal(here, there:result(h.TIMEOUT))
  end)

  it("calls at once with sync_to_async", function()
    local ex <close> = ml.AsyncExecutor{}
    assert.same({ true, 3 }, { ex:sync_to_async(function(a) return ml.in_job(), a end, 3) })
    assert.matches("no way", h.raised(ex.sync_to_async, ex, function() error "no way" end))
  end)
end)

describe("init", function()
  it("runs once in each state, before its first job, and may wait", function()
    local ex <close> = ml.AsyncExecutor{ loops = 2, init = function()
      ml.sleep(0.001)
      rawset(_G, "inits", (rawget(_G, "inits") or 0) + 1)
    end }
    for _ = 1, 8 do
      assert.equal(1, ex:submit(function() return rawget(_G, "inits") end):result(h.TIMEOUT))
    end
  end)

  it("may be ml.job with arguments", function()
    local init = ml.job{ function(k, v) rawset(_G, k, v) end, "limit", 7 }
    local ex <close> = ml.AsyncExecutor{ init = init }
    assert.equal(7, ex:submit(function() return rawget(_G, "limit") end):result(h.TIMEOUT))
  end)

  it("that fails, fails every submit with its cause", function()
    local ex <close> = ml.AsyncExecutor{ init = function() error "no database" end }
    for _ = 1, 2 do
      local ok, err = ex:submit(function() return 1 end):wait(h.TIMEOUT)
      assert.is_nil(ok)
      assert.matches("no database", tostring(err))
    end
  end)
end)

describe("max_pending", function()
  local ex, other, started, release, first

  before_each(function()
    ex = ml.AsyncExecutor{ max_pending = 1 }
    other = ml.AsyncExecutor{}
    started, release = h.gate(), h.gate()
    first = ex:submit(h.hold, started, release)
    started:pass()
  end)

  after_each(function()
    if not release:is_open() then release:open() end
    h.close(other)
    h.close(ex)
  end)

  -- A job elsewhere that is stuck in a submit to the full executor.
  local function stuck()
    local future = other:submit(function(e)
      return e:submit(function() return "second" end):result()
    end, ex)
    h.eventually(function() return other:stats().parked == 1 end, "a parked submit")
    assert.equal(1, ex:stats().submitted)
    return future
  end

  it("makes submit wait until a job is settled", function()
    local future = stuck()
    release:open()
    assert.equal("second", future:result(h.TIMEOUT))
    assert.is_true(first:done())
  end)

  it("blocks a thread's submit as well", function()
    local pool <close> = ml.ThreadExecutor{ workers = 1 }
    local asking = h.gate()
    local future = pool:submit(function(e, a)
      a:open()
      return e:submit(function() return "second" end):result()
    end, ex, asking)
    asking:pass()
    assert.equal("timeout", select(2, future:wait(h.SHORT)).code)
    release:open()
    assert.equal("second", future:result(h.TIMEOUT))
  end)

  it("makes try_submit answer busy", function()
    local future, err = ex:try_submit(function() end)
    assert.is_nil(future)
    assert.equal("busy", err.code)
    release:open()
    first:wait(h.TIMEOUT)
    assert.equal(1, assert(ex:try_submit(function() return 1 end)):result(h.TIMEOUT))
  end)

  it("counts no job that is settled, whoever settled it", function()
    release:open()
    first:wait(h.TIMEOUT)
    for _ = 1, 20 do
      local done = assert(ex:try_submit(function() return 1 end))
      assert.equal(1, done:result(h.TIMEOUT))
      local asleep = assert(ex:try_submit(ml.sleep, 60))
      assert.equal("busy", select(2, ex:try_submit(function() end)).code)
      asleep:cancel_and_wait(h.TIMEOUT)
      local failed = assert(ex:try_submit(error, "no"))
      assert.equal("no", failed:exception(h.TIMEOUT))
    end
  end)

  it("counts no job that was cancelled in the queue", function()
    local pool <close> = ml.ThreadExecutor{ workers = 1, max_pending = 2 }
    local busy, go_on = h.gate(), h.gate()
    local runs = pool:submit(h.hold, busy, go_on)
    busy:pass()
    for _ = 1, 20 do
      local queued = assert(pool:try_submit(function() end))
      assert.equal("busy", select(2, pool:try_submit(function() end)).code)
      assert.is_true(queued:cancel())
    end
    go_on:open()
    runs:wait(h.TIMEOUT)
    assert.equal(1, pool:submit(function() return 1 end):result(h.TIMEOUT))
  end)

  it("is forgotten by a submit that is cancelled while it waits", function()
    local future = stuck()
    future:cancel_and_wait(h.TIMEOUT)
    assert.is_true(future:cancelled())
    release:open()
    first:wait(h.TIMEOUT)
    assert.equal(1, ex:submit(function() return 1 end):result(h.TIMEOUT))
    assert.equal(2, ex:stats().submitted)
  end)

  it("wakes a waiting submit with closed at shutdown", function()
    local future = stuck()
    ex:shutdown{ wait = false }
    local ok, err = future:wait(h.TIMEOUT)
    assert.is_nil(ok)
    assert.equal("closed", err.code)
  end)
end)

describe("shutdown", function()
  local started, release

  before_each(function()
    started, release = h.gate(), h.gate()
  end)

  after_each(function()
    if not release:is_open() then release:open() end
  end)

  it("waits for jobs and returns true, also the second time", function()
    local ex = ml.AsyncExecutor{}
    local future = ex:submit(function() ml.sleep(0.01) return "done" end)
    assert.is_true(ex:shutdown{ timeout = h.TIMEOUT })
    assert.equal("done", future:result(0))
    assert.is_true(ex:shutdown{ timeout = h.TIMEOUT })
    assert.is_true(ex:shutdown())
  end)

  it("makes later submits raise closed", function()
    local ex = ml.AsyncExecutor{}
    ex:shutdown{ timeout = h.TIMEOUT }
    assert.equal("closed", h.raised(ex.submit, ex, function() end).code)
    local future, err = ex:try_submit(function() end)
    assert.is_nil(future)
    assert.equal("closed", err.code)
  end)

  it("without wait returns at once, and the jobs finish", function()
    local ex = ml.AsyncExecutor{}
    local future = ex:submit(h.hold, started, release)
    started:pass()
    ex:shutdown{ wait = false }
    assert.is_false(future:done())
    assert.equal("closed", h.raised(ex.submit, ex, function() end).code)
    release:open "finished"
    assert.equal("finished", future:result(h.TIMEOUT))
    h.close(ex)
  end)

  it("with cancel cancels what runs and waits for its clean-up", function()
    local ex = ml.AsyncExecutor{}
    local cleaned = h.gate()
    local future = ex:submit(function(s, c)
      local _ <close> = setmetatable({}, { __close = function() c:open() end })
      s:open()
      ml.sleep(60)
    end, started, cleaned)
    started:pass()
    assert.is_true(ex:shutdown{ cancel = true, timeout = h.TIMEOUT })
    assert.is_true(cleaned:is_open())
    assert.is_true(future:cancelled())
  end)

  it("names the jobs that would not stop in time, and may be called again", function()
    local ex = ml.AsyncExecutor{}
    local future = ex:submit(ml.job{ h.hold, started, release, name = "stubborn" })
    started:pass()
    local ok, err = ex:shutdown{ timeout = h.SHORT }
    assert.is_nil(ok)
    assert.equal("timeout", err.code)
    assert.matches("stubborn", tostring(err))
    release:open()
    assert.is_true(ex:shutdown{ timeout = h.TIMEOUT })
    assert.is_true(future:done())
  end)

  it("with cancel settles every future, started or not", function()
    local ex, futures = ml.AsyncExecutor{}, {}
    for i = 1, 300 do futures[i] = ex:submit(function() ml.sleep(60) end) end
    assert.is_true(ex:shutdown{ cancel = true, timeout = h.TIMEOUT })
    for i = 1, 300 do assert.is_true(futures[i]:cancelled()) end
  end)

  it("with wait from one of its own jobs is misuse", function()
    local ex <close> = ml.AsyncExecutor{}
    local err = ex:submit(function(e)
      return select(2, pcall(function() e:shutdown() end))
    end, ex):result(h.TIMEOUT)
    assert.matches("^%S*executor_spec%.lua:%d+: ", err)
    assert.equal(1, ex:submit(function() return 1 end):result(h.TIMEOUT))
  end)

  it("may be waited for by a job of another executor", function()
    local ex, other <close> = ml.AsyncExecutor{}, ml.AsyncExecutor{}
    local future = ex:submit(h.hold, started, release)
    started:pass()
    local ending = other:submit(function(e) return e:shutdown() end, ex)
    h.eventually(function() return other:stats().parked == 1 end)
    release:open()
    assert.is_true(ending:result(h.TIMEOUT))
    assert.is_true(future:done())
  end)

  it("may be called by several threads at once", function()
    local ex, pool <close> = ml.AsyncExecutor{}, ml.ThreadExecutor{ workers = 3 }
    ex:submit(h.hold, started, release)
    started:pass()
    local endings = {}
    for i = 1, 3 do endings[i] = pool:submit(function(e) return e:shutdown() end, ex) end
    release:open()
    for i = 1, 3 do assert.is_true(endings[i]:result(h.TIMEOUT)) end
  end)

  it("happens when a <close> variable goes", function()
    local future, kept
    do
      local ex <close> = ml.AsyncExecutor{}
      kept = ex
      future = ex:submit(function() ml.sleep(0.01) return "waited for" end)
    end
    assert.equal("waited for", future:result(0))
    assert.equal("closed", h.raised(kept.submit, kept, function() end).code)
  end)

  it("refuses unknown options and bad values", function()
    local ex <close> = ml.AsyncExecutor{}
    h.misuse("cancle", function() ex:shutdown{ cancle = true } end)
    h.misuse("timeout", function() ex:shutdown{ timeout = "long" } end)
    h.misuse("timeout", function() ex:shutdown{ timeout = 0 / 0 } end)
    assert.equal(1, ex:submit(function() return 1 end):result(h.TIMEOUT))
  end)
end)
