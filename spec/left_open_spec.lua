-- Generators that are left open: the end of what made them closes them.

local ml = require "moonloop"
local h = require "spec.support.helpers"

-- A body that opens `started`, and `cleaned` when its slow clean-up is done.
local function careful(cleaned)
  local _ <close> = ml.defer(function()
    ml.sleep(0.005)
    cleaned:open()
  end)
  for i = 1, math.huge do coroutine.yield(i) end
end

-- A body whose clean-up fails.
local function clumsy(text)
  local _ <close> = ml.defer(function() error(text, 0) end)
  coroutine.yield(1)
end

describe("a generator left open", function()
  local ex, other, pool

  before_each(function()
    ex = ml.AsyncExecutor{ name = "generators" }
    other = ml.AsyncExecutor{ name = "other" }
    pool = ml.ThreadExecutor{ name = "pool", workers = 1 }
  end)

  after_each(function()
    kept = nil -- luacheck: ignore kept
    ml.on_error(nil)
    h.close(pool)
    h.close(other)
    h.close(ex)
  end)

  -- Makes a generator and takes its first item; what it returns is the handle.
  local function open(executor, body, ...)
    local g = executor:generator{ body, ... }
    g:next(h.TIMEOUT)
    return g
  end

  -- Makes one, and keeps its handle where no one looks.
  local function leave(executor, body, make, ...)
    kept = { make(executor, body, ...), kept } -- luacheck: ignore kept
    return "done"
  end

  describe("by a job", function()
    it("is closed before its future settles", function()
      local gates = {}
      for i = 1, 3 do gates[i] = h.gate() end
      assert.equal("done", ml.run(leave, ex, careful, open, gates[1]))
      assert.is_true(gates[1]:is_open())
      ml.run(function()
        assert.equal("done", ml.spawn(leave, ex, careful, open, gates[2]):result(h.TIMEOUT))
        assert.is_true(gates[2]:is_open())
      end)
      assert.equal("done", other:submit(leave, ex, careful, open, gates[3]):result(h.TIMEOUT))
      assert.is_true(gates[3]:is_open())
    end)

    it("is closed as a worker's task ends", function()
      for round = 1, 2 do
        local cleaned = h.gate()
        local future = pool:submit(function(f, fails, ...)
          f(...)
          if fails then error("failed", 0) end
          return "done"
        end, leave, round == 2, ex, careful, open, cleaned)
        assert.equal(round == 2 and "failed" or nil, future:exception(h.TIMEOUT))
        assert.is_true(cleaned:is_open())
      end
    end)

    it("is closed when it fails, and when it is cancelled", function()
      local failed, cancelled = h.gate(), h.gate()
      ml.run(function()
        local future = ml.spawn(function()
          leave(ex, careful, open, failed)
          error("failed", 0)
        end)
        assert.equal("failed", future:exception(h.TIMEOUT))
        assert.is_true(failed:is_open())
        local started = h.gate()
        future = ml.spawn(function()
          leave(ex, careful, open, cancelled)
          started:open()
          ml.sleep(60)
        end)
        started:pass()
        future:cancel_and_wait(h.TIMEOUT)
        assert.is_true(future:cancelled())
        assert.is_true(cancelled:is_open())
      end)
    end)

    it("is closed with all others, which are told at once", function()
      local n, all = 40, ml.Semaphore(0)
      local began = ml.now()
      ml.run(function()
        for i = 1, n do
          leave(ex, function(done)
            local _ <close> = ml.defer(function()
              ml.sleep(0.05)
              done:release()
            end)
            coroutine.yield(i)
          end, open, all)
        end
      end)
      assert.equal(n, all:value())
      assert.is_true(ml.now() - began < 40 * 0.05)
    end)

    it("is closed by a generator's body that made it", function()
      local cleaned = h.gate()
      local g = other:generator{ function(f, ...)
        f(...)
        coroutine.yield(1)
      end, leave, ex, careful, open, cleaned }
      g:next(h.TIMEOUT)
      assert.is_false(cleaned:is_open())
      assert.is_true(g:close(h.TIMEOUT))
      assert.is_true(cleaned:is_open())
    end)

    it("that was stopped for good is told to end", function()
      local cleaned, started = h.gate(), h.gate()
      ml.run(function()
        local job = ml.spawn(function()
          leave(ex, careful, open, cleaned)
          started:open()
          while true do pcall(ml.sleep, 60) end
        end)
        started:pass()
        job:cancel_and_wait(h.TIMEOUT)
        assert.is_true(job:cancelled())
      end)
      cleaned:pass()
    end)

    it("needs nothing when it has ended or was closed", function()
      local cleaned = h.gate()
      assert.equal(3, ml.run(function()
        local n = 0
        for _ in ex:generator{ function() for i = 1, 3 do coroutine.yield(i) end end } do
          n = n + 1
        end
        local g = open(ex, careful, cleaned)
        g:close()
        return n
      end))
      assert.is_true(cleaned:is_open())
    end)

    it("and collected before its end is closed then", function()
      local cleaned = h.gate()
      ml.run(function()
        open(ex, careful, cleaned)
        h.eventually(function()
          h.collect()
          return cleaned:is_open()
        end)
      end)
    end)
  end)

  describe("is kept", function()
    local function keeps(get, run, ...)
      local cleaned = h.gate()
      local value = run(...)(cleaned)
      local g = get(value)
      assert.is_false(cleaned:is_open())
      assert.same({ true, 2 }, { g:next(h.TIMEOUT) })
      assert.is_true(g:close(h.TIMEOUT))
      assert.is_true(cleaned:is_open())
    end

    local shapes = {
      { function(g) return g end, function(v) return v end },
      { function(g) return { deep = { { g } } } end, function(v) return v.deep[1][1] end },
      { function(g) return function() return g end end, function(v) return v() end },
      { function(g) return setmetatable({}, { __index = { g = g } }) end,
        function(v) return v.g end },
    }

    it("where its job returns it, however deep", function()
      for _, shape in ipairs(shapes) do
        local wrap, get = shape[1], shape[2]
        keeps(get, function()
          return function(cleaned)
            return ml.run(function() return wrap(open(ex, careful, cleaned)) end)
          end
        end)
        keeps(get, function()
          return function(cleaned)
            return other:submit(function(f, w, ...) return w(f(...)) end, open, wrap, ex,
              careful, cleaned):result(h.TIMEOUT)
          end
        end)
        keeps(get, function()
          return function(cleaned)
            return pool:submit(function(f, w, ...) return w(f(...)) end, open, wrap, ex,
              careful, cleaned):result(h.TIMEOUT)
          end
        end)
        keeps(get, function()
          return function(cleaned)
            return ml.timeout(h.TIMEOUT, function() return wrap(open(ex, careful, cleaned)) end)
          end
        end)
      end
    end)

    it("where its job raises it", function()
      keeps(function(err) return err.generator end, function()
        return function(cleaned)
          return select(2, pcall(ml.run, function()
            error{ generator = open(ex, careful, cleaned) }
          end))
        end
      end)
    end)

    it("where it went to another state", function()
      local cleaned, items, go = h.gate(), ml.Queue(), h.gate()
      local reader = pool:submit(function(queue, gate)
        local g = queue:get(15)
        gate:pass()
        return g:next(15)
      end, items, go)
      ml.run(function() items:put(open(ex, careful, cleaned)) end)
      go:open()
      assert.is_true(reader:result(h.TIMEOUT))
      assert.is_false(cleaned:is_open())
      pool:submit(collectgarbage):result(h.TIMEOUT)
      ml.poll() -- the queue lets go of the handle that went in here
      h.collect()
      cleaned:pass()
    end)

    it("where an init made it for its state", function()
      local cleaned = h.gate()
      local own <close> = ml.AsyncExecutor{ name = "own", init = ml.job{ leave, ex, careful, open,
        cleaned } }
      assert.equal(2, own:submit(function()
        return select(2, kept[1]:next(15)) -- luacheck: ignore kept
      end):result(h.TIMEOUT))
      assert.is_false(cleaned:is_open())
      local one <close> = ml.ThreadExecutor{ workers = 1, init = ml.job{ leave, ex, careful, open,
        h.gate() } }
      for i = 2, 3 do
        assert.equal(i, one:submit(function()
          return select(2, kept[1]:next(15)) -- luacheck: ignore kept
        end):result(h.TIMEOUT))
      end
    end)

    it("outside of jobs and blocks, for as long as its handle", function()
      local cleaned = h.gate()
      do
        local g = open(ex, careful, cleaned)
        ml.run(function() assert.same({ true, 2 }, { g:next() }) end)
        assert.same({ true, 3 }, { g:next() })
      end
      h.collect()
      cleaned:pass()
    end)
  end)

  describe("by a block", function()
    local blocks = {
      scope = function(f) return ml.scope(f) end,
      timeout = function(f) return ml.timeout(h.TIMEOUT, f) end,
      move_on_after = function(f) return ml.move_on_after(h.TIMEOUT, f) end,
      group = function(f) return ml.group(f) end,
    }

    it("is closed with it, in jobs and outside", function()
      for name, block in pairs(blocks) do
        for _, where in ipairs{ function(f) return f() end, ml.run } do
          where(function()
            local cleaned = h.gate()
            assert.equal("done", block(function() return leave(ex, careful, open, cleaned) end))
            assert.is_true(cleaned:is_open(), name)
            cleaned = h.gate()
            assert.equal("failed", h.raised(block, function()
              leave(ex, careful, open, cleaned)
              error("failed", 0)
            end))
            assert.is_true(cleaned:is_open(), name)
          end)
        end
      end
    end)

    it("is closed when the block's time is over", function()
      local cleaned = h.gate()
      ml.run(function()
        local ok, err = ml.scope(function(scope)
          leave(ex, careful, open, cleaned)
          scope:set_deadline(ml.now())
          ml.sleep(60)
        end)
        assert.is_nil(ok)
        assert.is_true(ml.is_timeout(err))
        assert.is_true(cleaned:is_open())
      end)
    end)

    it("that returns it goes on to the block around it, or to the job", function()
      local cleaned = h.gate()
      ml.run(function()
        ml.scope(function()
          local g = ml.timeout(h.TIMEOUT, open, ex, careful, cleaned)
          assert.same({ true, 2 }, { g:next() })
        end)
        assert.is_true(cleaned:is_open())
        cleaned = h.gate()
        ml.spawn(function()
          local g = ml.group(function() return open(ex, careful, cleaned) end)
          assert.same({ true, 2 }, { g:next() })
        end):result(h.TIMEOUT)
        assert.is_true(cleaned:is_open())
      end)
    end)

    it("is not the block's that only passes it on", function()
      ml.run(function()
        local cleaned = h.gate()
        local g = open(ex, careful, cleaned)
        ml.scope(function()
          ml.scope(function() return g end)
          ml.spawn(function() return g end):result(h.TIMEOUT)
        end)
        assert.same({ true, 2 }, { g:next() })
        ml.spawn(function() return g end):result(h.TIMEOUT)
        assert.same({ true, 3 }, { g:next() })
      end)
    end)

    it("is closed after the group's children", function()
      ml.run(function()
        local cleaned, items = h.gate(), {}
        ml.group(function(group)
          local g = open(ex, careful, cleaned)
          group:spawn(function()
            for i = 1, 3 do
              ml.sleep(0.001)
              items[i] = select(2, g:next(h.TIMEOUT))
            end
            assert.is_false(cleaned:is_open())
          end)
        end)
        assert.is_true(cleaned:is_open())
        assert.same({ 2, 3, 4 }, items)
      end)
    end)

    it("that is a shield only is not closed", function()
      ml.run(function()
        local cleaned = h.gate()
        local g
        ml.shield(function() g = open(ex, careful, cleaned) end)
        assert.same({ true, 2 }, { g:next(h.TIMEOUT) })
      end)
    end)
  end)

  describe("whose clean-up fails", function()
    it("fails the job that left it, or that was cancelled", function()
      ml.run(function()
        local future = ml.spawn(leave, ex, clumsy, open, "oops")
        assert.equal("oops", future:exception(h.TIMEOUT))
        assert.matches("left_open_spec.lua:%d+", future:traceback())
        assert.matches("awaited by job", future:traceback())
        local started = h.gate()
        future = ml.spawn(function()
          leave(ex, clumsy, open, "oops")
          started:open()
          ml.sleep(60)
        end)
        started:pass()
        future:cancel()
        assert.equal("oops", future:exception(h.TIMEOUT))
      end)
      for _, executor in ipairs{ other, pool } do
        assert.equal("oops",
          executor:submit(leave, ex, clumsy, open, "oops"):exception(h.TIMEOUT))
        local started = h.gate()
        local future = executor:submit(function(f, s, ...)
          f(...)
          s:open()
          ml.sleep(60)
        end, leave, started, ex, clumsy, open, "oops")
        started:pass()
        future:cancel()
        assert.equal("oops", future:exception(h.TIMEOUT))
      end
    end)

    it("fails the block that left it", function()
      ml.run(function()
        assert.equal("oops", h.raised(ml.scope, function()
          return leave(ex, clumsy, open, "oops")
        end))
        assert.equal("oops", h.raised(ml.group, function()
          return leave(ex, clumsy, open, "oops")
        end))
        assert.equal("oops", h.raised(ml.scope, function(s)
          leave(ex, clumsy, open, "oops")
          s:cancel()
          ml.sleep(60)
        end))
      end)
    end)

    it("is reported where another error is raised, and only there", function()
      local log = h.error_log()
      ml.run(function()
        assert.equal("mine", ml.spawn(function()
          leave(ex, clumsy, open, "oops")
          error("mine", 0)
        end):exception(h.TIMEOUT))
        assert.equal("mine", h.raised(ml.timeout, h.TIMEOUT, function()
          leave(ex, clumsy, open, "oops")
          error("mine", 0)
        end))
        assert.equal("second", ml.spawn(function()
          for _, text in ipairs{ "first", "second" } do leave(ex, clumsy, open, text) end
        end):exception(h.TIMEOUT))
      end)
      for i, text in ipairs{ "oops", "oops", "first" } do
        local err, info = log:entry(i)
        assert.equal(text, err)
        assert.equal("generator", info.kind)
        assert.matches("spec/left_open_spec.lua:%d+$", info.submitted_at)
        assert.matches("left_open_spec.lua:%d+", info.traceback)
      end
      h.collect()
      assert.equal(3, log:count())
    end)
  end)

  describe("closed by hand", function()
    it("is waited for though its owner is being cancelled", function()
      for _, before in ipairs{ true, false } do
        local cleaned, started = h.gate(), h.gate()
        local job, has_begun, result
        ml.run(function()
          job = ml.spawn(function()
            local g = open(ex, function(gate, s)
              local _ <close> = ml.defer(function()
                s:open()
                ml.sleep(0.01)
                gate:open()
              end)
              coroutine.yield(1)
            end, cleaned, started)
            has_begun = true
            if before then pcall(ml.sleep, 60) end
            result = { g:close() }
            assert(cleaned:is_open())
            ml.sleep(60)
          end)
          if not before then
            started:pass() -- it waits for the clean-up
          else
            h.eventually(function() return has_begun end)
          end
          job:cancel_and_wait(h.TIMEOUT)
        end)
        assert.same({ true }, result)
        assert.is_true(job:cancelled())
      end
    end)
  end)

  it("is waited for 5 s at most", function()
    local gate, closing = h.gate(), {}
    local function slow(wait)
      local _ <close> = setmetatable({}, { __close = function() ml.shield(wait.pass, wait) end })
      coroutine.yield(1)
    end
    ml.run(function()
      local began = ml.now()
      closing[1] = ml.spawn(leave, ex, slow, open, gate) -- at the end of a job
      closing[2] = ml.spawn(function() -- at the end of its block
        local _ <close> = open(ex, slow, gate)
      end)
      closing[3] = ml.spawn(ml.scope, function() leave(ex, slow, open, gate) end) -- of a block
      for _, future in ipairs(closing) do
        local err = future:exception(h.TIMEOUT)
        assert.is_true(ml.is_timeout(err), tostring(err))
        assert.matches("generator's clean%-up", tostring(err))
      end
      local took = ml.now() - began
      assert.is_true(took > 4.9 and took < 10, took)
      gate:open()
    end)
  end)
end)
