-- Waits that can never end are refused where that is certain.

local ml = require "moonloop"
local h = require "spec.support.helpers"

-- Where nothing else can run.
local places = {
  ["on a thread"] = function(f) return f() end,
  ["in the only job of a run"] = ml.run,
}

-- What would wait for ever, by what the message calls it.
local waits = {
  ["queue get: .* this queue"] = function() ml.Queue():get() end,
  ["queue put: .* this queue"] = function()
    local q = ml.Queue(1)
    q:put(1)
    q:put(2)
  end,
  ["queue join: .* this queue"] = function()
    local q = ml.Queue()
    q:put(1)
    q:join()
  end,
  ["channel receive: .* this channel"] = function() ml.Channel():receive() end,
  ["channel send: .* this channel"] = function() ml.Channel():send(1) end,
  ["event wait: .* this event"] = function() ml.Event():wait() end,
  ["semaphore acquire: .* this semaphore"] = function() ml.Semaphore(0):acquire() end,
  ["semaphore acquire: .* for ever: nobody else has this semaphore"] = function()
    local _ <close> = ml.Semaphore(0):hold()
  end,
  ["barrier wait: .* this barrier"] = function() ml.Barrier(2):wait() end,
  ["condition wait: .* this condition"] = function()
    local c = ml.Condition()
    local _ <close> = c:hold()
    c:wait()
  end,
}

describe("a wait that can never end", function()
  it("for what nobody else has is misuse, named", function()
    for _, place in pairs(places) do
      for pattern, wait in pairs(waits) do
        place(function() h.misuse("it would wait for ever: nobody else has", wait) end)
        place(function() h.misuse(pattern, wait) end)
      end
    end
  end)

  it("for a lock that the thread around the run holds is misuse", function()
    local lock, cond = ml.Lock(), ml.Condition()
    lock:acquire()
    cond:acquire()
    ml.run(function()
      h.misuse("nobody else has this lock", function() lock:acquire() end)
      h.misuse("nobody else has this lock", function() lock:hold() end)
      h.misuse("nobody else has this condition", function() cond:acquire() end)
    end)
    lock:release()
    cond:release()
  end)

  it("changes nothing", function()
    local q, c = ml.Queue(1), ml.Condition()
    q:put "one"
    h.misuse("queue put", function() q:put "two" end)
    assert.equal("one", q:get())
    local hold <close> = c:hold() -- luacheck: ignore hold
    h.misuse("condition wait", function() c:wait() end)
    assert.is_true(c:locked())
  end)

  describe("is none with", function()
    it("a time limit, of its own or around it", function()
      for _, place in pairs(places) do
        place(function()
          assert.is_true(ml.is_timeout(select(2, ml.Queue():get(h.SHORT))))
          assert.is_true(ml.is_timeout(select(2, ml.move_on_after(h.SHORT, function()
            return ml.Event():wait()
          end))))
          assert.is_true(ml.is_timeout(h.raised(ml.timeout, h.SHORT, ml.run, function()
            ml.Event():wait()
          end)))
        end)
      end
    end)

    it("another job", function()
      ml.run(function()
        local q = ml.Queue()
        ml.spawn(function() q:put "came" end)
        assert.equal("came", q:get())
      end)
    end)

    it("another state that has it", function()
      local ex <close> = ml.AsyncExecutor{}
      for _, place in pairs(places) do
        place(function()
          local q = ml.Queue()
          ex:submit(function(queue)
            ml.sleep(0.01)
            queue:put "came"
          end, q)
          assert.equal("came", q:get())
        end)
      end
    end)

    it("a ref or a callback that is still to come", function()
      local ex <close> = ml.AsyncExecutor{}
      for _, place in pairs(places) do
        place(function()
          local q = ml.Queue()
          local f = ml.ref(function(v) q:put(v) end)
          local future = ex:submit(function(g) ml.sleep(0.01) g "called" end, f)
          assert.equal("called", q:get())
          future:result(h.TIMEOUT)
        end)
        place(function()
          local q = ml.Queue()
          ex:submit(ml.sleep, 0.01):add_done_callback(function() q:put "called back" end)
          assert.equal("called back", q:get())
        end)
      end
    end)

    it("a job of an executor, which others may reach or cancel", function()
      local ex <close> = ml.AsyncExecutor{}
      local pool <close> = ml.ThreadExecutor{ workers = 1 }
      for _, executor in ipairs{ ex, pool } do
        local started = h.gate()
        local future = executor:submit(function(s)
          s:open()
          ml.Event():wait()
        end, started)
        started:pass()
        future:cancel_and_wait(h.TIMEOUT)
        assert.is_true(future:cancelled())
      end
      local future = ex:submit(function()
        shared = ml.Queue() -- luacheck: ignore shared
        return shared:get() -- luacheck: ignore shared
      end)
      h.eventually(function() return ex:stats().parked == 1 end)
      ex:submit(function() shared:put "reached" end):result(h.TIMEOUT) -- luacheck: ignore shared
      assert.equal("reached", future:result(h.TIMEOUT))
    end)

    it("a cancel on its way", function()
      ml.run(function()
        local _, err = ml.scope(function(s)
          s:cancel "enough"
          ml.Event():wait()
        end)
        assert.equal("enough", err.reason)
      end)
    end)
  end)
end)

describe("jobs that wait for each other", function()
  it("are told, two or more", function()
    for n = 2, 5 do
      ml.run(function()
        local futures = {}
        for i = 1, n do
          futures[i] = ml.spawn(ml.job{ function()
            return futures[i % n + 1]:result()
          end, name = "number " .. i })
        end
        local err = futures[n]:exception(h.TIMEOUT)
        assert.matches("spec/forever_spec.lua:%d+: it would wait for ever: job 'number 1' waits" ..
          (n > 2 and ", through others," or "") .. " for this job", tostring(err))
        assert.equal(err, futures[1]:exception(h.TIMEOUT))
      end)
    end
  end)

  it("are told when they were submitted, whoever comes second", function()
    local ex <close> = ml.AsyncExecutor{}
    for order = 1, 2 do
      local inner = h.gate()
      local outer = ex:submit(function(gate, first)
        local me = ml.current_job()
        local child = ml.spawn(function()
          if first then ml.sleep(0.005) end
          me:result()
        end)
        if not first then ml.sleep(0.005) end
        local ok, err = pcall(child.result, child)
        gate:open(tostring(err))
        return ok
      end, inner, order == 2)
      assert.is_false(outer:result(h.TIMEOUT))
      assert.matches("it would wait for ever", inner:pass())
    end
  end)

  it("are no trouble with a time limit", function()
    ml.run(function()
      local a, b
      a = ml.spawn(function() return b:result() end)
      b = ml.spawn(function()
        assert(ml.is_timeout(select(2, a:wait(h.SHORT))))
        assert(ml.is_timeout(select(2, ml.move_on_after(h.SHORT, a.result, a))))
        return "ended"
      end)
      assert.equal("ended", a:result(h.TIMEOUT))
    end)
  end)

  it("may wait in a long line", function()
    ml.run(function()
      local last = ml.spawn(ml.sleep, 0.01)
      local futures = { last }
      for i = 2, 1000 do
        futures[i] = ml.spawn(function() return futures[i - 1]:result() end)
        if i % 100 == 0 then ml.checkpoint() end
      end
      ml.gather(futures)
    end)
  end)
end)
