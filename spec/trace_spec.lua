-- ml.trace: what happened when, on which thread, for viewers of Chrome trace events.

local ml = require "moonloop"
local http = require "moonloop.http"
local h = require "spec.support.helpers"
local httpbin = require "spec.support.httpbin"
local trace = require "spec.support.trace"

local path

-- What was traced up to now; checked as a whole.
local function dump()
  assert(ml.trace.dump(path))
  return trace.read(path)
end

local function named(name, f, ...)
  local job = { f, ... }
  job.name = name
  return ml.job(job)
end

before_each(function()
  path = os.tmpname()
  ml.trace.stop()
  assert.is_true(ml.trace.start())
end)

after_each(function()
  ml.trace.stop()
  os.remove(path)
end)

describe("a trace", function()
  local ex

  before_each(function() ex = ml.AsyncExecutor{ name = "orders" } end)
  after_each(function() h.close(ex) end)

  it("has a lane for each job: how long it was queued, and what it waited for", function()
    local gate = h.gate()
    local job = ex:submit(named("fetch", function(g)
      ml.sleep(0.001)
      g:pass()
    end, gate))
    gate:open()
    job:result(h.TIMEOUT)
    local t = dump()
    local lane = t:one("b", "fetch")
    assert.equal("job", lane.cat)
    assert.equal("finished", lane.outcome)
    assert.matches("trace_spec%.lua:%d+$", lane.args.submitted_at)
    local parts = t:parts(lane)
    assert.equal("queued", parts[1])
    assert.equal("wait: sleep", parts[2])
    local wait = t:one("b", "wait: sleep", { id = lane.id })
    assert(wait.ends - wait.at >= 1e6)
    assert(lane.at < wait.at and wait.ends < lane.ends)
  end)

  it("says what became of a job", function()
    local gate = h.gate()
    ex:submit(named("bad", function() error "x" end)):wait(h.TIMEOUT)
    local stopped = ex:submit(named("stopped", function(g)
      g:open()
      ml.sleep(60)
    end, gate))
    gate:pass()
    stopped:cancel_and_wait(h.TIMEOUT)
    local t = dump()
    assert.equal("failed", t:one("b", "bad").outcome)
    assert.equal("cancelled", t:one("b", "stopped").outcome)
  end)

  it("has a slice on the loop's thread for each time that a job runs", function()
    ex:submit(named("twice", function() ml.sleep(0) end)):result(h.TIMEOUT)
    local t = dump()
    local slices = t:find("X", "twice", { cat = "job" })
    assert.equal(2, #slices)
    assert.equal("orders", t.names[slices[1].tid])
    assert.equal(slices[1].tid, slices[2].tid)
    assert.is_nil(slices[1].around)
  end)

  it("draws an arrow from the submit to the beginning, across threads", function()
    ex:submit(named("far", function() end)):result(h.TIMEOUT)
    local t = dump()
    local submit = t:one("X", "submit far")
    local arrow
    for _, a in pairs(t.arrows) do
      if a.from == submit then arrow = a end
    end
    assert.equal("far", arrow.to.name)
    assert.not_equal(arrow.from.tid, arrow.to.tid)
    assert.equal("main", t.names[arrow.from.tid])
  end)

  it("calls a job without a name by the line that started it", function()
    ml.run(function()
      ml.spawn(function() end):result()
    end)
    local t = dump()
    local lane = t:one("b", t:find("X", "main")[1] and "main")
    local child
    for _, e in ipairs(t:find("b")) do
      if e.args.parent == lane.args.job then child = e end
    end
    assert.matches("^job at .*trace_spec%.lua:%d+$", child.name)
    assert.equal(child.name:match "job at (.*)", child.args.submitted_at)
  end)

  it("shows what runs on the threads of a pool", function()
    local pool <close> = ml.ThreadExecutor{ name = "disk", workers = 1 }
    pool:submit(named("read", function() ml.sleep(0.001) end)):result(h.TIMEOUT)
    local t = dump()
    local slice = t:one("X", "read")
    assert.matches("^disk", t.names[slice.tid])
    local wait = t:one("X", "wait: sleep", { tid = slice.tid })
    assert.equal(slice, wait.around)
    assert.equal("finished", t:one("b", "read").outcome)
  end)

  it("shows what a thread waits for", function()
    ml.sleep(0.001)
    local t = dump()
    local wait = t:one("X", "wait: sleep")
    assert.equal("main", t.names[wait.tid])
    assert.equal("sleep", wait.args.waits_for)
    assert(wait.ends - wait.at >= 1e6)
  end)

  it("shows callbacks", function()
    local gate = h.gate()
    local f = ex:submit(function(g) g:pass() end, gate)
    f:add_done_callback(function() end)
    gate:open()
    h.eventually(function()
      ml.poll()
      return #dump():find("X", "callbacks") > 0
    end)
  end)

  it("keeps what threads did that have ended", function()
    do
      local other <close> = ml.AsyncExecutor{ name = "gone" }
      other:submit(named("early", function() end)):result(h.TIMEOUT)
    end
    local t = dump()
    assert.equal("gone", t.names[t:one("X", "early").tid])
  end)

  it("has lanes of jobs that were there before it began, from their next run on", function()
    local gate, started = h.gate(), h.gate()
    ml.trace.stop()
    local job = ex:submit(named("old", h.hold, started, gate))
    started:pass()
    h.eventually(function() return ex:stats().parked == 1 end)
    ml.trace.start()
    gate:open()
    job:result(h.TIMEOUT)
    local t = dump()
    assert.equal("finished", t:one("b", "old").outcome)
    assert.equal(1, #t:find("X", "old"))
  end)

  it("has what goes on as it is written, and all of it later", function()
    local gate, started = h.gate(), h.gate()
    local job = ex:submit(named("long", h.hold, started, gate))
    started:pass()
    assert.is_nil(h.eventually(function() return dump():find("b", "long")[1] end).outcome)
    gate:open()
    job:result(h.TIMEOUT)
    assert.equal("finished", dump():one("b", "long").outcome)
  end)

  it("writes any name as JSON", function()
    local names = { 'a "b" \\c\\', "tab\tnew\nline\1\127", "na\xc3\xafve \xf0\x9f\x8c\x99" }
    for _, name in ipairs(names) do
      ex:submit(named(name, function() end)):result(h.TIMEOUT)
      local t = dump()
      assert.equal(1, #t:find("b", name), name)
    end
    ex:submit(named("cut\xff\xc3 \xed\xa0\x80 \xc0\xaf.", function() end)):result(h.TIMEOUT)
    dump():one("b", "cut\u{fffd}\u{fffd} \u{fffd}\u{fffd}\u{fffd} \u{fffd}\u{fffd}.")
  end)
end)

describe("a trace of child processes", function()
  local far

  before_each(function() far = ml.ProcessExecutor{ name = "parsers", workers = 1 } end)
  after_each(function() h.close(far) end)

  -- The slice of a job in its child.
  local function slice_of(t, name)
    return t:one("X", name, { cat = "job" })
  end

  it("has each job: its lane here, its slice there, and an arrow from the submit", function()
    assert.equal(3, far:submit(named("parse", function() return 3 end)):result(h.TIMEOUT))
    local t = dump()
    local lane, submit = t:one("b", "parse"), t:one("X", "submit parse")
    local slice = slice_of(t, "parse")
    assert.same({ "finished", { "queued" } }, { lane.outcome, t:parts(lane) })
    assert.equal(submit.pid, lane.pid)
    assert.not_equal(submit.pid, slice.pid)
    assert.same({ "parsers", "main" }, { t.processes[slice.pid], t.names[slice.tid] })
    assert.equal("finished", slice.args.outcome)
    assert.matches("trace_spec%.lua:%d+$", slice.args.submitted_at)
    assert(lane.at < slice.at and slice.ends < lane.ends)
    local arrow
    for _, a in pairs(t.arrows) do if a.from == submit then arrow = a end end
    assert.equal(slice, arrow.to)
  end)

  it("says what became of it", function()
    far:submit(named("bad", error, "x")):wait(h.TIMEOUT)
    far:submit(named("lost", function() os.exit(3) end)):wait(h.TIMEOUT)
    far:submit(named("good", type, 1)):wait(h.TIMEOUT)
    local t = dump()
    assert.equal("failed", t:one("b", "bad").outcome)
    assert.equal("failed", slice_of(t, "bad").args.outcome)
    assert.equal("failed", t:one("b", "lost").outcome)
    assert.same({}, t:find("X", "lost", { cat = "job" }))
    assert.not_equal(slice_of(t, "bad").pid, slice_of(t, "good").pid)
  end)

  it("has what jobs do there: their waits, and what else runs in the child", function()
    far:submit(named("outer", function()
      ml.sleep(0.001)
      collectgarbage()
      ml.run(function() ml.spawn(ml.job{ ml.sleep, 0.001, name = "inner" }):result() end)
      return ml.run_async(ml.job{ ml.sleep, 0.001, name = "beside" }):result()
    end)):result(h.TIMEOUT)
    local t = dump()
    local outer = slice_of(t, "outer")
    assert.equal(outer, t:find("X", "wait: sleep", { pid = outer.pid })[1].around)
    for _, name in ipairs{ "inner", "beside" } do
      local lane = t:one("b", name)
      assert.same({ "finished", outer.pid }, { lane.outcome, lane.pid })
      assert.same({ "queued", "wait: sleep" }, t:parts(lane))
    end
    assert(#t:find("i", "gc cycle", { pid = outer.pid }) > 0)
  end)

  it("has all of a long job, with large arguments and results", function()
    local text = ("x"):rep(1 << 20)
    for round = 1, 2 do
      local length, same = far:submit(named("long " .. round, function(s)
        for _ = 1, 2000 do ml.sleep(0) end
        return #s, s
      end), text):result(h.TIMEOUT)
      assert.equal(#text, length)
      assert.is_true(same == text)
      local t = dump()
      local slice = slice_of(t, "long " .. round)
      local waits = t:find("X", "wait: sleep", { pid = slice.pid })
      assert.equal(2000 * round, #waits)
      assert.equal(slice, waits[#waits].around)
    end
  end)

  it("has those of each child, and keeps what children did that have ended", function()
    local two = ml.ProcessExecutor{ name = "two", workers = 2 }
    local one <close> = two:worker()
    local other <close> = two:worker()
    one:submit(named("in one", type, 1)):result(h.TIMEOUT)
    other:submit(named("in the other", type, 1)):result(h.TIMEOUT)
    h.close(two)
    local t = dump()
    local first, second = slice_of(t, "in one"), slice_of(t, "in the other")
    assert.not_equal(first.pid, second.pid)
    assert.same({ "two", "two" }, { t.processes[first.pid], t.processes[second.pid] })
  end)

  it("begins and ends with that of this process", function()
    local function work(name) far:submit(named(name, ml.sleep, 0)):result(h.TIMEOUT) end
    ml.trace.stop()
    work "before"
    ml.trace.start()
    work "first"
    ml.trace.stop()
    work "between"
    ml.trace.start()
    work "second"
    local t = dump()
    for _, name in ipairs{ "before", "first", "between" } do assert.same({}, t:find("X", name)) end
    assert.equal(1, #t:find("X", "wait: sleep", { pid = slice_of(t, "second").pid }))
  end)

  it("counts what a child had no room for", function()
    far:submit(named("busy", function()
      for _ = 1, 30000 do ml.sleep(0) end
    end)):result(h.TIMEOUT)
    local _, written = assert(ml.trace.dump(path))
    assert(written.dropped > 10000)
    assert(written.dropped < 30000)
    slice_of(trace.read(path), "busy")
  end)
end)

describe("a trace of Lua's collector", function()
  it("has the end of each cycle, and the steps that are made at rest", function()
    ml.run(function()
      for _ = 1, 3 do collectgarbage() end
      local t = dump()
      assert(#t:find("i", "gc cycle") >= 2)
      local deadline = ml.now() + h.TIMEOUT
      repeat
        ml.sleep(0.2) -- it rests
      until #dump():find("X", "gc step") > 0 or ml.now() > deadline
      assert(ml.now() < deadline)
    end)
  end)
end)

describe("a trace of a loop that is held up", function()
  it("marks the time, and the line", function()
    local told = ml.promise()
    ml.on_blocked(function() pcall(told.set_result, told) end)
    local ex = ml.AsyncExecutor{ blocked_ms = 10 }
    ex:submit(named("busy", function(p)
      while not p.future:done() do math.random() end
    end, told)):result(h.TIMEOUT)
    ml.on_blocked(nil)
    h.close(ex)
    local t = dump()
    local blocked = t:one("X", "blocked")
    assert.equal("busy", blocked.args.by)
    assert(blocked.ends - blocked.at >= 10e6)
    local mark = t:find("i", "blocked", { tid = blocked.tid })[1]
    assert.matches("busy", mark.args.by)
    assert.matches("trace_spec%.lua:%d+$", mark.args.at)
    assert(blocked.at <= mark.at and mark.at <= blocked.ends)
  end)
end)

describe("a trace of HTTP", function()
  local server
  lazy_setup(function() server = httpbin.start() end)
  lazy_teardown(function() server:stop() end)

  it("has a lane for each request, with its phases", function()
    assert(http.get(server.url .. "/get?secret=1"))
    local t = dump()
    local lane = t:one("b", "GET " .. server.url .. "/get")
    assert.equal("http", lane.cat)
    assert.equal(200, lane.status)
    local parts = table.concat(t:parts(lane), " ")
    assert.matches("connect", parts)
    assert.matches("first byte", parts)
    assert.is_nil(parts:find "tls")
  end)

  it("shows what was followed as one phase", function()
    assert.equal(200, assert(http.get(server.url .. "/redirect/2")).status)
    local t = dump()
    assert.equal("redirects", t:parts(t:one("b", "GET " .. server.url .. "/redirect/2"))[1])
  end)

  it("says what a request failed of", function()
    assert.is_nil((http.get("http://127.0.0.1:1/")))
    assert.is_nil((ml.move_on_after(0.05, http.get, server.url .. "/delay/10")))
    local t = dump()
    assert.matches("connect", t:one("b", "GET http://127.0.0.1:1/").outcome)
    assert.equal("cancelled", t:one("b", "GET " .. server.url .. "/delay/10").outcome)
  end)
end)

describe("ml.trace", function()
  it("is started once, and stopped once", function()
    assert.is_false(ml.trace.start())
    assert.is_true(ml.trace.stop())
    assert.is_false(ml.trace.stop())
  end)

  it("forgets what was before a start, and nothing when it is on already", function()
    ml.run(function() ml.spawn(named("first", ml.sleep, 0)):result() end)
    ml.trace.start()
    assert.equal(1, #dump():find("b", "first"))
    ml.trace.stop()
    ml.trace.start()
    ml.run(function() ml.spawn(named("second", ml.sleep, 0)):result() end)
    local t = dump()
    assert.equal(0, #t:find("b", "first"))
    assert.equal(1, #t:find("b", "second"))
  end)

  it("keeps nothing after a stop", function()
    ml.trace.stop()
    ml.run(function() ml.spawn(named("later", ml.sleep, 0)):result() end)
    assert.equal(0, #dump():find("b", "later"))
  end)

  it("keeps the newest, in bounded memory, and counts the rest", function()
    ml.trace.stop()
    ml.trace.start{ memory = 1 << 20 }
    ml.run(function()
      for i = 1, 10000 do ml.spawn(named("job " .. i, ml.sleep, 0)):result() end
    end)
    local ok, written = ml.trace.dump(path)
    assert.is_true(ok)
    assert(written.dropped > 10000)
    assert(written.events * 48 <= 1 << 20)
    local t = trace.read(path)
    assert.equal(written.dropped, t.dropped)
    assert.equal(0, #t:find("b", "job 1"))
    assert.equal(1, #t:find("b", "job 10000"))
  end)

  it("is the same from any state, and in a job the loop goes on while it writes", function()
    local ex <close> = ml.AsyncExecutor{}
    os.remove(path)
    assert(os.execute("mkfifo " .. path)) -- who writes waits until there is a reader
    local ok, written, text = ex:submit(function(to)
      assert(not ml.trace.start())
      local dumped = ml.spawn(ml.trace.dump, to)
      ml.sleep(0.01)
      local all = ml.to_thread(function()
        local file <close> = assert(io.open(to))
        return file:read "a"
      end)
      local ok, written = dumped:result()
      return ok, written, all
    end, path):result(h.TIMEOUT)
    assert.is_true(ok)
    assert(written.events > 0)
    assert.matches('"name":"wait: sleep"', text)
  end)

  it("may be started, stopped and written while jobs run on other threads", function()
    local ex <close> = ml.AsyncExecutor{ loops = 2 }
    local stop = ml.Event()
    local jobs = {}
    for i = 1, 8 do
      jobs[i] = ex:submit(function(e)
        while not e:is_set() do
          local f = ml.spawn(function() ml.checkpoint() end)
          f:result()
        end
      end, stop)
    end
    for i = 1, 8 do
      if i % 3 == 0 then
        ml.trace.stop()
        ml.trace.start{ memory = 1 << 20 }
      end
      dump()
    end
    stop:set()
    for _, job in ipairs(jobs) do job:result(h.TIMEOUT) end
  end)

  it("returns what the system says of a file", function()
    local ok, err = ml.trace.dump("/nowhere/at/all")
    assert.is_nil(ok)
    assert.equal("ENOENT", err.code)
    assert.matches("/nowhere/at/all", err.message)
    assert.equal("ENOSPC", select(2, ml.trace.dump("/dev/full")).code)
  end)

  it("refuses misuse", function()
    h.misuse("path expected", function() ml.trace.dump() end)
    h.misuse("unknown option 'size'", function() ml.trace.start{ size = 1 } end)
    h.misuse("memory", function() ml.trace.start{ memory = 1000 } end)
    h.misuse("memory", function() ml.trace.start{ memory = "1" } end)
    local output = h.run_script [[
      local ml = require "moonloop"
      print(pcall(ml.trace.dump, "x"))
    ]]
    assert.matches("nothing was traced yet", output)
  end)
end)

describe("moonloop --trace", function()
  local function run(options, script)
    local file = os.tmpname()
    local out = assert(io.open(file, "w"))
    out:write(script)
    out:close()
    local pipe = assert(io.popen(("timeout -k 2 30 moonloop %s %s one 2>&1"):format(options, file)))
    local output = pipe:read "a"
    local _, _, code = pipe:close()
    os.remove(file)
    return output, code
  end

  it("writes the trace of a script, whose arguments stay its own", function()
    local output, code = run("--trace " .. path, [[
      local ml = require "moonloop"
      ml.spawn(ml.job{ ml.sleep, 0.001, name = "child" }):result()
      print(...)
    ]])
    assert.same({ "one\n", 0 }, { output, code })
    local t = trace.read(path)
    assert.equal("finished", t:one("b", "child").outcome)
    assert.equal("finished", t:one("b", "main").outcome)
  end)

  for how, script in pairs{
    ["calls os.exit"] = "os.exit(3)",
    ["calls os.exit and closes the state"] = "os.exit(3, true)",
    ["fails"] = "error 'x'",
  } do
    it("writes it too if the script " .. how, function()
      local _, code = run("--trace " .. path,
        "local ml = require 'moonloop' ml.spawn(ml.job{ ml.sleep, 0, name = 'c' }):result() "
        .. script)
      assert.equal(how == "fails" and 1 or 3, code)
      trace.read(path):one("b", "c")
    end)
  end

  it("says at once that it cannot write, and runs nothing", function()
    local output, code = run("--trace /nowhere/at/all", "print 'ran'")
    assert.equal(1, code)
    assert.equal("moonloop: cannot write /nowhere/at/all: No such file or directory\n", output)
    output = io.popen("moonloop --trace 2>&1"):read "a"
    assert.matches("^moonloop: '%-%-trace' needs argument\n", output)
  end)

  it("does not take its file for another option", function()
    for _, trace_option in ipairs{ "--trace /dev/null", "--trace=/dev/null" } do
      local output, code = run(trace_option .. " -e 'io.write(1)'", "print(2)")
      assert.same({ "12\n", 0 }, { output, code })
    end
  end)
end)

describe("moonloop --stats", function()
  it("shows at the end what there was", function()
    local output, code = h.run_script([[
      if arg[1] ~= "again" then
        local pipe = io.popen("moonloop --stats " .. arg[0] .. " again 2>&1")
        io.write(pipe:read "a")
        os.exit(pipe:close())
      end
      local ml = require "moonloop"
      for i = 1, 9 do ml.spawn(ml.sleep, 0.001):result() end
      ml.spawn(error, "x"):wait()
      ml.to_thread(function() end)
      ml.spawn(ml.job{ function()
        local deadline = ml.now() + 0.15
        while ml.now() < deadline do math.random() end
      end, name = "busy" }):result()
      ml.on_blocked(function() end)
      collectgarbage() collectgarbage()
    ]], { lua = "moonloop", env = { MOONLOOP_BLOCKED_MS = "100" } })
    assert.equal(0, code, output)
    local function figure(pattern)
      local n = output:match("\n" .. pattern)
      return tonumber(n) or error(("no %q in:\n%s"):format(pattern, output))
    end
    assert.equal(13, figure "queue delay +(%d+) ")
    assert(figure "runs of jobs +(%d+) " >= 12 + 9)
    assert.equal(1, figure "functions on threads +(%d+) ")
    assert.matches("\njobs +12 finished, 1 failed, 0 cancelled\n", output)
    assert(figure "longest run +(%d+) ms  job 'busy', submitted at [^\n]*:%d+\n" >= 150)
    assert.equal(1, figure "runs over the limit +(%d+)\n")
    assert(figure "loop main +([%d.]+) %% busy" > 20)
    assert(figure "GC cycles +(%d+)\n" >= 1)
    assert.is_nil(output:find "HTTP")
  end)

  it("tells the reuse of connections", function()
    local server = httpbin.start()
    finally(function() server:stop() end)
    local output = h.run_script(([[
      if arg[1] ~= "again" then
        local pipe = io.popen("moonloop --stats " .. arg[0] .. " again 2>&1")
        io.write(pipe:read "a")
        os.exit(pipe:close())
      end
      local http = require "moonloop.http"
      for i = 1, 4 do assert(http.get(%q)) end
    ]]):format(server.url .. "/get"), { lua = "moonloop" })
    assert.matches("\nHTTP +4 requests, 75.0 %% on an open connection; 1 made\n", output)
  end)
end)
