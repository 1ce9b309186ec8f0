-- SIGQUIT shows what all jobs of the program do, on stderr, and the program goes on.

local h = require "spec.support.helpers"

-- Runs a script with the program; its lines, with a number for each time and for the script's
-- name. In the script `quit()` sends the signal from the running job, `quit_parked()` from a
-- thread, while the job waits.
local function run(script)
  local output, code = h.run_script([[
    local ml = require "moonloop"
    local function quit() io.popen("kill -QUIT $PPID"):close() end
    local function quit_parked()
      ml.to_thread(function() io.popen("kill -QUIT $PPID; sleep 0.2"):close() end)
    end
    ]] .. script, { lua = "moonloop", env = { MOONLOOP_INIT = "" } })
  assert.equal(0, code, output)
  output = output:gsub("%d+%.%d%d%d s", "N s"):gsub("/tmp/lua_%w+", "script")
  return "\n" .. output
end

local function contains(output, ...)
  for _, text in ipairs { ... } do
    assert(output:find(text, 1, true), ("no %q in:%s"):format(text, output))
  end
end

describe("SIGQUIT", function()
  it("shows the tree of jobs, and the program goes on", function()
    local output = run([[
      local gate = ml.Event()
      local function child() gate:wait() end
      local function parent()
        ml.spawn(ml.job{ child, name = "first" })
        ml.spawn(ml.job{ child, name = "second" }):result()
      end
      local job = ml.spawn(ml.job{ parent, name = "parent" })
      local other = ml.spawn(ml.sleep, 60)
      ml.sleep(0.01)
      quit_parked()
      gate:set()
      job:result()
      other:cancel()
      print "went on"
    ]])
    contains(output, [[

jobs of main: 5
  main: parked N s, waits for future, at script:4
    parent: parked N s, waits for future, at script:10, spawned at script:12
      first: parked N s, waits for event wait, at script:7, spawned at script:9
      second: parked N s, waits for event wait, at script:7, spawned at script:10
    job 3: parked N s, waits for sleep, spawned at script:13
]], "\nwent on\n")
  end)

  it("shows what a job computes right now", function()
    local output = run([[
      ml.spawn(function() end)
      quit()
      for i = 1, 1e6 do i = i + 1 end
      print "went on"
    ]])
    contains(output, "\njobs of main: 2\n  main: running, at script:2\n"
      .. "    job 2: queued, spawned at script:6\n", "\nwent on\n")
  end)

  it("shows a job whose parent has ended, and where it waits in a coroutine", function()
    local output = run([[
      ml.spawn(function()
        ml.spawn(ml.job{ coroutine.wrap(function() ml.sleep(60) end), name = "orphan" })
      end):result()
      ml.sleep(0.01)
      quit_parked()
    ]])
    contains(output, "\n  orphan: parked N s, waits for sleep, ")
  end)

  it("shows the jobs of the executors as well", function()
    local output = run([[
      local ex <close> = ml.AsyncExecutor{ name = "orders", loops = 2 }
      local pool <close> = ml.ThreadExecutor{ name = "crunch", workers = 1 }
      local gate, begun = ml.Event(), ml.Semaphore(0)
      local function wait(g, b) b:release() g:wait() end
      for i = 1, 2 do
        ex:submit(ml.job{ wait, gate, begun, name = "order " .. i })
        pool:submit(ml.job{ wait, gate, begun, name = "sum " .. i })
      end
      for _ = 1, 3 do begun:acquire() end
      ml.run_async(ml.job{ wait, gate, begun, name = "default" })
      begun:acquire()
      ml.sleep(0.02)
      quit()
      for _, one in ipairs{ ex, ml.get_event_loop() } do one:jobs() end
      gate:set()
    ]])
    contains(output, "\njobs of orders, loop 1: 1\n", "\njobs of orders, loop 2: 1\n",
      "\n  order 1: parked N s, waits for event wait, at script:9, submitted at script:11\n",
      "\njobs of crunch:\n  sum 1: running, submitted at script:12\n"
      .. "  sum 2: queued, submitted at script:12\n  1 running, 1 queued\n",
      "\njobs of moonloop: 1\n  default: parked N s, waits for event wait, at script:9")
  end)

  it("shows the jobs of child processes, and which", function()
    local output = run([[
      local marker = require "spec.support.marker"
      local started, release = marker.new(), marker.new()
      local ex <close> = ml.ProcessExecutor{ name = "parsers", workers = 1 }
      ex:submit(ml.job{ marker.hold, started, release, name = "page 1" })
      ex:submit(ml.job{ math.abs, -1, name = "page 2" })
      print("pid " .. started:wait())
      started:remove()
      quit()
      ex:jobs()
      release:set()
      ex:shutdown()
      release:remove()
    ]])
    contains(output, ("\njobs of parsers:\n  page 1: running in process %s, submitted at script:9\n"
      .. "  page 2: queued, submitted at script:10\n  1 running, 1 queued\n")
      :format(output:match "pid (%d+)"))
  end)

  it("may come again and again, and beside a debugger's hook", function()
    local output = run([[
      local lines = 0
      debug.sethook(function() lines = lines + 1 end, "l")
      quit()
      local hooked = debug.gethook()
      debug.sethook()
      ml.sleep(0.01)
      quit()
      assert(hooked and lines > 0)
    ]])
    local _, times = output:gsub("\njobs of main: 1\n", "")
    assert.equal(2, times)
  end)

  it("shows no more than a thousand jobs of a state", function()
    local output = run([[
      for _ = 1, 1500 do ml.spawn(ml.sleep, 60) end
      ml.checkpoint()
      quit()
    ]])
    contains(output, "\njobs of main: 1501\n", "\n  and 501 more\n")
    local _, lines = output:gsub("\n", "")
    assert.is_true(lines < 1010)
  end)

  it("ends the program once that closes down", function()
    local output, code = h.run_script([[
      setmetatable({}, { __gc = function() io.popen("kill -QUIT $PPID"):close() end })
      io.stdout:setvbuf("no")
    ]], { lua = "moonloop" })
    assert.equal(131, code, output)
  end)
end)
