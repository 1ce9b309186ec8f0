-- ProcessExecutor: child processes as an executor, and what becomes of jobs whose child ends.

local ml = require "moonloop"
local h = require "spec.support.helpers"
local marker = require "spec.support.marker"

describe("a ProcessExecutor", function()
  local ex, started, release

  before_each(function()
    started, release = marker.new(), marker.new()
    ex = ml.ProcessExecutor{ workers = 2, name = "spec" }
  end)

  after_each(function()
    release:set()
    h.close(ex)
    started:remove()
    release:remove()
    assert.same({}, marker.children())
  end)

  describe("as an executor", function()
    it("runs functions in other processes, with arguments and results", function()
      local pid = ex:submit(marker.pid):result(h.TIMEOUT)
      assert.not_equal(marker.pid(), pid)
      assert.is_true(marker.alive(pid))
      assert.same({ 3, nil, "x\0y" }, { ex:submit(function(a, b, c) return a + b, nil, c end,
        1, 2, "x\0y"):result(h.TIMEOUT) })
    end)

    it("starts children when there is work, and no more than there are workers", function()
      assert.equal(0, ex:stats().workers)
      local futures = {}
      for i = 1, 6 do futures[i] = ex:submit(marker.pid) end
      local pids, count = {}, 0
      for _, future in ipairs(futures) do pids[future:result(h.TIMEOUT)] = true end
      for _ in pairs(pids) do count = count + 1 end
      assert.is_true(count == 1 or count == 2)
      assert.is_true(ex:stats().workers <= 2)
    end)

    it("sends tables, functions with their upvalues, and modules by name", function()
      local base = 40
      local cycle = { 1, { 2 } }
      cycle.self = cycle
      local function add(t) t.sum = base + t[2][1] return t end
      local got = ex:submit(add, cycle):result(h.TIMEOUT)
      assert.equal(42, got.sum)
      assert.equal(got, got.self)
      assert.equal(3, ex:submit("spec.support.sample:add", 1, 2):result(h.TIMEOUT))
      assert.equal(string.format, ex:submit(function() return string.format end):result(h.TIMEOUT))
    end)

    it("brings functions back as results", function()
      local function adder(n) return function(x) return x + n end end
      assert.equal(12, ex:submit(adder, 5):result(h.TIMEOUT)(7))
    end)

    it("sends the same code once, and much code again and again", function()
      for i = 1, 300 do
        local f = assert(load(("return function(x) return x + %d end"):format(i)))()
        assert.equal(i + 1, ex:submit(f, 1):result(h.TIMEOUT))
      end
      local long = { "local x = ..." }
      for i = 1, 20000 do long[#long + 1] = ("x = x + %d"):format(i % 7) end
      long[#long + 1] = "return x"
      for i = 1, 30 do
        local f = assert(load(table.concat(long, "\n"), "=long" .. i))
        assert.equal(f(i), ex:submit(f, i):result(h.TIMEOUT))
      end
    end)

    it("carries large values both ways, larger ones too", function()
      for _, size in ipairs{ 10, 47000, 70000, 1 << 20, (5 << 20) + 3, 70 << 20, 100 } do
        local text = ("a"):rep(size - 1) .. "z"
        local back, n = ex:submit(function(s) return s, #s end, text):result(h.TIMEOUT)
        assert.equal(size, n)
        assert.is_true(back == text)
      end
    end)

    it("raises the error of a job, with both tracebacks", function()
      local future = ex:submit(function() error({ code = "mine", deep = { 1 } }) end)
      local err = h.raised(future.result, future, h.TIMEOUT)
      assert.same({ code = "mine", deep = { 1 } }, err)
      future = ex:submit(function() error "here" end)
      assert.match("process_executor_spec.lua:%d+: here", future:exception(h.TIMEOUT))
      assert.match("process_executor_spec.lua:%d+", future:traceback())
    end)

    it("refuses what cannot leave the process, with the path to it", function()
      local function refused(what, ...)
        local err = h.raised(ex.submit, ex, ...)
        assert.equal("crossing", err.code)
        assert.equal(what, tostring(err))
      end
      refused("argument 1.f: a handle (future) cannot cross to another process",
        print, { f = ml.promise().future })
      refused("argument 2: a handle (channel) cannot cross to another process",
        print, 1, ml.Channel(1))
      refused("argument 1: a coroutine cannot cross to another process",
        print, coroutine.create(print))
    end)

    it("refuses results that cannot leave the child", function()
      local err = ex:submit(function() return 1, { ml.promise().future } end):exception(h.TIMEOUT)
      assert.equal("crossing", err.code)
      assert.equal("result 2[1]: a handle (future) cannot cross to another process", tostring(err))
      err = ex:submit(function() error(coroutine.create(print)) end):exception(h.TIMEOUT)
      assert.equal("crossing", err.code)
    end)

    it("carries context variables", function()
      local v = ml.var "none"
      v:set "here"
      assert.equal("here", ex:submit(function() return v:get() end):result(h.TIMEOUT))
    end)

    it("keeps a child's globals between its jobs, and lets jobs wait", function()
      local one <close> = ml.ProcessExecutor{ workers = 1 }
      local function count()
        ml.sleep(0.001)
        rawset(_G, "calls", (rawget(_G, "calls") or 0) + 1)
        return rawget(_G, "calls"), ml.in_job(), ml.current_job():done()
      end
      one:submit(count):result(h.TIMEOUT)
      assert.same({ 2, false, false }, { one:submit(count):result(h.TIMEOUT) })
    end)

    it("lets jobs use all of moonloop, default executors too", function()
      assert.equal(6, ex:submit(function()
        local sum = 0
        for _, n in ipairs(ml.gather{ ml.run_async_job(function() return 1 end),
          ml.run_async_job(function() ml.sleep(0.001) return 2 end) }) do sum = sum + n end
        return sum + ml.to_thread(function() return 3 end)
      end):result(h.TIMEOUT))
    end)

    it("maps, in order", function()
      local got = {}
      for v in ex:map(function(x) return x * x end, { 1, 2, 3, 4, 5 }) do got[#got + 1] = v end
      assert.same({ 1, 4, 9, 16, 25 }, got)
    end)

    it("can be waited for in jobs and by to_async calls", function()
      ml.run(function()
        assert.equal(5, ex:sync_to_async(function() return 5 end))
        assert.equal(6, ml.run_in_executor(ex, function() return 6 end):result(h.TIMEOUT))
        local list = {}
        for future in ml.as_completed{ ex:submit(math.abs, -1), ex:submit(math.abs, -2) } do
          list[#list + 1] = future:result()
        end
        table.sort(list)
        assert.same({ 1, 2 }, list)
      end)
    end)

    it("takes jobs from several threads at once, those of each in their order", function()
      local one <close> = ml.ProcessExecutor{ workers = 1 }
      local threads <close> = ml.ThreadExecutor{ workers = 4 }
      local function work(e, n)
        local futures, last = {}, 0
        for i = 1, 100 do
          futures[i] = e:submit(function()
            local turn = (rawget(_G, "turn") or 0) + 1
            rawset(_G, "turn", turn)
            return turn
          end)
          if i % n == 0 then futures[i]:result() end -- the child is idle now and then
        end
        for i = 1, 100 do
          local turn = futures[i]:result()
          assert(turn > last)
          last = turn
        end
        return last
      end
      local workers, most = {}, 0
      for i = 1, 4 do workers[i] = threads:submit(work, one, i) end
      for _, future in ipairs(workers) do most = math.max(most, future:result(h.TIMEOUT)) end
      assert.equal(400, most)
      local stats = one:stats()
      assert.same({ 400, 400, 0, 0 },
        { stats.submitted, stats.finished, stats.running, stats.queued })
    end)

    it("shows its jobs, with their processes", function()
      local one <close> = ml.ProcessExecutor{ workers = 1 }
      local future = one:submit(ml.job{ marker.hold, started, release, name = "holder" })
      local queued = one:submit(ml.job{ marker.pid, name = "next" })
      local pid = tonumber(started:wait())
      local jobs = one:jobs()
      assert.same({ "holder", "running", pid }, { jobs[1].name, jobs[1].state, jobs[1].pid })
      assert.same({ "next", "queued" }, { jobs[2].name, jobs[2].state })
      assert.match("process_executor_spec.lua:%d+", jobs[1].submitted_at)
      local stats = one:stats()
      assert.same({ 1, 1, 1, 0 }, { stats.running, stats.queued, stats.workers, stats.loops })
      release:set()
      future:result(h.TIMEOUT)
      assert.equal(pid, queued:result(h.TIMEOUT))
    end)

    it("bounds what is pending", function()
      local small <close> = ml.ProcessExecutor{ workers = 1, max_pending = 1 }
      local future = small:submit(marker.hold, started, release)
      started:wait()
      assert.equal("busy", select(2, small:try_submit(marker.pid)).code)
      release:set()
      future:result(h.TIMEOUT)
      assert.is_number(small:submit(marker.pid):result(h.TIMEOUT))
    end)

    it("cannot be the event loop, and refuses wrong options", function()
      h.misuse("only an asyncexecutor", function() ml.set_event_loop(ex) end)
      local function wrong(what, options)
        h.misuse(what, function() ml.ProcessExecutor(options) end)
      end
      wrong("unknown option 'threads'", { threads = 1 })
      wrong("option 'output'", { output = "none" })
      wrong("option 'grace'", { grace = -1 })
      wrong("option 'cpu_limit'", { cpu_limit = 0 })
      wrong("option 'memory_limit'", { memory_limit = 1.5 })
      wrong("option 'workers'", { workers = 0 })
    end)
  end)

  describe("whose child ends", function()
    it("fails the child's own job alone, with signal and pid", function()
      local killed = ex:submit(marker.hold, started, release)
      local pid = tonumber(started:wait())
      local second = marker.new()
      local other = ex:submit(marker.hold, second, release)
      second:wait()
      second:remove()
      local queued = ex:submit(marker.pid)
      local signal = h.checking() and 6 or 11 -- sanitizers take SIGSEGV for themselves
      os.execute(("kill -%d %d"):format(signal, pid))
      local err = killed:exception(h.TIMEOUT)
      assert.same({ "crashed", signal, pid, nil }, { err.code, err.signal, err.pid, err.status })
      assert.match("^process %d+ of executor 'spec' was killed by signal %d+ %(.*%)$",
        tostring(err))
      assert.not_equal(pid, queued:result(h.TIMEOUT))
      release:set()
      other:result(h.TIMEOUT)
    end)

    it("tells an exit from a signal", function()
      for status = 0, 3, 3 do
        local err = ex:submit(os.exit, status):exception(h.TIMEOUT)
        assert.same({ "crashed", status, nil }, { err.code, err.status, err.signal })
      end
      assert.is_number(ex:submit(marker.pid):result(h.TIMEOUT))
    end)

    it("lets callers give up on a child that never answers", function()
      local future = ex:submit(function() os.execute("kill -STOP " .. marker.pid()) end)
      local ok, err = future:wait(h.SHORT)
      assert.is_nil(ok)
      assert.equal("timeout", err.code)
      assert.is_true(future:cancel())
      assert.equal("job_cancelled", select(2, future:wait(h.TIMEOUT)).code)
    end)

    it("starts again after many crashes", function()
      for _ = 1, 6 do
        assert.equal("crashed", ex:submit(marker.kill_self, "KILL"):exception(h.TIMEOUT).code)
      end
      assert.is_number(ex:submit(marker.pid):result(h.TIMEOUT))
    end)

    it("runs on when an idle child is killed", function()
      local pid = ex:submit(marker.pid):result(h.TIMEOUT)
      os.execute("kill -KILL " .. pid)
      h.eventually(function() return ex:stats().workers == 0 end)
      assert.not_equal(pid, ex:submit(marker.pid):result(h.TIMEOUT))
    end)

    it("settles each job where children are killed while they get some", function()
      local crashed = 0
      for i = 1, 60 do
        local ok, pid = ex:submit(marker.pid):wait(h.TIMEOUT)
        if not ok then crashed = crashed + 1 end
        local killer = ok and i % 3 == 0 and io.popen("kill -KILL " .. pid)
        local futures = {}
        for k = 1, 4 do futures[k] = ex:submit(math.abs, -k) end
        for k = 1, 4 do
          local value
          ok, value = futures[k]:wait(h.TIMEOUT)
          if not ok then crashed = crashed + 1 end
          assert.equal(ok and k or "crashed", ok and value or value.code)
        end
        if killer then killer:close() end
      end
      assert.is_true(crashed <= 20)
      local stats = ex:stats()
      assert.same({ 300, crashed, 0, 0 },
        { stats.submitted, stats.failed, stats.running, stats.queued })
    end)

    it("replaces children after max_jobs", function()
      local fresh <close> = ml.ProcessExecutor{ workers = 1, max_jobs = 2 }
      local pids = {}
      for i = 1, 4 do pids[i] = fresh:submit(marker.pid):result(h.TIMEOUT) end
      assert.equal(pids[1], pids[2])
      assert.equal(pids[3], pids[4])
      assert.not_equal(pids[2], pids[3])
    end)

    it("outlives a child whose own child keeps the pipes open", function()
      local err = ex:submit(function()
        os.execute "sleep 20 &"
        os.exit(7)
      end):exception(h.TIMEOUT)
      assert.equal(7, err.status)
    end)
  end)

  describe("that is cancelled", function()
    it("ends the child of a running job, and the next one gets another", function()
      local future = ex:submit(function(s) s:set(tostring(marker.pid())) while true do end end,
        started)
      local pid = tonumber(started:wait())
      assert.is_true(future:cancel())
      assert.equal("job_cancelled", select(2, future:wait(h.TIMEOUT)).code)
      assert.is_true(future:cancelled())
      assert.is_false(marker.alive(pid))
      assert.not_equal(pid, ex:submit(marker.pid):result(h.TIMEOUT))
    end)

    it("takes a cancel right after the submit", function()
      for i = 1, 40 do
        ex:submit(math.abs, -i):result(h.TIMEOUT) -- a child is idle
        local future = ex:submit(function() while true do end end)
        assert.is_true(future:cancel())
        future:wait(h.TIMEOUT)
        assert.is_true(future:cancelled())
      end
    end)

    it("never runs what was queued", function()
      local one <close> = ml.ProcessExecutor{ workers = 1 }
      local first = one:submit(marker.hold, started, release)
      local never = marker.new()
      local queued = one:submit(function(m) m:set() end, never)
      started:wait()
      assert.is_true(queued:cancel())
      assert.is_true(queued:cancelled())
      release:set()
      first:result(h.TIMEOUT)
      assert.is_number(one:submit(marker.pid):result(h.TIMEOUT))
      assert.is_nil(never:get())
    end)

    it("kills a child that does not heed the signal, after the grace", function()
      local patient <close> = ml.ProcessExecutor{ workers = 1, grace = 0.05 }
      local future = patient:submit(function(s)
        os.execute "true"
        s:set(tostring(marker.pid()))
        while true do end
      end, started)
      local pid = tonumber(started:wait())
      os.execute("kill -STOP " .. pid) -- it cannot act on TERM
      assert.is_true(future:cancel())
      assert.is_nil((future:wait(h.TIMEOUT)))
      assert.is_false(marker.alive(pid))
    end)

    it("bounds a job's time", function()
      local future = ex:submit(ml.job{ function() while true do end end, timeout = 0.05 })
      local err = future:exception(h.TIMEOUT)
      assert.equal("timeout", err.code)
      assert.is_number(ex:submit(marker.pid):result(h.TIMEOUT))
    end)

    it("ends with a wait that is cancelled around a call", function()
      local ok, err = ml.move_on_after(0.2, function()
        return ex:sync_to_async(function(s) s:set() while true do end end, started)
      end)
      assert.is_nil(ok)
      assert.equal("timeout", err.code)
      h.eventually(function() return ex:stats().running == 0 end)
    end)
  end)

  describe("with init", function()
    it("runs it first in each child, with the maker's paths", function()
      local own <close> = ml.ProcessExecutor{ workers = 1,
        init = ml.job{ function(n) rawset(_G, "prepared", n) end, 7 } }
      assert.equal(7, own:submit(function() return rawget(_G, "prepared") end):result(h.TIMEOUT))
    end)

    it("brings preloaded modules along, and says why where it cannot", function()
      package.preload["spec shipped"] = function() return { n = 8 } end
      package.preload["spec stays"] = coroutine.wrap(print)
      local own <close> = ml.ProcessExecutor{ workers = 1 }
      package.preload["spec shipped"], package.preload["spec stays"] = nil, nil
      local n, err = own:submit(function()
        return require "spec shipped".n, select(2, pcall(require, "spec stays"))
      end):result(h.TIMEOUT)
      assert.equal(8, n)
      assert.match("cannot cross to another process", tostring(err))
    end)

    it("fails all jobs with its error", function()
      local broken <close> = ml.ProcessExecutor{ workers = 2,
        init = function() error({ code = "no_luck" }) end }
      local futures = {}
      for i = 1, 4 do futures[i] = broken:submit(marker.pid) end
      for i = 1, 4 do assert.equal("no_luck", futures[i]:exception(h.TIMEOUT).code) end
      assert.equal("no_luck", broken:submit(marker.pid):exception(h.TIMEOUT).code)
    end)

    it("says how a child ended that never was ready", function()
      local broken <close> = ml.ProcessExecutor{ workers = 1, init = function() os.exit(9) end }
      local err = broken:submit(marker.pid):exception(h.TIMEOUT)
      assert.same({ "crashed", 9 }, { err.code, err.status })
      assert.match("before it was ready", tostring(err))
    end)
  end)

  describe("of which a child is held", function()
    local function count()
      rawset(_G, "held_calls", (rawget(_G, "held_calls") or 0) + 1)
      return rawget(_G, "held_calls"), marker.pid()
    end

    it("runs calls in the same state, in the order of their submits", function()
      local worker <close> = ex:worker()
      local _, pid = worker:call(count)
      for i = 2, 10 do assert.same({ i, pid }, { worker:call(count) }) end
      local futures = {}
      for i = 11, 30 do futures[i] = worker:submit(count) end
      for i = 11, 30 do assert.equal(i, futures[i]:result(h.TIMEOUT)) end
      assert.equal(ex, worker.executor)
      assert.equal(1, worker.index)
      assert.matches("worker 1 of spec", tostring(worker))
    end)

    it("holds different ones as long as there are some, then shares them", function()
      local pids, count_of = {}, 0
      local workers = { ex:worker(), ex:worker(), ex:worker() }
      for i = 1, 3 do
        pids[i] = workers[i]:call(marker.pid)
        assert.equal(pids[i], workers[i]:call(marker.pid))
      end
      assert.not_equal(pids[1], pids[2])
      for _ in pairs{ [pids[1]] = true, [pids[2]] = true, [pids[3]] = true } do
        count_of = count_of + 1
      end
      assert.equal(2, count_of)
      for i = 1, 3 do workers[i]:close() end
    end)

    it("lets others use it in between", function()
      local one <close> = ml.ProcessExecutor{ workers = 1 }
      local worker <close> = one:worker()
      local _, pid = worker:call(count)
      local future = one:submit(marker.hold, started, release)
      started:wait()
      local mine, other = worker:submit(count), one:submit(count)
      local states = {}
      for i, job in ipairs(one:jobs()) do states[i] = job.state end
      assert.same({ "running", "queued", "queued" }, states)
      release:set()
      future:result(h.TIMEOUT)
      assert.same({ 2, pid }, { mine:result(h.TIMEOUT) })
      assert.same({ 3, pid }, { other:result(h.TIMEOUT) })
    end)

    it("is not replaced after max_jobs before it is let go", function()
      local fresh <close> = ml.ProcessExecutor{ workers = 1, max_jobs = 2 }
      local worker = fresh:worker()
      for i = 1, 5 do assert.equal(i, (worker:call(count))) end
      local last = worker:submit(count)
      worker:close() -- what was submitted is still done
      assert.equal(6, (last:result(h.TIMEOUT)))
      h.misuse("released", function() worker:submit(count) end)
      h.eventually(function() return fresh:submit(count):result(h.TIMEOUT) == 1 end)
    end)

    it("fails the calls of whoever held it when it ends", function()
      local worker <close> = ex:worker()
      local first = worker:submit(marker.hold, started, release)
      local pid = tonumber(started:wait())
      local second = worker:submit(count)
      os.execute("kill -KILL " .. pid)
      for _, future in ipairs{ first, second } do
        local err = future:exception(h.TIMEOUT)
        assert.same({ "crashed", pid, 9 }, { err.code, err.pid, err.signal })
      end
      local err = h.raised(worker.call, worker, count)
      assert.equal("crashed", err.code)
      assert.matches("that was held has ended", tostring(err))
      assert.is_number(ex:submit(marker.pid):result(h.TIMEOUT))
      local another <close> = ex:worker()
      assert.equal(1, (another:call(count)))
    end)

    it("starts with init, fails where that does, and is closed after the shutdown", function()
      local own = ml.ProcessExecutor{ workers = 1,
        init = function() rawset(_G, "held_calls", 9) end }
      local worker <close> = own:worker()
      assert.equal(10, (worker:call(count)))
      assert.is_true(own:shutdown{ timeout = h.TIMEOUT })
      assert.equal("closed", h.raised(worker.call, worker, count).code)
      assert.equal("closed", h.raised(own.worker, own).code)
      local broken <close> = ml.ProcessExecutor{ workers = 1, init = function() error "no" end }
      local held <close> = broken:worker()
      assert.matches("no", h.raised(held.call, held, count))
    end)

    it("takes cancels, of what is queued and of what runs", function()
      local worker <close> = ex:worker()
      local first = worker:submit(function(s) s:set() while true do end end, started)
      local second, third = worker:submit(count), worker:submit(count)
      started:wait()
      assert.is_true(second:cancel())
      assert.is_true(second:cancelled())
      assert.is_true(first:cancel_and_wait(h.TIMEOUT))
      assert.is_true(first:cancelled())
      assert.equal("crashed", third:exception(h.TIMEOUT).code)
    end)

    it("finishes what it was given at a shutdown, or cancels it", function()
      local one = ml.ProcessExecutor{ workers = 1 }
      local worker <close> = one:worker()
      local futures = {}
      for i = 1, 5 do futures[i] = worker:submit(count) end -- it is not even started
      assert.is_true(one:shutdown{ timeout = h.TIMEOUT })
      for i = 1, 5 do assert.equal(i, (futures[i]:result(0))) end
      local two = ml.ProcessExecutor{ workers = 1 }
      local held <close> = two:worker()
      local running = held:submit(marker.hold, started, release)
      started:wait()
      local queued = held:submit(count)
      assert.is_true(two:shutdown{ cancel = true, timeout = h.TIMEOUT })
      assert.same({ true, true }, { running:cancelled(), queued:cancelled() })
    end)
  end)

  describe("with limits", function()
    it("fails a job that wants more memory, and goes on", function()
      if h.checking() then return end -- sanitizers reserve more than any limit
      local small <close> = ml.ProcessExecutor{ workers = 1, memory_limit = 160 << 20 }
      local future = small:submit(function() return #("x"):rep(1 << 30) end)
      assert.match("not enough memory", tostring(future:exception(h.TIMEOUT)))
      local err = small:submit(function(s) return #s end, ("x"):rep(200 << 20)):exception(h.TIMEOUT)
      assert.match("memory", tostring(err))
      assert.equal(5, small:submit(function() return 5 end):result(h.TIMEOUT))
    end)

    it("ends a job that computes for too long", function()
      local quick <close> = ml.ProcessExecutor{ workers = 1, cpu_limit = 0.5 }
      local future = quick:submit(function() while true do end end)
      local _ <close> = ml.defer(function() future:cancel() end) -- also where it gets no processor
      local err = future:exception(4 * h.TIMEOUT)
      assert.same({ "crashed", 24 }, { err.code, err.signal })
      assert.equal(5, quick:submit(function() return 5 end):result(h.TIMEOUT))
    end)
  end)

  describe("that is shut down", function()
    it("finishes what was submitted, and ends its children", function()
      local futures = {}
      for i = 1, 20 do futures[i] = ex:submit(function(n) return n end, i) end
      assert.is_true(ex:shutdown{ timeout = h.TIMEOUT })
      for i = 1, 20 do assert.equal(i, futures[i]:result(0)) end
      assert.same({}, marker.children())
      assert.equal("closed", h.raised(ex.submit, ex, print).code)
    end)

    it("kills what runs when asked to cancel", function()
      local future = ex:submit(function(s) s:set() while true do end end, started)
      local queued = {}
      for i = 1, 5 do queued[i] = ex:submit(function() while true do end end) end
      started:wait()
      assert.is_true(ex:shutdown{ cancel = true, timeout = h.TIMEOUT })
      assert.is_true(future:cancelled())
      for i = 1, 5 do assert.is_true(queued[i]:cancelled()) end
    end)

    it("names the jobs that do not stop, and stops when asked again", function()
      ex:submit(ml.job{ marker.hold, started, release, name = "stubborn" })
      started:wait()
      local ok, err = ex:shutdown{ timeout = h.SHORT }
      assert.is_nil(ok)
      assert.match("stubborn", tostring(err))
      assert.is_true(ex:shutdown{ cancel = true, timeout = h.TIMEOUT })
    end)

    it("is quick before anything was submitted, and while children start", function()
      local unused <close> = ml.ProcessExecutor{}
      assert.is_true(unused:shutdown{ timeout = h.TIMEOUT })
      local future = ex:submit(marker.pid)
      assert.is_true(ex:shutdown{ cancel = true, timeout = h.TIMEOUT })
      assert.is_true(future:done())
    end)
  end)

  describe("and the rest of the system", function()
    it("leaves no descriptor and no thread", function()
      h.close(ex)
      h.collect()
      local fds, threads = h.fds(), h.threads()
      for _ = 1, 3 do
        local own = ml.ProcessExecutor{ workers = 2 }
        own:submit(os.exit, 1):wait(h.TIMEOUT)
        own:submit(function(s) return #s end, ("x"):rep(1 << 20)):result(h.TIMEOUT)
        h.close(own)
      end
      h.eventually(function()
        h.collect()
        return h.fds() <= fds and h.threads() <= threads
      end, "the end of what the executors had")
    end)

    it("gives children nothing but their socket, and a clean start", function()
      local open <close> = assert(io.open "/dev/null")
      local names = ex:submit(function()
        local status <close> = io.open "/proc/self/status" -- not by a shell: what starts one
        local pipe <close> = io.popen "ls -l /proc/$PPID/fd" -- blocks signals for that long
        return pipe:read "a" .. status:read "a"
      end):result(h.TIMEOUT)
      assert.is_truthy(open)
      assert.match("0 %-> /dev/null", names)
      assert.match("3 %-> socket:", names)
      assert.match("SigBlk:%s*0+\n", names)
    end)

    it("ends with the parent, however that ends", function()
      for _, how in ipairs{ "KILL", "TERM" } do
        local output = h.run_script(([[
          local ml = require "moonloop"
          local marker = require "spec.support.marker"
          local ex = ml.ProcessExecutor{ workers = 1 }
          ex:submit(function(s) s:set(tostring(marker.pid())) while true do end end,
            setmetatable({ path = arg[1] }, marker.Marker))
          setmetatable({ path = arg[1] }, marker.Marker):wait()
          os.execute("kill -%s " .. marker.pid())
          ml.sleep(15)
        ]]):format(how), { started.path })
        assert.is_string(output)
        local pid = tonumber(started:get())
        started:remove()
        h.eventually(function() return not marker.alive(pid) end, "the end of the child")
      end
    end)

    it("shows what children print, line by line, with who did", function()
      local output = h.run_script([[
        local ml = require "moonloop"
        local ex = ml.ProcessExecutor{ workers = 1, name = "talk" }
        ex:submit(function()
          print "one"
          io.stderr:write "two\nthree"
          os.exit(0, false)
        end):wait(15)
        ex:shutdown()
      ]])
      assert.match("talk%[%d+%]: one\n", output)
      assert.match("talk%[%d+%]: two\n", output)
      assert.match("talk%[%d+%]: three\n", output)
    end)

    it("passes output through, or drops it", function()
      for how, wanted in pairs{ inherit = "^one\n$", discard = "^$" } do
        local output = h.run_script([[
          local ml = require "moonloop"
          local ex = ml.ProcessExecutor{ workers = 1, output = arg[1] }
          ex:submit(print, "one"):result(15)
          ex:shutdown()
        ]], { how })
        assert.match(wanted, output)
      end
    end)

    it("does not stop for a child that floods its output", function()
      local output, code = h.run_script([[
        local ml = require "moonloop"
        local ex = ml.ProcessExecutor{ workers = 2 }
        local flood = ex:submit(function()
          local line = ("x"):rep(5000) .. "\n"
          for _ = 1, 4000 do io.stderr:write(line) end
          io.stderr:write(("y"):rep(100000))
          return "done"
        end)
        for i = 1, 20 do assert(ex:submit(math.abs, -i):result(15) == i) end
        assert(flood:result(30) == "done")
        ex:shutdown()
      ]])
      assert.equal(0, code)
      assert.equal(20e6 // 5000, select(2, output:gsub("x\n", "x\n")))
    end)

    it("says which program it cannot run", function()
      local function try(env)
        return (h.run_script([[
          local ml = require "moonloop"
          local ok, ex = pcall(ml.ProcessExecutor, { workers = 1 })
          if not ok then print(ex.code, ex) return end
          local err = ex:submit(print):exception(15)
          print(err.code, err)
          print(ex:submit(print):exception(15).code)
          ex:shutdown()
        ]], { env = env }))
      end
      assert.match("^ENOENT\t.*MOONLOOP_PROGRAM is '/no/such'",
        try{ MOONLOOP_PROGRAM = "/no/such" })
      assert.match("crashed\t.*before it was ready", try{ MOONLOOP_PROGRAM = "/bin/false" })
    end)

    it("bears with programs that do not speak as they should", function()
      local program = os.tmpname()
      local function try(body, code)
        local file = assert(io.open(program, "w"))
        file:write("#!/bin/sh\n", body, "\n")
        file:close()
        os.execute("chmod +x " .. program)
        return (h.run_script(code or [[
          local ml = require "moonloop"
          local ex = ml.ProcessExecutor{ workers = 1, grace = 0.1 }
          print(ex:submit(print):exception(15))
          ex:shutdown()
        ]], { env = { MOONLOOP_PROGRAM = program } }))
      end
      assert.match("closed its connection and was killed", try "exec 3>&-; exec sleep 20")
      assert.match("closed its connection and was killed",
        try "head -c 5000 /dev/zero >&3; exec sleep 20")
      assert.match("ended with status 3 before it was ready", try "exit 3")
      assert.match("^timeout\ttrue\n$", try("exec sleep 20", [[
        local ml = require "moonloop"
        local ex = ml.ProcessExecutor{ workers = 1, grace = 0.1 }
        local future = ex:submit(print)
        print(select(2, future:wait(0.1)).code, ex:shutdown{ cancel = true, timeout = 15 })
      ]]))
      os.remove(program)
    end)

    it("has typed errors where there are no processes or descriptors left", function()
      local output = h.run_script([[
        local ml = require "moonloop"
        local ex = ml.ProcessExecutor{ workers = 1 }
        local files = {}
        while true do
          local file = io.open "/dev/null"
          if not file then break end
          files[#files + 1] = file
        end
        print(ex:submit(math.abs, -1):exception(15).code)
        for _, file in ipairs(files) do file:close() end
        print(ex:submit(math.abs, -1):result(15))
        ex:shutdown()
      ]], { files = 100 })
      assert.equal("EMFILE\n1\n", output)
    end)

    it("leaves a host's SIGCHLD and other children alone", function()
      local own = io.popen "sleep 0.05; echo mine"
      assert.equal("crashed", ex:submit(os.exit, 0):exception(h.TIMEOUT).code)
      assert.equal("mine\n", own:read "a")
      assert.is_true(own:close())
    end)
  end)
end)
