-- The default executor and the plain front door: run_async_job,
-- complete_async_jobs, async_to_sync.

local ml = require "moonloop"
local h = require "spec.support.helpers"

describe("the event loop", function()
  local ex

  before_each(function()
    ex = ml.AsyncExecutor{ name = "mine" }
  end)

  after_each(function()
    ml.set_event_loop(nil)
    h.close(ex)
  end)

  it("is set for the whole process, and set returns the one before", function()
    ml.set_event_loop(nil)
    assert.is_nil(ml.set_event_loop(ex))
    assert.is_true(ml.get_event_loop() == ex)
    local other <close> = ml.AsyncExecutor{}
    assert.is_true(ml.set_event_loop(other) == ex)
    assert.is_true(ex:submit(function() return ml.get_event_loop() end):result(h.TIMEOUT) == other)
    assert.is_true(ml.set_event_loop(nil) == other)
  end)

  it("takes what run_async_job submits", function()
    ml.set_event_loop(ex)
    local id = ex:submit(h.state_id):result(h.TIMEOUT)
    assert.equal(id, ml.run_async_job(h.state_id):result(h.TIMEOUT))
    assert.equal(id, ml.run_async(h.state_id):result(h.TIMEOUT))
    assert.equal(id, ml.async_to_sync(h.state_id)())
  end)

  it("is made by get on first use, and stays", function()
    ml.set_event_loop(nil)
    local made = ml.get_event_loop()
    assert.equal(1, made:submit(function() return 1 end):result(h.TIMEOUT))
    assert.is_true(made == ml.get_event_loop())
    ml.set_event_loop(nil)
    assert.is_true(made:shutdown{ timeout = h.TIMEOUT })
  end)

  it("can only be an AsyncExecutor", function()
    local pool <close> = ml.ThreadExecutor{ workers = 1 }
    h.misuse("asyncexecutor", function() ml.set_event_loop(pool) end)
    h.misuse("table", function() ml.set_event_loop({}) end)
    h.misuse("string", function() ml.set_event_loop "ex" end)
  end)

  it("that was shut down gives an answer, never a hang", function()
    local gone = ml.AsyncExecutor{}
    ml.set_event_loop(gone)
    local call = ml.async_to_sync(function() return 1 end)
    gone:shutdown{ timeout = h.TIMEOUT }
    local ok, err = pcall(call)
    assert.is_true(ok or err.code == "closed")
  end)
end)

describe("run_async_job", function()
  it("takes every kind of job and gives a future", function()
    assert.equal(3, ml.run_async_job(function(a, b) return a + b end, 1, 2):result(h.TIMEOUT))
    assert.equal(3, ml.run_async_job("spec.support.sample:add", 1, 2):result(h.TIMEOUT))
    assert.equal("co", ml.run_async_job(coroutine.create(function() return "co" end))
      :result(h.TIMEOUT))
    assert.equal("j", ml.run_async_job(ml.job{ function(a) return a end, "j" }):result(h.TIMEOUT))
  end)

  it("in a job goes to the default executor, copies, and gives the same future", function()
    local ex <close> = ml.AsyncExecutor{}
    local default = ml.run_async_job(h.state_id):result(h.TIMEOUT)
    local id, n = ex:submit(function()
      local n = 1
      local future = ml.run_async_job(function() n = n + 1 return h.state_id() end)
      return future:result(), n
    end):result(h.TIMEOUT)
    assert.same({ default, 1 }, { id, n })
  end)

  it("settles its future also when nothing waits for it", function()
    local gate = h.gate()
    ml.run_async_job(function(g) g:open "done" end, gate)
    assert.equal("done", gate:pass())
  end)

  it("works from a worker thread", function()
    assert.equal(6, ml.to_thread(function()
      return ml.run_async_job(function(a) ml.sleep(0.001) return 2 * a end, 3):result()
    end))
  end)
end)

describe("complete_async_jobs", function()
  it("returns as many futures as it got jobs, in order, all settled", function()
    local a, b, c = ml.complete_async_jobs(
      function() ml.sleep(0.01) return "a" end,
      ml.job{ function(x) return x end, "b" },
      ml.run_async_job(function() return "c" end))
    assert.same({ "a", "b", "c" }, { a:result(0), b:result(0), c:result(0) })
  end)

  it("returns nothing for nothing", function()
    assert.equal(0, select("#", ml.complete_async_jobs()))
  end)

  it("gives back the futures it was given, the same twice too", function()
    local future = ml.run_async_job(function() return 1 end)
    local a, b = ml.complete_async_jobs(future, future)
    assert.is_true(a == future and b == future)
  end)

  it("raises for none of them", function()
    local good, bad, gone = ml.complete_async_jobs(
      function() return 1 end,
      function() error("bad", 0) end,
      function() ml.current_job():cancel() ml.sleep(60) end)
    assert.equal(1, good:result(0))
    assert.same({ nil, "bad" }, { bad:wait(0) })
    assert.is_true(gone:cancelled())
  end)

  it("waits in a job as well", function()
    local ex <close> = ml.AsyncExecutor{}
    assert.same({ 1, 2 }, { ex:submit(function()
      local a, b = ml.complete_async_jobs(function() return 1 end, function() return 2 end)
      return a:result(0), b:result(0)
    end):result(h.TIMEOUT) })
  end)

  it("cancels nothing when its own job is cancelled", function()
    local ex <close> = ml.AsyncExecutor{}
    local gate = h.gate()
    local child = ml.run_async_job(function(g) return g:pass() end, gate)
    local waiter = ex:submit(function(f) ml.complete_async_jobs(f) end, child)
    h.eventually(function() return ex:stats().parked == 1 end)
    waiter:cancel_and_wait(h.TIMEOUT)
    assert.is_true(waiter:cancelled())
    gate:open "untouched"
    assert.equal("untouched", child:result(h.TIMEOUT))
  end)

  it("returns when a hundred jobs end at once", function()
    for _ = 1, 20 do
      local gate, jobs = h.gate(), {}
      for i = 1, 100 do jobs[i] = ml.run_async_job(function(g) g:pass() end, gate) end
      ml.run_async_job(function(g) g:open() end, gate)
      local futures = table.pack(ml.complete_async_jobs(table.unpack(jobs)))
      assert.equal(100, futures.n)
      for i = 1, 100 do assert.is_true(futures[i]:done()) end
    end
  end)

  it("refuses what is no job at the caller's line", function()
    h.misuse("number", function() ml.complete_async_jobs(function() end, 5) end)
    h.misuse("nil", function() ml.complete_async_jobs(nil) end)
  end)
end)

describe("async_to_sync", function()
  it("makes a plain function: arguments in, values out", function()
    local call = ml.async_to_sync(function(...) ml.sleep(0.001) return select("#", ...), ... end)
    assert.same(table.pack(2, "a", nil), table.pack(call("a", nil)))
    assert.same({ 0 }, { call() })
  end)

  it("raises the job's error, equal to what was raised", function()
    local call = ml.async_to_sync(function() error({ code = "E", list = { 1, 2 } }) end)
    assert.same({ code = "E", list = { 1, 2 } }, h.raised(call))
  end)

  it("takes names and ml.job", function()
    assert.equal(5, ml.async_to_sync("spec.support.sample:add")(2, 3))
    assert.equal(5, ml.async_to_sync(ml.job{ "spec.support.sample:add", 2 })(3))
  end)

  it("works in an error handler of a sync state", function()
    local call = ml.async_to_sync(function(text) return text .. "!" end)
    local _, handled = xpcall(error, function(e) return call(e) end, "first")
    assert.equal("first!", handled)
  end)

  it("works as a method: the object crosses as the first argument", function()
    local object = { name = "it", greet = ml.async_to_sync(function(self, x)
      return self.name .. x
    end) }
    assert.equal("its", object:greet "s")
  end)

  it("takes an object that can be called", function()
    local scale = setmetatable({ by = 4 }, { __call = function(self, x) return self.by * x end })
    assert.equal(20, ml.async_to_sync(scale)(5))
    assert.equal(24, ml.sync_to_async(scale)(6))
  end)

  it("returns a running job's future for the caller to wait for", function()
    local gate = h.gate()
    local future = ml.async_to_sync(function(g)
      return ml.spawn(function() return g:pass() end)
    end)(gate)
    assert.is_false(future:done())
    gate:open "inner"
    assert.equal("inner", future:result(h.TIMEOUT))
  end)

  it("crosses as its job", function()
    local ex <close> = ml.AsyncExecutor{}
    local double = ml.async_to_sync(function(a) return 2 * a end)
    assert.equal(10, ex:submit(function(n) return double(n) end, 5):result(h.TIMEOUT))
    assert.equal(8, ex:submit(double, 4):result(h.TIMEOUT))
  end)

  it("refuses what is no job when it is wrapped", function()
    h.misuse("number", function() ml.async_to_sync(1) end)
    h.misuse("nil", function() ml.async_to_sync(nil) end)
  end)
end)

describe("MOONLOOP_INIT", function()
  local count = [[
    local function threads()
      local names <close> = io.popen "cat /proc/$PPID/task/*/comm 2>/dev/null" -- but ml-watch
      local count = 0
      for name in names:lines() do count = name == "ml-watch" and count or count + 1 end
      return count
    end
  ]]

  it("=1 makes the default executor at require", function()
    if h.checking() then return end -- a sanitizer has threads too
    local script = count .. [[
      local before = threads()
      local ml = require "moonloop"
      local more = threads() - before
      print(more, ml.get_event_loop():submit(function() return "ok" end):result(10))
    ]]
    local out, code = h.run_script(script, { env = { MOONLOOP_INIT = "1" } })
    assert.same({ "1\tok\n", 0 }, { out, code })
  end)

  it("unset starts no thread at require", function()
    local out, code = h.run_script(count .. [[
      local before = threads()
      require "moonloop"
      print(threads() - before)
    ]], { env = { MOONLOOP_INIT = "" } })
    assert.same({ "0\n", 0 }, { out, code })
  end)

  it("=0 forbids making one, with an error that says how", function()
    local out, code = h.run_script([[
      local ml = require "moonloop"
      for _, f in ipairs{ ml.get_event_loop, function() ml.run_async_job(print) end,
                          ml.async_to_sync(print) } do
        local ok, err = pcall(f)
        print(ok, (tostring(err):find("set_event_loop", 1, true) ~= nil))
      end
      local ex <close> = ml.AsyncExecutor{}
      ml.set_event_loop(ex)
      print(ml.run_async_job(function() return "own" end):result(10))
    ]], { env = { MOONLOOP_INIT = "0" } })
    assert.equal(("false\ttrue\n"):rep(3) .. "own\n", out)
    assert.equal(0, code)
  end)
end)
