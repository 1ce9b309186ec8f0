-- What a ProcessExecutor does where something is amiss: shutdowns at any moment, parents that
-- die, children that fork, limits of the system. No process is left, and nothing hangs.

local ml = require "moonloop"
local h = require "spec.support.helpers"
local marker = require "spec.support.marker"

local function stop_self(started)
  started:set(tostring(marker.pid()))
  os.execute("kill -STOP " .. marker.pid())
end

local function spin(started)
  started:set(tostring(marker.pid()))
  while true do end
end

after_each(function() assert.same({}, marker.children()) end)

describe("the shutdown of a ProcessExecutor", function()
  -- Each brings an executor into a state and returns futures. `hangs`: they would never settle
  -- by themselves. `options` for the executor, `program`: what its children run.
  local states = {
    ["was never used"] = { begin = function() return {} end },
    ["starts its children"] = { begin = function(ex)
      return { ex:submit(math.abs, -1), ex:submit(math.abs, -2), ex:submit(math.abs, -3) }
    end },
    ["waits for its children to be ready"] = {
      options = { init = function() require("moonloop").sleep(0.1) end },
      begin = function(ex) return { ex:submit(math.abs, -1), ex:submit(math.abs, -2) } end,
    },
    ["has a child that never is ready"] = { hangs = true,
      options = { init = function() require("moonloop").sleep(60) end },
      begin = function(ex) return { ex:submit(math.abs, -1) } end,
    },
    ["has a broken init"] = {
      options = { init = function() error "broken" end },
      begin = function(ex) return { ex:submit(math.abs, -1), ex:submit(math.abs, -2) } end,
    },
    ["has idle children"] = { begin = function(ex)
      ex:submit(math.abs, -1):result(h.TIMEOUT)
      return {}
    end },
    ["has a child that computes"] = { hangs = true, begin = function(ex, started)
      local future = ex:submit(spin, started)
      started:wait()
      return { future, ex:submit(math.abs, -1) }
    end },
    ["has a child that does not answer"] = { hangs = true, begin = function(ex, started)
      local future = ex:submit(stop_self, started)
      started:wait()
      return { future }
    end },
    ["ends a child just now"] = { begin = function(ex, started)
      local future = ex:submit(stop_self, started)
      started:wait()
      future:cancel()
      return { future, ex:submit(math.abs, -1) }
    end },
    ["waits before it starts a child again"] = { begin = function(ex)
      for _ = 1, 6 do ex:submit(os.exit, 1):wait(h.TIMEOUT) end
      return { ex:submit(math.abs, -1), ex:submit(math.abs, -2) }
    end },
    ["has a crash on its way"] = { begin = function(ex)
      return { ex:submit(os.exit, 1), ex:submit(math.abs, -2) }
    end },
  }

  local ways = {
    ["that waits"] = function(ex) return ex:shutdown{ timeout = h.TIMEOUT } end,
    ["that cancels"] = function(ex) return ex:shutdown{ cancel = true, timeout = h.TIMEOUT } end,
    ["that gives up, then cancels"] = function(ex)
      ex:shutdown{ timeout = 0 }
      return ex:shutdown{ cancel = true, timeout = h.TIMEOUT }
    end,
  }

  for name, state in pairs(states) do
    for way, shutdown in pairs(ways) do
      if not (state.hangs and way == "that waits") then
        it(way .. " ends one that " .. name, function()
          local started = marker.new()
          local options = { workers = 2, grace = 0.1 }
          for key, value in pairs(state.options or {}) do options[key] = value end
          local ex = ml.ProcessExecutor(options)
          local futures = state.begin(ex, started)
          assert.is_true(shutdown(ex))
          started:remove()
          for _, future in ipairs(futures) do
            assert.is_true(future:done())
            future:exception(0)
          end
          local stats = ex:stats()
          assert.same({ 0, 0, 0 }, { stats.running, stats.queued, stats.workers })
          assert.same({}, ex:jobs())
        end)
      end
    end
  end
end)

describe("the children of a ProcessExecutor", function()
  -- Runs a program that has a child in each of two states and then ends in the given way; they
  -- must be gone too.
  local function ends(how)
    local idle, busy = marker.new(), marker.new()
    local output = h.run_script(([[
      local ml = require "moonloop"
      local marker = require "spec.support.marker"
      local idle = setmetatable({ path = arg[1] }, marker.Marker)
      local busy = setmetatable({ path = arg[2] }, marker.Marker)
      local one, two = ml.ProcessExecutor{ workers = 1 }, ml.ProcessExecutor{ workers = 1 }
      one:submit(function(s) s:set(tostring(marker.pid())) end, idle):result(15)
      two:submit(function(s) s:set(tostring(marker.pid())) while true do end end, busy)
      busy:wait()
      %s
      ml.sleep(15)
    ]]):format(how), { idle.path, busy.path })
    assert.is_string(output)
    for _, mark in ipairs{ idle, busy } do
      local pid = assert(mark:get(), output)
      mark:remove()
      h.eventually(function() return not marker.alive(pid) end, "the end of " .. pid)
    end
  end

  for name, how in pairs{
    ["returns"] = "do return end",
    ["fails"] = "error 'bye'",
    ["calls os.exit"] = "os.exit(3)",
    ["calls os.exit and closes its state"] = "os.exit(3, true)",
    ["is killed"] = "os.execute('kill -KILL ' .. marker.pid())",
    ["is interrupted"] = "os.execute('kill -INT ' .. marker.pid())",
    ["aborts"] = "os.execute('ulimit -c 0; kill -ABRT ' .. marker.pid())",
    ["crashes"] = "os.execute('kill -SEGV ' .. marker.pid())",
  } do
    it("end with a parent that " .. name, function()
      if name == "crashes" and h.checking() then return end -- sanitizers take SIGSEGV
      ends(how)
    end)
  end

  it("may start processes that outlive their job, and these do not hold a shutdown", function()
    local ex = ml.ProcessExecutor{ workers = 1 }
    local pid = ex:submit(function()
      local pipe <close> = io.popen "sleep 30 >&2 & echo $!" -- it keeps stderr and the socket
      return pipe:read "n"
    end):result(h.TIMEOUT)
    assert.is_true(marker.alive(pid))
    assert.equal(1, ex:submit(math.abs, -1):result(h.TIMEOUT))
    assert.is_true(ex:shutdown{ timeout = h.TIMEOUT })
    os.execute("kill -KILL " .. pid .. " 2>/dev/null")
  end)

  it("take what they have started along when they are killed", function()
    local ex <close> = ml.ProcessExecutor{ workers = 1, grace = 0.1 }
    local started = marker.new()
    local future = ex:submit(function(s)
      local pipe <close> = io.popen "sleep 30 & echo $!; wait"
      s:set(pipe:read "l")
      pipe:read "a"
    end, started)
    local pid = started:wait()
    started:remove()
    assert.is_true(marker.alive(pid))
    assert.is_true(future:cancel_and_wait(h.TIMEOUT))
    h.eventually(function() return not marker.alive(pid) end, "the end of what the child started")
  end)

  it("may fill both pipes without a line's end", function()
    local output, code = h.run_script([[
      local ml = require "moonloop"
      local ex <close> = ml.ProcessExecutor{ workers = 1, name = "full" }
      print(ex:submit(function()
        io.stdout:write(("q"):rep(300000))
        io.stderr:write(("z"):rep(300000))
        return "done"
      end):result(15))
    ]])
    assert.equal(0, code)
    assert.matches("done\n", output)
    assert.matches("full%[%d+%]: q+\n", output)
    local _, q = output:gsub("q", "")
    local _, z = output:gsub("z", "")
    assert.same({ 300000, 300000 }, { q, z })
  end)
end)

describe("a ProcessExecutor whose child has a job and", function()
  -- A program that stands between the parent and a real child, until the first job has come.
  local RELAY = [[#!/usr/bin/python3
import os, select, socket, struct, subprocess, time
parent = socket.socket(fileno=os.dup(3))
ours, its = socket.socketpair()
os.dup2(its.fileno(), 3)
child = subprocess.Popen(["%s", "--worker"], pass_fds=[3])
its.close()
os.close(3)
def answer(flags, size): # the header of a result of the first job
    parent.sendall(struct.pack("=IIIIQQ", 0x6d6c3031, 6, flags, 0, 1, size))
chunks = 0
while chunks < 2:
    for one in select.select([parent, ours], [], [])[0]:
        data = one.recv(1 << 16)
        if one is parent:
            chunks += 1 # the hello, the job
        (ours if one is parent else parent).sendall(data)
%s
time.sleep(60)
]]

  -- What a submit to such a child gives, and whether it is dead at the end.
  local function try(misdeed)
    local path <const> = os.tmpname()
    local pipe <close> = io.popen "command -v moonloop"
    local file <close> = assert(io.open(path, "w"))
    file:write(RELAY:format(pipe:read "l", misdeed))
    file:close()
    os.execute("chmod +x " .. path)
    local output, code = h.run_script([[
      local ml = require "moonloop"
      local ex = ml.ProcessExecutor{ workers = 1, grace = 0.2 }
      local err = ex:submit(function() require("moonloop").sleep(60) end):exception(15)
      print(err.code, err, ex:shutdown{ timeout = 15 })
    ]], { env = { MOONLOOP_PROGRAM = path } })
    os.remove(path)
    assert.equal(0, code, output)
    return output
  end

  it("closes its connection", function()
    local killed = "^crashed\t.*closed its connection and was killed\ttrue\n$"
    assert.matches(killed, try "parent.close()")
    assert.matches(killed, try "parent.shutdown(socket.SHUT_WR)")
  end)

  it("answers what makes no sense", function()
    assert.matches("^crashed\t.* killed\ttrue\n$", try "parent.sendall(b'nonsense' * 100)")
  end)

  it("breaks off in its answer", function()
    assert.matches("^crashed\t.*ended with status 0\ttrue\n$", try "answer(0, 500); os._exit(0)")
  end)

  it("answers with memory that was never shared", function()
    assert.matches("^crashed\t.* killed\ttrue\n$", try "answer(3, 1 << 20)")
  end)
end)

describe("a ProcessExecutor at the system's limits", function()
  it("has typed errors whatever number of descriptors is left, and leaks none", function()
    local output, code = h.run_script([[
      local ml = require "moonloop"
      local ex = ml.ProcessExecutor{ workers = 1 }
      ex:submit(os.exit, 1):wait(15) -- all but the child is there
      local function open()
        local pipe <close> = io.popen "ls /proc/$PPID/fd | wc -l"
        return pipe:read "n"
      end
      local before
      -- What a child had is closed after its job's outcome is told.
      local function settle()
        local deadline = ml.now() + 15
        while open() > before do
          assert(ml.now() < deadline)
          ml.sleep(0.002)
        end
      end
      local function try(free)
        settle()
        local files = {}
        repeat
          local file = io.open "/dev/null"
          files[#files + 1] = file
        until not file
        for i = 1, free do files[#files - i + 1]:close() end
        local ok, err = ex:submit(math.abs, -free):wait(15)
        if ok then
          assert(err == free)
          ex:submit(os.exit, 1):wait(15) -- the next one needs a child as well
        else
          assert(err.code == "EMFILE" and tostring(err):find "cannot start a process", err)
        end
        for i = 1, #files - free do files[i]:close() end
        return ok
      end
      local few, enough
      before = math.min(open(), open(), open()) -- a shell may be quicker than who started it
      for free = 0, 12 do
        if try(free) then enough = enough or free else few = free end
      end
      assert(few and enough and few < enough)
      assert(ex:submit(math.abs, -7):result(15) == 7)
      ex:submit(os.exit, 1):wait(15)
      settle()
      assert(ex:shutdown{ timeout = 15 })
      print "good"
    ]], { files = 64 })
    assert.equal("good\n", output)
    assert.equal(0, code)
  end)

  it("goes on with the children it has where no more processes can be had", function()
    if h.checking() then return end -- a sanitizer starts threads of its own
    local script = [[
      local ml = require "moonloop"
      local ex = ml.ProcessExecutor{ workers = 2 }
      ex:submit(math.abs, -1):result(15)
      local lift = assert(io.popen("read line; prlimit --pid $PPID --nproc=1000:", "w"))
      local pipe = io.popen "prlimit --pid $PPID --nproc=1: 2>&1"
      assert(pipe:read "a" == "")
      pipe:close()
      local futures = {}
      for i = 1, 6 do futures[i] = ex:submit(math.abs, -i) end
      for i = 1, 6 do assert(futures[i]:result(15) == i) end
      print(ex:submit(os.exit, 4):exception(15).code) -- that was the only one
      for i = 1, 2 do print(ex:submit(math.abs, -i):exception(15).code) end
      print(select(2, pcall(ml.ProcessExecutor, {})).code)
      lift:write "\n"
      lift:close()
      print(ex:submit(math.abs, -5):result(15), ex:shutdown{ timeout = 15 })
    ]]
    -- The limit is none for root.
    local pipe <close> = assert(io.popen([[
      as=; [ $(id -u) != 0 ] || as="setpriv --reuid 54321 --regid 54321 --clear-groups"
      $as test -x "$(command -v moonloop)" || { echo not allowed; exit 0; }
      MOONLOOP_PROGRAM=$(command -v moonloop) exec timeout -k 2 30 $as lua5.4 - 2>&1 <<'END'
    ]] .. script .. "\nEND\n"))
    local output = pipe:read "a"
    if output == "not allowed\n" then return end
    assert.equal("crashed\nEAGAIN\nEAGAIN\nEAGAIN\n5\ttrue\n", output)
  end)
end)
