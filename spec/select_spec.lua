-- select: exactly one of several sends and receives.

local ml = require "moonloop"
local h = require "spec.support.helpers"

describe("select", function()
  it("does the first that is ready, in the order of the list", function()
    local a, b = ml.Channel(1), ml.Channel(1)
    a:send "from a"
    b:send "from b"
    assert.same({ 1, "from b" }, { ml.select{ { b, "receive" }, { a, "receive" } } })
    assert.same({ 2, "from a" }, { ml.select{ { b, "receive" }, { a, "receive" } } })
    assert.same({ 1, true }, { ml.select{ { a, "send", "sent" }, { b, "send", "not this one" } } })
    assert.equal("sent", a:receive(0))
    assert.equal("busy", select(2, b:try_receive()).code)
  end)

  it("waits for the first, and leaves the others as they were", function()
    local a, b = ml.Channel(), ml.Channel()
    ml.run(function()
      local chooser = ml.spawn(function()
        return ml.select{ { a, "receive" }, { b, "receive" }, { b, "send", 1 } }
      end)
      ml.checkpoint()
      assert.is_true(b:try_send "hello")
      assert.equal("busy", select(2, a:try_send "nobody").code)
      assert.equal("busy", select(2, b:try_receive()).code)
      assert.same({ 2, "hello" }, { chooser:result(h.TIMEOUT) })
    end)
  end)

  it("gives up at the timeout and takes nothing", function()
    local a, b = ml.Channel(), ml.Channel(1)
    b:send "full"
    for _, timeout in ipairs{ 0, h.SHORT } do
      local ok, err = ml.select{ { a, "receive" }, { b, "send", 1 }, timeout = timeout }
      assert.is_nil(ok)
      assert.is_true(ml.is_timeout(err))
    end
    assert.equal("full", b:receive(0))
    assert.equal("busy", select(2, b:try_receive()).code)
    assert.equal("busy", select(2, a:try_send(1)).code)
  end)

  it("says which channel was closed", function()
    local a, b = ml.Channel(), ml.Channel()
    b:close()
    for _, what in ipairs{ "receive", "send" } do
      local which, value, err = ml.select{ { a, "receive" }, { b, what, 1 } }
      assert.equal(2, which)
      assert.is_nil(value)
      assert.equal("closed", err.code)
    end
    ml.run(function()
      local chooser = ml.spawn(function()
        return ml.select{ { a, "receive" }, { a, "send", 1 } }
      end)
      ml.checkpoint()
      a:close()
      local which, _, err = chooser:result(h.TIMEOUT)
      assert.is_truthy(which == 1 or which == 2)
      assert.equal("closed", err.code)
    end)
  end)

  it("can be cancelled, and takes nothing then", function()
    local a, b = ml.Channel(), ml.Channel()
    ml.run(function()
      local chooser = ml.spawn(function() ml.select{ { a, "receive" }, { b, "send", 1 } } end)
      ml.checkpoint()
      chooser:cancel_and_wait(h.TIMEOUT)
      assert.is_true(chooser:cancelled())
      assert.equal("busy", select(2, a:try_send(1)).code)
      assert.equal("busy", select(2, b:try_receive()).code)
    end)
  end)

  it("meets another select", function()
    local a, b = ml.Channel(), ml.Channel()
    ml.run(function()
      local one = ml.spawn(function()
        return ml.select{ { a, "send", "x" }, { b, "send", "y" } }
      end)
      local two = ml.spawn(function() return ml.select{ { b, "receive" }, { a, "receive" } } end)
      local i, sent = one:result(h.TIMEOUT)
      local k, got = two:result(h.TIMEOUT)
      assert.is_true(sent)
      assert.equal(i == 1 and "x" or "y", got)
      assert.equal(i == 1 and 2 or 1, k)
    end)
  end)

  it("does not meet itself", function()
    local ch = ml.Channel()
    local _, err = ml.select{ { ch, "send", 1 }, { ch, "receive" }, timeout = h.SHORT }
    assert.is_true(ml.is_timeout(err))
  end)

  it("gives each value to one, however many choose on all sides", function()
    local loops <close> = ml.AsyncExecutor{ loops = 2 }
    local pool <close> = ml.ThreadExecutor{ workers = 2 }
    local a, b, c = ml.Channel(), ml.Channel(), ml.Channel(2)
    local N <const> = 300
    local function produce(x, y, z, n, base)
      for i = 1, n do
        local v = base + i
        if i % 3 == 0 then
          assert(x:send(v, 15))
        else
          local which, ok = ml.select{ { x, "send", v }, { y, "send", v }, { z, "send", v },
                                       timeout = 15 }
          assert(which and ok)
        end
      end
    end
    local function take(x, y, z, n)
      local sum, i, turn = 0, 0, 0
      while i < n do
        turn = turn + 1 -- every second choice gives up soon: it must not take anything with it
        local which, v = ml.select{ { z, "receive" }, { x, "receive" }, { y, "receive" },
                                    timeout = turn % 2 == 0 and 15 or 0.0001 }
        if which then sum, i = sum + v, i + 1 end
      end
      return sum
    end
    local futures = {}
    for i = 1, 4 do
      local ex = i % 2 == 0 and loops or pool
      futures[#futures + 1] = loops:submit(produce, a, b, c, N, i * 1000)
      futures[#futures + 1] = ex:submit(take, a, b, c, N)
    end
    local sum, expected = 0, 0
    for i, future in ipairs(futures) do
      local result = future:result(h.TIMEOUT)
      if i % 2 == 0 then sum = sum + result end
    end
    for i = 1, 4 do expected = expected + N * i * 1000 + N * (N + 1) // 2 end
    assert.equal(expected, sum)
    assert.equal("busy", select(2, c:try_receive()).code)
  end)

  it("refuses what is no case", function()
    local ch = ml.Channel()
    h.misuse("select: there is no case", function() ml.select{ timeout = 1 } end)
    h.misuse("select: case 1: table expected, got userdata", function() ml.select{ ch } end)
    h.misuse("select: case 2: channel expected, got string",
      function() ml.select{ { ch, "receive" }, { "ch", "receive" } } end)
    h.misuse('select: case 1: "send" or "receive" expected, got get',
      function() ml.select{ { ch, "get" } } end)
    h.misuse("select: case 1: a value expected: nil",
      function() ml.select{ { ch, "send" } } end)
    h.misuse("select: unknown option 'time'",
      function() ml.select{ { ch, "receive" }, time = 1 } end)
    h.misuse("option 'timeout'", function() ml.select{ { ch, "receive" }, timeout = -1 } end)
    assert.equal("crossing", h.raised(ml.select, { { ch, "send", coroutine.create(print) } }).code)
    assert.equal("busy", select(2, ch:try_receive()).code)
  end)
end)
