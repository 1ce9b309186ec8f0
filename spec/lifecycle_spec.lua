-- Beginnings and ends: states, executors and processes that come and go.

local ml = require "moonloop"
local h = require "spec.support.helpers"

-- What scripts in this file begin with.
local prelude = [[
  local ml = require "moonloop"
  local function threads()
    local names <close> = io.popen "cat /proc/$PPID/task/*/comm 2>/dev/null" -- but ml-watch
    local count = 0
    for name in names:lines() do count = name == "ml-watch" and count or count + 1 end
    return count
  end
]]

local function run(code, options)
  return h.run_script(prelude .. code, options)
end

-- The output and exit code, and that the process did not take long to end.
local function ends(output, code, script)
  local before = ml.now()
  assert.same({ output, code }, { run(script) })
  assert.is_true(ml.now() - before < 4.5, "the process took " .. ml.now() - before .. " s to end")
end

describe("the module", function()
  it("may be opened twice in a state", function()
    ends("true\tnil\n1\t2\ttrue\n", 0, [[
      local ex <close> = ml.AsyncExecutor{}
      local p = ml.promise()
      local yield = coroutine.yield
      for name in pairs(package.loaded) do
        if name:find "^moonloop" then package.loaded[name] = nil end
      end
      local again = require "moonloop"
      print(yield == coroutine.yield, (again.current_job()))
      local a = ex:submit(function() return 1 end):result(10)
      local b = again.run(function()
        return ml.spawn(function() again.sleep(0.001) return 2 end):result()
      end)
      again.set_event_loop(ex)
      print(a, b, ml.get_event_loop() == ex)
      p:set_result()
      again.set_event_loop(nil)
    ]])
  end)

  it("is opened in many states by many threads at once", function()
    local ex <close> = ml.AsyncExecutor{ loops = 4 }
    local pool <close> = ml.ThreadExecutor{ workers = 4 }
    local futures = {}
    for i = 1, 20 do
      futures[i] = (i % 2 == 0 and ex or pool):submit(function()
        return require("moonloop").now() > 0
      end)
    end
    for i = 1, 20 do assert.is_true(futures[i]:result(h.TIMEOUT)) end
  end)

  it("starts no thread until it is needed", function()
    if h.checking() then return end -- a sanitizer has threads too
    ends("0\t1\n", 0, [[
      local before = threads()
      ml.run(function() ml.sleep(0.001) end)
      ml.promise():set_result()
      -- ml-watch has the name of its maker until it has named itself
      for _ = 1, 500 do
        if threads() == before then break end
        os.execute "sleep 0.01"
      end
      local without = threads() - before
      ml.run_async_job(function() end):result(10)
      print(without, threads() - before)
    ]])
  end)
end)

describe("executors", function()
  it("live side by side, each with its own state", function()
    local a <close> = ml.AsyncExecutor{ name = "a" }
    local b <close> = ml.AsyncExecutor{ name = "b" }
    a:submit(function() rawset(_G, "owner", "a") end):result(h.TIMEOUT)
    b:submit(function() rawset(_G, "owner", "b") end):result(h.TIMEOUT)
    local function owner() return rawget(_G, "owner") end
    assert.equal("a", a:submit(owner):result(h.TIMEOUT))
    assert.equal("b", b:submit(owner):result(h.TIMEOUT))
    h.close(a)
    assert.equal("b", b:submit(owner):result(h.TIMEOUT))
  end)

  it("leave no thread and no descriptor behind", function()
    local function round()
      local ex <close> = ml.AsyncExecutor{ loops = 2 }
      local pool <close> = ml.ThreadExecutor{ workers = 2 }
      ex:submit(function(p)
        ml.sleep(0.0005)
        return p:submit(function() return 1 end):result()
      end, pool):result(h.TIMEOUT)
    end
    round()
    local threads, fds = h.threads(), h.fds()
    for _ = 1, 25 do round() end
    h.eventually(function() return h.threads() <= threads end, "the old thread count")
    h.eventually(function() h.collect() return h.fds() <= fds end, "the old descriptor count")
  end)

  it("whose threads cannot be started are an error; with some of them a pool goes on", function()
    if h.checking() then return end -- a sanitizer needs all the memory there is to map
    local out, code = run([[
      local before = threads()
      for _ = 1, 3 do
        local ok, err = pcall(ml.AsyncExecutor, { name = "many", loops = 50 })
        print(ok, err.code, err.message)
        local deadline = ml.now() + 10
        while threads() > before and ml.now() < deadline do ml.sleep(0.002) end
      end
      print(threads() - before)
      local few <close> = ml.AsyncExecutor{ loops = 2 }
      local pool <close> = ml.ThreadExecutor{ workers = 50 }
      local futures, gate = {}, ml.promise()
      for i = 1, 50 do futures[i] = pool:submit(function(f) f:result(10) end, gate.future) end
      gate:set_result()
      for i = 1, 50 do futures[i]:result(10) end
      print(few:submit(function() return "fine" end):result(10))
    ]], { memory = 12000000, stack = 2000000 })
    local refused = "false\tEAGAIN\tcannot start the threads of executor 'many': "
    assert.equal((refused .. "Resource temporarily unavailable\n"):rep(3) .. "0\nfine\n", out)
    assert.equal(0, code)
  end)

  it("may end without ever having run a job", function()
    for _ = 1, 20 do
      local ex <close> = ml.AsyncExecutor{}
      assert.equal(0, ex:stats().submitted)
    end
  end)

  it("that are collected finish their jobs, then end", function()
    local threads = h.threads()
    local started, release = h.gate(), h.gate()
    local future = ml.AsyncExecutor{}:submit(h.hold, started, release)
    started:pass()
    h.collect()
    assert.equal(threads + 1, h.threads())
    release:open "finished"
    assert.equal("finished", future:result(h.TIMEOUT))
    h.eventually(function() h.collect() return h.threads() <= threads end, "the thread's end")
  end)

  it("that are collected before anything ran run it", function()
    local gate = h.gate()
    do ml.AsyncExecutor{}:submit(function(g) g:open "ran" end, gate) end
    h.collect()
    assert.equal("ran", gate:pass())
  end)

  it("made in a loop's state end with that state", function()
    local threads = h.threads()
    do
      local ex <close> = ml.AsyncExecutor{}
      assert.equal(1, ex:submit(function()
        rawset(_G, "inner", ml.AsyncExecutor{})
        return rawget(_G, "inner"):submit(function() return 1 end):result()
      end):result(h.TIMEOUT))
    end
    h.eventually(function() return h.threads() <= threads end, "the old thread count")
  end)

  it("settle their futures even if nobody waits for the shutdown", function()
    local ex = ml.AsyncExecutor{}
    local futures = {}
    for i = 1, 100 do futures[i] = ex:submit(function() ml.sleep(60) end) end
    ex:shutdown{ wait = false, cancel = true }
    for i = 1, 100 do assert.equal("job_cancelled", futures[i]:exception(h.TIMEOUT).code) end
    h.close(ex)
  end)

  it("take many submits while their loop is busy", function()
    local ex <close> = ml.AsyncExecutor{}
    local busy = ex:submit(function() h.spin(0.3) end)
    local last
    for _ = 1, 20000 do last = ex:submit(function(n) return n end, 1) end
    assert.equal(1, last:result(h.TIMEOUT))
    assert.is_true(busy:done())
    h.eventually(function() return ex:stats().finished == 20001 end)
  end)

  it("let the collector of a loop rest with it, or as long as it is stopped", function()
    local function begin()
      rawset(_G, "cycles", 0)
      local function mark()
        rawset(_G, "cycles", rawget(_G, "cycles") + 1)
        setmetatable({}, { __gc = mark })
      end
      setmetatable({}, { __gc = mark })
      ml.sleep(0.6)
      local resting = rawget(_G, "cycles")
      collectgarbage "stop"
      ml.checkpoint()
      ml.sleep(0.3)
      return resting, rawget(_G, "cycles")
    end
    for _, mode in ipairs{ "incremental", "generational" } do
      local ex <close> = ml.AsyncExecutor{ init = ml.job{ collectgarbage, mode } }
      local resting, stopped = ex:submit(begin):result(h.TIMEOUT)
      assert.is_true(resting >= 1 and resting <= 4, mode .. ": " .. resting)
      assert.is_true(stopped <= resting + 1, mode .. ": " .. stopped)
    end
  end)

  it("settle every future of one burst after the other, in memory that does not grow", function()
    local out = run([[
      local rounds = tonumber(arg[1])
      local function memory()
        local file <close> = assert(io.open "/proc/self/status")
        return tonumber(file:read("a"):match "VmRSS:%s*(%d+)")
      end
      local function burst(cancel)
        local ex, futures = ml.AsyncExecutor{ loops = 2 }, {}
        for i = 1, 2000 do futures[i] = ex:submit(function(n) return n end, i) end
        assert(ex:shutdown{ cancel = cancel, timeout = 10 })
        for i = 1, 2000 do
          assert(futures[i]:done())
          assert(cancel or futures[i]:result(0) == i)
        end
      end
      for i = 1, rounds // 2 do burst(i % 2 == 0) end
      collectgarbage()
      local before = memory()
      for i = 1, rounds do burst(i % 2 == 0) end
      collectgarbage()
      print(memory() - before)
    ]], { h.checking() and "4" or "100", seconds = 60 })
    local grown = assert(tonumber(out), out)
    if not h.checking() then assert.is_true(grown < 10000, grown .. " KiB more") end
  end)
end)

describe("the end of a script", function()
  it("cancels what is in flight, runs its clean-up, and keeps the exit code", function()
    ends("cleaned\n", 0, [[
      local started = ml.promise()
      ml.run_async_job(function(s)
        local _ <close> = setmetatable({}, { __close = function()
          io.stdout:write "cleaned\n"
          io.stdout:flush()
        end })
        s:set_result()
        ml.sleep(3600)
      end, started)
      started.future:result(10)
    ]])
  end)

  it("with jobs, pools and promises left open is silent", function()
    ends("", 0, [[
      kept = { ml.promise(), ml.AsyncExecutor{ loops = 2 }, ml.ThreadExecutor{ workers = 2 } }
      for _ = 1, 50 do kept[#kept + 1] = kept[2]:submit(function() ml.sleep(3600) end) end
      kept[#kept + 1] = ml.run_in_executor(nil, function() ml.sleep(3600) end)
    ]])
  end)

  it("does not wait for what cancelled jobs left on a pool, in a call back to a loop", function()
    ends("6\n", 0, [[
      local pool, never = ml.ThreadExecutor{ workers = 2 }, ml.Event()
      local futures, started = {}, ml.Semaphore(0)
      for i = 1, 6 do
        futures[i] = ml.run_async(function()
          started:release()
          pool:sync_to_async(ml.async_to_sync(function() started:release() never:wait() end))
        end)
      end
      for _ = 1, 8 do started:acquire(10) end
      local n = 0
      for i = 1, 6 do futures[i]:cancel() end
      for i = 1, 6 do if futures[i]:exception(10).code == "job_cancelled" then n = n + 1 end end
      print(n)
    ]])
  end)

  it("ends jobs that wait for a promise of this state", function()
    local before = ml.now()
    local _, code = run [[
      kept = { ml.promise(), ml.ThreadExecutor{ workers = 1 } }
      kept[3] = kept[2]:submit(function(f) f:result() end, kept[1].future)
      kept[4] = ml.run_async_job(function(f) f:result() end, kept[1].future)
    ]]
    assert.equal(0, code)
    assert.is_true(ml.now() - before < 4.5)
  end)

  it("by an error exits with 1 as ever", function()
    local out, code = run [[
      ml.run_async_job(function() ml.sleep(3600) end)
      error "the script's own"
    ]]
    assert.matches("the script's own", out)
    assert.equal(1, code)
  end)

  it("by os.exit with work in flight exits at once with its code", function()
    ends("", 7, [[
      for _ = 1, 100 do ml.run_async_job(function() ml.sleep(3600) end) end
      ml.run_in_executor(nil, function() ml.sleep(3600) end)
      os.exit(7)
    ]])
  end)

  it("by os.exit that closes the state does too", function()
    ends("", 7, [[
      for _ = 1, 100 do ml.run_async_job(function() ml.sleep(3600) end) end
      os.exit(7, true)
    ]])
  end)

  it("by os.exit in a job exits with its code", function()
    ends("", 9, [[
      ml.run_async_job(function() os.exit(9) end):wait(10)
    ]])
    ends("", 9, [[
      ml.run(function() ml.sleep(0.001) os.exit(9) end)
    ]])
    ends("", 9, [[
      ml.run_async_job(function() os.exit(9, true) end):wait(10)
    ]])
  end)

  it("by os.exit(code, true) inside ml.run closes what runs", function()
    ends("", 5, [[
      ml.run(function()
        ml.spawn(function() ml.sleep(3600) end)
        ml.sleep(0.001)
        os.exit(5, true)
      end)
    ]])
  end)

  it("in a coroutine with waits inside is fine", function()
    ends("1\n", 0, [[
      local co = coroutine.wrap(function()
        local ex = ml.AsyncExecutor{}
        print(ex:submit(function() return 1 end):result(10))
        coroutine.yield()
      end)
      co()
    ]])
  end)

  it("lets a finalizer submit and get an answer, never a crash", function()
    ends("answered\n", 0, [[
      local ex = ml.AsyncExecutor{}
      setmetatable({}, { __gc = function()
        pcall(function() ex:submit(function() return 1 end):wait(1) end)
        pcall(function() ml.run_async_job(function() return 1 end):wait(1) end)
        print "answered"
      end })
    ]])
  end)

  it("names a job that does not stop, after 5 seconds, and keeps the exit code", function()
    local out, code = run([[
      local started = ml.promise()
      ml.run_async_job(ml.job{ function(s)
        s:set_result()
        while true do end
      end, started, name = "spinner" })
      started.future:result(10)
      os.exit(3, true)
    ]], { seconds = 20 })
    assert.matches("spinner", out)
    assert.equal(3, code)
  end)

  it("wakes a thread that waits for a job that will never run", function()
    ends("closed or cancelled\n", 0, [[
      local ex = ml.AsyncExecutor{}
      local p = ml.promise()
      local waiting = ml.promise()
      local waiter = ml.run_in_executor(nil, function(e, f, w)
        local inner = e:submit(function(g) g:result() end, f)
        w:set_result()
        local ok, err = inner:wait()
        return not ok and (err.code == "job_cancelled" or err.code == "closed")
      end, ex, p.future, waiting)
      waiting.future:result(10)
      ex:shutdown{ cancel = true, timeout = 10 }
      print(waiter:result(10) and "closed or cancelled")
      p:set_result()
    ]])
  end)
end)

describe("Ctrl-C", function()
  -- Interrupts this process from one of its own loop threads.
  local interrupt = [[
    ml.run_async_job(function()
      ml.sleep(0.2)
      io.popen("kill -INT $PPID"):close()
    end)
  ]]

  it("raises interrupted! at a blocking wait", function()
    local out, code = run(interrupt .. [[
      local p = ml.promise()
      local ok, err = pcall(function() p.future:result(30) end)
      print(ok, (tostring(err):find("interrupted!", 1, true) ~= nil))
    ]])
    assert.same({ "false\ttrue\n", 0 }, { out, code })
  end)

  it("uncaught ends the script and cancels its jobs", function()
    local out, code = run(interrupt .. [[
      local p = ml.promise()
      ml.run_async_job(function()
        local _ <close> = setmetatable({}, { __close = function()
          io.stderr:write "cleaned\n"
        end })
        ml.sleep(3600)
      end)
      p.future:result(30)
    ]])
    assert.matches("interrupted!", out)
    assert.matches("cleaned", out)
    assert.equal(1, code)
  end)

  it("raises at a sleep and in ml.run as well", function()
    for _, wait in ipairs{ "ml.sleep(30)", "ml.run(function() ml.sleep(30) end)" } do
      local out = run(interrupt .. ([[
        local ok, err = pcall(function() %s end)
        print(ok, (tostring(err):find("interrupted!", 1, true) ~= nil))
      ]]):format(wait))
      assert.equal("false\ttrue\n", out)
    end
  end)
end)
