-- Pools of threads: how long workers and their states live, breaking off what
-- computes, and that no pool waits for itself.

local ml = require "moonloop"
local h = require "spec.support.helpers"

local function thread_id()
  local file <close> = assert(io.open "/proc/thread-self/stat")
  return file:read "n"
end

local function open_and_compute(gate)
  gate:open()
  h.compute()
end

describe("idle_timeout", function()
  it("ends workers without work; the next job gets a new one", function()
    local pool <close> = ml.ThreadExecutor{ workers = 2, idle_timeout = 0.01 }
    pool:submit(function() rawset(_G, "spec_old", true) end):result(h.TIMEOUT)
    h.eventually(function() return pool:stats().workers == 0 end, "the worker's end")
    assert.is_nil(pool:submit(function() return rawget(_G, "spec_old") end):result(h.TIMEOUT))
  end)

  it("of math.huge keeps them", function()
    local pool <close> = ml.ThreadExecutor{ idle_timeout = math.huge }
    local first = pool:submit(thread_id):result(h.TIMEOUT)
    ml.sleep(0.02)
    assert.equal(first, pool:submit(thread_id):result(h.TIMEOUT))
  end)

  it("leaves a worker that is held while it sleeps", function()
    local pool <close> = ml.ThreadExecutor{ workers = 1, idle_timeout = 0.05 }
    local start = ml.now()
    pool:submit(function() rawset(_G, "spec_before", true) end):result(h.TIMEOUT)
    local worker <close> = pool:worker()
    local in_time = ml.now() - start < 0.05
    ml.sleep(0.1)
    local kept = worker:call(function() return rawget(_G, "spec_before") end)
    assert.is_true(kept or not in_time)
  end)

  it("leaves a worker that is held", function()
    local pool <close> = ml.ThreadExecutor{ workers = 1, idle_timeout = 0.005 }
    local worker = pool:worker()
    local first = worker:call(h.state_id)
    ml.sleep(0.03)
    assert.equal(first, worker:call(h.state_id))
    worker:close()
    h.eventually(function() return pool:stats().workers == 0 end, "the worker's end")
  end)
end)

describe("a worker's state", function()
  local function count()
    rawset(_G, "spec_count", (rawget(_G, "spec_count") or 0) + 1)
    return rawget(_G, "spec_count"), rawget(_G, "spec_inits")
  end

  local init = function() rawset(_G, "spec_inits", 1) end

  it("is made anew after max_jobs, on the same thread, with init", function()
    local pool <close> = ml.ThreadExecutor{ workers = 1, max_jobs = 3, init = init }
    local thread = pool:submit(thread_id):result(h.TIMEOUT)
    local got = {}
    for i = 1, 7 do
      local n, inits = pool:submit(count):result(h.TIMEOUT)
      got[i] = n
      assert.equal(1, inits)
    end
    assert.same({ 1, 2, 1, 2, 3, 1, 2 }, got)
    assert.equal(thread, pool:submit(thread_id):result(h.TIMEOUT))
  end)

  it("is made anew when it keeps more than max_memory, not for garbage", function()
    local pool <close> = ml.ThreadExecutor{ workers = 1, max_memory = 4 << 20 }
    assert.equal(1, pool:submit(count):result(h.TIMEOUT))
    pool:submit(function()
      for _ = 1, 10 do local _ = ("x"):rep(1 << 20) end
    end):result(h.TIMEOUT)
    assert.equal(2, pool:submit(count):result(h.TIMEOUT))
    pool:submit(function() rawset(_G, "spec_kept", ("x"):rep(8 << 20)) end):result(h.TIMEOUT)
    assert.equal(1, pool:submit(count):result(h.TIMEOUT))
  end)

  it("stays while the worker is held", function()
    local pool <close> = ml.ThreadExecutor{ workers = 1, max_jobs = 1 }
    do
      local worker <close> = pool:worker()
      for i = 1, 3 do assert.equal(i, worker:call(count)) end
    end
    pool:submit(count):result(h.TIMEOUT)
    assert.equal(1, pool:submit(count):result(h.TIMEOUT))
  end)

  it("refuses bad values", function()
    for _, name in ipairs{ "max_jobs", "max_memory" } do
      h.misuse(name, function() ml.ThreadExecutor{ [name] = 0 } end)
      h.misuse(name, function() ml.ThreadExecutor{ [name] = "much" } end)
    end
    h.misuse("idle_timeout", function() ml.ThreadExecutor{ idle_timeout = -1 } end)
    h.misuse("idle_timeout", function() ml.ThreadExecutor{ idle_timeout = "long" } end)
  end)
end)

describe("ml.cancelled", function()
  it("tells a function that computes that it is to stop", function()
    local pool <close> = ml.ThreadExecutor{ workers = 1 }
    local started = h.gate()
    local future = pool:submit(function(s)
      assert(not ml.cancelled())
      s:open()
      local n = 0
      while not ml.cancelled() do n = n + 1 end
      return n
    end, started)
    started:pass()
    assert.is_true(future:cancel())
    assert.is_number(future:result(h.TIMEOUT))
    assert.is_false(pool:submit(ml.cancelled):result(h.TIMEOUT))
  end)

  it("tells a job of its own pending cancel, and a thread that there is none", function()
    assert.is_false(ml.cancelled())
    assert.same({ false, true, false }, ml.run(function()
      local seen = {}
      seen[1] = ml.cancelled()
      local job
      job = ml.spawn(function()
        job:cancel()
        seen[2] = ml.cancelled()
        seen[3] = ml.shield(ml.cancelled)
      end)
      job:wait(h.TIMEOUT)
      return seen
    end))
  end)
end)

describe("a hard cancel", function()
  local pool, started

  before_each(function()
    pool = ml.ThreadExecutor{ workers = 1 }
    started = h.gate()
  end)

  after_each(function() h.close(pool) end)

  it("breaks off what computes, and its variables clean up", function()
    local cleaned = h.gate()
    local future = pool:submit(function(s, c)
      local _ <close> = setmetatable({}, { __close = function(_, err)
        c:open(ml.is_cancelled(err), err.reason)
      end })
      s:open()
      h.compute()
    end, started, cleaned)
    started:pass()
    assert.is_true(future:cancel{ hard = true, reason = "enough" })
    assert.same({ true, "enough" }, { cleaned:pass() })
    future:wait(h.TIMEOUT)
    assert.is_true(future:cancelled())
    assert.equal("enough", future:exception(0).reason)
    assert.equal(1, pool:submit(function() return 1 end):result(h.TIMEOUT))
  end)

  it("reaches into coroutines and callbacks", function()
    local future = pool:submit(function(s)
      local t = {}
      for i = 1, 100 do t[i] = i end
      coroutine.wrap(function()
        table.sort(t, function()
          if not s:is_open() then s:open() end
          h.compute()
        end)
      end)()
    end, started)
    started:pass()
    assert.is_true(future:cancel_and_wait{ hard = true, timeout = h.TIMEOUT })
    assert.is_true(future:cancelled())
  end)

  it("may follow a plain one, and be asked for again when it was swallowed", function()
    local again = h.gate()
    local future = pool:submit(function(s, a)
      pcall(open_and_compute, s)
      open_and_compute(a)
    end, started, again)
    started:pass()
    assert.is_true(future:cancel "softly")
    assert.is_false(future:done())
    assert.is_true(future:cancel{ hard = true })
    again:pass()
    assert.is_true(future:cancel{ hard = true })
    assert.equal("softly", future:exception(h.TIMEOUT).reason)
  end)

  it("of a queued job is a plain cancel, of a settled one nothing", function()
    local release = h.gate()
    local first = pool:submit(h.hold, started, release)
    started:pass()
    local queued = pool:submit(print)
    assert.is_true(queued:cancel{ hard = true })
    assert.is_true(queued:cancelled())
    release:open "undisturbed"
    assert.equal("undisturbed", first:result(h.TIMEOUT))
    assert.is_false(first:cancel{ hard = true })
  end)

  it("leaves a hook of the program where it is", function()
    local future = pool:submit(function(s)
      local hook = function() end
      debug.sethook(hook, "", 1000)
      pcall(open_and_compute, s)
      return debug.gethook() == hook
    end, started)
    started:pass()
    future:cancel{ hard = true }
    assert.is_true(future:result(h.TIMEOUT))
  end)

  it("a table without it is a reason; with it, other options are refused", function()
    local release = h.gate()
    local future = pool:submit(function(s) s:open() ml.sleep(60) end, started)
    started:pass()
    h.misuse("hrad", function() future:cancel{ hard = true, hrad = 1 } end)
    h.misuse("tiemout", function() future:cancel_and_wait{ tiemout = 1 } end)
    future:cancel{ why = "a table" }
    assert.same({ why = "a table" }, future:exception(h.TIMEOUT).reason)
    release:open()
  end)

  it("many times at any moment never breaks anything else", function()
    for _ = 1, 100 do
      local future = pool:submit(function()
        local t = {}
        for i = 1, 3000 do t[i % 10] = { i } end
        return #t
      end)
      future:cancel{ hard = true }
      future:wait(h.TIMEOUT)
      assert.is_true(future:done())
    end
    assert.equal(1, pool:submit(function() return 1 end):result(h.TIMEOUT))
  end)
end)

describe("ml.cpu", function()
  it("runs on a pool of its own with a worker for each core", function()
    local function name()
      local file <close> = assert(io.open "/proc/thread-self/comm")
      return file:read "l"
    end
    assert.matches("^moonloop%-c", ml.cpu(name))
    assert.not_equal(ml.to_thread(h.state_id), ml.cpu(h.state_id))
    assert.same({ nil, 2 }, { ml.cpu(function(...) return ... end, nil, 2) })
    assert.equal("cpu", ml.run_in_executor(ml.cpu_executor(), function() return "cpu" end)
                          :result(h.TIMEOUT))
    assert.equal("moonloop-cpu", ml.cpu_executor().name)
    assert.matches("no", h.raised(ml.cpu, function() error "no" end))
  end)

  it("is free while the pool for blocking functions is full", function()
    local release, futures = h.gate(), {}
    for i = 1, 40 do
      futures[i] = ml.run_in_executor(nil, function(r) return r:pass() end, release)
    end
    assert.equal(4, ml.cpu(function() return 2 + 2 end))
    release:open()
    for i = 1, 40 do futures[i]:result(h.TIMEOUT) end
  end)
end)

describe("no pool waits for itself:", function()
  local pool

  before_each(function() pool = ml.ThreadExecutor{ workers = 1 } end)
  after_each(function() h.close(pool) end)

  it("a function submits to its own pool and waits", function()
    local function fib(p, f, n)
      if n < 2 then return n end
      local a, b = p:submit(f, p, f, n - 1), p:submit(f, p, f, n - 2)
      return a:result() + b:result()
    end
    assert.equal(8, pool:submit(fib, pool, fib, 6):result(h.TIMEOUT))
  end)

  it("a map inside a map", function()
    local sums = pool:submit(function(p)
      local out = {}
      for sum in p:map(function(n)
        local s = 0
        for x in p:map(function(k) return k * k end, { 1, 2, n }) do s = s + x end
        return s
      end, { 3, 4 }) do
        out[#out + 1] = sum
      end
      return out
    end, pool):result(h.TIMEOUT)
    assert.same({ 14, 21 }, sums)
  end)

  -- The only worker is busy with a function that waits for one that was queued
  -- behind it by somebody else.
  for _, how in ipairs{ "result", "wait", "gather", "as_completed" } do
    it("a function waits by " .. how .. " for one that is queued behind it", function()
      local channel, started = ml.Channel(2), h.gate()
      local first = pool:submit(function(s, c, by)
        s:open()
        local before, sibling = c:receive(h.TIMEOUT), c:receive(h.TIMEOUT)
        if by == "result" then return sibling:result() end
        if by == "wait" then return select(2, sibling:wait(h.TIMEOUT)) end
        if by == "gather" then return ml.gather{ sibling }[1] end
        local got
        for future in ml.as_completed({ sibling }, h.TIMEOUT) do got = future:result() end
        return got, before:done()
      end, started, channel, how)
      started:pass()
      -- Between them is one that waits for the first: it must not be in the way.
      local between = pool:submit(function(f) return f:result() end, first)
      local sibling = pool:submit(function() return "sibling" end)
      channel:send(between)
      channel:send(sibling)
      assert.equal("sibling", first:result(h.TIMEOUT))
      assert.equal("sibling", between:result(h.TIMEOUT))
    end)
  end

  it("two workers wait for each other's children", function()
    local two <close> = ml.ThreadExecutor{ workers = 2 }
    local a, b = ml.Channel(1), ml.Channel(1)
    local function parent(p, mine, other, n)
      mine:send(p:submit(function(k) return k end, n))
      return other:receive(h.TIMEOUT):result()
    end
    local first, second = two:submit(parent, two, a, b, 1), two:submit(parent, two, b, a, 2)
    assert.same({ 2, 1 }, { first:result(h.TIMEOUT), second:result(h.TIMEOUT) })
  end)

  it("a job that a worker waits for calls the same pool, at any depth", function()
    local ex <close> = ml.AsyncExecutor{}
    local function bounce(e, p, f, n)
      if n == 0 then return "down" end
      return p:sync_to_async(function(...) return (...):submit(select(3, ...), ...):result() end,
                             e, p, f, n - 1)
    end
    assert.equal("down", ex:submit(bounce, ex, pool, bounce, 20):result(h.TIMEOUT))
    -- The same by jobs that the job spawned.
    assert.equal(3, pool:submit(function(e, p)
      return e:submit(function(q)
        local futures = {}
        for i = 1, 3 do
          futures[i] = ml.spawn(function() return q:sync_to_async(function() return 1 end) end)
        end
        local sum = 0
        for _, n in ipairs(ml.gather(futures)) do sum = sum + n end
        return sum
      end, p):result()
    end, ex, pool):result(h.TIMEOUT))
  end)

  it("with max_pending, its own jobs go over the bound", function()
    local bounded <close> = ml.ThreadExecutor{ workers = 1, max_pending = 1 }
    assert.equal("inner", bounded:submit(function(p)
      return p:submit(function() return "inner" end):result()
    end, bounded):result(h.TIMEOUT))
    assert.equal(1, bounded:submit(function() return 1 end):result(h.TIMEOUT))
    assert.equal("busy", bounded:submit(function(p)
      return select(2, p:try_submit(print)).code
    end, bounded):result(h.TIMEOUT))
  end)

  it("a held worker that would wait for itself is refused", function()
    local worker <close> = pool:worker()
    local err = worker:call(function(w)
      return select(2, pcall(function() w:call(print) end))
    end, worker)
    assert.matches("^%S*pools_spec%.lua:%d+: .*wait for itself", err)
    assert.equal(1, worker:call(function() return 1 end))
  end)
end)

describe("without threads to be had", function()
  it("submit raises a typed error, and the pool works once there are", function()
    if h.checking() then return end -- a sanitizer does not survive that
    local out, status = h.run_script([[
      local ml = require "moonloop"
      local ex <close> = ml.AsyncExecutor{}
      ex:submit(function() end):result(5)
      local one <close> = ml.ThreadExecutor{ workers = 1 }
      one:submit(function() end):result(5)
      local full <close> = ml.ThreadExecutor{ workers = 4 }
      local lift = assert(io.popen("read line; prlimit --pid $PPID --as=unlimited", "w"))
      local function limit(bytes)
        local pipe <close> = io.popen("prlimit --pid $PPID --as=" .. bytes .. " 2>&1")
        return pipe:read "a"
      end
      local file <close> = io.open "/proc/self/status"
      local size = tonumber(file:read("a"):match "VmSize:%s*(%d+)") * 1024
      local said = limit(size + 4096 .. ":unlimited")
      if said ~= "" then print("cannot limit: " .. said) return end
      local ok, err = pcall(full.submit, full, function() end)
      print(ok, type(err) == "table" and err.code)
      print(one:submit(function() return "as before" end):result(5))
      lift:write "\n"
      lift:close()
      print(full:submit(function() return "again" end):result(5))
    ]])
    assert.equal(0, status, out)
    if out:find "cannot limit" then return end
    assert.equal("false\tEAGAIN\nas before\nagain\n", out)
  end)
end)
