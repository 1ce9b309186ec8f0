-- Locks: one owner at a time, a job or a thread.

local ml = require "moonloop"
local h = require "spec.support.helpers"

describe("a lock", function()
  it("is held by one at a time", function()
    local lock = ml.Lock()
    assert.is_false(lock:locked())
    assert.is_true(lock:acquire())
    assert.is_true(lock:locked())
    ml.run(function()
      assert.equal("busy", select(2, lock:try_acquire()).code)
      assert.is_true(ml.is_timeout(select(2, lock:acquire(h.SHORT))))
    end)
    lock:release()
    assert.is_false(lock:locked())
    assert.is_true(lock:try_acquire())
    lock:release()
  end)

  it("goes to whoever has waited longest", function()
    local lock, order = ml.Lock(), {}
    ml.run(function()
      lock:acquire()
      local futures = {}
      for i = 1, 3 do
        futures[i] = ml.spawn(function()
          for round = 1, 2 do
            lock:acquire(h.TIMEOUT)
            order[#order + 1] = i .. "." .. round
            ml.checkpoint()
            lock:release()
          end
        end)
      end
      ml.checkpoint()
      lock:release()
      ml.gather(futures)
    end)
    assert.same({ "1.1", "2.1", "3.1", "1.2", "2.2", "3.2" }, order)
  end)

  it("excludes jobs of several loops and threads from one another", function()
    local loops <close> = ml.AsyncExecutor{ loops = 2 }
    local pool <close> = ml.ThreadExecutor{ workers = 2 }
    local lock, inside = ml.Lock(), ml.Semaphore(1)
    local function work(l, one)
      for i = 1, 100 do
        local _ <close> = l:hold(15)
        assert(one:try_acquire())
        if i % 10 == 0 then ml.sleep(0) end
        one:release()
      end
    end
    local futures = {}
    for i = 1, 8 do futures[i] = (i % 2 == 0 and loops or pool):submit(work, lock, inside) end
    for _, future in ipairs(futures) do future:result(h.TIMEOUT) end
    assert.is_false(lock:locked())
  end)

  it("has exactly one successor when a waiter is cancelled as the owner releases", function()
    local lock = ml.Lock()
    ml.run(function()
      lock:acquire()
      local got = {}
      local first = ml.spawn(function()
        got[1] = lock:acquire()
        lock:release()
      end)
      local second = ml.spawn(function()
        got[2] = lock:acquire(h.TIMEOUT)
        lock:release()
      end)
      ml.checkpoint()
      first:cancel()
      lock:release()
      first:wait(h.TIMEOUT)
      second:wait(h.TIMEOUT)
      assert.same({ nil, true }, got)
      assert.is_false(lock:locked())

      lock:acquire()
      first = ml.spawn(function()
        got[1] = lock:acquire()
        lock:release()
      end)
      ml.checkpoint()
      lock:release() -- it is granted before it is cancelled
      first:cancel()
      first:wait(h.TIMEOUT)
      assert.is_true(got[1])
      assert.is_false(lock:locked())
    end)
  end)

  it("is given back by a hold, whatever ends the block", function()
    local lock = ml.Lock()
    pcall(function()
      local _ <close> = lock:hold()
      error "oops"
    end)
    assert.is_false(lock:locked())
    ml.run(function()
      local job = ml.spawn(function()
        local _ <close> = lock:hold()
        ml.sleep(60)
      end)
      ml.checkpoint()
      local err = h.raised(lock.hold, lock, h.SHORT)
      assert.is_true(ml.is_timeout(err))
      job:cancel_and_wait(h.TIMEOUT)
    end)
    assert.is_false(lock:locked())
  end)

  it("may be released by hand in a hold's block", function()
    local lock = ml.Lock()
    do
      local _ <close> = lock:hold()
      lock:release()
    end
    assert.is_false(lock:locked())
  end)

  describe("misused", function()
    it("refuses to be acquired by its owner again", function()
      local lock = ml.Lock()
      lock:acquire()
      h.misuse("acquire: this thread holds the lock already", function() lock:acquire() end)
      h.misuse("hold: this thread holds the lock already", function() lock:hold() end)
      assert.equal("busy", select(2, lock:try_acquire()).code)
      lock:release()
      ml.run(function()
        lock:acquire()
        h.misuse("this job holds the lock already", function() lock:acquire(1) end)
        lock:release()
      end)
    end)

    it("refuses a release of what is not held", function()
      local lock = ml.Lock()
      h.misuse("release: the lock is not held", function() lock:release() end)
      assert.is_true(lock:try_acquire())
      lock:release()
    end)

    it("refuses a release by another job, thread or state", function()
      local lock = ml.Lock()
      local ex <close> = ml.AsyncExecutor{}
      lock:acquire()
      local text = "release: the lock is held by another job or thread"
      ml.run(function() h.misuse(text, function() lock:release() end) end)
      local future = ex:submit(function(l) l:release() end, lock)
      local err = future:exception(h.TIMEOUT)
      assert.matches(text, err)
      assert.is_true(lock:locked())
      lock:release()
    end)
  end)

  describe("whose job ends", function()
    after_each(function() ml.on_error(nil) end)

    it("goes on to the next waiter, with a report that says where it was acquired", function()
      local log <const> = h.error_log()
      local lock, name = ml.Lock(), "spec/lock_spec.lua:%d+"
      for i, acquire in ipairs{
        function() assert(lock:acquire()) end,
        function() assert(lock:try_acquire()) end,
        function() assert(lock:acquire()) error("failed", 0) end,
        function() assert(lock:acquire()) ml.sleep(60) end,
      } do
        ml.run(function()
          local job = ml.spawn(ml.job{ acquire, name = "forgetful" })
          local waiter = ml.spawn(function()
            assert(lock:acquire(h.TIMEOUT))
            lock:release()
          end)
          ml.checkpoint()
          job:cancel()
          job:wait(h.TIMEOUT)
          waiter:result(h.TIMEOUT)
        end)
        assert.is_false(lock:locked())
        local err, info = log:entry(i)
        assert.matches("^job 'forgetful' ended holding a lock acquired at " .. name ..
          ", which was released$", err)
        assert.equal("job", info.kind)
        assert.equal("forgetful", info.name)
      end
      assert.equal(4, log:count())
    end)

    it("goes on to another state's waiter, and each of several locks does", function()
      local log <const> = h.error_log()
      local ex <close> = ml.AsyncExecutor{}
      local a, b = ml.Lock(), ml.Condition()
      local taken, go = h.gate(), h.gate()
      local job = ex:submit(ml.job{ function(first, second, t, g)
        first:acquire()
        second:acquire()
        t:open()
        g:pass()
      end, a, b, taken, go, name = "holder" })
      taken:pass()
      assert.is_true(ml.is_timeout(select(2, a:acquire(0))))
      go:open()
      assert.is_true(a:acquire(h.TIMEOUT))
      assert.is_true(b:acquire(h.TIMEOUT))
      job:result(h.TIMEOUT)
      for i = 1, 2 do
        assert.matches("^job 'holder' ended holding a lock acquired at ", (log:entry(i)))
      end
      a:release()
      b:release()
    end)

    it("is no report's business where a hold gives it back", function()
      local log <const> = h.error_log()
      local lock = ml.Lock()
      ml.run(function()
        local job = ml.spawn(function()
          local _ <close> = lock:hold()
          ml.sleep(60)
        end)
        ml.checkpoint()
        job:cancel_and_wait(h.TIMEOUT)
      end)
      assert.is_false(lock:locked())
      assert.equal(0, log:count())
    end)
  end)

  it("goes on to the next waiter when its owner's state closes, with a report", function()
    local log <const> = h.error_log()
    local lock, taken = ml.Lock(), h.gate()
    local pool = ml.ThreadExecutor{ workers = 1 }
    pool:submit(function(l, gate)
      l:acquire()
      gate:open()
    end, lock, taken)
    taken:pass()
    assert.is_nil((lock:acquire(0)))
    h.close(pool)
    assert.is_true(lock:acquire(h.TIMEOUT))
    lock:release()
    local err, info = log:entry(1)
    assert.matches("a Lua state closed while its thread held a lock, which was released",
      tostring(err))
    assert.equal("a closing state", info.kind)
    ml.on_error(nil)
  end)

  it("held by a script at its end is reported on stderr", function()
    local output, code = h.run_script [[
      lock = require "moonloop".Lock()
      lock:acquire()
    ]]
    assert.matches("a Lua state closed while its thread held a lock, which was released", output)
    assert.equal(0, code)
  end)

  it("says what it is", function()
    local lock = ml.Lock()
    assert.matches("^lock: .*%(free%)$", tostring(lock))
    local _ <close> = lock:hold()
    assert.matches("%(held%)$", tostring(lock))
  end)
end)
