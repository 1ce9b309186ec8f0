-- Conditions: waiting, with a lock let go, for something that others change under it.

local ml = require "moonloop"
local h = require "spec.support.helpers"

describe("a condition", function()
  it("lets its lock go while it waits and holds it again after", function()
    local cond = ml.Condition()
    ml.run(function()
      local waiter = ml.spawn(function()
        local _ <close> = cond:hold()
        assert.is_true(cond:wait(h.TIMEOUT))
        return cond:locked()
      end)
      ml.checkpoint()
      cond:acquire(h.TIMEOUT)
      cond:notify()
      ml.checkpoint()
      assert.is_false(waiter:done()) -- it waits for the lock now
      cond:release()
      assert.is_true(waiter:result(h.TIMEOUT))
    end)
    assert.is_false(cond:locked())
  end)

  it("shares the lock it was given", function()
    local lock = ml.Lock()
    local one, two = ml.Condition(lock), ml.Condition(lock)
    one:acquire()
    assert.is_true(lock:locked())
    assert.is_true(two:locked())
    two:release()
    assert.is_false(lock:locked())
  end)

  it("notifies one, some or all, in the order in which they came", function()
    local cond, order = ml.Condition(), {}
    local function wake(how, ...)
      cond:acquire()
      cond[how](cond, ...)
      cond:release()
      for _ = 1, 12 do ml.checkpoint() end
    end
    ml.run(function()
      local futures = {}
      for i = 1, 6 do
        futures[i] = ml.spawn(function()
          local _ <close> = cond:hold()
          cond:wait(h.TIMEOUT)
          order[#order + 1] = i
        end)
      end
      for _ = 1, 3 do ml.checkpoint() end
      wake("notify")
      assert.same({ 1 }, order)
      wake("notify", 2)
      assert.same({ 1, 2, 3 }, order)
      wake("notify_all")
      assert.same({ 1, 2, 3, 4, 5, 6 }, order)
      ml.gather(futures)
      wake("notify")
    end)
  end)

  it("holds the lock again after a timeout", function()
    local cond = ml.Condition()
    local function try()
      cond:acquire()
      for _, timeout in ipairs{ 0, h.SHORT } do
        local ok, err = cond:wait(timeout)
        assert.is_nil(ok)
        assert.is_true(ml.is_timeout(err))
      end
      cond:release() -- would raise if it were not held
    end
    try()
    ml.run(try)
  end)

  it("holds the lock again after a cancel, even if it must wait for it", function()
    local cond, held = ml.Condition(), nil
    ml.run(function()
      local waiter = ml.spawn(function()
        cond:acquire()
        local ok, err = pcall(cond.wait, cond)
        held = pcall(cond.release, cond)
        assert(not ok)
        error(err, 0)
      end)
      ml.checkpoint()
      cond:acquire()
      waiter:cancel "enough"
      for _ = 1, 5 do ml.checkpoint() end
      assert.is_false(waiter:done())
      cond:release()
      waiter:wait(h.TIMEOUT)
      assert.is_true(held)
      assert.is_true(waiter:cancelled())
    end)
    assert.is_false(cond:locked())
  end)

  it("passes a notify on from a waiter that left to one that stays", function()
    local cond = ml.Condition()
    ml.run(function()
      local function wait()
        local _ <close> = cond:hold()
        return cond:wait(h.TIMEOUT)
      end
      local first, second = ml.spawn(wait), ml.spawn(wait)
      for _ = 1, 3 do ml.checkpoint() end
      first:cancel_and_wait(h.TIMEOUT)
      cond:acquire()
      cond:notify()
      cond:release()
      assert.is_true(second:result(h.TIMEOUT))
    end)
  end)

  it("keeps a notify that came before the cancel", function()
    local cond = ml.Condition()
    ml.run(function()
      local got
      local waiter = ml.spawn(function()
        local _ <close> = cond:hold()
        got = cond:wait()
      end)
      ml.checkpoint()
      cond:acquire()
      cond:notify()
      waiter:cancel()
      cond:release()
      waiter:wait(h.TIMEOUT)
      assert.is_true(got)
    end)
  end)

  it("works between threads and jobs", function()
    local ex <close> = ml.AsyncExecutor{}
    local pool <close> = ml.ThreadExecutor{ workers = 2 }
    local cond, box = ml.Condition(), ml.Queue()
    local function consume(c, q)
      local _ <close> = c:hold(15)
      while q:size() == 0 do assert(c:wait(15)) end
      return q:get(0)
    end
    local futures = {
      ex:submit(consume, cond, box),
      pool:submit(consume, cond, box),
      pool:submit(consume, cond, box),
    }
    for i = 1, 3 do
      local _ <close> = cond:hold(h.TIMEOUT)
      box:put(i)
      cond:notify()
    end
    local sum = 0
    for _, future in ipairs(futures) do sum = sum + future:result(h.TIMEOUT) end
    assert.equal(6, sum)
  end)

  it("is used by the lock's owner only", function()
    local cond = ml.Condition()
    h.misuse("wait: the lock is not held", function() cond:wait() end)
    h.misuse("bad argument: condition expected, got nil", function() cond.wait() end)
    h.misuse("bad argument: condition expected, got lock", function() cond.wait(ml.Lock()) end)
    h.misuse("notify: the lock is not held", function() cond:notify() end)
    h.misuse("notify_all: the lock is not held", function() cond:notify_all() end)
    ml.run(function()
      cond:acquire()
      local other = ml.spawn(function()
        h.misuse("wait: the lock is held by another", function() cond:wait() end)
      end)
      other:result(h.TIMEOUT)
      h.misuse("notify: number of waiters: whole number", function() cond:notify(0) end)
      h.misuse("nan", function() cond:wait(0 / 0) end)
      cond:release()
    end)
    assert.has_error(function() ml.Condition(1) end)
    assert.is_false(cond:locked())
  end)
end)
