-- AsyncExecutor{ loops = n }: where jobs go, and that what they share works between loops.

local ml = require "moonloop"
local tcp = require "moonloop.tcp"
local h = require "spec.support.helpers"

describe("several loops", function()
  local ex

  before_each(function() ex = ml.AsyncExecutor{ loops = 2 } end)
  after_each(function() h.close(ex) end)

  -- A state's id on each loop.
  local function ids()
    local list = {}
    for i = 1, 2 do list[i] = ex:submit(ml.job{ h.state_id, loop = i }):result(h.TIMEOUT) end
    assert.not_equal(list[1], list[2])
    return list
  end

  it("take a job where `loop` says", function()
    local list = ids()
    for _ = 1, 5 do
      for i = 1, 2 do
        assert.equal(list[i], ex:submit(ml.job{ h.state_id, loop = i }):result(h.TIMEOUT))
      end
    end
  end)

  it("keep jobs of one affinity together, whoever submits them", function()
    local seen = {}
    for key = 1, 16 do
      local job = ml.job{ h.state_id, affinity = "user " .. key }
      local id = ex:submit(job):result(h.TIMEOUT)
      seen[id] = true
      for _ = 1, 3 do assert.equal(id, ex:submit(job):result(h.TIMEOUT)) end
      assert.equal(id, ml.to_thread(function(e, f, k)
        return e:submit(ml.job{ f, affinity = k }):result()
      end, ex, h.state_id, "user " .. key))
    end
    local n = 0
    for _ in pairs(seen) do n = n + 1 end
    assert.equal(2, n)
  end)

  it("take new jobs where the load is least", function()
    local list, release, held = ids(), h.gate(), {}
    for i = 1, 6 do
      held[i] = ex:submit(ml.job{ function(r) r:pass() end, release, loop = 1 })
    end
    for _ = 1, 5 do assert.equal(list[2], ex:submit(h.state_id):result(h.TIMEOUT)) end
    release:open()
    for i = 1, 6 do held[i]:result(h.TIMEOUT) end
  end)

  it("leave a job where it began, and its group and spawned jobs with it", function()
    local job = function(id)
      local own, all = id(), {}
      ml.sleep(0.001)
      all[1] = id() == own
      ml.group(function(g)
        for i = 2, 4 do
          g:spawn(function()
            ml.sleep(0.001)
            all[i] = id() == own
          end)
        end
      end)
      all[5] = ml.spawn(id):result() == own
      return all
    end
    for i = 1, 2 do
      local all = ex:submit(ml.job{ job, h.state_id, loop = i }):result(h.TIMEOUT)
      assert.same({ true, true, true, true, true }, all)
    end
  end)

  it("share futures, channels, queues, locks and events", function()
    local function on(loop, f, ...) return ex:submit(ml.job{ f, loop = loop }, ...) end
    local channel, queue, lock, event = ml.Channel(), ml.Queue(2), ml.Lock(), ml.Event()
    local n = 200
    local sender = on(1, function(c, q, count)
      for i = 1, count do
        c:send(i)
        q:put(-i)
      end
      c:close()
    end, channel, queue, n)
    local receiver = on(2, function(c, q)
      local sum = 0
      for i in c do sum = sum + i + q:get() end
      return sum
    end, channel, queue)
    assert.equal(0, receiver:result(h.TIMEOUT))
    sender:result(h.TIMEOUT)
    -- A lock between loops: one at a time in the section.
    local counter, jobs = ml.Queue(), {}
    counter:put(0)
    for i = 1, 20 do
      jobs[i] = on(i % 2 + 1, function(l, c)
        local _ <close> = l:hold()
        local v = c:get()
        ml.sleep(0.0005)
        c:put(v + 1)
      end, lock, counter)
    end
    for i = 1, 20 do jobs[i]:result(h.TIMEOUT) end
    assert.equal(20, counter:get(h.TIMEOUT))
    local waiting = on(2, function(e, f) e:wait() return f:result() end, event,
      on(1, function(e) e:wait() return "from the other loop" end, event))
    event:set()
    assert.equal("from the other loop", waiting:result(h.TIMEOUT))
    local slow = on(1, ml.sleep, 60)
    assert.is_true(on(2, function(f) return f:cancel_and_wait() end, slow):result(h.TIMEOUT))
  end)

  it("refuse places that are none, by name", function()
    h.misuse("loop", function() ml.job{ print, loop = 0 } end)
    h.misuse("the executor has 2, got 3", function() ex:submit(ml.job{ print, loop = 3 }) end)
    h.misuse("affinity", function() ex:submit(ml.job{ print, affinity = {} }) end)
    local pool <close> = ml.ThreadExecutor{}
    h.misuse("asyncexecutor", function() pool:submit(ml.job{ print, loop = 1 }) end)
    ml.run(function()
      h.misuse("spawn", function() ml.spawn(ml.job{ print, affinity = 1 }) end)
    end)
  end)
end)

describe("a server that serves", function()
  local function echo(sock)
    local id = h.state_id()
    for line in function() return (sock:read_line()) end do
      if line == "bye" then return end
      if line == "fail" then error("as asked", 0) end
      sock:write(line .. " " .. id .. "\n")
    end
  end

  local function ask(port, line)
    local sock = assert(tcp.connect("127.0.0.1", port, { timeout = h.TIMEOUT }))
    assert(sock:write(line .. "\n"))
    local answer = sock:read_line(h.TIMEOUT)
    return answer, sock
  end

  it("hands connections to the loops of an executor in turn", function()
    local ex <close> = ml.AsyncExecutor{ loops = 2 }
    local server <close> = assert(tcp.listen("127.0.0.1", 0))
    local port = server.port
    local serving = ml.run_async_job(function(s, f, e)
      return s:serve(f, { executor = e })
    end, server, echo, ex)
    local seen, socks = {}, {}
    for i = 1, 8 do
      local answer
      answer, socks[i] = ask(port, "hello")
      local id = answer:match "^hello (.*)"
      seen[id] = (seen[id] or 0) + 1
    end
    local counts = {}
    for _, n in pairs(seen) do counts[#counts + 1] = n end
    assert.same({ 4, 4 }, counts)
    for _, sock in ipairs(socks) do
      sock:write "again\nbye\n"
      assert.matches("^again", sock:read_line(h.TIMEOUT))
      sock:close()
    end
    server:close()
    assert.is_true(serving:result(h.TIMEOUT))
  end)

  it("serves in the jobs of its own loop without one, with what they share", function()
    ml.run(function()
      local server <close> = assert(tcp.listen("127.0.0.1", 0))
      local served = 0
      local serving = ml.spawn(function()
        return server:serve(function(sock)
          served = served + 1
          sock:write(tostring(served) .. "\n")
        end, { limit = 1 })
      end)
      for i = 1, 3 do
        local answer, sock = ask(server.port, "hello")
        assert.equal(tostring(i), answer)
        sock:close()
      end
      server:close()
      assert.is_true(serving:result(h.TIMEOUT))
    end)
  end)

  it("serves at most `limit` connections at once", function()
    ml.run(function()
      local server <close> = assert(tcp.listen("127.0.0.1", 0))
      local now, most = 0, 0
      local serving = ml.spawn(function()
        server:serve(function(sock)
          now = now + 1
          most = math.max(most, now)
          sock:read_line(h.TIMEOUT)
          ml.sleep(0.001)
          sock:write "done\n"
          now = now - 1
        end, { limit = 2 })
      end)
      local clients = {}
      for i = 1, 8 do
        clients[i] = ml.spawn(function()
          local answer, sock = ask(server.port, "x")
          sock:close()
          return answer
        end)
      end
      for i = 1, 8 do assert.equal("done", clients[i]:result(h.TIMEOUT)) end
      assert.equal(2, most)
      server:close()
      serving:result(h.TIMEOUT)
    end)
  end)

  it("reports a handler's error and goes on; a cancel ends the handlers", function()
    local log = h.error_log()
    local ex <close> = ml.AsyncExecutor{ loops = 2 }
    local server <close> = assert(tcp.listen("127.0.0.1", 0))
    local serving = ml.run_async_job(function(s, f, e)
      s:serve(f, { executor = e })
    end, server, echo, ex)
    local _, broken = ask(server.port, "fail")
    broken:close()
    assert.equal("as asked", (log:entry(1)))
    local answer, sock = ask(server.port, "still there")
    assert.matches("^still there", answer)
    assert.is_true(serving:cancel_and_wait(h.TIMEOUT))
    assert.equal("closed", select(2, sock:read_line(h.TIMEOUT)).code)
    sock:close()
    assert.equal(0, #ex:jobs())
    ml.on_error(nil)
  end)

  it("refuses unknown options and what is no handler", function()
    local server <close> = assert(tcp.listen("127.0.0.1", 0))
    assert.matches("lmit", h.raised(server.serve, server, print, { lmit = 1 }))
    assert.matches("executor", h.raised(server.serve, server, print, { executor = 1 }))
    assert.matches("function", h.raised(server.serve, server, 1))
  end)
end)
