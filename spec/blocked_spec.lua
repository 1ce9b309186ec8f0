-- A loop that is held up: who holds it is named once, by the loop's own thread.

local ml = require "moonloop"
local h = require "spec.support.helpers"

-- Computes until it was reported, in Lua code that a hook can stop.
local function hold(reported)
  local deadline = ml.now() + h.TIMEOUT
  while not reported:is_open() and ml.now() < deadline do math.random() end
  return reported:is_open()
end

-- Waits outside of moonloop: one C call. Long enough for two looks, and to be seen.
local function hold_in_c()
  os.execute "sleep 0.3"
  local after = 1
  return after
end

-- A pipe with a name, and a job that is blocked in C until something is written into it.
local function new_pipe()
  local path = os.tmpname()
  os.remove(path)
  assert(os.execute("mkfifo " .. path))
  return path
end

local function read_pipe(path, started)
  started:open()
  local file <close> = assert(io.open(path))
  return file:read "a"
end

local function end_pipe(path)
  local file <close> = assert(io.open(path, "w"))
  file:write "written"
  os.remove(path)
end

-- Holds three workers of a pool: in Lua code, in a wait, in C. Returns what frees them.
local function occupy(pool)
  local started, release, pipe = { h.gate(), h.gate(), h.gate() }, h.gate(), new_pipe()
  pool:submit(ml.job{ function(s, gate, f)
    s:open()
    return f(gate)
  end, started[1], release, hold, name = "spinner" })
  pool:submit(ml.job{ h.hold, started[2], release, name = "waiter" })
  pool:submit(ml.job{ read_pipe, pipe, started[3], name = "reader" })
  for _, gate in ipairs(started) do gate:pass() end
  return function()
    release:open()
    end_pipe(pipe)
  end
end

-- Sets a handler that opens the gate with the info.
local function report_to(gate)
  ml.on_blocked(function(info)
    if not gate:is_open() then gate:open(info) end
  end)
end

describe("a blocked loop", function()
  local ex

  before_each(function()
    ex = ml.AsyncExecutor{ name = "held", blocked_ms = 20 }
    ex:submit(h.state_id):result(h.TIMEOUT) -- what it loads may take long itself
  end)
  after_each(function()
    ml.on_blocked(nil)
    h.close(ex)
  end)

  it("is reported with the job's name, line and traceback", function()
    local reported = h.gate()
    report_to(reported)
    assert.is_true(ex:submit(ml.job{ hold, reported, name = "holder" }):result(h.TIMEOUT))
    local info = reported:pass()
    assert.equal("job", info.kind)
    assert.equal("holder", info.name)
    assert.matches("blocked_spec.lua:%d+$", info.submitted_at)
    assert.matches("^stack traceback:\n\t.*blocked_spec.lua:%d+: in ", info.traceback)
    assert.is_true(info.ms >= 20 and info.ms < h.TIMEOUT * 1000)
    assert.is_nil(info.inside)
    assert.is_true(ex:stats().blocked >= 1)
  end)

  it("is reported from inside a coroutine, sort and pcall", function()
    local reported = h.gate()
    report_to(reported)
    local future = ex:submit(function(gate, f)
      local run = coroutine.wrap(function()
        local list = { 2, 1 }
        table.sort(list, function(a, b)
          assert(pcall(f, gate))
          return a < b
        end)
      end)
      run()
    end, reported, hold)
    local traceback = reported:pass().traceback
    future:result(h.TIMEOUT)
    assert.matches("'table.sort'", traceback)
    assert.matches("in a coroutine that was resumed at", traceback)
  end)

  it("is reported once for each incident", function()
    local reported, again = h.gate(), h.gate()
    ml.on_blocked(function(info)
      local gate = reported:is_open() and again or reported
      if not gate:is_open() then gate:open(info) end
    end)
    ex:submit(function(gate, f, second)
      f(gate)
      local deadline = ml.now() + 0.2 -- ten limits more
      while ml.now() < deadline do math.random() end
      assert(not second:is_open())
    end, reported, hold, again):result(h.TIMEOUT)
    ex:submit(ml.job{ hold, again, name = "second" }):result(h.TIMEOUT)
    assert.equal("second", again:pass().name)
  end)

  it("inside one C call says so, and where it came back to", function()
    local reported, any = h.gate(), h.checking()
    ml.on_blocked(function(info) -- on a busy machine the call may be over before all is known
      local known = any or (info.inside or ""):find "libc.*, called at .*blocked_spec.lua:%d+$"
      if known and not reported:is_open() then reported:open(info) end
    end)
    h.eventually(function()
      ex:submit(hold_in_c):result(h.TIMEOUT)
      return reported:is_open()
    end)
    assert.matches("blocked_spec.lua:%d+: in ", reported:pass().traceback)
  end)

  it("whose job is but one C call is reported after it", function()
    local reported = h.gate()
    report_to(reported)
    h.eventually(function()
      ex:submit(ml.job{ os.execute, "sleep 0.3", name = "shell" }):result(h.TIMEOUT)
      return reported:is_open()
    end)
    local info = reported:pass()
    assert.equal("shell", info.name)
    assert.is_nil(info.traceback)
  end)

  it("leaves the job's own debug hook in place", function()
    local reported = h.gate()
    report_to(reported)
    local before, after = ex:submit(function(gate, f)
      local lines = 0
      debug.sethook(function() lines = lines + 1 end, "l")
      f(gate)
      local so_far = lines
      local _ = 1
      local _, mask = debug.gethook()
      debug.sethook()
      return so_far, lines, mask
    end, reported, hold):result(h.TIMEOUT)
    assert.is_true(before > 0 and after > before)
  end)

  it("is no matter of jobs that wait, however many", function()
    local reported = h.gate()
    report_to(reported)
    local futures = {}
    for i = 1, 50 do futures[i] = ex:submit(function() for _ = 1, 20 do ml.sleep(0.002) end end) end
    for i = 1, 50 do futures[i]:result(h.TIMEOUT) end
    if not h.checking() then assert.is_false(reported:is_open()) end
  end)

  it("is left alone with blocked_ms = 0", function()
    local quiet <close> = ml.AsyncExecutor{ blocked_ms = 0 }
    quiet:submit(function() end):result(h.TIMEOUT) -- the limit has come by now
    quiet:submit(h.spin, 0.15):result(h.TIMEOUT)
    assert.equal(0, quiet:stats().blocked)
  end)

  it("whose handler fails is an error that nobody asked for", function()
    local log, reported = h.error_log(), h.gate()
    ml.on_blocked(function()
      if not reported:is_open() then reported:open() end
      error("handler failed", 0)
    end)
    assert.is_true(ex:submit(hold, reported):result(h.TIMEOUT))
    local err = log:entry(1)
    ml.on_error(nil)
    assert.matches("handler failed", tostring(err))
  end)

  it("answers jobs() with the line that runs", function()
    local release, started = h.gate(), h.gate()
    ml.on_blocked(function() end)
    local future = ex:submit(ml.job{ function(s, gate, f)
      s:open()
      return f(gate)
    end, started, release, hold, name = "busy" })
    started:pass()
    local list = ex:jobs()
    release:open()
    future:result(h.TIMEOUT)
    assert.equal(1, #list)
    assert.equal("busy", list[1].name)
    assert.equal("running", list[1].state)
    assert.matches("blocked_spec.lua:%d+: in ", list[1].traceback)
  end)

  it("is named by a shutdown that gives up, with its line", function()
    local other = ml.AsyncExecutor{ name = "stuck", blocked_ms = 0 }
    local started, release = h.gate(), h.gate()
    other:submit(ml.job{ function(s, gate, f)
      s:open()
      return f(gate)
    end, started, release, hold, name = "endless" })
    started:pass()
    local ok, err = other:shutdown{ timeout = 0.05 }
    release:open()
    h.close(other)
    assert.is_nil(ok)
    assert.equal("timeout", err.code)
    assert.matches("'stuck' did not stop: endless %(runs at .*:%d+%)", err.message)
  end)

  it("is named by both inside one C call, with the line that called it", function()
    local other = ml.AsyncExecutor{ name = "stuck", blocked_ms = 0 }
    local started, pipe = h.gate(), new_pipe()
    local future = other:submit(ml.job{ read_pipe, pipe, started, name = "reader" })
    started:pass()
    local list
    h.eventually(function()
      list = other:jobs()
      return list[1] and (list[1].inside or h.checking())
    end)
    local ok, err = other:shutdown{ timeout = 0 }
    end_pipe(pipe)
    assert.equal("written", future:result(h.TIMEOUT))
    h.close(other)
    assert.is_nil(ok)
    assert.equal("reader", list[1].name)
    assert.equal("running", list[1].state)
    assert.matches("'stuck' did not stop: reader ", err.message)
    if h.checking() then return end
    assert.matches("libc.*, called at .*blocked_spec.lua:%d+$", list[1].inside)
    assert.matches("is inside one C call: .*blocked_spec.lua:%d+, submitted at ", err.message)
  end)

  it("is misuse to limit by what is no time", function()
    h.misuse("blocked_ms", function() ml.AsyncExecutor{ blocked_ms = -1 } end)
    h.misuse("blocked_ms", function() ml.AsyncExecutor{ blocked_ms = "soon" } end)
    h.misuse("blocked_ms", function() ml.ThreadExecutor{ blocked_ms = 1 } end)
  end)
end)

describe("jobs() of a pool", function()
  it("says where each is: its line, its wait or its C call", function()
    local pool = ml.ThreadExecutor{ name = "busy", workers = 3 }
    local free = occupy(pool)
    pool:submit(ml.job{ function() end, name = "later" })
    local jobs
    h.eventually(function()
      jobs = {}
      for _, job in ipairs(pool:jobs()) do jobs[job.name] = job end
      local known = jobs.spinner.runs_at and jobs.waiter.waits_for and jobs.reader.inside
      return known and jobs.reader.inside:find "called at" or h.checking()
    end)
    free()
    h.close(pool)
    assert.equal("queued", jobs.later.state)
    assert.is_nil(jobs.later.runs_at)
    if h.checking() then return end
    assert.matches("spec/.*.lua:%d+$", jobs.spinner.runs_at)
    assert.matches("helpers.lua:%d+$", jobs.waiter.runs_at)
    assert.matches("libc.*, called at .*blocked_spec.lua:%d+$", jobs.reader.inside)
  end)

  it("says where it is now, not where it was", function()
    local pool = ml.ThreadExecutor{ name = "busy", workers = 1 }
    local started, first, there, second = h.gate(), h.gate(), h.gate(), h.gate()
    local job = pool:submit(function(s, one, t, two, limit)
      local deadline = ml.now() + limit
      s:open()
      while not one.future:done() and ml.now() < deadline do math.random() end
      t:open()
      while not two.future:done() and ml.now() < deadline do math.random() end
    end, started, first, there, second, h.TIMEOUT)
    local function line() -- of this file: a gate's own is elsewhere
      local at
      h.eventually(function()
        at = (pool:jobs()[1].runs_at or ""):match "blocked_spec.lua:(%d+)$"
        return at or h.checking()
      end)
      return tonumber(at)
    end
    started:pass()
    local before = line()
    first:open()
    there:pass()
    local after = line()
    second:open()
    job:result(h.TIMEOUT)
    h.close(pool)
    if not h.checking() then assert.equal(before + 2, after) end
  end)
end)

describe("a pool that does not stop", function()
  it("names its jobs, their lines, waits and C calls", function()
    local pool = ml.ThreadExecutor{ name = "stuck", workers = 3 }
    local free = occupy(pool)
    local patterns = {
      "spinner %(runs at .-blocked_spec.lua:%d+, submitted at ",
      "waiter %(waits for .- at .-helpers.lua:%d+, submitted at ",
      "reader %(is inside one C call: .- called at .-blocked_spec.lua:%d+, submitted at ",
    }
    if h.checking() then patterns = { "spinner", "waiter", "reader" } end
    local err
    h.eventually(function()
      err = select(2, pool:shutdown{ timeout = 0 })
      for _, pattern in ipairs(patterns) do
        if not err.message:find(pattern) then return false end
      end
      return true
    end)
    free()
    h.close(pool)
    assert.equal("timeout", err.code)
    assert.equal(3, #err.jobs)
  end)
end)

describe("the end of a program", function()
  it("names the line that does not stop", function()
    local err, code = h.run_script([[
      local ml = require "moonloop"
      local started = ml.promise()
      local function spin()
        started:set_result()
        while true do ml.now() end
      end
      ml.AsyncExecutor{ name = "endless", blocked_ms = 0 }:submit(ml.job{ spin, name = "spinner" })
      started.future:result(10)
    ]])
    assert.equal(0, code)
    assert.matches("executor 'endless' did not stop within 5 s of its state's closing:\n" ..
      "  job 'spinner', submitted at .-:7, runs at .-:[45]\n", err)
  end)

  it("past its grace as a state closes, it is named on stderr though it only waits", function()
    local err, code = h.run_script([[
      local ml = require "moonloop"
      local ex = ml.AsyncExecutor{ name = "stubborn" }
      local started = ml.promise()
      local function shielded(p)
        p:set_result()
        ml.shield(ml.sleep, 60)
      end
      ex:submit(ml.job{ shielded, started, name = "sleeper" })
      started.future:result(10)
    ]])
    assert.equal(0, code)
    assert.matches("executor 'stubborn' did not stop within 5 s of its state's closing:\n" ..
      "  job 'sleeper', submitted at .-:8, waits for sleep\n", err)
  end)
end)

describe("on_blocked", function()
  it("returns the handler before; nil restores the default", function()
    local function f() end
    assert.is_nil(ml.on_blocked(f))
    assert.equal(f, ml.on_blocked(nil))
    assert.is_nil(ml.on_blocked(nil))
  end)

  it("is by default one block on stderr", function()
    local err, code = h.run_script([[
      local ml = require "moonloop"
      local function spin()
        local enough = os.clock() + 0.2 -- of CPU time: what it waits for a core does not count
        while os.clock() < enough do ml.now() end
      end
      ml.run_async_job(ml.job{ spin, name = "spinner" }):result(25)
    ]], { env = { MOONLOOP_BLOCKED_MS = "30" } })
    assert.equal(0, code)
    assert.matches("^moonloop: job 'spinner', submitted at .-:6, holds its loop for %d+ ms:\n" ..
      "stack traceback:\n\t.-:4: in ", err)
    assert.equal(1, select(2, err:gsub("moonloop: ", "")))
  end)

  it("watches ml.run and the loops of the program too", function()
    local err = h.run_script([[
      local ml = require "moonloop"
      ml.run(function()
        local enough = os.clock() + 0.2 -- of CPU time: what it waits for a core does not count
        while os.clock() < enough do ml.now() end
      end)
    ]], { env = { MOONLOOP_BLOCKED_MS = "30" } })
    assert.matches("^moonloop: job 'main', submitted at .-, holds its loop for %d+ ms:", err)
  end)

  it("MOONLOOP_BLOCKED_MS=0 says nothing, and starts no thread", function()
    local out, code = h.run_script([[
      local ml = require "moonloop"
      ml.run_async_job(function()
        local enough = os.clock() + 0.2 -- of CPU time: what it waits for a core does not count
        while os.clock() < enough do ml.now() end
      end):result(25)
      print((io.popen("cat /proc/$PPID/task/*/comm"):read "a":find("ml-watch", 1, true)))
    ]], { env = { MOONLOOP_BLOCKED_MS = "0" } })
    assert.same({ "nil\n", 0 }, { out, code })
  end)
end)
