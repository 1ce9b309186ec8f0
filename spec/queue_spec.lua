-- Queues between jobs and threads.

local ml = require "moonloop"
local h = require "spec.support.helpers"

-- The values that are in a queue, in the order in which they come.
local function drain(queue)
  local values = {}
  while queue:size() > 0 do values[#values + 1] = queue:get(0) end
  return values
end

describe("a queue", function()
  it("gives values in the order in which they were put", function()
    local q = ml.Queue()
    for i = 1, 3 do assert.is_true(q:put(i)) end
    assert.equal(3, q:size())
    assert.same({ 1, 2, 3 }, drain(q))
  end)

  it("of order lifo gives the last first", function()
    local q = ml.Queue{ order = "lifo" }
    for i = 1, 3 do q:put(i) end
    assert.equal(3, q:get())
    q:put(4)
    assert.same({ 4, 2, 1 }, drain(q))
  end)

  it("of order priority gives the lowest first, equals as they came", function()
    local q = ml.Queue{ order = "priority" }
    for i, priority in ipairs{ 5, 1, 3, 1, -2.5, 5 } do q:put(i, nil, priority) end
    q:put "none is 0"
    q:try_put("last", math.huge)
    assert.same({ 5, "none is 0", 2, 4, 3, 1, 6, "last" }, drain(q))
  end)

  it("sorts many by priority, also with gets in between", function()
    local q, kept = ml.Queue{ order = "priority" }, {}
    for i = 1, 1000 do
      local priority = (i * 7919) % 1009
      q:put(priority, nil, priority)
      kept[#kept + 1] = priority
      if i % 3 == 0 then
        table.sort(kept)
        assert.equal(table.remove(kept, 1), q:get())
      end
    end
    table.sort(kept)
    assert.same(kept, drain(q))
  end)

  it("with a bound makes puts wait for room, in order", function()
    local q = ml.Queue(2)
    ml.run(function()
      q:put(1)
      q:put(2)
      assert.equal("busy", select(2, q:try_put(0)).code)
      assert.is_true(ml.is_timeout(select(2, q:put(0, 0))))
      assert.is_true(ml.is_timeout(select(2, q:put(0, h.SHORT))))
      local third = ml.spawn(function() return q:put(3) end)
      local fourth = ml.spawn(function() return q:put(4) end)
      ml.checkpoint()
      assert.equal(2, q:size())
      assert.equal(1, q:get())
      assert.equal(2, q:size())
      assert.is_true(third:result(h.TIMEOUT))
      assert.is_false(fourth:done())
      assert.same({ 2, 3, 4 }, drain(q))
      assert.is_true(fourth:result(h.TIMEOUT))
    end)
  end)

  it("makes gets wait, and serves them in order", function()
    local q, order = ml.Queue(), {}
    assert.equal("busy", select(2, q:try_get()).code)
    assert.is_true(ml.is_timeout(select(2, q:get(0))))
    ml.run(function()
      local futures = {}
      for i = 1, 3 do
        futures[i] = ml.spawn(function() order[i] = q:get(h.TIMEOUT) end)
      end
      ml.checkpoint()
      for _, v in ipairs{ "a", "b", "c" } do q:put(v) end
      ml.gather(futures)
    end)
    assert.same({ "a", "b", "c" }, order)
  end)

  it("keeps the value when a get timed out or was cancelled", function()
    local q = ml.Queue()
    assert.is_nil((q:get(h.SHORT)))
    ml.run(function()
      local gone = ml.spawn(function() q:get() end)
      ml.checkpoint()
      gone:cancel_and_wait(h.TIMEOUT)
      q:put "here"
      assert.equal("here", q:get(0))
    end)
  end)

  it("gives a value to a get that was cancelled too late", function()
    local q = ml.Queue()
    ml.run(function()
      local got
      local getter = ml.spawn(function() got = q:get() end)
      ml.checkpoint()
      q:put "mine"
      getter:cancel()
      getter:wait(h.TIMEOUT)
      assert.equal("mine", got)
      assert.equal(0, q:size())
    end)
  end)

  it("drops the value of a put that timed out or was cancelled", function()
    local q = ml.Queue(1)
    q:put "first"
    ml.run(function()
      local gone = ml.spawn(function() q:put "cancelled" end)
      local late = ml.spawn(function() return q:put("late", h.SHORT) end)
      ml.checkpoint()
      gone:cancel_and_wait(h.TIMEOUT)
      assert.is_nil((late:result(h.TIMEOUT)))
    end)
    assert.same({ "first" }, drain(q))
  end)

  describe("between states", function()
    it("hands on everything in order, each way, and more than once", function()
      local ex <close> = ml.AsyncExecutor{}
      local there, back = ml.Queue(2), ml.Queue(2)
      local echo = ex:submit(function(from, to)
        for _ = 1, 15 do assert(to:put(assert(from:get(15)), 15)) end
      end, there, back)
      for _ = 1, 3 do
        local feeder = ml.run_in_executor(nil, function(q)
          for i = 1, 5 do q:put(i, 15) end
        end, there)
        for i = 1, 5 do assert.equal(i, (back:get(h.TIMEOUT))) end
        feeder:result(h.TIMEOUT)
      end
      echo:result(h.TIMEOUT)
    end)

    it("wakes all who wait on either side, none lost", function()
      local loops <close> = ml.AsyncExecutor{ loops = 2 }
      local pool <close> = ml.ThreadExecutor{ workers = 4 }
      local q, futures = ml.Queue(1), {}
      for i = 1, 4 do
        futures[i] = (i % 2 == 0 and loops or pool):submit(function(qu, n)
          local sum = 0
          for _ = 1, n do sum = sum + assert(qu:get(15)) end
          return sum
        end, q, 100)
      end
      for i = 5, 8 do
        futures[i] = (i % 2 == 0 and loops or pool):submit(function(qu, n)
          for k = 1, n do assert(qu:put(k, 15)) end
          return 0
        end, q, 100)
      end
      local sum = 0
      for _, future in ipairs(futures) do sum = sum + future:result(h.TIMEOUT) end
      assert.equal(4 * 5050, sum)
      assert.equal(0, q:size())
    end)

    it("loses and doubles nothing under timeouts and cancels", function()
      local loops <close> = ml.AsyncExecutor{ loops = 2 }
      local q, sent, got = ml.Queue(3), ml.Semaphore(0), ml.Semaphore(0)
      local function produce(qu, count)
        for i = 1, 300 do
          local job = ml.spawn(function()
            if qu:put(i, i % 3 == 0 and 0.0002 or nil) then count:release() end
          end)
          if i % 4 == 0 then ml.checkpoint() end
          if i % 7 == 0 then job:cancel() end
        end
      end
      local function consume(qu, count)
        for i = 1, 400 do
          local job = ml.spawn(function()
            if qu:get(i % 3 == 0 and 0.0002 or nil) then count:release() end
          end)
          if i % 4 == 0 then ml.checkpoint() end
          if i % 5 == 0 then job:cancel() end
        end
      end
      local futures = {}
      for i = 1, 4 do
        futures[#futures + 1] = loops:submit(produce, q, sent)
        futures[#futures + 1] = loops:submit(consume, q, got)
        if i == 2 then ml.sleep(0.001) end
      end
      for _, future in ipairs(futures) do future:result(h.TIMEOUT) end
      h.eventually(function()
        while q:try_get() do got:release() end -- lets those go on who wait to put
        return loops:stats().parked == 0 or q:size() == 0 and sent:value() == got:value()
      end)
      q:shutdown()
      h.close(loops)
      while q:try_get() do got:release() end
      assert.equal(sent:value(), got:value())
    end)

    it("can be made before there is any loop", function()
      local output, code = h.run_script [[
        local ml = require "moonloop"
        local q = ml.Queue(1)
        q:put "early"
        print(q:get(), q:size())
        assert(ml.run_async(function(queue) queue:put "late" end, q):wait(10))
        print(q:get(10))
      ]]
      assert.equal("early\t0\nlate\n", output)
      assert.equal(0, code)
    end)
  end)

  describe("hands on", function()
    it("the very same value in the state that put it", function()
      local q = ml.Queue()
      local values = { { 1 }, function() end, ml.Lock(), "text", 1.5, false }
      for i, value in ipairs(values) do
        q:put(value)
        assert.is_true(rawequal(values[i], q:get()))
      end
      ml.run(function()
        local t = {}
        local getter = ml.spawn(function() return q:get() end)
        ml.checkpoint()
        q:put(t)
        assert.equal(t, getter:result(h.TIMEOUT))
      end)
    end)

    it("a copy elsewhere, as it was when it was put", function()
      local ex <close> = ml.AsyncExecutor{}
      local q, t = ml.Queue(), { "before", { deep = true } }
      q:put(t)
      t[1] = "after"
      assert.same({ "before", { deep = true } },
        ex:submit(function(qu) return qu:get() end, q):result(h.TIMEOUT))
    end)

    it("nothing that cannot cross, and says where it is", function()
      local q = ml.Queue(1)
      local err = h.raised(q.put, q, { a = { coroutine.create(print) } })
      assert.equal("crossing", err.code)
      assert.matches("argument 1%.a%[1%]: a coroutine", tostring(err))
      assert.is_true(q:try_put(1))
      assert.equal(1, q:size())
    end)

    it("no nil", function()
      local q = ml.Queue()
      h.misuse("queue put: a value expected: nil", function() q:put(nil) end)
      h.misuse("queue put: a value expected: nil", function() q:try_put() end)
    end)

    it("an error for what cannot be rebuilt, and goes on", function()
      local ex <close> = ml.AsyncExecutor{}
      local q = ml.Queue()
      package.loaded["spec.nowhere"] = { f = print and function() end }
      q:put(package.loaded["spec.nowhere"])
      q:put "next"
      package.loaded["spec.nowhere"] = nil
      local ok, value = ex:submit(function(qu)
        local ok = pcall(qu.get, qu)
        return ok, qu:get()
      end, q):result(h.TIMEOUT)
      assert.is_false(ok)
      assert.equal("next", value)
    end)
  end)

  it("lets go of a value that was taken elsewhere, or dropped", function()
    local ex <close> = ml.AsyncExecutor{}
    local q, dropped, seen = ml.Queue(), ml.Queue(), setmetatable({}, { __mode = "k" })
    local function put(queue)
      local t = {}
      seen[t] = true
      queue:put(t)
    end
    put(q)
    put(dropped)
    put(dropped)
    h.collect()
    local n = 0
    for _ in pairs(seen) do n = n + 1 end
    assert.equal(3, n)
    ex:submit(function(qu) qu:get(15) end, q):result(h.TIMEOUT)
    dropped:shutdown{ immediate = true }
    assert.is_false(ml.poll(0)) -- values are let go: no callback
    h.eventually(function()
      h.collect()
      return next(seen) == nil
    end)
  end)

  describe("join", function()
    it("waits until all that was put is done", function()
      local q = ml.Queue()
      assert.is_true(q:join())
      q:put(1)
      q:put(2)
      assert.is_true(ml.is_timeout(select(2, q:join(h.SHORT))))
      q:get()
      q:get()
      q:task_done()
      assert.is_true(ml.is_timeout(select(2, q:join(0))))
      q:task_done()
      assert.is_true(q:join())
      h.misuse("task_done: called more often than values were put", function() q:task_done() end)
    end)

    it("counts what went straight to a get, and what waited for room", function()
      local q = ml.Queue(1)
      ml.run(function()
        local getter = ml.spawn(function() return q:get() end)
        ml.checkpoint()
        q:put(1)
        getter:result(h.TIMEOUT)
        q:put(2)
        local putter = ml.spawn(function() q:put(3) end)
        ml.checkpoint()
        q:get()
        putter:result(h.TIMEOUT)
        q:get()
        for _ = 1, 3 do
          assert.is_nil((q:join(0)))
          q:task_done()
        end
        assert.is_true(q:join(0))
      end)
    end)

    it("returns on a thread when jobs are done, and in a job when threads are", function()
      local ex <close> = ml.AsyncExecutor{}
      local q = ml.Queue()
      for i = 1, 5 do q:put(i) end
      local function work(qu)
        while qu:try_get() do
          ml.sleep(0.001)
          qu:task_done()
        end
      end
      ex:submit(work, q)
      assert.is_true(q:join(h.TIMEOUT))
      for i = 1, 5 do q:put(i) end
      local joined = ex:submit(function(qu) return qu:join(15) end, q)
      work(q)
      assert.is_true(joined:result(h.TIMEOUT))
    end)
  end)

  describe("shutdown", function()
    it("of an empty one ends gets and puts", function()
      local q = ml.Queue()
      q:shutdown()
      q:shutdown()
      for _, f in ipairs{ function() return q:get() end, function() return q:put(1) end,
                          function() return q:try_get() end, function() return q:try_put(1) end } do
        local ok, err = f()
        assert.is_nil(ok)
        assert.equal("closed", err.code)
      end
    end)

    it("lets what is there be taken first", function()
      local q = ml.Queue()
      q:put(1)
      q:put(2)
      q:shutdown()
      assert.equal("closed", select(2, q:put(3)).code)
      assert.equal(1, q:get())
      assert.equal(2, q:get())
      assert.equal("closed", select(2, q:get()).code)
      assert.is_nil((q:join(0)))
      q:task_done()
      q:task_done()
      assert.is_true(q:join(0))
    end)

    it("immediate drops what is there, which counts as done", function()
      local q = ml.Queue()
      for i = 1, 3 do q:put(i) end
      q:get()
      ml.run(function()
        local joined = ml.spawn(function() return q:join(h.TIMEOUT) end)
        ml.checkpoint()
        q:shutdown{ immediate = true }
        assert.equal("closed", select(2, q:get()).code)
        ml.checkpoint()
        assert.is_false(joined:done()) -- one was taken and is not done
        q:task_done()
        assert.is_true(joined:result(h.TIMEOUT))
      end)
    end)

    it("wakes jobs and threads that wait to get or to put", function()
      local loops <close> = ml.AsyncExecutor{ loops = 2 }
      local pool <close> = ml.ThreadExecutor{ workers = 4 }
      local empty, full, futures = ml.Queue(), ml.Queue(1), {}
      full:put(0)
      for i = 1, 8 do
        local ex = i % 2 == 0 and loops or pool
        if i % 4 < 2 then
          futures[i] = ex:submit(function(q) return select(2, q:get(15)).code end, empty)
        else
          futures[i] = ex:submit(function(q) return select(2, q:put(1, 15)).code end, full)
        end
      end
      h.eventually(function() return loops:stats().parked == 4 end)
      empty:shutdown()
      full:shutdown()
      for _, future in ipairs(futures) do assert.equal("closed", future:result(h.TIMEOUT)) end
      assert.same({ 0 }, drain(full))
    end)
  end)

  it("takes its bound by name or as the first of its options", function()
    for _, q in ipairs{ ml.Queue{ 2, order = "lifo" }, ml.Queue{ max = 2, order = "lifo" } } do
      assert.is_true(q:put(1, 0) and q:put(2, 0))
      assert.equal("timeout", select(2, q:put(3, 0)).code)
      assert.equal(2, q:get(0))
    end
  end)

  it("refuses options, bounds and priorities that are none", function()
    h.misuse("queue: unknown option 'size'", function() ml.Queue{ size = 1 } end)
    h.misuse("queue: option 'order': .*expected, got random",
      function() ml.Queue{ order = "random" } end)
    for _, max in ipairs{ 0, -1, 1.5, 0 / 0, "8" } do
      local text = "queue: max: whole number, 1 or more, expected"
      h.misuse(text, function() ml.Queue(max) end)
      h.misuse(text, function() ml.Queue{ max = max } end)
    end
    h.misuse("queue: max: whole number", function() ml.Queue{ "8" } end)
    h.misuse("queue: unknown option '2'", function() ml.Queue{ 1, 2 } end)
    h.misuse("queue: option 'max' is given twice", function() ml.Queue{ 1, max = 1 } end)
    local q = ml.Queue()
    h.misuse("only a queue with order", function() q:put(1, nil, 1) end)
    h.misuse("shutdown: unknown option 'now'", function() q:shutdown{ now = true } end)
    q = ml.Queue{ order = "priority" }
    h.misuse("priority: number expected, got nan", function() q:put(1, nil, 0 / 0) end)
    h.misuse("priority: number expected, got high", function() q:put(1, nil, "high") end)
    assert.matches("^queue: .*%(0 waiting%)$", tostring(q))
  end)
end)
