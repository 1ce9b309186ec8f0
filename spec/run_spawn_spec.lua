-- ml.run, spawn, sleep, checkpoint and what a job knows of itself.

local ml = require "moonloop"
local h = require "spec.support.helpers"
local sample = require "spec.support.sample"

describe("run", function()
  it("runs a function as a job on this thread and returns its values", function()
    local threads = h.threads()
    local got = table.pack(ml.run(function(...)
      ml.sleep(0.001)
      return ml.in_job(), h.threads(), select("#", ...), ...
    end, nil, 2, nil))
    assert.same(table.pack(true, threads, 3, nil, 2, nil), got)
    assert.is_false(ml.in_job())
  end)

  it("stays in this state: upvalues and tables are shared, not copied", function()
    local n, t = 0, {}
    local same = ml.run(function(x) n = n + 1 x.seen = true return x end, t)
    assert.equal(t, same)
    assert.same({ 1, true }, { n, t.seen })
  end)

  it("raises the function's error, the very same value", function()
    local problem = { code = "mine" }
    assert.equal(problem, h.raised(ml.run, function() ml.sleep(0) error(problem) end))
  end)

  it("cancels what is left and waits for its clean-up", function()
    local child, cleaned
    ml.run(function()
      child = ml.spawn(function()
        local _ <close> = setmetatable({}, { __close = function() cleaned = true end })
        ml.sleep(60)
      end)
      ml.checkpoint()
      ml.checkpoint()
    end)
    assert.is_true(cleaned)
    assert.is_true(child:cancelled())
  end)

  it("may be called again and again, and leaves nothing open", function()
    ml.run(function() ml.sleep(0.001) end)
    local threads, fds = h.threads(), h.fds()
    for i = 1, 20 do
      assert.equal(i, ml.run(function() ml.sleep(0) return i end))
    end
    assert.equal(threads, h.threads())
    h.eventually(function() return h.fds() <= fds end, "the old descriptor count")
  end)

  it("in a job runs there, and cancels what is left of it", function()
    local order = {}
    ml.run(function()
      local outer = ml.current_job()
      local value = ml.run(function()
        ml.spawn(function() ml.sleep(60) end)
        ml.sleep(0.001)
        order[#order + 1] = "inner"
        return ml.in_job() and "value"
      end)
      order[#order + 1] = value
      assert(ml.current_job() == outer)
    end)
    assert.same({ "inner", "value" }, order)
  end)

  it("in a job on a loop thread works the same", function()
    local ex <close> = ml.AsyncExecutor{}
    assert.equal(3, ex:submit(function()
      return ml.run(function(a)
        ml.sleep(0.001)
        return a + ml.spawn(function() return 2 end):result()
      end, 1)
    end):result(h.TIMEOUT))
  end)

  it("works on a worker thread", function()
    assert.equal("ran", ml.to_thread(function()
      return ml.run(function() ml.sleep(0.001) return "ran" end)
    end))
  end)

  it("keeps the time limit of ml.job", function()
    local function nap()
      local err = h.raised(ml.run, ml.job{ ml.sleep, 3600, timeout = h.SHORT })
      assert.equal("timeout", err.code)
      assert.equal(5, ml.run(ml.job{ math.abs, -5, timeout = h.TIMEOUT }))
    end
    nap()
    ml.run(nap)
  end)

  it("refuses what is no function", function()
    h.misuse("number", function() ml.run(1) end)
    h.misuse("", function() ml.run() end)
    h.misuse('job "string:nothing": function expected, got nil', function()
      ml.run "string:nothing"
    end)
    h.misuse("cannot look up 'deep' in a nil value", function() ml.run "string:no.deep" end)
    assert.matches("^module 'no%.such%.module' not found", h.raised(ml.run, "no.such.module:f"))
  end)

  it("runs what a module has that can be called, by name", function()
    sample.called = setmetatable({}, { __call = function(_, x) return x end })
    assert.equal(5, ml.run("spec.support.sample:called", 5))
    assert.equal(6, ml.run(function()
      return ml.spawn("spec.support.sample:called", 6):result(h.TIMEOUT)
    end))
    sample.called = nil
  end)

  it("settles futures of jobs that outlived it", function()
    local child
    ml.run(function() child = ml.spawn(function() ml.sleep(60) end) end)
    assert.is_true(child:done())
  end)
end)

describe("spawn", function()
  it("starts a job on this loop, in this state, nothing copied", function()
    local shared, box = 0, { "box" }
    local got = ml.run(function()
      local future = ml.spawn(function(b) shared = shared + 1 return b end, box)
      return future:result()
    end)
    assert.equal(box, got)
    assert.equal(1, shared)
  end)

  it("starts at the next turn, not at once", function()
    local order = ml.run(function()
      local list = {}
      local child = ml.spawn(function() list[#list + 1] = "child" end)
      list[#list + 1] = "parent"
      child:result()
      return list
    end)
    assert.same({ "parent", "child" }, order)
  end)

  it("starts jobs in the order they were spawned", function()
    local list = ml.run(function()
      local seen, last = {}, nil
      for i = 1, 50 do last = ml.spawn(function() seen[i] = #seen + 1 end) end
      last:result()
      return seen
    end)
    for i = 1, 50 do assert.equal(i, list[i]) end
  end)

  it("is create_task by another name", function()
    assert.equal(4, ml.run(function() return ml.create_task(function() return 4 end):result() end))
  end)

  it("takes ml.job with a name, and a module's function by name", function()
    local name, sum = ml.run(function()
      local named = ml.spawn(ml.job{ function() return ml.current_job().name end, name = "kid" })
      return named:result(), ml.spawn("spec.support.sample:add", 1, 2):result()
    end)
    assert.same({ "kid", 3 }, { name, sum })
  end)

  it("raises a child's error where its result is asked, the very same value", function()
    local problem = {}
    local err = ml.run(function()
      local child = ml.spawn(function() ml.checkpoint() error(problem) end)
      return select(2, pcall(child.result, child))
    end)
    assert.equal(problem, err)
  end)

  it("lets many jobs wait for one", function()
    local sum = ml.run(function()
      local release = ml.promise()
      local one = ml.spawn(function() return release.future:result() end)
      local waiters, total = {}, 0
      for i = 1, 20 do waiters[i] = ml.spawn(function() return one:result() end) end
      ml.checkpoint()
      release:set_result(1)
      for i = 1, 20 do total = total + waiters[i]:result() end
      return total
    end)
    assert.equal(20, sum)
  end)

  it("from a sync state submits to the default executor, copied", function()
    local n = 0
    local id = ml.spawn(function() n = n + 1 return h.state_id() end):result(h.TIMEOUT)
    assert.not_equal(h.state_id(), id)
    assert.equal(0, n)
  end)

  it("on a loop thread stays on that loop", function()
    local ex <close> = ml.AsyncExecutor{ loops = 2 }
    for _ = 1, 8 do
      assert.is_true(ex:submit(function()
        return ml.spawn(h.state_id):result() == h.state_id()
      end):result(h.TIMEOUT))
    end
  end)

  it("gives a future that crosses to other states", function()
    local ex <close> = ml.AsyncExecutor{}
    local child = ex:submit(function()
      return ml.spawn(function() ml.sleep(0.01) return { "from", "child" } end)
    end):result(h.TIMEOUT)
    assert.same({ "from", "child" }, child:result(h.TIMEOUT))
  end)

  it("belongs to its executor, whose shutdown waits for it", function()
    local ex = ml.AsyncExecutor{}
    local child = ex:submit(function()
      return ml.spawn(function() ml.sleep(0.01) return "waited for" end)
    end):result(h.TIMEOUT)
    assert.is_true(ex:shutdown{ timeout = h.TIMEOUT })
    assert.equal("waited for", child:result(0))
  end)

  it("runs ten thousand jobs that wait for each other", function()
    assert.equal(10000, ml.run(function()
      local before
      for _ = 1, 10000 do
        local wait_for = before
        before = ml.spawn(function()
          ml.checkpoint()
          return wait_for and wait_for:result() + 1 or 1
        end)
      end
      return before:result()
    end))
  end)

  it("refuses what is no job at the caller's line", function()
    ml.run(function()
      h.misuse("number", function() ml.spawn(1) end)
      h.misuse("nil", function() ml.spawn(nil) end)
    end)
    h.misuse("number", function() ml.spawn(1) end)
  end)
end)

describe("sleep", function()
  it("takes at least its time, in a job and in a sync state", function()
    local function nap()
      local before = ml.now()
      ml.sleep(0.02)
      return ml.now() - before
    end
    assert.is_true(nap() >= 0.02)
    assert.is_true(ml.run(nap) >= 0.02)
    assert.is_true(ml.to_thread(nap) >= 0.02)
  end)

  it("does not stop other jobs: naps overlap", function()
    local before = ml.now()
    ml.run(function()
      local last
      for _ = 1, 50 do last = ml.spawn(function() ml.sleep(0.05) end) end
      last:result()
    end)
    assert.is_true(ml.now() - before < 50 * 0.05 / 2)
  end)

  it("ends in order of the deadlines", function()
    local order = ml.run(function()
      local list, futures = {}, {}
      for i, s in ipairs{ 0.06, 0.02, 0.04 } do
        futures[i] = ml.spawn(function() ml.sleep(s) list[#list + 1] = s end)
      end
      for _, future in ipairs(futures) do future:result() end
      return list
    end)
    assert.same({ 0.02, 0.04, 0.06 }, order)
  end)

  it("refuses what is no time, at the caller's line", function()
    for _, bad in ipairs{ "x", true, {}, 0 / 0, -1 } do
      h.misuse("", function() ml.sleep(bad) end)
      ml.run(function() h.misuse("", function() ml.sleep(bad) end) end)
    end
    h.misuse("n[ao][nt]", function() ml.sleep(0 / 0) end)
  end)
end)

describe("checkpoint", function()
  it("lets other ready jobs run", function()
    local order = ml.run(function()
      local list = {}
      local function turns(name)
        for _ = 1, 3 do
          list[#list + 1] = name
          ml.checkpoint()
        end
      end
      local a, b = ml.spawn(turns, "a"), ml.spawn(turns, "b")
      a:result()
      b:result()
      return table.concat(list)
    end)
    assert.equal("ababab", order)
  end)

  it("in a busy loop keeps timers served", function()
    local turns = ml.run(function()
      local woken, n = false, 0
      ml.spawn(function() ml.sleep(0.01) woken = true end)
      local deadline = ml.now() + h.TIMEOUT
      while not woken and ml.now() < deadline do
        n = n + 1
        ml.checkpoint()
      end
      return woken and n
    end)
    assert.is_true(turns > 1)
  end)

  it("is allowed in a sync state", function()
    assert.has_no.errors(function() ml.checkpoint() end)
  end)
end)

describe("now, in_job and current_job", function()
  it("give a monotonic float", function()
    local a, b = ml.now(), ml.now()
    assert.equal("float", math.type(a))
    assert.is_true(b >= a)
  end)

  it("are the same clock in every state", function()
    local before = ml.now()
    local there = ml.to_thread(function() return ml.now() end)
    assert.is_true(before <= there and there <= ml.now())
  end)

  it("know that a sync state is no job", function()
    assert.is_false(ml.in_job())
    assert.is_nil(ml.current_job())
  end)

  it("follow a job into its nested coroutines", function()
    assert.is_true(ml.run(function()
      local mine = ml.current_job()
      return coroutine.wrap(function()
        ml.checkpoint()
        return ml.in_job() and ml.current_job() == mine
      end)()
    end))
  end)
end)
