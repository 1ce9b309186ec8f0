-- What holds for every kind of executor: the kinds, and the suite that
-- spec/executors_spec.lua runs over each.

local ml = require "moonloop"
local h = require "spec.support.helpers"
local marker = require "spec.support.marker"

local suite = {}

-- Starts a job that has begun and stays until it is released.
-- Returns its future and the function that lets it go on, to return a value.
local function hold(executor, name)
  local started, release = h.gate(), h.gate()
  local future = executor:submit(ml.job{ h.hold, started, release, name = name })
  started:pass()
  return future, function(...) release:open(...) end
end

-- The same for processes, to which gates do not cross.
local function hold_far(executor, name)
  local started, release = marker.new(), marker.new()
  local future = executor:submit(ml.job{ marker.hold, started, release, name = name })
  started:wait()
  started:remove()
  future:add_done_callback(function() release:remove() end)
  return future, function(text) release:set(text) end
end

-- make(options): an executor that does one job at a time per worker or loop.
-- alone: the options with which it has one worker or loop.
-- parks: jobs that wait leave their thread to others.
-- hold: as above. processes: its workers are child processes.
suite.kinds = {
  { name = "an AsyncExecutor", make = ml.AsyncExecutor, alone = {}, parks = true, hold = hold },
  { name = "an AsyncExecutor of two loops", parks = true, hold = hold, alone = { loops = 1 },
    make = function(options)
      options = options or {}
      options.loops = options.loops or 2
      return ml.AsyncExecutor(options)
    end },
  { name = "a ThreadExecutor", make = ml.ThreadExecutor, alone = { workers = 1 }, hold = hold },
  { name = "a ProcessExecutor", make = ml.ProcessExecutor, alone = { workers = 1 },
    hold = hold_far, processes = true },
}

local function with(options, more)
  local all = {}
  for key, value in pairs(options) do all[key] = value end
  for key, value in pairs(more or {}) do all[key] = value end
  return all
end

local function add(a, b) return a + b end
local function same(...) return ... end
local function fail(message) error(message, 0) end

-- busted gives its functions to spec files only: `env` is the spec's.
function suite.run(kind, env)
  local describe, it, assert = env.describe, env.it, env.assert
  local before_each, after_each = env.before_each, env.after_each

  describe(kind.name, function()
    local executors

    local function make(options)
      local executor = kind.make(options)
      executors[#executors + 1] = executor
      return executor
    end

    local function alone(options) return make(with(kind.alone, options)) end

    before_each(function() executors = {} end)

    after_each(function()
      for _, executor in ipairs(executors) do
        h.close(executor)
        local stats = executor:stats()
        assert.same({ 0, 0, 0 }, { stats.running, stats.queued, stats.parked })
        assert.same({}, executor:jobs())
      end
      executors = {}
      if kind.processes then assert.same({}, marker.children()) end
    end)

    describe("submit", function()
      it("gives a future of the values, nils and counts kept", function()
        local ex = make()
        assert.equal(5, ex:submit(add, 2, 3):result(h.TIMEOUT))
        local values = table.pack(ex:submit(same, nil, 1, nil):result(h.TIMEOUT))
        assert.same({ nil, 1, nil, n = 3 }, values)
        assert.equal(0, select("#", ex:submit(function() end):result(h.TIMEOUT)))
        assert.same({ n = 1 }, table.pack(ex:submit(function() return nil end):result(h.TIMEOUT)))
      end)

      it("takes \"module:function\", a fresh coroutine and ml.job", function()
        local ex = make()
        assert.equal(3, ex:submit("spec.support.sample:add", 1, 2):result(h.TIMEOUT))
        assert.equal(7, ex:submit(coroutine.create(add), 3, 4):result(h.TIMEOUT))
        local future = ex:submit(ml.job{ add, 1, name = "sum" }, 8)
        assert.same({ "sum", 9 }, { future.name, future:result(h.TIMEOUT) })
      end)

      it("carries errors of every type, equal to what was raised", function()
        local ex = make()
        assert.same({ nil, "plain" }, { ex:submit(fail, "plain"):wait(h.TIMEOUT) })
        assert.same({ nil, { code = 9 } }, { ex:submit(fail, { code = 9 }):wait(h.TIMEOUT) })
        assert.is_false(h.raised(function() ex:submit(fail, false):result(h.TIMEOUT) end))
        assert.equal("nil_error", ex:submit(fail, nil):exception(h.TIMEOUT).code)
      end)

      it("gives a traceback that names the failing line", function()
        local future = make():submit(function()
          local function inner() error "deep down" end
          inner()
        end)
        assert.matches("deep down", future:exception(h.TIMEOUT))
        assert.matches("executor_suite%.lua:%d+", future:traceback())
      end)

      it("names the job in the traceback, and where it was submitted", function()
        local ex = alone()
        local job = ml.job{ function() error "here" end, name = "cook" }
        local line = debug.getinfo(1, "l").currentline + 1
        local future = ex:submit(job)
        future:wait(h.TIMEOUT)
        local from = "submitted at .*executor_suite%.lua:" .. line
        assert.matches("in job 'cook', " .. from .. "$", future:traceback())
        job = ml.job{ function(f)
          local value = ml.run_async(f):result()
          return value
        end, function() error "deeper" end, name = "cook" }
        future = ex:submit(job)
        future:wait(h.TIMEOUT)
        assert.matches("awaited by job 'cook'\n.*in job 'cook', submitted", future:traceback())
        future = ex:submit(function()
          local function deepest() error "in a scope" end
          ml.timeout(60, function() deepest() end)
        end)
        future:wait(h.TIMEOUT)
        assert.matches("in upvalue 'deepest'", future:traceback())
      end)

      it("refuses what cannot cross, with the path", function()
        local ex = make()
        local err = h.raised(ex.submit, ex, same, { log = coroutine.create(same) })
        assert.same({ "crossing", true },
                    { err.code, tostring(err):find("argument 1.log", 1, true) ~= nil })
        assert.equal(1, ex:submit(same, 1):result(h.TIMEOUT))
      end)

      it("settles with the reason when a result or an error cannot cross", function()
        local ex = make()
        local err = ex:submit(function() return 1, coroutine.create(print) end):exception(h.TIMEOUT)
        assert.equal("crossing", err.code)
        assert.matches("result 2", tostring(err))
        err = ex:submit(function() error({ io.tmpfile() }) end):exception(h.TIMEOUT)
        assert.equal("crossing", err.code)
        assert.equal(1, ex:submit(same, 1):result(h.TIMEOUT))
      end)

      it("ends a job past its own time limit, at its wait", function()
        local ex = make()
        local nap = ml.job{ function(s) ml.sleep(s) return "rested" end, timeout = h.SHORT }
        local future = ex:submit(nap, 60)
        assert.equal("timeout", future:exception(h.TIMEOUT).code)
        assert.is_false(future:cancelled())
        future = ex:submit(ml.job{ "moonloop:sleep", 60, timeout = h.SHORT })
        assert.equal("moonloop:sleep", future.name)
        assert.equal("timeout", future:exception(h.TIMEOUT).code)
        for _, timeout in ipairs{ h.TIMEOUT, 1e300, math.huge } do
          local job = ml.job{ function(s) ml.sleep(s) return "rested" end, timeout = timeout }
          assert.equal("rested", ex:submit(job, 0.001):result(h.TIMEOUT))
        end
        local job = ml.job{ print, 1, timeout = 60 }
        local err = h.raised(ex.submit, ex, job, coroutine.create(print))
        assert.matches("^argument 2: a coroutine", err.message)
      end)

      it("refuses what is no job", function()
        local ex = make()
        h.misuse("number", function() ex:submit(1) end)
        h.misuse("job", function() ex:submit() end)
      end)

      it("brings context variables along", function()
        local ex, user = make(), ml.var "nobody"
        local future = user:with("ann", function()
          return ex:submit(function(v) return v:get() end, user)
        end)
        assert.equal("ann", future:result(h.TIMEOUT))
      end)

      it("starts jobs in the order of their submits, with one worker", function()
        local ex, futures = alone(), {}
        for i = 1, 50 do
          futures[i] = ex:submit(function()
            local n = (rawget(_G, "suite_order") or 0) + 1
            rawset(_G, "suite_order", n)
            return n
          end)
        end
        for i = 1, 50 do assert.equal(i, futures[i]:result(h.TIMEOUT)) end
      end)

      it("settles futures that nobody holds, and reports their errors once", function()
        local ex, log = make(), h.error_log()
        do
          ex:submit(same, 1)
          ex:submit(fail, "nobody asked")
        end
        h.close(ex)
        h.collect()
        assert.matches("nobody asked", tostring((log:entry(1))))
        assert.equal(1, log:count())
        ml.on_error(nil)
      end)
    end)

    describe("cancel", function()
      it("keeps a queued job from running", function()
        if kind.parks then return end
        local ex = alone()
        local first, release = kind.hold(ex)
        local queued = ex:submit(function() rawset(_G, "suite_ran", true) end)
        assert.is_true(queued:cancel "not needed")
        assert.is_true(queued:cancelled())
        assert.equal("not needed", queued:exception(0).reason)
        release()
        first:result(h.TIMEOUT)
        assert.is_nil(ex:submit(function() return rawget(_G, "suite_ran") end):result(h.TIMEOUT))
      end)

      it("ends a running job at its wait", function()
        local ex = alone()
        local future = ex:submit(function() ml.sleep(60) end)
        h.eventually(function() return future:running() end)
        assert.is_true(future:cancel_and_wait(h.TIMEOUT))
        assert.is_true(future:cancelled())
        assert.equal(1, ex:submit(same, 1):result(h.TIMEOUT))
      end)

      it("comes too late for a settled job", function()
        local future = make():submit(same, 1)
        future:result(h.TIMEOUT)
        assert.is_false(future:cancel())
      end)
    end)

    describe("map", function()
      it("gives results in order", function()
        local ex, got = make(), {}
        for value in ex:map(function(x) return x * x end, { 1, 2, 3, 4 }, { window = 2 }) do
          got[#got + 1] = value
        end
        assert.same({ 1, 4, 9, 16 }, got)
      end)

      it("takes no more than the window from an infinite iterator", function()
        local ex, taken = make(), 0
        local function numbers()
          taken = taken + 1
          return taken
        end
        do
          local n = 0
          for value in ex:map(same, numbers, { window = 3 }) do
            n = n + 1
            assert.equal(n, value)
            if n == 5 then break end
          end
        end
        assert.is_true(taken <= 8)
      end)

      it("raises an error at its turn", function()
        local ex, got = make(), {}
        local err = h.raised(function()
          for value in ex:map(function(x)
            if x == 3 then error("third", 0) end
            return x
          end, { 1, 2, 3, 4 }) do
            got[#got + 1] = value
          end
        end)
        assert.same({ { 1, 2 }, "third" }, { got, err })
      end)

      it("gives up at its timeout", function()
        local ex = make()
        local err = h.raised(function()
          for _ in ex:map(function() ml.sleep(60) end, { 1 }, { timeout = h.SHORT }) do end
        end)
        assert.equal("timeout", err.code)
      end)
    end)

    describe("its futures", function()
      it("are waited for in lists", function()
        local ex = make()
        local function three()
          return { ex:submit(same, 1), ex:submit(same, 2), ex:submit(same, 3) }
        end
        assert.same({ 1, 2, 3 }, (ml.gather(three())))
        local done, pending = ml.wait(three(), { timeout = h.TIMEOUT })
        assert.same({ 3, 0 }, { #done, #pending })
        local sum = 0
        for future in ml.as_completed(three(), h.TIMEOUT) do sum = sum + future:result() end
        assert.equal(6, sum)
        local a, b = ml.complete_async_jobs(ex:submit(same, 1), ex:submit(fail, "no"))
        assert.same({ 1, "no" }, { a:result(0), b:exception(0) })
      end)

      it("cancel the rest when one of a gather fails", function()
        local ex = make()
        local slow = ex:submit(function() ml.sleep(60) end)
        h.eventually(function() return slow:running() end)
        assert.equal("no", h.raised(ml.gather, { slow, ex:submit(fail, "no") }))
        assert.is_true(slow:cancelled())
      end)

      it("call back once, in the state that asked", function()
        local future, calls = make():submit(same, "value"), {}
        future:add_done_callback(function(f) calls[#calls + 1] = f:result() end)
        h.eventually(function() ml.poll(0) return #calls > 0 end)
        assert.same({ "value" }, calls)
      end)

      it("leave the job alone when a wait for them times out", function()
        local ex = alone()
        local future, release = kind.hold(ex)
        assert.equal("timeout", select(2, future:wait(h.SHORT)).code)
        release "late"
        assert.equal("late", future:result(h.TIMEOUT))
      end)
    end)

    describe("calls", function()
      it("wait for the values or raise the error", function()
        local ex = make()
        assert.equal(5, ex:sync_to_async(add, 2, 3))
        assert.equal("no", h.raised(ex.sync_to_async, ex, fail, "no"))
        local call = ml.sync_to_async(add, { executor = ex })
        assert.equal(7, call(3, 4))
        assert.equal(9, ml.run_in_executor(ex, add, 4, 5):result(h.TIMEOUT))
      end)

      it("work from a job", function()
        local ex = make()
        assert.equal(5, ml.run(function() return ex:sync_to_async(add, 2, 3) end))
      end)

      it("refuse what is no executor", function()
        h.misuse("executor", function() ml.sync_to_async(add, { executor = {} }) end)
        h.misuse("exector", function() ml.sync_to_async(add, { exector = 1 }) end)
      end)
    end)

    describe("max_pending", function()
      it("makes submit wait, try_submit answer busy, and a shutdown wake", function()
        local ex = alone{ max_pending = 1 }
        local first, release = kind.hold(ex)
        assert.equal("busy", select(2, ex:try_submit(same, 1)).code)
        local waiting = ml.run_async_job(function(e)
          return e:submit(function() return "second" end):result()
        end, ex)
        assert.equal("timeout", select(2, waiting:wait(h.SHORT)).code)
        release()
        first:result(h.TIMEOUT)
        assert.equal("second", waiting:result(h.TIMEOUT))
        first, release = kind.hold(ex)
        waiting = ml.run_async_job(function(e) e:submit(print) end, ex)
        assert.equal("timeout", select(2, waiting:wait(h.SHORT)).code)
        ex:shutdown{ wait = false }
        assert.equal("closed", waiting:exception(h.TIMEOUT).code)
        release()
        first:result(h.TIMEOUT)
      end)
    end)

    describe("init", function()
      it("runs before the first job of each state", function()
        local ex = make{ init = ml.job{ function(n) rawset(_G, "suite_base", n) end, 40 } }
        for _ = 1, 4 do
          assert.equal(42, ex:submit(function() return rawget(_G, "suite_base") + 2 end)
                             :result(h.TIMEOUT))
        end
      end)

      it("may be whatever can be called, and has its time limit", function()
        local callable = setmetatable({}, { __call = function() rawset(_G, "suite_called", 7) end })
        local function called() return rawget(_G, "suite_called") end
        local ex = make{ init = callable }
        assert.equal(7, ex:submit(called):result(h.TIMEOUT))
        ex = make{ init = ml.job{ function() ml.sleep(60) end, timeout = h.SHORT } }
        assert.equal("timeout", ex:submit(same, 1):exception(h.TIMEOUT).code)
        h.misuse("option 'init': job expected, got table", function() kind.make{ init = {} } end)
      end)

      it("that fails, fails pending and later submits with its cause", function()
        local ex = make{ init = function() error "no database" end }
        local futures = { ex:submit(same, 1), ex:submit(same, 2) }
        for _, future in ipairs(futures) do
          assert.matches("no database", tostring(future:exception(h.TIMEOUT)))
        end
        assert.matches("no database", tostring(ex:submit(same, 3):exception(h.TIMEOUT)))
      end)
    end)

    describe("looking", function()
      it("has a bounded number of workers", function()
        local option = kind.parks and "loops" or "workers"
        for _, n in ipairs{ 65537, 1 << 32, math.maxinteger } do
          local text = option .. "': at most 65536, got " .. n
          h.misuse(text, function() kind.make{ [option] = n } end)
        end
        for _, n in ipairs{ 0, -1, 1.5, 0 / 0, "2" } do
          local text = option .. "': positive integer expected"
          h.misuse(text, function() kind.make{ [option] = n } end)
        end
      end)

      it("has a name", function()
        local ex = make{ name = "kitchen" }
        assert.equal("kitchen", ex.name)
        assert.matches("kitchen", tostring(ex))
      end)

      it("counts what became of each job", function()
        local ex = make()
        for i = 1, 3 do ex:submit(same, i):result(h.TIMEOUT) end
        ex:submit(fail, "no"):wait(h.TIMEOUT)
        local stats = ex:stats()
        assert.same({ 4, 3, 1, 0, 0, 0, 0 }, {
          stats.submitted, stats.finished, stats.failed, stats.cancelled, stats.queued,
          stats.running, stats.parked,
        })
        assert.is_number(stats.loops)
        assert.is_number(stats.workers)
      end)

      it("names what runs, and where it was submitted", function()
        local ex = alone()
        local future, release = kind.hold(ex, "long one")
        local job = ex:jobs()[1]
        assert.equal("long one", job.name)
        assert.matches("executor_suite%.lua:%d+", job.submitted_at)
        release()
        future:result(h.TIMEOUT)
        assert.same({}, ex:jobs())
      end)
    end)

    describe("shutdown", function()
      it("works before any job, twice, and refuses submits after it", function()
        local ex = make()
        assert.is_true(ex:shutdown{ timeout = h.TIMEOUT })
        assert.is_true(ex:shutdown())
        assert.equal("closed", h.raised(ex.submit, ex, same).code)
        assert.equal("closed", select(2, ex:try_submit(same)).code)
        assert.equal("closed", h.raised(ex.sync_to_async, ex, same).code)
      end)

      it("finishes what runs and what is queued", function()
        local ex = alone()
        local first, release = kind.hold(ex)
        local second = ex:submit(same, "second")
        assert.is_true(ex:shutdown{ wait = false })
        release "first"
        assert.is_true(ex:shutdown{ timeout = h.TIMEOUT })
        assert.same({ "first", "second" }, { first:result(0), second:result(0) })
      end)

      it("with cancel ends what runs and what is queued", function()
        local ex, futures = alone(), {}
        for i = 1, 5 do futures[i] = ex:submit(function() ml.sleep(60) end) end
        h.eventually(function() return futures[1]:running() end)
        assert.is_true(ex:shutdown{ cancel = true, timeout = h.TIMEOUT })
        for i = 1, 5 do assert.is_true(futures[i]:cancelled()) end
      end)

      it("past its deadline names the jobs and where they were submitted", function()
        local ex = alone()
        local future, release = kind.hold(ex, "stubborn")
        local ok, err = ex:shutdown{ timeout = h.SHORT }
        assert.same({ nil, "timeout" }, { ok, err.code })
        assert.matches("stubborn %(.*submitted at .*executor_suite%.lua:%d+%)", tostring(err))
        assert.equal("stubborn", err.jobs[1].name)
        release()
        assert.is_true(ex:shutdown{ timeout = h.TIMEOUT })
        assert.is_true(future:done())
      end)

      it("happens at the end of a block", function()
        local future
        do
          local ex <close> = kind.make()
          future = ex:submit(function() ml.sleep(0.005) return "waited for" end)
        end
        assert.equal("waited for", future:result(0))
      end)

      it("happens when nobody holds it any more", function()
        local future
        do
          future = kind.make():submit(same, "done all the same")
        end
        h.collect()
        assert.equal("done all the same", future:result(h.TIMEOUT))
      end)
    end)

    describe("a worker that is held", function()
      it("keeps what its state keeps, and runs calls in order", function()
        local ex = make()
        local worker <close> = ex:worker()
        worker:call(function() rawset(_G, "suite_count", 0) end)
        local futures = {}
        for i = 1, 20 do
          futures[i] = worker:submit(function()
            rawset(_G, "suite_count", rawget(_G, "suite_count") + 1)
            return rawget(_G, "suite_count")
          end)
        end
        for i = 1, 20 do assert.equal(i, futures[i]:result(h.TIMEOUT)) end
        assert.equal("no", h.raised(worker.call, worker, fail, "no"))
        assert.equal(ex, worker.executor)
        h.misuse("bad argument: executor expected, got function", function()
          worker.call(same)
        end)
      end)

      it("is used from jobs and threads alike", function()
        local ex = make()
        local worker <close> = ex:worker()
        local here = worker:call(h.state_id)
        assert.equal(here, ml.run(function() return worker:call(h.state_id) end))
        assert.equal(here, ml.to_thread(function(w, id) return w:call(id) end, worker, h.state_id))
      end)

      it("is another one while there are others", function()
        local ex = make{ [kind.parks and "loops" or "workers"] = 2 }
        local one <close> = ex:worker()
        local busy = one:submit(function() ml.sleep(0.01) end)
        local two = ex:worker()
        assert.not_equal(one.index, two.index)
        two:close()
        busy:result(h.TIMEOUT)
      end)

      it("cannot be used once it is let go, nor after the shutdown", function()
        local ex = make()
        local worker = ex:worker()
        local pending = worker:submit(same, 1)
        worker:close()
        worker:close()
        assert.equal(1, pending:result(h.TIMEOUT))
        h.misuse("released", function() worker:call(same) end)
        local other = ex:worker()
        ex:shutdown{ timeout = h.TIMEOUT }
        assert.equal("closed", h.raised(other.call, other, same).code)
        assert.equal("closed", h.raised(ex.worker, ex).code)
      end)
    end)
  end)
end

return suite
