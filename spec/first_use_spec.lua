-- A state loads what it uses when it first uses it: so each function of moonloop may be the first.

local ml = require "moonloop"
local h = require "spec.support.helpers"

-- One for each; they run in a state of their own.
local firsts = {
  job = function() return ml.run(ml.job{ function(a) return a end, "done" }) end,
  group = function()
    return ml.group(function(g) return g:spawn(ml.job{ function() return "done" end }):result() end)
  end,
  run = function() return ml.run(function() return "done" end) end,
  var = function() return ml.var("done"):get() end,
  trace = function() return ml.trace.stop() == false and "done" end,
  scope = function() return ml.scope(function() return "done" end) end,
  shield = function() return ml.shield(function() return "done" end) end,
  timeout = function() return ml.timeout(60, function() return "done" end) end,
  wait_for = function() return ml.wait_for(60, function() return "done" end) end,
  move_on_after = function() return ml.move_on_after(60, function() return "done" end) end,
  defer = function()
    local done
    do local _ <close> = ml.defer(function() done = "done" end) end
    return done
  end,
  spawn = function() return ml.spawn(coroutine.create(function() return "done" end)):result() end,
  complete_async_jobs = function()
    return ml.complete_async_jobs(function() return "done" end):result()
  end,
  gather = function() return ml.gather{ function() return "done" end }[1] end,
  wait = function() return ml.wait({ ml.spawn(function() return "done" end) })[1]:result() end,
  as_completed = function()
    return ml.as_completed{ ml.spawn(function() return "done" end) }():result()
  end,
  map = function() return ml.run(ml.map, { "done" }, function(s) return s end)[1] end,
  each = function()
    return ml.run(function()
      return select(2, ml.each({ 1 }, function() return "done" end)())
    end)
  end,
  AsyncExecutor = function()
    local ex <close> = ml.AsyncExecutor{}
    return ex:submit(function() return "done" end):result()
  end,
  ThreadExecutor = function()
    local ex <close> = ml.ThreadExecutor{ workers = 1 }
    return ex:submit(function() return "done" end):result()
  end,
  ProcessExecutor = function()
    local ex <close> = ml.ProcessExecutor{ workers = 1 }
    return ex:submit(function() return "done" end):result()
  end,
  run_async_job = function() return ml.run_async_job(function() return "done" end):result() end,
  run_async = function() return ml.run_async(function() return "done" end):result() end,
  async_to_sync = function() return ml.async_to_sync(function() return "done" end)() end,
  sync_to_async = function() return ml.sync_to_async(function() return "done" end)() end,
  to_thread = function() return ml.to_thread(function() return "done" end) end,
  cpu = function() return ml.cpu(function() return "done" end) end,
  cpu_executor = function() return ml.cpu_executor():stats() and "done" end,
  run_in_executor = function()
    return ml.run_in_executor(nil, function() return "done" end):result()
  end,
  get_event_loop = function() return ml.get_event_loop().name and "done" end,
  set_event_loop = function() return ml.set_event_loop(ml.get_event_loop()) and "done" end,
  stats = function() return ml.stats() and "done" end,
  jobs = function() return ml.jobs() and "done" end,
  generator = function()
    local g <close> = ml.generator{ function() coroutine.yield "done" end }
    return (select(2, g:next()))
  end,
  agen_to_gen = function()
    return ml.agen_to_gen(function() coroutine.yield "done" end)()
  end,
  Condition = function()
    local condition = ml.Condition()
    local _ <close> = condition:hold()
    return select(2, condition:wait(0)).code == "timeout" and "done"
  end,
}

-- What is there from the start.
local CORE <const> = {}
for name in ([[
  create_task sleep checkpoint now poll in_job current_job cancelled promise ref on_error
  on_blocked is_cancelled is_timeout Semaphore Lock Event Barrier Queue Channel select
]]):gmatch "%S+" do
  CORE[name] = true
end

describe("the first use of moonloop in a state", function()
  local pool

  setup(function() pool = ml.ThreadExecutor{ name = "fresh", workers = 1, max_jobs = 1 } end)
  teardown(function() h.close(pool) end)

  for name in pairs(ml) do
    if name ~= "version" and not CORE[name] then
      it("may be of " .. name, function()
        local first = assert(firsts[name], "no case for it")
        assert.equal("done", pool:submit(first):result(h.TIMEOUT))
      end)
    end
  end

  it("may be of an executor that comes from elsewhere", function()
    local ex = ml.AsyncExecutor{ name = "far" }
    assert.equal("far", pool:submit(function(e) return e.name end, ex):result(h.TIMEOUT))
    assert.is_false(pool:submit(function(e) return getmetatable(e) end, ex):result(h.TIMEOUT))
    assert.is_true(pool:submit(function(e)
      do local _ <close> = e end
      return not pcall(e.submit, e, print)
    end, ex):result(h.TIMEOUT))
    h.close(ex)
  end)

  it("may be of a worker that comes from elsewhere", function()
    local ex = ml.AsyncExecutor{ name = "far" }
    local worker <close> = ex:worker()
    assert.equal(1, pool:submit(function(w) return w.index end, worker):result(h.TIMEOUT))
    assert.equal("far", pool:submit(function(w)
      return w:call(function() return w.executor.name end)
    end, worker):result(h.TIMEOUT))
    h.close(ex)
  end)

  it("may be of a generator that comes from elsewhere", function()
    local ex = ml.AsyncExecutor{ name = "far" }
    local function items() for i = 1, 3 do coroutine.yield(i) end end
    local one, other = ex:generator{ items }, ex:generator{ items }
    assert.equal(1, pool:submit(function(g) return select(2, g:next()) end, one):result(h.TIMEOUT))
    assert.is_true(pool:submit(function(g) return g:close() end, one):result(h.TIMEOUT))
    assert.is_true(pool:submit(function(g)
      do local _ <close> = g end
      return not (g:next())
    end, other):result(h.TIMEOUT))
    h.close(ex)
  end)

  it("loads what that needs, and the state has nothing before", function()
    local function loaded()
      local names = {}
      for name in pairs(package.loaded) do
        if name:find "^moonloop%." then names[#names + 1] = name end
      end
      return names
    end
    assert.same({}, pool:submit(loaded):result(h.TIMEOUT))
    local names = pool:submit(function(list)
      ml.scope(function() end)
      return list()
    end, loaded):result(h.TIMEOUT)
    table.sort(names)
    assert.same({ "moonloop.check", "moonloop.core", "moonloop.scopes" }, names)
  end)
end)
