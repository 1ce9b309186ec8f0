-- Barriers: a meeting point of jobs and threads.

local ml = require "moonloop"
local h = require "spec.support.helpers"

describe("a barrier", function()
  it("lets all go when the last has come, numbered as they came", function()
    local barrier = ml.Barrier(3)
    ml.run(function()
      local futures = {}
      for round = 1, 2 do
        for i = 1, 3 do futures[i] = ml.spawn(function() return barrier:wait(h.TIMEOUT) end) end
        assert.same({ 1, 2, 3 }, (ml.gather(futures)), "round " .. round)
      end
    end)
  end)

  it("of one never waits", function()
    local barrier = ml.Barrier(1)
    assert.equal(1, barrier:wait())
    assert.equal(1, barrier:wait(0))
  end)

  it("is met by jobs and threads", function()
    local loops <close> = ml.AsyncExecutor{ loops = 2 }
    local pool <close> = ml.ThreadExecutor{ workers = 2 }
    local barrier = ml.Barrier(5)
    local function meet(b)
      local sum = 0
      for _ = 1, 20 do sum = sum + assert(b:wait(15)) end
      return sum
    end
    local futures, sum = {}, 0
    for i = 1, 4 do futures[i] = (i % 2 == 0 and loops or pool):submit(meet, barrier) end
    sum = sum + meet(barrier)
    for _, future in ipairs(futures) do sum = sum + future:result(h.TIMEOUT) end
    assert.equal(20 * (1 + 2 + 3 + 4 + 5), sum)
  end)

  it("does not count who timed out or was cancelled", function()
    local barrier = ml.Barrier(2)
    assert.is_true(ml.is_timeout(select(2, barrier:wait(0))))
    ml.run(function()
      local gone = ml.spawn(function() barrier:wait() end)
      ml.checkpoint()
      gone:cancel_and_wait(h.TIMEOUT)
      assert.is_true(ml.is_timeout(select(2, barrier:wait(h.SHORT))))
      local a, b = ml.spawn(barrier.wait, barrier), ml.spawn(barrier.wait, barrier)
      assert.same({ 1, 2 }, (ml.gather{ a, b }))
    end)
  end)

  it("aborted is closed to all until it is reset", function()
    local barrier = ml.Barrier(2)
    ml.run(function()
      local waiter = ml.spawn(function() return barrier:wait() end)
      ml.checkpoint()
      barrier:abort()
      local index, err = waiter:result(h.TIMEOUT)
      assert.is_nil(index)
      assert.equal("closed", err.code)
      assert.equal("closed", select(2, barrier:wait()).code)
      assert.matches("%(broken%)$", tostring(barrier))
      barrier:reset()
      local a, b = ml.spawn(barrier.wait, barrier), ml.spawn(barrier.wait, barrier)
      assert.same({ 1, 2 }, (ml.gather{ a, b }))
    end)
  end)

  it("reset sends away who waits and stays open", function()
    local barrier = ml.Barrier(2)
    ml.run(function()
      local waiter = ml.spawn(function() return barrier:wait() end)
      ml.checkpoint()
      barrier:reset()
      assert.equal("closed", select(2, waiter:result(h.TIMEOUT)).code)
      assert.is_true(ml.is_timeout(select(2, barrier:wait(0))))
    end)
  end)

  it("refuses counts that are none", function()
    for _, n in ipairs{ 0, -1, 2.5, 0 / 0, "3" } do
      h.misuse("barrier: number of parties: whole number, 1 or more, expected",
        function() ml.Barrier(n) end)
    end
  end)
end)
