-- Ctrl-C while a thread waits: what it began itself is cancelled and cleans up, then
-- "interrupted!" is raised. In processes of their own, under the plain interpreter.

local ml = require "moonloop"
local h = require "spec.support.helpers"

-- `ready` is opened when the signal may come, which it does once the thread waits: a
-- reference is called only then. `try` says how a call ended; `clean` is a clean-up that
-- takes its time, and says so.
local prelude = [[
  local ml = require "moonloop"
  local h = require "spec.support.helpers"
  local function say(...)
    io.stdout:write(table.concat({ ... }, " "), "\n")
    io.stdout:flush()
  end
  local waiting = ml.ref(function() end)
  local function interrupt()
    waiting()
    io.popen("kill -INT $PPID"):close()
  end
  local ready = h.gate()
  ml.run_async_job(function()
    ready:pass()
    interrupt()
  end)
  local function try(f, ...)
    local ok, err = pcall(f, ...)
    say(tostring(ok), tostring(err):match "interrupted!" or tostring(err))
  end
  local function clean(what)
    return ml.defer(function()
      ml.sleep(0.05)
      say(what, "cleaned up")
    end)
  end
  local function job()
    local _ <close> = clean "job"
    ready:open()
    ml.sleep(3600)
  end
]]

-- Runs a script; its output and exit code. It must not take long.
local function run(script)
  local before = ml.now()
  local output, code = h.run_script(prelude .. script)
  local took = ml.now() - before
  assert.is_true(h.checking() or took < 4.5, ("took %g s:\n%s"):format(took, output))
  return output, code
end

-- The lines that a script prints, which ends well.
local function prints(lines, script)
  local output, code = run(script)
  assert.equal(table.concat(lines, "\n") .. "\n", output)
  assert.equal(0, code)
end

describe("Ctrl-C", function()
  local after_clean_up = { "job cleaned up", "false interrupted!" }

  it("cancels the job of async_to_sync and waits for its clean-up", function()
    prints(after_clean_up, "try(ml.async_to_sync(job))")
    prints(after_clean_up, [[
      local ex <close> = ml.AsyncExecutor{}
      try(ex.sync_to_async, ex, job)
    ]])
  end)

  it("reaches the call in a coroutine, and in a scope that is cancelled later", function()
    prints(after_clean_up, "try(coroutine.wrap(function() ml.async_to_sync(job)() end))")
    prints(after_clean_up, "try(ml.timeout, 3600, ml.async_to_sync(job))")
  end)

  it("cancels the main job of run, and all that belongs to it", function()
    local output, code = run[[
      try(ml.run, function()
        ml.spawn(function()
          local _ <close> = clean "child"
          ml.sleep(3600)
        end)
        ml.sleep(0)
        job()
      end)
    ]]
    assert.equal(0, code)
    assert.matches("job cleaned up\n", output)
    assert.matches("child cleaned up\n", output)
    assert.matches("false interrupted!\n$", output)
  end)

  it("cancels the jobs of gather and of a group, and waits for them", function()
    prints(after_clean_up, "try(ml.gather, { job })")
    prints(after_clean_up, "try(ml.group, function(g) g:spawn(job) end)")
    prints(after_clean_up, "try(ml.group, function(g) g:spawn(job):result() end)")
    prints(after_clean_up, [[
      try(function()
        local g <close> = ml.group()
        g:spawn(job)
      end)
    ]])
  end)

  it("leaves a job that has a future of its own alone", function()
    prints({ "false interrupted!", "still here" }, [[
      local release = h.gate()
      local future = ml.run_async_job(h.hold, ready, release)
      try(future.result, future)
      release:open "still here"
      say(future:result(10))
    ]])
    prints({ "false interrupted!", "still here" }, [[
      local release = h.gate()
      local future = ml.run_async_job(h.hold, ready, release)
      try(ml.complete_async_jobs, future)
      release:open "still here"
      say(future:result(10))
    ]])
  end)

  it("leaves a function on a thread running, and does not wait for it", function()
    prints({ "false interrupted!", "ran on" }, [[
      local release, ended = h.gate(), h.gate()
      try(ml.to_thread, function()
        h.hold(ready, release)
        ended:open "ran on"
      end)
      release:open()
      say(ended:pass())
    ]])
  end)

  it("ends the request of a client that waits for the answer", function()
    prints({ "false interrupted!", "request; then: closed" }, [[
      local http, tcp = require "moonloop.http", require "moonloop.tcp"
      local server <close> = assert(tcp.listen())
      local peer = ml.run_async_job(function()
        local sock <close> = assert(server:accept(10))
        local line = assert(sock:read_line())
        repeat local header = assert(sock:read_line()) until header == ""
        ready:open()
        local more, err = sock:read_line()
        return (line:find "^GET" and "request" or line) .. "; then: " .. (more or err.code)
      end)
      try(http.get, ("http://127.0.0.1:%d/"):format(server.port))
      say(peer:result(10))
    ]])
  end)

  it("ends what a socket waits for; the socket goes on", function()
    prints({ "false interrupted!", "true line" }, [[
      local tcp = require "moonloop.tcp"
      local server <close> = assert(tcp.listen())
      local client <close> = assert(tcp.connect("127.0.0.1", server.port))
      local peer <close> = assert(server:accept(10))
      ready:open()
      try(client.read_line, client)
      assert(peer:write "line\n")
      say("true", client:read_line())
    ]])
    prints({ "false interrupted!", "true" }, [[
      local tcp = require "moonloop.tcp"
      local server <close> = assert(tcp.listen())
      ready:open()
      try(server.accept, server)
      local client <close> = assert(tcp.connect("127.0.0.1", server.port))
      local peer <close> = assert(server:accept(10))
      say "true"
    ]])
  end)

  it("takes nothing from a queue, a lock or a generator", function()
    prints({ "false interrupted!", "item" }, [[
      local queue = ml.Queue()
      ready:open()
      try(queue.get, queue)
      queue:put "item"
      say(queue:get(10))
    ]])
    prints({ "false interrupted!", "true" }, [[
      local lock, held, release = ml.Lock(), h.gate(), h.gate()
      local holder = ml.run_async_job(function()
        local _ <close> = lock:hold()
        h.hold(held, release)
      end)
      held:pass()
      ready:open()
      try(lock.acquire, lock)
      release:open()
      holder:result(10)
      say(tostring(lock:acquire(10)))
      lock:release()
    ]])
    prints({ "false interrupted!", "item" }, [[
      local release = h.gate()
      local items <close> = ml.generator{ function()
        coroutine.yield(h.hold(ready, release))
      end }
      try(items.next, items)
      release:open "item"
      say(select(2, items:next(10)))
    ]])
  end)

  it("lets the thread wait again: for jobs, calls and sleeps", function()
    prints({ "job cleaned up", "false interrupted!", "again", "true nil" }, [[
      try(ml.async_to_sync(job))
      ml.sleep(0.01)
      say(ml.async_to_sync(function() ml.sleep(0.01) return "again" end)())
      try(ml.timeout, 10, ml.run, function() ml.sleep(0) end)
    ]])
  end)

  it("during a callback is raised by the wait, not by the callback", function()
    prints({ "called back", "callback ended", "false interrupted!" }, [[
      local begun, sent = h.gate(), h.gate()
      ml.run_async_job(function()
        begun:pass()
        io.popen("kill -INT $PPID"):close()
        sent:open()
      end)
      local called = ml.ref(function()
        say "called back"
        begun:open()
        while not sent:is_open() do h.spin(0.001) end
        say "callback ended"
      end)
      try(ml.async_to_sync(function()
        called()
        ml.sleep(3600)
      end))
    ]])
    prints({ "job cleaned up", "false interrupted!", "false interrupted!" }, [[
      local call = ml.async_to_sync(function(f)
        f()
        ml.sleep(3600)
      end)
      try(call, ml.ref(function() try(ml.async_to_sync(job)) end))
    ]])
  end)

  it("uncaught ends the script after the clean-up", function()
    local output, code = run "ml.async_to_sync(job)()"
    assert.matches("^job cleaned up\n.*interrupted!\nstack traceback", output)
    assert.equal(1, code)
  end)

  it("a second time does not wait: the interpreter leaves it to the system", function()
    local output, code = run[[
      local again = h.gate()
      ml.run_async_job(function()
        again:pass()
        interrupt()
      end)
      ml.async_to_sync(function()
        local _ <close> = ml.defer(function()
          say "cleaning up"
          again:open()
          ml.sleep(3600)
        end)
        ready:open()
        ml.sleep(3600)
      end)()
    ]]
    assert.equal("cleaning up\n", output)
    assert.equal(130, code)
  end)

  it("a second time raises, where the host's handler catches it again", function()
    -- Such a handler leaves a hook, as the interpreter's does. Here a reference does that,
    -- which runs in the thread while it waits.
    prints({ "cleaning up", "false interrupted!", "released" }, [[
      local release, ended = h.gate(), h.gate()
      local main = coroutine.running()
      local signal = ml.ref(function() debug.sethook(main, function() end, "", 1000000) end)
      try(ml.async_to_sync(function()
        local _ <close> = ml.defer(function()
          say "cleaning up"
          signal()
          release:pass()
          ended:open "released"
        end)
        signal()
        ml.sleep(3600)
      end))
      release:open()
      say(ended:pass())
    ]])
  end)
end)
