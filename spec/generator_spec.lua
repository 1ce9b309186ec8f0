-- Async generators: pulls, prefetch, closing, and consumers of every kind.

local ml = require "moonloop"
local h = require "spec.support.helpers"

-- Bodies that several specs use. `trail` is a global of the loop's state.

local function count(n)
  for i = 1, n do
    coroutine.yield(i)
  end
end

local function note(what)
  trail = (trail and trail .. " " or "") .. what -- luacheck: ignore trail
end

local function read_trail()
  return trail -- luacheck: ignore trail
end

-- For a <close> variable: calls f(err) as the block is left.
local function at_exit(f)
  return setmetatable({}, { __close = function(_, err) f(err) end })
end

local function collect(generator)
  local items = {}
  for item in generator do
    items[#items + 1] = item
  end
  return items
end

local function two_items(gate)
  coroutine.yield(gate:pass())
  coroutine.yield "two"
end

describe("generator", function()
  local ex

  before_each(function()
    ex = ml.AsyncExecutor{ name = "generator" }
  end)

  after_each(function()
    ml.on_error(nil)
    h.close(ex)
  end)

  local function trail_is(wanted)
    h.eventually(function() return ex:submit(read_trail):result(h.TIMEOUT) == wanted end, wanted)
  end

  describe("items", function()
    it("come in order, then the end, ever after", function()
      local g = ex:generator{ count, 3 }
      for i = 1, 3 do
        assert.same({ true, i }, { g:next(h.TIMEOUT) })
      end
      for _ = 1, 3 do
        assert.same({ false }, { g:next(h.TIMEOUT) })
      end
    end)

    it("are any number of values, nil too", function()
      local g = ex:generator{ function()
        coroutine.yield()
        coroutine.yield(nil, 2, nil)
        coroutine.yield({ deep = { 1, 2 } }, "two")
      end }
      assert.equal(1, select("#", g:next()))
      assert.same({ n = 4, true, nil, 2, nil }, table.pack(g:next()))
      assert.same({ true, { deep = { 1, 2 } }, "two" }, { g:next() })
      assert.same({ false }, { g:next() })
    end)

    it("may have waits between them, also in pcall, iterators and nested coroutines", function()
      local g = ex:generator{ function()
        pcall(function()
          ml.sleep(0.001)
          coroutine.yield(1)
        end)
        local inner = coroutine.wrap(function()
          ml.sleep(0.001)
          coroutine.yield "inner" -- of the inner coroutine: no item
        end)
        assert(inner() == "inner")
        local function step(_, i)
          ml.sleep(0.001)
          if i < 3 then return i + 1 end
        end
        for x in step, nil, 1 do
          coroutine.yield(x)
        end
      end }
      assert.same({ 1, 2, 3 }, collect(g))
    end)

    it("are what `for` iterates over; it ends at an item whose first value is nil", function()
      local pairs_seen = {}
      for a, b in ml.agen_to_gen(function(n)
        for i = 1, n do
          coroutine.yield(i, i * i)
        end
        coroutine.yield(nil, "not seen")
        coroutine.yield(99)
      end, 3) do
        pairs_seen[a] = b
      end
      assert.same({ 1, 4, 9 }, pairs_seen)
    end)

    it("drop what the function returns", function()
      local g = ex:generator{ function() coroutine.yield(1) return coroutine.running() end }
      assert.same({ 1 }, collect(g))
    end)

    it("that cannot cross raise at the yield, and end the generator with that error", function()
      local g = ex:generator{ function()
        coroutine.yield(1)
        coroutine.yield(2, { f = coroutine.create(print) })
      end }
      assert.same({ true, 1 }, { g:next() })
      local err = h.raised(g.next, g)
      assert.equal("crossing", err.code)
      assert.matches("result 2.f: a coroutine cannot cross", tostring(err))
      assert.is_false(g:next())
    end)

    it("come from a function, a name, a job, a fresh coroutine, a callable", function()
      assert.same({ 1, 2 }, collect(ex:generator{ count, 2 }))
      assert.same({ 1, 2 }, collect(ex:generator{ ml.job{ count, 2 } }))
      assert.same({ 1, 2 }, collect(ex:generator{ coroutine.create(count), 2 }))
      assert.same({ "a", "b" }, collect(ex:generator{ "spec.support.sample:letters", "ab" }))
      assert.same({ 1, 2 }, collect((ml.agen_to_gen(count, 2))))
      local object = setmetatable({ 5, 6 }, { __call = function(self, last)
        for _, item in ipairs(self) do coroutine.yield(item) end
        coroutine.yield(last)
      end })
      assert.same({ 5, 6, 7 }, collect((ml.agen_to_gen(object, 7))))
    end)

    it("keep trailing nils of the arguments", function()
      local g = ex:generator{ function(...) coroutine.yield(select("#", ...)) end, nil, nil, n = 3 }
      assert.same({ true, 2 }, { g:next() })
      local _, n = ml.agen_to_gen(function(...)
        coroutine.yield(select("#", ...))
      end, 1, nil):next()
      assert.equal(2, n)
    end)
  end)

  describe("pulls", function()
    it("alternate strictly with the body: it waits for the first, and at each yield", function()
      local g = ex:generator{ function(log)
        for i = 1, 3 do
          log("make " .. i)
          coroutine.yield(i)
          log("after " .. i)
        end
      end, note }
      assert.is_nil(ex:submit(read_trail):result(h.TIMEOUT))
      g:next()
      trail_is "make 1"
      g:next()
      trail_is "make 1 after 1 make 2"
      g:close()
    end)

    it("with prefetch find n items ready, and no more than n", function()
      local g = ex:generator{ function(log)
        for i = 1, 9 do
          log(tostring(i))
          coroutine.yield(i)
        end
      end, note, prefetch = 4 }
      trail_is "1 2 3 4"
      for i = 1, 4 do
        assert.same({ true, i }, { g:next(0) })
      end
      trail_is "1 2 3 4 5 6 7 8"
      assert.same({ 5, 6, 7, 8, 9 }, collect(g))
    end)

    it("give up at the timeout and lose nothing", function()
      local gate = h.gate()
      local g = ex:generator{ two_items, gate }
      for _, timeout in ipairs{ 0, h.SHORT, 0 } do
        local ok, err = g:next(timeout)
        assert.is_nil(ok)
        assert.equal("timeout", err.code)
        assert.matches("generator's next item", tostring(err))
      end
      gate:open "one"
      assert.same({ true, "one" }, { g:next(h.TIMEOUT) })
      assert.same({ true, "two" }, { g:next(h.TIMEOUT) })
      assert.is_false(g:next(h.TIMEOUT))
    end)

    it("that are cancelled lose nothing", function()
      local gate = h.gate()
      local g = ex:generator{ two_items, gate }
      ml.run(function()
        assert.is_nil((ml.move_on_after(h.SHORT, g.next, g)))
        gate:open "one"
        assert.same({ true, "one" }, { g:next(h.TIMEOUT) })
      end)
      assert.same({ true, "two" }, { g:next(h.TIMEOUT) })
    end)

    it("raise in a second consumer while one waits", function()
      local gate, started = h.gate(), h.gate()
      local g = ex:generator{ function(s, wait)
        s:open()
        coroutine.yield(wait:pass())
      end, started, gate }
      local first = ex:submit(function(generator) return generator:next() end, g)
      started:pass()
      h.misuse("another consumer waits", function() g:next(1) end)
      gate:open "one"
      assert.same({ true, "one" }, { first:result(h.TIMEOUT) })
    end)

    it("from the body itself are misuse", function()
      local handle = h.gate()
      local g = ex:generator{ function(gate)
        local me = gate:pass()
        coroutine.yield(select(2, pcall(me.next, me)), select(2, pcall(me.close, me)))
      end, handle }
      handle:open(g)
      local _, a, b = g:next(h.TIMEOUT)
      assert.matches("cannot pull from itself", a)
      assert.matches("nor close itself", b)
    end)

    it("are refused where Lua cannot wait, without effect", function()
      local g = ex:generator{ count, 2 }
      ml.run(function()
        local ok, err = pcall(table.sort, { 3, 2, 1 }, function() g:next() return false end)
        assert.is_false(ok)
        assert.matches("table.sort", err)
      end)
      assert.same({ 1, 2 }, collect(g))
    end)
  end)

  describe("consumers", function()
    it("may be jobs of the same loop", function()
      assert.same({ 1, 2, 3 }, ex:submit(function(f, body)
        return f(ml.get_event_loop() and ml.generator{ body, 3 })
      end, collect, count):result(h.TIMEOUT))
      local g = ex:generator{ count, 3 }
      assert.same({ 1, 2, 3 }, ex:submit(collect, g):result(h.TIMEOUT))
    end)

    it("may be jobs of other loops, threads, and jobs of `run`", function()
      local other <close> = ml.AsyncExecutor{ name = "other" }
      local pool <close> = ml.ThreadExecutor{ workers = 1 }
      for _, prefetch in ipairs{ 0, 1, 8 } do
        local function make() return ex:generator{ count, 20, prefetch = prefetch } end
        assert.equal(20, #other:submit(collect, make()):result(h.TIMEOUT))
        assert.equal(20, #pool:submit(collect, make()):result(h.TIMEOUT))
        assert.equal(20, #ml.run(collect, make()))
      end
    end)

    it("may hand it on in the middle; handles of one generator are equal", function()
      local g = ex:generator{ count, 4 }
      assert.same({ true, 1 }, { g:next() })
      local back, ok, item = ex:submit(function(x) return x, x:next() end, g):result(h.TIMEOUT)
      assert.is_true(back == g and ok)
      assert.equal(2, item)
      assert.same({ 3, 4 }, collect(g))
    end)

    it("and bodies let other jobs run, though items are always ready", function()
      local g = ex:generator{ function(log)
        ml.spawn(log, "body")
        for i = 1, 1000 do
          if i == 999 then log "999" end
          coroutine.yield(i)
        end
      end, note, prefetch = 2000 }
      trail_is "body 999"
      ex:submit(function(x, log)
        ml.spawn(log, "consumer")
        for i in x do
          if i == 999 then log "999" end
        end
      end, g, note):result(h.TIMEOUT)
      trail_is "body 999 consumer 999"
    end)

    it("may be many, of many generators, on two loops", function()
      local two <close> = ml.AsyncExecutor{ name = "two", loops = 2 }
      local futures = {}
      for i = 1, 40 do
        local g = two:generator{ function(n)
          for k = 1, n do
            if k % 7 == 0 then ml.sleep(0.0005) end
            coroutine.yield(k)
          end
        end, 30, prefetch = i % 4 }
        futures[i] = two:submit(collect, g)
      end
      for _, future in ipairs(futures) do
        assert.equal(30, #future:result(h.TIMEOUT))
      end
    end)
  end)

  describe("send", function()
    it("gives the yield its values, and the next item", function()
      local g = ex:generator{ function()
        local got = table.pack(coroutine.yield "ready")
        while got.n > 0 do
          got = table.pack(coroutine.yield(got.n, got[1]))
        end
      end }
      assert.same({ true, "ready" }, { g:send(nil) })
      assert.same({ true, 1, "a" }, { g:send "a" })
      assert.same({ n = 3, true, 2, nil }, table.pack(g:send(nil, "b")))
      assert.same({ false }, { g:next() })
      assert.same({ false }, { g:send "late" })
    end)

    it("refuses what no yield would receive", function()
      local gate = h.gate()
      local g = ex:generator{ function(wait) coroutine.yield(wait:pass()) end, gate }
      h.misuse("begin with next", function() g:send(1) end)
      assert.is_nil((g:next(0)))
      h.misuse("take its item with next", function() g:send(1) end)
      gate:open "one"
      assert.same({ true, "one" }, { g:next(h.TIMEOUT) })
      local err = h.raised(g.send, g, coroutine.create(print))
      assert.matches("argument 1: a coroutine cannot cross", tostring(err))
      local ahead <close> = ex:generator{ count, 1, prefetch = 1 }
      h.misuse("runs ahead", function() ahead:send(1) end)
      h.misuse("runs ahead", function() ahead:throw(1) end)
    end)
  end)

  describe("throw", function()
    it("raises at the yield; caught, it gives the next item", function()
      local g = ex:generator{ function()
        local ok, err = pcall(coroutine.yield, 1)
        coroutine.yield(ok, err)
      end }
      g:next()
      assert.same({ true, false, { why = "thrown" } }, { g:throw{ why = "thrown" } })
      assert.is_false(g:next())
    end)

    it("not caught comes back, once, and ends it", function()
      local g = ex:generator{ count, 3 }
      g:next()
      assert.equal("thrown", h.raised(g.throw, g, "thrown"))
      assert.is_false(g:next())
      assert.equal("again", h.raised(g.throw, g, "again"))
    end)

    it("before the first pull ends it before it begins", function()
      local g = ex:generator{ function(log) log "began" end, note }
      assert.equal("early", h.raised(g.throw, g, "early"))
      assert.is_nil(ex:submit(read_trail):result(h.TIMEOUT))
      local other = ex:generator{ count, 1 }
      assert.equal("nil_error", h.raised(other.throw, other).code)
    end)
  end)

  describe("errors", function()
    it("come after the items, once", function()
      for _, prefetch in ipairs{ 0, 8 } do
        local g = ex:generator{ function()
          count(2)
          error({ n = 3 }, 0)
        end, prefetch = prefetch }
        assert.same({ true, 1 }, { g:next() })
        assert.same({ true, 2 }, { g:next() })
        assert.same({ n = 3 }, h.raised(g.next, g))
        assert.same({ false }, { g:next() })
        assert.is_true(g:close())
      end
    end)

    it("may be any value, and have a traceback", function()
      local g = ex:generator{ function() error(false, 0) end }
      assert.is_false(h.raised(g))
      local deep = ex:generator{ function()
        local function level() error "down here" end
        level()
      end, name = "digger" }
      local outer = ex:submit(function(x) x:next() end, deep)
      assert.matches("down here", tostring(outer:exception(h.TIMEOUT)))
      assert.matches("level", outer:traceback())
      assert.matches("job 'digger'", outer:traceback())
    end)

    it("nobody asked for are reported once", function()
      local log = h.error_log()
      do
        local g = ex:generator{ function()
          coroutine.yield(1)
          error("unasked", 0)
        end, prefetch = 4 }
        g:next()
        h.eventually(function() return ex:stats().failed == 1 end)
        g = nil -- luacheck: ignore
      end
      collectgarbage()
      collectgarbage()
      assert.equal("unasked", (log:entry(1)))
      assert.equal(1, log:count())
    end)

    it("of misuse say so", function()
      local open <close> = ml.generator{ count }
      h.misuse("bad argument: a number of seconds must not be", function() open:close(-1) end)
      h.misuse("bad argument: number of seconds expected", function() open:close "1" end)
      h.misuse("bad argument: generator expected, got nil", function() open.close() end)
      h.misuse("'next' %(.*must not be negative", function() open:next(-1) end)
      h.misuse("'next' %(generator expected, got number", function() open.next(1) end)
      local pool <close> = ml.ThreadExecutor{ workers = 1 }
      h.misuse("table expected, got function", function() ml.generator(count) end)
      h.misuse("unknown option 'prefech'", function() ml.generator{ count, prefech = 2 } end)
      for _, wrong in ipairs{ -1, 1.5, "4", 0 / 0 } do
        h.misuse("option 'prefetch': count expected", function()
          ml.generator{ count, prefetch = wrong }
        end)
      end
      h.misuse("at most", function() ml.generator{ count, prefetch = 1 << 40 } end)
      h.misuse("job expected", function() ml.generator{} end)
      h.misuse("job expected", function() ml.agen_to_gen(7) end)
      h.misuse("has no loop", function() ex.generator(pool, { count }) end)
      h.misuse("executor expected", function() ex.generator({}, { count }) end)
      assert.matches("argument 2: a coroutine cannot cross",
        tostring(h.raised(ex.generator, ex, { count, 1, coroutine.create(print) })))
      local g <close> = ex:generator{ count }
      assert.matches("negative", h.raised(g.next, g, -1))
      assert.matches("NaN", h.raised(g.close, g, 0 / 0))
    end)

    it("of a raw yield are for jobs that are no generators", function()
      assert.matches("no generator", ex:submit(coroutine.yield, 1):exception(h.TIMEOUT))
      local g = ex:generator{ function()
        table.sort({ 3, 2, 1 }, function() coroutine.yield(1) end)
      end }
      assert.matches("table.sort", h.raised(g.next, g))
    end)
  end)

  describe("close", function()
    -- Notes what becomes of a body that waits as `how` says.
    local function careful(log, how, clean)
      local _ <close> = at_exit(function(err)
        log(ml.is_cancelled(err) and "cancelled" or tostring(err))
        if clean then clean() end
        log "cleaned"
      end)
      how()
      log "not reached"
    end

    local function slowly()
      ml.shield(ml.sleep, h.SHORT)
    end

    it("raises at the yield and waits for the clean-up", function()
      local g = ex:generator{ careful, note, coroutine.yield, slowly }
      g:next()
      assert.is_true(g:close())
      assert.equal("cancelled cleaned", ex:submit(read_trail):result(h.TIMEOUT))
      assert.is_true(g:close())
      assert.is_false(g:next())
    end)

    it("raises at a wait, also while a pull is pending", function()
      local started = h.gate()
      local g = ex:generator{ careful, note, function() started:open() ml.sleep(60) end }
      assert.is_nil((g:next(0)))
      started:pass()
      assert.is_true(g:close(h.TIMEOUT))
      assert.equal("cancelled cleaned", ex:submit(read_trail):result(h.TIMEOUT))
      assert.is_false(g:next())
    end)

    it("before the first pull: the body never runs", function()
      local g = ex:generator{ careful, note, coroutine.yield }
      assert.is_true(g:close())
      assert.is_nil(ex:submit(read_trail):result(h.TIMEOUT))
      assert.is_false(g:next())
    end)

    it("ends the pull of another consumer", function()
      local started = h.gate()
      local g = ex:generator{ function(s) s:open() ml.sleep(60) end, started }
      local pull = ex:submit(function(x) return x:next() end, g)
      started:pass()
      assert.is_true(g:close(h.TIMEOUT))
      assert.is_false(pull:result(h.TIMEOUT))
    end)

    it("drops the items that are ready", function()
      local g = ex:generator{ count, 100, prefetch = 10 }
      g:next()
      assert.is_true(g:close())
      assert.is_false(g:next())
    end)

    it("raises the clean-up's error, once", function()
      local g = ex:generator{ careful, note, coroutine.yield, function()
        error("clean-up failed", 0)
      end }
      g:next()
      assert.equal("clean-up failed", h.raised(g.close, g))
      assert.is_true(g:close())
      assert.is_false(g:next())
    end)

    it("raises when the body goes on yielding, which is stopped for good", function()
      local g = ex:generator{ function(log)
        local _ <close> = at_exit(function() log "closed" end)
        while true do
          pcall(coroutine.yield, 1)
        end
      end, note }
      g:next()
      assert.matches("generator ignored close", h.raised(g.close, g))
      assert.is_true(g:close())
      assert.is_false(g:next())
      trail_is "closed"
    end)

    it("gives up at its timeout; the clean-up goes on, and may be waited for again", function()
      local gate = h.gate()
      local g = ex:generator{ function(wait)
        local _ <close> = ml.defer(function() wait:pass() end)
        coroutine.yield(1)
      end, gate }
      g:next()
      local ok, err = g:close(h.SHORT)
      assert.is_nil(ok)
      assert.equal("timeout", err.code)
      assert.matches("clean%-up", tostring(err))
      assert.matches("closing", tostring(g))
      gate:open()
      assert.is_true(g:close(h.TIMEOUT))
      assert.matches("ended", tostring(g))
    end)

    it("lets clean-up catch the failure of a child job", function()
      local g = ex:generator{ function(log)
        local _ <close> = ml.defer(function()
          local ok, err = pcall(function() return ml.spawn(error, "child", 0):result() end)
          log(tostring(ok) .. " " .. tostring(err))
        end)
        coroutine.yield(1)
      end, note }
      g:next()
      g:close()
      assert.equal("false child", ex:submit(read_trail):result(h.TIMEOUT))
    end)

    it("happens as a <close> variable is left: break, error, cancel", function()
      for _, leave in ipairs{
        function(g)
          for item in g do
            if item then break end
          end
        end,
        function(g) g:next() error "left" end,
        function(g) g:next() ml.move_on_after(h.SHORT, ml.sleep, 60) end,
      } do
        pcall(function()
          local g <close> = ex:generator{ careful, note, coroutine.yield }
          leave(g)
        end)
      end
      assert.equal("cancelled cleaned cancelled cleaned cancelled cleaned",
        ex:submit(read_trail):result(h.TIMEOUT))
    end)

    it("waits for the clean-up in a job that is being cancelled", function()
      local started = h.gate()
      local other <close> = ml.AsyncExecutor{ name = "other" }
      local g = ex:generator{ careful, note, coroutine.yield, slowly }
      local job = other:submit(function(x, s)
        local _ <close> = x
        x:next()
        s:open()
        ml.sleep(60)
      end, g, started)
      started:pass()
      job:cancel_and_wait(h.TIMEOUT)
      assert.is_true(job:cancelled())
      assert.equal("cancelled cleaned", ex:submit(read_trail):result(h.TIMEOUT))
    end)

    it("happens by itself as the handle is collected, once", function()
      local g = ex:generator{ careful, note, coroutine.yield }
      g:next()
      g = nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      trail_is "cancelled cleaned"
      assert.equal(0, ex:stats().parked)
    end)
  end)

  describe("scopes within the body", function()
    it("lose no throw for a yield that was left", function()
      local gate = h.gate()
      local g = ex:generator{ function(short, wait)
        ml.move_on_after(short, coroutine.yield, 1)
        wait:pass()
        coroutine.yield(2)
      end, h.SHORT, gate }
      assert.same({ true, 1 }, { g:next() })
      ml.sleep(3 * h.SHORT)
      ex:submit(function(open) ml.sleep(0.01) open:open() end, gate)
      assert.equal("thrown", h.raised(g.throw, g, "thrown"))
      assert.is_false(g:next())
    end)

    it("may end a yield; the next one answers the next pull", function()
      local g = ex:generator{ function(short)
        ml.move_on_after(short, coroutine.yield, 1)
        coroutine.yield(2)
        coroutine.yield(3)
      end, h.SHORT }
      assert.same({ true, 1 }, { g:next() })
      ml.sleep(3 * h.SHORT)
      assert.same({ true, 2 }, { g:next() })
      assert.same({ true, 3 }, { g:next() })
      assert.is_false(g:next())
    end)
  end)

  describe("shutdown", function()
    local function tidy(gate)
      local _ <close> = at_exit(function() gate:open() end)
      count(100)
    end

    it("ends the generators that are left open", function()
      local own = ml.AsyncExecutor{ name = "own" }
      local gates, kept = {}, {}
      for i = 1, 2 do
        gates[i] = h.gate()
        kept[i] = own:generator{ tidy, gates[i] }
        kept[i]:next()
      end
      kept[3] = own:generator{ count }
      h.close(own)
      assert.is_true(gates[1]:is_open() and gates[2]:is_open())
      local err = h.raised(kept[1].next, kept[1])
      assert.equal("job_cancelled", err.code)
      assert.is_false(kept[1]:next())
      assert.equal("closed", h.raised(own.generator, own, { count }).code)
    end)

    it("lets the executor's own jobs finish with theirs, on each loop", function()
      local own = ml.AsyncExecutor{ name = "own", loops = 2 }
      local started, futures = h.gate(), {}
      for i = 1, 4 do
        futures[i] = own:submit(function(g, s, first)
          if first then s:open() end
          local n = 0
          for _ in g do
            ml.sleep(0.005)
            n = n + 1
          end
          return n
        end, own:generator{ count, 10 }, started, i == 1)
      end
      started:pass()
      local left_open = own:generator{ count, 10 }
      left_open:next()
      h.close(own)
      for _, future in ipairs(futures) do
        assert.equal(10, future:result(0))
      end
    end)

    it("reports a clean-up that fails, once, and goes on", function()
      local log = h.error_log()
      local own = ml.AsyncExecutor{ name = "own" }
      local g = own:generator{ function()
        local _ <close> = at_exit(function() error("tidy", 0) end)
        coroutine.yield(1)
      end }
      g:next()
      h.close(own)
      g = nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      assert.equal("tidy", (log:entry(1)))
      assert.equal(1, log:count())
    end)

    it("with cancel ends one in the middle of an item; the pull says so", function()
      local own, started = ml.AsyncExecutor{ name = "own" }, h.gate()
      local g = own:generator{ function(s) s:open() ml.sleep(60) end, started }
      local pull = ex:submit(function(x) return x:next() end, g)
      started:pass()
      assert.is_true(own:shutdown{ cancel = true, timeout = h.TIMEOUT })
      assert.equal("job_cancelled", pull:exception(h.TIMEOUT).code)
    end)
  end)

  it("takes a place of max_pending while it lives", function()
    local own <close> = ml.AsyncExecutor{ name = "own", max_pending = 1 }
    local g = own:generator{ count, 1 }
    assert.equal("busy", select(2, own:try_submit(print)).code)
    assert.same({ 1 }, collect(g))
    assert.is_true(own:submit(function() return true end):result(h.TIMEOUT))
  end)

  it("is seen in jobs(), waiting for its pull", function()
    local g <close> = ex:generator{ count, 1, name = "numbers" }
    h.eventually(function()
      local job = ex:jobs()[1]
      return job and job.name == "numbers" and job.waits_for == "pull"
    end)
    assert.matches("^generator: .*open", tostring(g))
  end)
end)
