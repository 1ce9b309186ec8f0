-- Channels between jobs and threads: hand to hand, or with room for some.

local ml = require "moonloop"
local h = require "spec.support.helpers"

describe("a channel", function()
  it("without room hands a value over when both sides are there", function()
    local ch = ml.Channel()
    assert.equal("busy", select(2, ch:try_send(1)).code)
    assert.equal("busy", select(2, ch:try_receive()).code)
    assert.is_true(ml.is_timeout(select(2, ch:send(1, 0))))
    assert.is_true(ml.is_timeout(select(2, ch:send(1, h.SHORT))))
    assert.is_true(ml.is_timeout(select(2, ch:receive(h.SHORT))))
    ml.run(function()
      local sender = ml.spawn(function() return ch:send "a" end)
      ml.checkpoint()
      assert.is_false(sender:done())
      assert.equal("a", ch:receive())
      assert.is_true(sender:result(h.TIMEOUT))
      local receiver = ml.spawn(function() return ch:receive() end)
      ml.checkpoint()
      assert.is_true(ch:try_send "b")
      assert.equal("b", receiver:result(h.TIMEOUT))
    end)
  end)

  it("with room lets that many sends go on", function()
    local ch = ml.Channel(2)
    assert.is_true(ch:send(1))
    assert.is_true(ch:send(2))
    assert.is_nil((ch:send(3, 0)))
    assert.equal(1, ch:receive())
    assert.is_true(ch:try_send(3))
    assert.equal(2, ch:try_receive())
    assert.equal(3, ch:receive())
  end)

  it("serves senders and receivers in the order in which they came", function()
    local ch, got = ml.Channel(), {}
    ml.run(function()
      local futures = {}
      for i = 1, 4 do futures[i] = ml.spawn(function() ch:send(i) end) end
      ml.checkpoint()
      for i = 1, 4 do got[i] = ch:receive() end
      assert.same({ 1, 2, 3, 4 }, got)
      for i = 1, 4 do futures[i] = ml.spawn(function() got[i] = ch:receive() end) end
      ml.checkpoint()
      for i = 1, 4 do ch:send(i * 10) end
      ml.gather(futures)
    end)
    assert.same({ 10, 20, 30, 40 }, got)
  end)

  it("hands on false, and the same table within a state; nil is no value", function()
    local ch, t = ml.Channel(1), {}
    ch:send(false)
    assert.is_false(ch:receive())
    ch:send(t)
    assert.equal(t, ch:receive())
    h.misuse("channel send: a value expected: nil", function() ch:send(nil) end)
    h.misuse("channel send: a value expected: nil", function() ch:try_send(nil) end)
  end)

  describe("close", function()
    it("ends sends at once and receives when all was received", function()
      local ch = ml.Channel(2)
      ch:send(1)
      ch:send(2)
      ch:close()
      ch:close()
      assert.equal("closed", select(2, ch:send(3)).code)
      assert.equal("closed", select(2, ch:try_send(3)).code)
      assert.equal(1, ch:receive())
      assert.equal(2, ch:try_receive())
      assert.equal("closed", select(2, ch:receive()).code)
      assert.equal("closed", select(2, ch:try_receive()).code)
    end)

    it("wakes all who wait", function()
      local ex <close> = ml.AsyncExecutor{ loops = 2 }
      local pool <close> = ml.ThreadExecutor{ workers = 1 }
      local a, b = ml.Channel(), ml.Channel()
      local function send(ch) return select(2, ch:send(1, 15)).code end
      local function receive(ch) return select(2, ch:receive(15)).code end
      local futures = {
        ex:submit(send, a),
        ex:submit(receive, b),
        ex:submit(receive, b),
        pool:submit(send, a),
      }
      h.eventually(function() return ex:stats().parked == 3 end)
      a:close()
      b:close()
      for _, future in ipairs(futures) do assert.equal("closed", future:result(h.TIMEOUT)) end
    end)
  end)

  describe("in a for loop", function()
    it("gives what is sent until it is closed", function()
      local ex <close> = ml.AsyncExecutor{}
      local ch, sum = ml.Channel(4), 0
      ex:submit(function(c)
        for i = 1, 100 do c:send(i) end
        c:close()
      end, ch)
      for v in ch do sum = sum + v end
      assert.equal(5050, sum)
      for _ in ch do error "it is closed" end
    end)

    it("works in a job for a thread that produces", function()
      local ex <close> = ml.AsyncExecutor{}
      local ch = ml.Channel()
      local consumer = ex:submit(function(c)
        local list = {}
        for v in c do list[#list + 1] = v.n end
        return list
      end, ch)
      for i = 1, 5 do ch:send({ n = i }, h.TIMEOUT) end
      ch:close()
      assert.same({ 1, 2, 3, 4, 5 }, consumer:result(h.TIMEOUT))
    end)
  end)

  it("keeps a value whose receiver was cancelled, and drops that of a sender", function()
    local ch = ml.Channel()
    ml.run(function()
      local receiver = ml.spawn(function() ch:receive() end)
      ml.checkpoint()
      receiver:cancel_and_wait(h.TIMEOUT)
      local first = ml.spawn(function() ch:send "first" end)
      local second = ml.spawn(function() ch:send "second" end)
      ml.checkpoint()
      first:cancel_and_wait(h.TIMEOUT)
      assert.equal("second", ch:receive(0))
      second:result(h.TIMEOUT)
    end)
  end)

  it("carries channels", function()
    local ex <close> = ml.AsyncExecutor{}
    local requests = ml.Channel()
    local server = ex:submit(function(c)
      for request in c do request.reply:send(request.x * request.x) end
    end, requests)
    for i = 1, 5 do
      local reply = ml.Channel(1)
      requests:send({ x = i, reply = reply }, h.TIMEOUT)
      assert.equal(i * i, reply:receive(h.TIMEOUT))
    end
    requests:close()
    server:result(h.TIMEOUT)
  end)

  it("refuses capacities that are none, and says what it is", function()
    for _, n in ipairs{ -1, 0.5, 0 / 0, "1" } do
      h.misuse("channel: capacity: whole number, 0 or more, expected", function() ml.Channel(n) end)
    end
    local ch = ml.Channel(1)
    ch:send(1)
    ch:close()
    assert.matches("^channel: .*%(1 waiting, closed%)$", tostring(ch))
  end)
end)
