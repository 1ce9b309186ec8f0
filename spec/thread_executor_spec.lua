-- ThreadExecutor, and to_thread, sync_to_async, run_in_executor: blocking
-- functions on worker threads.

local ml = require "moonloop"
local h = require "spec.support.helpers"

describe("a ThreadExecutor", function()
  local pool, started, release

  before_each(function()
    pool = ml.ThreadExecutor{ workers = 2 }
    started, release = h.gate(), h.gate()
  end)

  after_each(function()
    if not release:is_open() then release:open() end
    h.close(pool)
  end)

  it("runs functions on n threads, each with a state of its own", function()
    local gates, futures = { h.gate(), h.gate() }, {}
    for i = 1, 2 do
      futures[i] = pool:submit(function(s, r)
        s:open()
        r:pass()
        return h.state_id()
      end, gates[i], release)
    end
    for i = 1, 2 do gates[i]:pass() end
    release:open()
    assert.not_equal(futures[1]:result(h.TIMEOUT), futures[2]:result(h.TIMEOUT))
    assert.equal(2, pool:stats().workers)
  end)

  it("reuses a worker and its state", function()
    local one <close> = ml.ThreadExecutor{ workers = 1 }
    local first = one:submit(h.state_id):result(h.TIMEOUT)
    local threads = h.threads()
    for _ = 1, 5 do assert.equal(first, one:submit(h.state_id):result(h.TIMEOUT)) end
    assert.equal(threads, h.threads())
  end)

  it("gives its workers sync states: no job, but a current one", function()
    local future = pool:submit(function(s, r)
      s:open(ml.in_job(), ml.current_job())
      r:pass()
    end, started, release)
    local in_job, current = started:pass()
    assert.is_false(in_job)
    assert.is_true(current == future)
  end)

  it("lets its functions wait by blocking their thread", function()
    local ex <close> = ml.AsyncExecutor{}
    assert.equal(42, pool:submit(function(e)
      ml.sleep(0.001)
      return e:submit(function() ml.sleep(0.001) return 42 end):result()
    end, ex):result(h.TIMEOUT))
  end)

  it("lets its functions wait where a job could not", function()
    local sorted = pool:submit(function()
      local t = { 3, 1, 2 }
      table.sort(t, function(a, b) ml.sleep(0.0001) return a < b end)
      return t
    end):result(h.TIMEOUT)
    assert.same({ 1, 2, 3 }, sorted)
  end)

  it("takes names, arguments, ml.job and errors as every executor does", function()
    assert.equal(3, pool:submit("spec.support.sample:add", 1, 2):result(h.TIMEOUT))
    local future = pool:submit(ml.job{ function(a) return a end, "x", name = "named" })
    assert.same({ "named", "x" }, { future.name, future:result(h.TIMEOUT) })
    assert.same({ nil, "oops" }, { pool:submit(error, "oops", 0):wait(h.TIMEOUT) })
  end)

  it("runs init in every worker before its first function", function()
    local p <close> = ml.ThreadExecutor{ workers = 3, init = function()
      rawset(_G, "inits", (rawget(_G, "inits") or 0) + 1)
    end }
    local futures = {}
    for i = 1, 12 do
      futures[i] = p:submit(function() ml.sleep(0.001) return rawget(_G, "inits") end)
    end
    for i = 1, 12 do assert.equal(1, futures[i]:result(h.TIMEOUT)) end
  end)

  it("fails every submit with the cause when init fails", function()
    local p <close> = ml.ThreadExecutor{ workers = 1, init = function() error "no disk" end }
    for _ = 1, 2 do
      local ok, err = p:submit(function() end):wait(h.TIMEOUT)
      assert.is_nil(ok)
      assert.matches("no disk", tostring(err))
    end
  end)

  it("never runs what was cancelled in the queue", function()
    local one <close> = ml.ThreadExecutor{ workers = 1 }
    one:submit(h.hold, started, release)
    started:pass()
    local ran = h.gate()
    local queued = one:submit(function(g) g:open() end, ran)
    assert.is_true(queued:cancel "not needed")
    assert.is_true(queued:cancelled())
    release:open()
    one:submit(function() end):result(h.TIMEOUT)
    assert.is_false(ran:is_open())
    ran:open()
  end)

  it("lets a function see its cancel at a checkpoint, and not before", function()
    local goes_on = h.gate()
    local future = pool:submit(function(s, go)
      ml.checkpoint()
      s:open()
      go.future:wait(h.TIMEOUT)
      while true do ml.checkpoint() end
    end, started, goes_on)
    started:pass()
    assert.is_false(future:done())
    goes_on:open()
    future:cancel "enough"
    assert.equal("enough", future:exception(h.TIMEOUT).reason)
    assert.is_true(future:cancelled())
  end)

  it("finishes at shutdown what has begun, and takes nothing more", function()
    local one = ml.ThreadExecutor{ workers = 1 }
    local future = one:submit(h.hold, started, release)
    started:pass()
    assert.is_true(one:shutdown{ wait = false })
    assert.equal("closed", h.raised(one.sync_to_async, one, function() end).code)
    release:open(42)
    assert.equal(42, future:result(h.TIMEOUT))
    h.close(one)
  end)

  it("runs one function while another one waits for it", function()
    local ex <close> = ml.AsyncExecutor{}
    local event = ml.Event()
    assert.same({ true, "set" }, ex:submit(function(p, e)
      return ml.gather{
        ml.spawn(function() return p:sync_to_async(function() return e:wait(h.TIMEOUT) end) end),
        ml.spawn(function() return p:sync_to_async(function() e:set() return "set" end) end),
      }
    end, pool, event):result(h.TIMEOUT))
  end)

  it("has at most 32 workers, or the cores and 4, if it is not told", function()
    local default <close> = ml.ThreadExecutor{}
    local pipe <close> = assert(io.popen "nproc --all")
    local limit = math.min(32, pipe:read "n" + 4)
    local futures = {}
    for i = 1, 40 do
      futures[i] = default:submit(function(go) return go:pass() end, release)
    end
    h.eventually(function() return default:stats().running == limit end, limit .. " at once")
    assert.same({ limit, 40 - limit }, { default:stats().workers, default:stats().queued })
    release:open()
    for i = 1, 40 do futures[i]:result(h.TIMEOUT) end
  end)

  it("raises a cancel at the wait of a running function", function()
    local future = pool:submit(function(s) s:open() ml.sleep(60) end, started)
    started:pass()
    assert.is_true(future:cancel())
    future:wait(h.TIMEOUT)
    assert.is_true(future:cancelled())
  end)

  it("raises a cancel in a `run` too, after its clean-up, and at each wait after it", function()
    local cleaned = h.gate()
    local future = pool:submit(function(s, c)
      local ok, err = pcall(ml.run, function()
        local _ <close> = ml.defer(function() ml.sleep(0.001) c:open() end)
        s:open()
        ml.sleep(60)
      end)
      assert(not ok and ml.is_cancelled(err) and err.reason == "enough", err)
      assert(not pcall(ml.run, ml.sleep, 60))
      ml.shield(ml.run, ml.sleep, 0.001)
      ml.sleep(60)
    end, started, cleaned)
    started:pass()
    assert.is_true(future:cancel "enough")
    future:wait(h.TIMEOUT)
    assert.is_true(future:cancelled(), future:exception(0))
    assert.is_true(cleaned:is_open())
  end)

  it("cancels what runs and what is queued at shutdown with cancel", function()
    local one = ml.ThreadExecutor{ workers = 1 }
    local first = one:submit(function(s) s:open() ml.sleep(60) end, started)
    local second = one:submit(function() end)
    started:pass()
    assert.is_true(one:shutdown{ cancel = true, timeout = h.TIMEOUT })
    assert.same({ true, true }, { first:cancelled(), second:cancelled() })
    assert.equal("closed", h.raised(one.submit, one, function() end).code)
  end)

  it("names what would not stop at shutdown", function()
    local one = ml.ThreadExecutor{ workers = 1 }
    one:submit(ml.job{ h.hold, started, release, name = "long compute" })
    started:pass()
    local ok, err = one:shutdown{ timeout = h.SHORT }
    assert.is_nil(ok)
    assert.matches("long compute", tostring(err))
    release:open()
    assert.is_true(one:shutdown{ timeout = h.TIMEOUT })
  end)

  it("leaves no thread behind", function()
    local before = h.threads()
    do
      local p <close> = ml.ThreadExecutor{ workers = 4 }
      p:submit(function() end):result(h.TIMEOUT)
    end
    h.eventually(function() return h.threads() <= before end, "the old thread count")
  end)

  it("calls at once with sync_to_async", function()
    assert.same({ 1, nil, 3 }, { pool:sync_to_async(function(...) return ... end, 1, nil, 3) })
    assert.matches("broke", h.raised(pool.sync_to_async, pool, function() error "broke" end))
  end)

  it("refuses unknown options and bad values, named", function()
    h.misuse("wokers", function() ml.ThreadExecutor{ wokers = 2 } end)
    for _, bad in ipairs{ 0, -1, 1.5, "many" } do
      h.misuse("workers", function() ml.ThreadExecutor{ workers = bad } end)
    end
  end)
end)

describe("to_thread", function()
  it("runs the function on another thread and returns its values", function()
    local id, a, b = ml.to_thread(function(...) return h.state_id(), ... end, nil, 2)
    assert.not_equal(h.state_id(), id)
    assert.same({ nil, 2 }, { a, b })
  end)

  it("raises the function's error", function()
    assert.matches("disk full", h.raised(ml.to_thread, function() error "disk full" end))
  end)

  it("parks a job and leaves its loop free", function()
    local ex <close> = ml.AsyncExecutor{}
    local gate, started = h.gate(), h.gate()
    local waiting = ex:submit(function(s, g)
      return ml.to_thread(function(s2, g2) s2:open() return g2:pass() end, s, g)
    end, started, gate)
    started:pass()
    ex:submit(function(g) g:open "opened by the loop" end, gate):result(h.TIMEOUT)
    assert.equal("opened by the loop", waiting:result(h.TIMEOUT))
  end)

  it("runs each of many concurrent calls exactly once", function()
    local ex <close> = ml.AsyncExecutor{}
    local futures = {}
    for i = 1, 20 do
      futures[i] = ex:submit(function(n) return ml.to_thread(function(k) return k end, n) end, i)
    end
    for i = 1, 20 do assert.equal(i, futures[i]:result(h.TIMEOUT)) end
  end)

  it("from a worker never waits for a free one", function()
    local function deeper(n)
      return n == 0 and "bottom" or ml.to_thread(deeper, n - 1)
    end
    assert.equal("bottom", ml.to_thread(deeper, 40))
  end)

  it("ping-pongs between loop and workers without a deadlock", function()
    local ex <close> = ml.AsyncExecutor{}
    local function bounce(executor, n)
      if n == 0 then return "down" end
      return ml.to_thread(function(f, e, k) return e:submit(f, e, k):result() end,
                          bounce, executor, n - 1)
    end
    local futures = {}
    for i = 1, 4 do futures[i] = ex:submit(bounce, ex, 10) end
    for i = 1, 4 do assert.equal("down", futures[i]:result(h.TIMEOUT)) end
  end)

  it("returns at once to a cancelled job; the function runs on and is dropped", function()
    local ex <close> = ml.AsyncExecutor{}
    local started, release, ended = h.gate(), h.gate(), h.gate()
    local log = h.error_log()
    local future = ex:submit(function(s, r, e)
      ml.to_thread(function(s2, r2, e2)
        s2:open()
        r2:pass()
        e2:open()
        error "nobody will see this"
      end, s, r, e)
    end, started, release, ended)
    started:pass()
    future:cancel()
    future:wait(h.TIMEOUT)
    assert.is_true(future:cancelled())
    assert.is_false(ended:is_open())
    release:open()
    ended:pass()
    assert.equal("free", ml.to_thread(function() return "free" end))
    assert.equal(0, log:count())
    ml.on_error(nil)
  end)

  it("ends in peace when the loop of its caller is gone", function()
    local ex = ml.AsyncExecutor{}
    local started, release, ended = h.gate(), h.gate(), h.gate()
    local future = ex:submit(function(s, r, e)
      return ml.to_thread(function(s2, r2, e2)
        s2:open()
        r2:pass()
        e2:open()
        return { "nobody takes this" }
      end, s, r, e)
    end, started, release, ended)
    started:pass()
    assert.is_true(ex:shutdown{ cancel = true, timeout = h.TIMEOUT })
    assert.is_true(future:cancelled())
    release:open()
    ended:pass()
    assert.equal("free", ml.to_thread(function() return "free" end))
  end)

  it("refuses what is no function", function()
    h.misuse("number", function() ml.to_thread(1) end)
    h.misuse("", function() ml.to_thread() end)
  end)
end)

describe("sync_to_async", function()
  it("makes a function that runs on a worker and waits", function()
    local add = ml.sync_to_async(function(a, b) return a + b, h.state_id() end)
    local sum, id = add(1, 2)
    assert.equal(3, sum)
    assert.not_equal(h.state_id(), id)
    assert.equal(7, (add(3, 4)))
  end)

  it("works in a job, and crosses as its function", function()
    local ex <close> = ml.AsyncExecutor{}
    local double = ml.sync_to_async(function(a) return 2 * a end)
    assert.equal(8, ex:submit(function(a) return double(a) end, 4):result(h.TIMEOUT))
    assert.equal(6, ex:submit(double, 3):result(h.TIMEOUT))
  end)

  it("raises the function's error", function()
    local bad = ml.sync_to_async(function() error({ code = 9 }) end)
    assert.same({ code = 9 }, h.raised(bad))
  end)

  it("refuses what is no function when it is wrapped", function()
    h.misuse("number", function() ml.sync_to_async(1) end)
    h.misuse("nil", function() ml.sync_to_async(nil) end)
  end)

  it("works from inside async_to_sync, nested", function()
    local up = ml.sync_to_async(function(s) return s:upper() end)
    local call = ml.async_to_sync(function(s) return up(s) end)
    assert.equal("LOUD", call "loud")
    assert.equal("LOUD", ml.to_thread(function(s) return call(s) end, "loud"))
  end)

  it("works from inside async_to_sync under a timeout", function()
    local slow = ml.sync_to_async(function() ml.sleep(0.001) return "in time" end)
    local call = ml.async_to_sync(function(limit) return ml.timeout(limit, slow) end)
    assert.equal("in time", call(h.TIMEOUT))
  end)
end)

describe("run_in_executor", function()
  it("submits to the default thread pool for nil", function()
    local future = ml.run_in_executor(nil, function(a) return a, ml.in_job() end, 5)
    assert.same({ 5, false }, { future:result(h.TIMEOUT) })
  end)

  it("submits to the executor it is given", function()
    local pool <close> = ml.ThreadExecutor{ workers = 1 }
    local ex <close> = ml.AsyncExecutor{}
    local id = pool:submit(h.state_id):result(h.TIMEOUT)
    assert.equal(id, ml.run_in_executor(pool, h.state_id):result(h.TIMEOUT))
    assert.equal(2, pool:stats().submitted)
    assert.is_true(ml.run_in_executor(ex, ml.in_job):result(h.TIMEOUT))
  end)

  it("gives a job a future to wait for", function()
    local ex <close> = ml.AsyncExecutor{}
    assert.equal(9, ex:submit(function()
      local a = ml.run_in_executor(nil, function() return 4 end)
      local b = ml.run_in_executor(nil, function() return 5 end)
      return a:result() + b:result()
    end):result(h.TIMEOUT))
  end)

  it("refuses what is no executor and what is no function", function()
    h.misuse("table", function() ml.run_in_executor({}, print) end)
    h.misuse("string", function() ml.run_in_executor("pool", print) end)
    h.misuse("number", function() ml.run_in_executor(nil, 1) end)
  end)
end)
