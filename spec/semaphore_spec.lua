-- Semaphores: permits for jobs and threads at once, first come, first served.

local ml = require "moonloop"
local h = require "spec.support.helpers"

describe("a semaphore", function()
  it("has as many permits as it was made with, and those that were released", function()
    local sem = ml.Semaphore(2)
    assert.equal(2, sem:value())
    assert.is_true(sem:acquire())
    assert.is_true(sem:try_acquire())
    assert.equal(0, sem:value())
    assert.equal("busy", select(2, sem:try_acquire()).code)
    sem:release()
    sem:release(4)
    assert.equal(5, sem:value())
  end)

  it("can be made empty", function()
    local sem = ml.Semaphore(0)
    assert.equal("timeout", select(2, sem:acquire(0)).code)
    sem:release()
    assert.is_true(sem:acquire(0))
  end)

  it("gives up at the timeout, on a thread and in a job, and takes nothing", function()
    local sem = ml.Semaphore(0)
    local function try()
      local ok, err = sem:acquire(h.SHORT)
      assert.is_nil(ok)
      assert.is_true(ml.is_timeout(err))
    end
    try()
    ml.run(try)
    sem:release()
    assert.equal(1, sem:value())
  end)

  it("serves its waiters in the order in which they came", function()
    local sem, order = ml.Semaphore(0), {}
    ml.run(function()
      local futures = {}
      for i = 1, 5 do
        futures[i] = ml.spawn(function()
          assert(sem:acquire(h.TIMEOUT))
          order[#order + 1] = i
        end)
      end
      ml.checkpoint()
      sem:release(2)
      assert.equal(0, sem:value())
      sem:release(3)
      ml.gather(futures)
    end)
    assert.same({ 1, 2, 3, 4, 5 }, order)
  end)

  it("does not let a newcomer pass those who wait", function()
    local sem = ml.Semaphore(0)
    ml.run(function()
      local first = ml.spawn(function() return sem:acquire(h.TIMEOUT) end)
      ml.checkpoint()
      sem:release()
      assert.equal("busy", select(2, sem:try_acquire()).code)
      assert.is_true(first:result(h.TIMEOUT))
    end)
  end)

  it("skips a waiter that was cancelled or timed out", function()
    local sem = ml.Semaphore(0)
    ml.run(function()
      local cancelled = ml.spawn(function() sem:acquire() end)
      local late = ml.spawn(function() return sem:acquire(h.SHORT) end)
      local patient = ml.spawn(function() return sem:acquire(h.TIMEOUT) end)
      ml.checkpoint()
      cancelled:cancel_and_wait(h.TIMEOUT)
      assert.is_nil((late:result(h.TIMEOUT)))
      sem:release()
      assert.is_true(patient:result(h.TIMEOUT))
      assert.equal(0, sem:value())
    end)
  end)

  it("keeps the permit with a waiter that was granted it and then cancelled", function()
    local sem = ml.Semaphore(0)
    ml.run(function()
      local got
      local waiter = ml.spawn(function() got = sem:acquire() end)
      ml.checkpoint()
      sem:release()
      waiter:cancel()
      waiter:wait(h.TIMEOUT)
      assert.is_true(got)
      assert.equal(0, sem:value())
    end)
  end)

  it("raises the cancel of the caller even if a permit is free", function()
    local sem = ml.Semaphore(1)
    local ok, err = ml.scope(function(s)
      s:cancel "enough"
      sem:acquire()
    end)
    assert.is_nil(ok)
    assert.equal("cancelled", err.code)
    assert.equal(1, sem:value())
  end)

  it("is shared by reference with jobs and threads of other states", function()
    local loops <close> = ml.AsyncExecutor{ loops = 2 }
    local pool <close> = ml.ThreadExecutor{ workers = 2 }
    local sem, most = ml.Semaphore(3), ml.Semaphore(3)
    local function work(s, inner)
      for _ = 1, 50 do
        local _ <close> = s:hold(15)
        assert(inner:try_acquire()) -- never more than three are in here
        inner:release()
      end
      return s == inner
    end
    local futures = {}
    for i = 1, 8 do futures[i] = (i % 2 == 0 and loops or pool):submit(work, sem, most) end
    for _, future in ipairs(futures) do assert.is_false(future:result(h.TIMEOUT)) end
    assert.equal(3, sem:value())
  end)

  it("is the same handle when it comes back", function()
    local ex <close> = ml.AsyncExecutor{}
    local sem = ml.Semaphore(1)
    assert.is_true(ex:submit(function(s) return s end, sem):result(h.TIMEOUT) == sem)
    assert.is_false(sem == ml.Semaphore(1))
  end)

  it("loses no permit under timeouts and cancels from all sides", function()
    local loops <close> = ml.AsyncExecutor{ loops = 2 }
    local sem = ml.Semaphore(2)
    local function work(s)
      local all = {}
      for i = 1, 200 do
        local future = ml.spawn(function()
          local _ <close> = s:hold(i % 4 == 0 and 0.0005 or nil)
          ml.checkpoint()
        end)
        if i % 2 == 0 then ml.checkpoint() end
        if i % 3 == 0 then future:cancel() end
        all[i] = future
      end
      for _, future in ipairs(all) do
        local ok, err = future:wait() -- its timeout and its cancel are no news
        assert(ok or ml.is_timeout(err) or err.code == "job_cancelled", err)
      end
    end
    local futures = {}
    for i = 1, 6 do futures[i] = loops:submit(work, sem) end
    for _, future in ipairs(futures) do future:result(h.TIMEOUT) end
    assert.is_true(loops:shutdown{ timeout = h.TIMEOUT })
    assert.equal(2, sem:value())
  end)

  describe("hold", function()
    it("gives the permit back as the block is left, by an error too", function()
      local sem = ml.Semaphore(1)
      local ok, err = pcall(function()
        local _ <close> = sem:hold()
        assert.equal(0, sem:value())
        error "oops"
      end)
      assert.is_false(ok)
      assert.matches("oops", err)
      assert.equal(1, sem:value())
    end)

    it("gives it back when its job is cancelled", function()
      local sem = ml.Semaphore(1)
      ml.run(function()
        local job = ml.spawn(function()
          local _ <close> = sem:hold()
          ml.sleep(60)
        end)
        ml.checkpoint()
        assert.equal(0, sem:value())
        job:cancel_and_wait(h.TIMEOUT)
        assert.equal(1, sem:value())
      end)
    end)

    it("raises on its timeout: no block runs without its permit", function()
      local sem, ran = ml.Semaphore(0), false
      for _, timeout in ipairs{ 0, h.SHORT } do
        local err = h.raised(function()
          local _ <close> = sem:hold(timeout)
          ran = true
        end)
        assert.is_true(ml.is_timeout(err))
      end
      assert.is_false(ran)
      sem:release()
      assert.equal(1, sem:value())
    end)

    it("is closed by the collector where its coroutine was dropped", function()
      local sem = ml.Semaphore(1)
      do
        local co = coroutine.create(function()
          local _ <close> = sem:hold()
          coroutine.yield()
        end)
        coroutine.resume(co)
      end
      assert.equal(0, sem:value())
      h.collect()
      assert.equal(1, sem:value())
    end)
  end)

  it("refuses counts and timeouts that are none", function()
    for _, n in ipairs{ -1, 1.5, 0 / 0, "2", {} } do
      h.misuse("semaphore: number of permits: whole number, 0 or more, expected",
        function() ml.Semaphore(n) end)
    end
    h.misuse("got no value", function() ml.Semaphore() end)
    local sem = ml.Semaphore(1)
    for _, n in ipairs{ -1, 0, 0.5, 0 / 0, "x" } do
      h.misuse("release: number of permits: whole number, 1 or more", function() sem:release(n) end)
    end
    h.misuse("too many permits", function() sem:release(math.maxinteger) end)
    h.misuse("nan", function() sem:acquire(0 / 0) end)
    h.misuse("negative", function() sem:acquire(-1) end)
    h.misuse("semaphore expected", function() sem.acquire({}) end)
    assert.equal(1, sem:value())
  end)

  it("says what it is", function()
    assert.matches("^semaphore: .*%(2 free%)$", tostring(ml.Semaphore(2)))
  end)
end)
