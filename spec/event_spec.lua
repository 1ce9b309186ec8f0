-- Events: a flag that jobs and threads wait for.

local ml = require "moonloop"
local h = require "spec.support.helpers"

describe("an event", function()
  it("lets through who waits, and all who come, until it is cleared", function()
    local event = ml.Event()
    assert.is_false(event:is_set())
    assert.is_true(ml.is_timeout(select(2, event:wait(0))))
    assert.is_true(ml.is_timeout(select(2, event:wait(h.SHORT))))
    event:set()
    event:set()
    assert.is_true(event:is_set())
    assert.is_true(event:wait())
    assert.is_true(event:wait(0))
    event:clear()
    assert.is_nil((event:wait(0)))
  end)

  it("set and cleared at once lets through everyone who waited, once, in order", function()
    local event, order = ml.Event(), {}
    ml.run(function()
      local futures = {}
      for i = 1, 4 do
        futures[i] = ml.spawn(function()
          event:wait(h.TIMEOUT)
          order[#order + 1] = i
          return event:wait(h.SHORT)
        end)
      end
      ml.checkpoint()
      event:set()
      event:clear()
      for _, future in ipairs(futures) do
        assert.is_true(ml.is_timeout(select(2, future:result(h.TIMEOUT))))
      end
    end)
    assert.same({ 1, 2, 3, 4 }, order)
  end)

  it("wakes jobs and threads of other states", function()
    local loops <close> = ml.AsyncExecutor{ loops = 2 }
    local pool <close> = ml.ThreadExecutor{ workers = 2 }
    local event, futures = ml.Event(), {}
    for i = 1, 6 do
      futures[i] = (i % 3 == 0 and pool or loops):submit(function(e) return e:wait(15) end, event)
    end
    h.eventually(function() return loops:stats().parked == 4 end)
    event:set()
    for _, future in ipairs(futures) do assert.is_true(future:result(h.TIMEOUT)) end
  end)

  it("is set by a job for the thread that waits", function()
    local ex <close> = ml.AsyncExecutor{}
    local event = ml.Event()
    ex:submit(function(e)
      ml.sleep(0.01)
      e:set()
    end, event)
    assert.is_true(event:wait(h.TIMEOUT))
  end)

  it("forgets a waiter that was cancelled", function()
    local event = ml.Event()
    ml.run(function()
      local gone = ml.spawn(function() event:wait() end)
      ml.checkpoint()
      gone:cancel_and_wait(h.TIMEOUT)
      assert.is_true(gone:cancelled())
      event:set()
    end)
  end)

  it("says what a job waits for", function()
    local ex <close> = ml.AsyncExecutor{}
    local event = ml.Event()
    ex:submit(function(e) e:wait() end, event)
    h.eventually(function() return ex:stats().parked == 1 end)
    assert.equal("event wait", ex:jobs()[1].waits_for)
    event:set()
    assert.matches("^event: .*%(set%)$", tostring(event))
  end)
end)
