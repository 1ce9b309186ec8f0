-- Law 7: stats() and jobs() say what is there.

local ml = require "moonloop"
local h = require "spec.support.helpers"

describe("stats", function()
  local ex

  before_each(function()
    ex = ml.AsyncExecutor{ name = "watched" }
  end)

  after_each(function()
    h.close(ex)
  end)

  it("counts from nothing", function()
    local stats = ex:stats()
    for _, name in ipairs{ "submitted", "queued", "running", "parked", "finished", "failed",
                           "cancelled" } do
      assert.equal(0, stats[name], name)
    end
    assert.equal(1, stats.loops)
    assert.is_number(stats.workers)
  end)

  it("counts what became of each job", function()
    for _ = 1, 3 do ex:submit(function() end):wait(h.TIMEOUT) end
    for _ = 1, 2 do ex:submit(function() error "x" end):wait(h.TIMEOUT) end
    ex:submit(function() ml.sleep(60) end):cancel_and_wait(h.TIMEOUT)
    local stats = h.eventually(function()
      local s = ex:stats()
      return s.finished + s.failed + s.cancelled == 6 and s
    end)
    assert.same({ 6, 3, 2, 1 }, { stats.submitted, stats.finished, stats.failed, stats.cancelled })
    assert.same({ 0, 0, 0 }, { stats.queued, stats.running, stats.parked })
  end)

  it("counts parked jobs", function()
    local gate = h.gate()
    for _ = 1, 5 do ex:submit(function(g) g:pass() end, gate) end
    h.eventually(function() return ex:stats().parked == 5 end)
    gate:open()
    h.eventually(function() return ex:stats().finished == 5 end)
    assert.equal(0, ex:stats().parked)
  end)

  it("may be asked by one of its jobs", function()
    assert.equal(1, ex:submit(function(e) return e:stats().running end, ex):result(h.TIMEOUT))
  end)

  it("counts a pool's workers and its queue", function()
    local pool <close> = ml.ThreadExecutor{ workers = 2 }
    local started, release = { h.gate(), h.gate() }, h.gate()
    for i = 1, 2 do pool:submit(h.hold, started[i], release) end
    for i = 1, 2 do started[i]:pass() end
    pool:submit(function() end)
    local stats = pool:stats()
    assert.same({ 2, 3, 1 }, { stats.workers, stats.submitted, stats.queued })
    release:open()
  end)
end)

describe("jobs", function()
  local ex, gate

  before_each(function()
    ex, gate = ml.AsyncExecutor{}, h.gate()
  end)

  after_each(function()
    if not gate:is_open() then gate:open() end
    h.close(ex)
  end)

  local function parked(job)
    local future = ex:submit(job, gate)
    h.eventually(function() return ex:stats().parked == 1 end)
    return future, ex:jobs()
  end

  it("is an empty list when there is none", function()
    assert.same({}, ex:jobs())
  end)

  it("tells a job's name, state and what it waits for", function()
    local future, list = parked(ml.job{ function() ml.sleep(60) end, name = "sleeper" })
    assert.equal(1, #list)
    assert.equal("sleeper", list[1].name)
    assert.equal("parked", list[1].state)
    assert.matches("sleep", list[1].waits_for)
    assert.is_number(list[1].since)
    future:cancel_and_wait(h.TIMEOUT)
    h.eventually(function() return #ex:jobs() == 0 end)
  end)

  it("tells where a job was submitted and where it is", function()
    local future, list = parked(function(g) g:pass() end)
    assert.matches("stats_spec%.lua:%d+", list[1].submitted_at)
    assert.matches("stats_spec%.lua:%d+", list[1].traceback)
    gate:open()
    future:wait(h.TIMEOUT)
  end)

  it("lists what a job spawned as well", function()
    local future = ex:submit(function(g)
      ml.spawn(ml.job{ function() g:pass() end, name = "child" }):result()
    end, gate)
    h.eventually(function() return ex:stats().parked == 2 end)
    local names = {}
    for _, job in ipairs(ex:jobs()) do names[job.name or ""] = job end
    assert.is_table(names.child)
    gate:open()
    future:wait(h.TIMEOUT)
  end)

  it("names the parent of each, also of very many", function()
    local n = h.checking() and 2000 or 20000 -- looking for each in all would take minutes
    ml.run(function()
      local asleep = 0
      local function sleeper()
        asleep = asleep + 1
        ml.sleep(60)
      end
      local many = ml.spawn(ml.job{ function()
        for _ = 1, n do ml.spawn(sleeper) end
        sleeper()
      end, name = "many" })
      while asleep <= n do ml.checkpoint() end
      local children = 0
      for _, job in ipairs(ml.jobs()) do
        if job.parent == "many" then children = children + 1 end
      end
      assert.equal(n, children)
      many:cancel()
    end)
  end)
end)
