-- testing.clock: time that a test makes pass.

local http = require "moonloop.http"
local ml = require "moonloop"
local testing = require "moonloop.testing"
local h = require "spec.support.helpers"

local HOUR <const> = 3600

-- These end with the test, and with what runs in them: that may sleep for hours.
local function end_with_test(...)
  local executors = { ... }
  finally(function()
    for _, executor in ipairs(executors) do
      executor:shutdown{ cancel = true, timeout = h.TIMEOUT }
    end
  end)
end

-- Each in a job, and in a sync state with the default executor behind it.
for where, around in pairs{ ["in a job"] = ml.run, ["in a thread"] = function(f) f() end } do
  describe("a clock " .. where, function()
    -- Runs f(clock) there.
    local function with(f, options)
      around(function()
        local clock <close> = testing.clock(options)
        f(clock)
      end)
    end

    it("lets hours pass at once, to a tenth of a millisecond", function()
      with(function(clock)
        local began = ml.now()
        for _ = 1, 100 do ml.sleep(HOUR) end
        assert.equal(100 * HOUR, clock:now())
        assert.equal(100 * HOUR, ml.now() - began)
        ml.sleep(0.1)
        ml.sleep(1e-6)
        assert.near(100 * HOUR + 0.1001, clock:now(), 1e-6)
        assert.equal("test clock (at 360000.1001 s)", tostring(clock))
      end)
    end)

    it("wakes in the order of the deadlines, those of one time as they were made", function()
      with(function()
        local woken = ml.run_async_job(function()
          local m = require "moonloop"
          local names, jobs = {}, {}
          for i, seconds in ipairs { 50, 10, HOUR, 10, 20, HOUR, 10, 50.0001, 0.5 } do
            jobs[i] = m.spawn(function()
              m.sleep(seconds)
              names[#names + 1] = i
            end)
          end
          m.gather(jobs)
          return table.concat(names, " ")
        end)
        assert.equal("9 2 4 7 5 1 8 3 6", woken:result())
      end)
    end)

    it("keeps the order of thousands", function()
      with(function(clock)
        local ok = ml.run_async_job(function()
          local m = require "moonloop"
          local last, jobs = 0, {}
          for i = 1, 3000 do
            local seconds = (i * 7919) % 3001 * 10
            jobs[i] = m.spawn(function()
              m.sleep(seconds)
              assert(seconds >= last, "out of order")
              last = seconds
            end)
          end
          m.gather(jobs)
          return last
        end)
        assert.equal(30000, ok:result())
        assert.equal(30000, clock:now())
      end)
    end)

    it("ends waits at their deadlines, the nearest of those around first", function()
      with(function(clock)
        local function at(time, code, ok, err)
          assert.equal(time, clock:now())
          assert.falsy(ok)
          if code then assert.equal(code, err.code) end
        end
        local promise = ml.promise() -- that is never kept
        local never = promise.future
        at(10, "timeout", never:wait(10))
        at(30, "timeout", pcall(never.result, never, 20))
        at(35, "timeout", ml.Queue():get(5))
        at(40, "timeout", ml.Event():wait(5))
        at(45, "timeout", ml.Channel():receive(5))
        at(50, "timeout", ml.select{ { ml.Channel(), "receive" }, timeout = 5 })
        local sem = ml.Semaphore(0)
        at(55, "timeout", sem:acquire(5))
        at(60, "timeout", pcall(ml.timeout, 5, ml.sleep, HOUR))
        at(67, "timeout", ml.move_on_after(7, function()
          return ml.move_on_after(8, ml.move_on_after, HOUR, never.wait, never)
        end))
        ml.move_on_after(20, function()
          at(77, "timeout", ml.move_on_after(10, never.wait, never))
          ml.sleep(HOUR)
        end)
        assert.equal(87, clock:now())
        ml.scope(function(scope)
          scope:set_deadline(ml.now() + 3)
          never:wait()
        end)
        assert.equal(90, clock:now())
        local f = ml.run_async_job(ml.job{ ml.sleep, HOUR, timeout = 10 })
        at(100, "timeout", f:wait())
        assert.is_nil(ml.wait({ never }, { timeout = 5 })[1])
        assert.equal(105, clock:now())
        ml.poll(5)
        assert.equal(110, clock:now())
        promise:set_result()
      end)
    end)

    it("ends no wait early", function()
      with(function(clock)
        local f = ml.run_async_job(function()
          require "moonloop".sleep(HOUR)
          return "slept"
        end)
        assert.equal("slept", f:result(HOUR + 1))
        assert.equal(HOUR, clock:now())
        assert.equal("timeout", h.raised(ml.timeout, 0, ml.sleep, 1).code)
        assert.equal(HOUR, clock:now())
      end)
    end)

    it("is cancelled like any other time", function()
      with(function(clock)
        local f = ml.run_async_job(ml.sleep, HOUR)
        ml.sleep(60)
        assert.is_false(f:done())
        f:cancel_and_wait()
        assert.is_true(f:cancelled())
        assert.equal(60, clock:now())
        ml.sleep(HOUR)
        assert.equal(HOUR + 60, clock:now())
      end)
    end)

    it("moves two loops and a pool together", function()
      local ex, pool = ml.AsyncExecutor{ loops = 2 }, ml.ThreadExecutor{ workers = 2 }
      end_with_test(ex, pool)
      local function sleep(seconds)
        local m = require "moonloop"
        local began = m.now()
        m.sleep(seconds)
        return m.now() - began
      end
      with(function(clock)
        local futures = {}
        for i, executor in ipairs { ex, pool, ex, pool } do
          futures[i] = executor:submit(sleep, i * HOUR)
        end
        for i, f in ipairs(futures) do
          assert.equal(i * HOUR, f:result(i * HOUR + 1))
          assert.equal(i * HOUR, clock:now())
        end
      end)
    end)

    it("reaches those who waited before it was made", function()
      local ex, pool = ml.AsyncExecutor{}, ml.ThreadExecutor{ workers = 1 }
      end_with_test(ex, pool)
      local started, hour = h.gate(), HOUR
      local function wait(gate, seconds)
        local m = require "moonloop"
        gate:open()
        local promise = m.promise()
        local _, err = promise.future:wait(seconds)
        promise:set_result()
        return err.code
      end
      local a = pool:submit(wait, started, hour)
      started:pass()
      started = h.gate()
      local b = ex:submit(wait, started, 2 * hour)
      started:pass()
      with(function(clock)
        assert.equal("timeout", a:result())
        assert.near(hour, clock:now(), 60)
        assert.equal("timeout", b:result())
        assert.near(2 * hour, clock:now(), 60)
      end)
    end)

    it("jumps over no work of threads and children", function()
      local children <close> = ml.ProcessExecutor{ workers = 1 }
      with(function(clock)
        local ok = ml.timeout(HOUR, ml.to_thread, os.execute, "sleep 0.1")
        assert.is_true(ok)
        assert.is_true(children:submit(os.execute, "sleep 0.1"):result(HOUR))
        assert.is_true(clock:now() < 60)
      end)
    end)

    it("jumps over no answer of another process", function()
      local children <close> = ml.ProcessExecutor{ workers = 1 }
      local url = children:submit(function()
        local m = require "moonloop.testing"
        _G.server = m.http_server{ ["/"] = { delay = 0.1, body = "from elsewhere" } }
        return _G.server.url
      end):result(h.TIMEOUT)
      with(function(clock)
        local sleeper = ml.run_async_job(ml.sleep, HOUR)
        local res = assert(http.get(url, { timeout = HOUR / 2 }))
        assert.equal("from elsewhere", res.body)
        assert.is_true(clock:now() < 60)
        assert.is_false(sleeper:done())
        ml.sleep(HOUR + 60) -- the connection is kept, but nobody waits for it
        assert.is_true(sleeper:done())
      end)
    end)

    it("brings the timeouts of requests to a server of the test", function()
      around(function()
        local server <close> = testing.http_server{
          ["/slow"] = { delay = HOUR, body = "late" },
          ["/busy"] = { status = 503, headers = { ["Retry-After"] = "20" } },
        }
        local clock <close> = testing.clock()
        local _, err = http.get(server.url .. "/slow", { timeout = 5 })
        assert.equal("timeout", err.code)
        assert.equal(5, clock:now())
        assert.truthy(tostring(err):find("timed out after 5 s", 1, true))
        assert.equal("late", assert(http.get(server.url .. "/slow")).body)
        assert.equal(HOUR + 5, clock:now())
        assert.equal(503, http.get(server.url .. "/busy", { retries = 3 }).status)
        assert.equal(HOUR + 65, clock:now())
        _, err = ml.move_on_after(7, http.get, server.url .. "/slow")
        assert.equal("timeout", err.code)
        assert.equal(HOUR + 72, clock:now())
      end)
    end)

    it("moves only as it is told with autojump = false", function()
      with(function(clock)
        local began = ml.now()
        local log = ml.Queue()
        local f = ml.run_async_job(function(q)
          local m = require "moonloop"
          for i = 1, 5 do
            m.sleep(10)
            q:put(i)
          end
        end, log)
        clock:advance(0)
        assert.equal(0, clock:now())
        clock:advance(9.5)
        assert.equal(0, log:size())
        clock:advance(0.5)
        assert.equal(1, log:size())
        clock:advance(35)
        assert.same({ 45, 4, false }, { clock:now(), log:size(), f:done() })
        assert.equal(45, ml.now() - began)
        clock:advance(HOUR)
        assert.same({ 45 + HOUR, 5, true }, { clock:now(), log:size(), f:done() })
      end, { autojump = false })
    end)

    it("runs what is due on the way at its own time, and all that it starts", function()
      with(function(clock)
        local times = ml.run_async_job(function()
          local m = require "moonloop"
          local began, list = m.now(), {}
          local function note() list[#list + 1] = m.now() - began end
          m.gather{
            function() m.sleep(3) note() m.spawn(note):result() m.sleep(4) note() end,
            function() m.sleep(5) note() end,
          }
          return list
        end)
        clock:advance(100)
        assert.same({ 3, 3, 5, 7 }, times:result(0))
        assert.equal(100, clock:now())
      end, { autojump = false })
    end)

    it("is advanced over what goes on elsewhere", function()
      local release = h.gate()
      local pool <close> = ml.ThreadExecutor{ workers = 1 }
      with(function(clock)
        local started = h.gate()
        local f = ml.run_async_job(ml.sleep, 10)
        local worker = pool:submit(function(s, path)
          s:open()
          local pipe = io.open(path, "r") -- blocks until somebody writes
          return pipe:read "a"
        end, started, "/dev/null")
        started:pass()
        clock:advance(20)
        assert.is_true(f:done())
        assert.equal("", worker:result())
        release:open()
      end, { autojump = false })
    end)

    it("gives real time back, and what is left of each wait", function()
      local left, began = nil, ml.now()
      around(function()
        local clock <close> = testing.clock{ autojump = false }
        left = ml.run_async_job(function()
          local m = require "moonloop"
          local start = m.now()
          m.sleep(HOUR + 0.02)
          return m.now() - start
        end)
        clock:advance(HOUR)
        assert.is_false(left:done())
        clock:close()
        left:result(h.TIMEOUT)
        assert.is_true(ml.now() - began < HOUR)
        clock:close()
      end)
      assert.is_true(ml.now() - began < HOUR)
    end)

    it("gives real time back after an error", function()
      local began = ml.now()
      assert.equal("no", h.raised(with, function(clock)
        clock:advance(HOUR)
        error("no", 0)
      end))
      ml.sleep(0.001)
      assert.is_true(ml.now() - began < HOUR)
      with(function(clock) assert.equal(0, clock:now()) end) -- there may be another
    end)

    it("leaves an advance that is cancelled where it was", function()
      around(function()
        ml.run(function()
          local clock <close> = testing.clock{ autojump = false }
          local f = ml.spawn(clock.advance, clock, 100)
          ml.spawn(function() ml.sleep(40) f:cancel() end)
          f:wait()
          assert.is_true(f:cancelled())
          assert.equal(40, clock:now())
          clock:advance(1)
          assert.equal(41, clock:now())
        end)
      end)
    end)

    it("ends an advance when it is closed", function()
      around(function()
        ml.run(function()
          local clock <close> = testing.clock{ autojump = false }
          local f = ml.spawn(clock.advance, clock, HOUR)
          ml.spawn(function() ml.sleep(10) clock:close() end)
          f:result(h.TIMEOUT)
        end)
      end)
    end)

    it("is misused", function()
      local function refuses(pattern, f, ...)
        local arguments = table.pack(...)
        h.misuse(pattern, function() return f(table.unpack(arguments)), nil end)
      end
      refuses("unknown option 'jump'", testing.clock, { jump = true })
      refuses("option 'autojump': boolean expected, got number", testing.clock, { autojump = 1 })
      with(function(clock)
        refuses("there is one already, for the whole process, made at .*testing_clock_spec",
          testing.clock)
        local elsewhere = ml.run_async_job(function()
          return select(2, pcall(require "moonloop.testing".clock))
        end):result()
        assert.truthy(elsewhere:find "there is one already.*testing_clock_spec.lua:%d+$", elsewhere)
        assert.is_false(pcall(clock.advance, clock))
        assert.is_false(pcall(clock.advance, clock, -1))
        assert.is_false(pcall(clock.advance, clock, 0 / 0))
        assert.truthy(h.raised(ml.run_async, function(c) return c end, clock).code == "crossing")
        ml.run(function()
          local f = ml.spawn(clock.advance, clock, 10)
          ml.checkpoint()
          refuses("being advanced by somebody else", clock.advance, clock, 1)
          f:result()
        end)
        clock:close()
        refuses("advance: the clock was closed", clock.advance, clock, 1)
        refuses("now: the clock was closed", clock.now, clock)
        assert.equal("test clock (closed)", tostring(clock))
      end)
    end)
  end)
end

describe("a clock in the program", function()
  it("works at the top of a script, and is gone when that ends", function()
    for _, program in ipairs { "moonloop", "lua5.4" } do
      local output, code = h.run_script([[
        local ml = require "moonloop"
        local clock = require "moonloop.testing".clock()
        local f = ml.spawn(function()
          local m = require "moonloop"
          m.sleep(7200)
          return "woken"
        end)
        ml.sleep(3600)
        print(clock:now(), f:done(), f:result(7200), clock:now())
      ]], { lua = program })
      assert.same({ "3600.0\tfalse\twoken\t7200.0\n", 0 }, { output, code })
    end
  end)

  it("is closed by the collector", function()
    local output = h.run_script [[
      local ml = require "moonloop"
      local testing = require "moonloop.testing"
      testing.clock{ autojump = false }
      collectgarbage()
      ml.sleep(0.001)
      print(testing.clock():now())
    ]]
    assert.equal("0.0\n", output)
  end)
end)
