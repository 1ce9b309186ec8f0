-- busted --helper=moonloop.busted: what is in a suite may wait, ends in time, leaves nothing.

local h = require "spec.support.helpers"

local BUSTED <const> = 'require "busted.runner" { standalone = false }'

-- Runs busted over a spec of this text. `options`: `lua`, and its arguments, in a list.
-- Returns what is printed, and the exit code.
local function busted(text, options)
  local reserved = os.tmpname()
  local path = reserved .. ".lua"
  local file = assert(io.open(path, "w"))
  file:write('local ml = require "moonloop"\n', text)
  file:close()
  local all = { "--ignore-lua", "--helper=moonloop.busted", "-o", "plainTerminal",
    lua = options and options.lua, env = options and options.env }
  for _, argument in ipairs(options or {}) do all[#all + 1] = argument end
  all[#all + 1] = path
  local output, code = h.run_script(BUSTED, all)
  os.remove(path)
  os.remove(reserved)
  return (output:gsub(path:gsub("%p", "%%%0"), "x_spec.lua")), code
end

local function counts(output)
  return output:match "(%d+) success%S* / (%d+) failure%S* / (%d+) error%S* / (%d+) pending"
end

describe("a suite under the helper", function()
  for _, program in ipairs { "lua5.4", "moonloop" } do
    it("waits wherever the user's functions run, in " .. program, function()
      local output, code = busted([[
        describe("waits", function()
          local steps = {}
          local function step(name)
            assert(ml.in_job())
            ml.sleep(0.001)
            steps[#steps + 1] = name
          end
          step "describe"
          setup(function() step "setup" end)
          lazy_setup(function() step "lazy_setup" end)
          before_each(function() step "before" end)
          after_each(function() step "after" end)
          teardown(function()
            step "teardown"
            print(table.concat(steps, " "))
          end)
          it("in a test", function()
            finally(function() step "finally" end)
            step "it"
          end)
          it("in what must fail", function()
            assert.has_error(function() ml.sleep(0.001) error("no", 0) end, "no")
          end)
          it("in a spy", function()
            local s = spy.new(function(n) ml.sleep(0.001) return n + 1 end)
            assert.equal(2, s(1))
            assert.spy(s).was.called_with(1)
          end)
          it("before it is pending", function() ml.sleep(0.001) pending "later" end)
          it("before it fails", function() ml.sleep(0.001) assert.equal(1, 2) end)
        end)
      ]], { lua = program })
      assert.same({ "3", "1", "0", "1" }, { counts(output) })
      assert.equal(1, code)
      local steps = "describe setup lazy_setup before it finally after"
      assert.truthy(output:find(steps, 1, true), output)
      assert.truthy(output:find("after teardown", 1, true), output)
      assert.truthy(output:find("x_spec.lua:%d+: Expected objects to be equal"), output)
    end)
  end

  it("lets jobs that a test spawns run beside it", function()
    local output, code = busted [[
      it("gathers", function()
        local a, b = ml.promise(), ml.promise()
        local function swap(mine, other)
          mine:set_result(1)
          return other.future:result(10)
        end
        assert.same({ 1, 1 }, (ml.gather{ ml.spawn(swap, a, b), ml.spawn(swap, b, a) }))
      end)
    ]]
    assert.equal(0, code, output)
  end)

  it("runs in no job with jobs=off, and guards it all the same", function()
    local output, code = busted([[
      it("is in none", function()
        assert.is_false(ml.in_job())
        ml.sleep(0.001)
        assert.equal("in one", ml.run(function() return ml.in_job() and "in one" end))
      end)
      it("hangs", function()
        require "moonloop.busted".timeout(0.1)
        ml.promise().future:wait()
      end)
      it("hangs in a run", function()
        require "moonloop.busted".timeout(0.1)
        local clock <close> = require "moonloop.testing".clock{ autojump = false }
        ml.run(ml.sleep, 3600)
      end)
      local ex
      it("leaves", function() ex = ml.AsyncExecutor{} end)
    ]], { "-Xhelper", "jobs=off,timeout=15" })
    assert.same({ "2", "0", "3", "0" }, { counts(output) })
    assert.equal(1, code)
    assert.truthy(output:find("x_spec.lua:9: no end after 0.1 s; it waits here", 1, true), output)
    assert.truthy(output:find("x_spec.lua:14: no end after 0.1 s", 1, true), output)
    assert.truthy(output:find('made at x_spec.lua:17', 1, true), output)
  end)

  it("says nothing of tests that compute for long", function()
    local output, code = busted([[
      it("computes", function()
        local deadline = os.clock() + 0.4
        repeat until os.clock() > deadline
      end)
    ]], { env = { MOONLOOP_BLOCKED_MS = "" } })
    assert.equal(0, code)
    assert.is_nil(output:find("holds its loop", 1, true), output)
  end)

  it("refuses waits for ever, whatever the limit", function()
    for _, jobs in ipairs { "on", "off" } do
      local output = busted([[
        it("waits", function() ml.Event():wait() end)
      ]], { "-Xhelper", "timeout=15,jobs=" .. jobs })
      assert.same({ "0", "0", "1", "0" }, { counts(output) })
      assert.truthy(output:find("would wait for ever", 1, true), output)
    end
  end)

  it("runs a spec that knows nothing of moonloop", function()
    local output, code = busted [[
      insulate("plain", function()
        it("works", function() assert.equal(3, 1 + 2) end)
        it("has coroutines", function()
          local f = coroutine.wrap(function(a) coroutine.yield(a) coroutine.yield(a + 1) end)
          assert.equal(1, f(1))
          assert.equal(2, f())
        end)
      end)
    ]]
    assert.equal(0, code, output)
  end)

  it("says what is wrong with its options", function()
    for _, option in ipairs { "timeout=soon", "timeout=0", "leaks=maybe", "fast" } do
      local output, code = busted("", { "-Xhelper", option })
      assert.equal(1, code)
      assert.truthy(output:find(("option '%s': timeout="):format(option), 1, true)
        or output:find(("option '%s': leaks="):format(option), 1, true), output)
    end
  end)
end)

describe("a test's time limit", function()
  it("ends it where it hangs, and shows the stack", function()
    local output, code = busted([[
      local function inner(p) p.future:result() end
      it("hangs", function()
        local p = ml.promise()
        inner(p)
      end)
      it("goes on", function() end)
    ]], { "-Xhelper", "timeout=0.05" })
    assert.same({ "1", "0", "1", "0" }, { counts(output) })
    assert.equal(1, code)
    assert.truthy(output:find("x_spec.lua:2: no end after 0.05 s; it waits here:\n"
      .. "\t[C]: in method 'result'\n\tx_spec.lua:2: in upvalue 'inner'\n\tx_spec.lua:5: in ",
      1, true), output)
  end)

  it("holds for each function around a test, and is not kept back by pcall", function()
    local output = busted([[
      describe("hook", function()
        before_each(function() ml.sleep(60) end)
        it("is not run", function() print "ran" end)
      end)
      it("swallows", function() pcall(ml.sleep, 60) end)
    ]], { "-Xhelper", "timeout=0.05" })
    assert.same({ "0", "0", "2", "0" }, { counts(output) })
    assert.truthy(output:find("x_spec.lua:3: no end after 0.05 s", 1, true), output)
    assert.truthy(output:find("x_spec.lua:6: no end after 0.05 s", 1, true), output)
    assert.falsy(output:find "ran")
  end)

  it("is set for a file, a block or a test", function()
    local output, code = busted([[
      local timeout = require "moonloop.busted".timeout
      timeout(30)
      it("has the file's", function() ml.sleep(0.1) end)
      describe("a block", function()
        timeout(0.05)
        it("has the block's", function() ml.sleep(60) end)
        it("has its own", function() timeout(30) ml.sleep(0.1) end)
        it("has none", function() timeout(nil) ml.sleep(0.1) end)
      end)
    ]], { "-Xhelper", "timeout=0.02" })
    assert.same({ "3", "0", "1", "0" }, { counts(output) })
    assert.equal(1, code)
  end)

  it("is real, whatever a test's clock does", function()
    local output, code = busted([[
      local testing = require "moonloop.testing"
      it("sleeps for a year", function()
        local clock <close> = testing.clock()
        ml.sleep(31536000)
        assert.equal(31536000, clock:now())
      end)
      it("hangs", function()
        require "moonloop.busted".timeout(0.1)
        local clock <close> = testing.clock()
        ml.sleep(3600)
        ml.promise().future:wait()
      end)
      it("hangs by hand", function()
        require "moonloop.busted".timeout(0.1)
        local clock <close> = testing.clock{ autojump = false }
        ml.sleep(3600)
      end)
    ]], { "-Xhelper", "timeout=15" })
    assert.same({ "1", "0", "2", "0" }, { counts(output) })
    assert.equal(1, code)
    assert.truthy(output:find("no end after 0.1 s; it waits here", 1, true), output)
  end)

  it("ends the suite, with a report, where a test cannot be stopped", function()
    local output, code = busted([[
      it("passes", function() end)
      it("clings", function() while true do pcall(ml.sleep, 60) end end)
      it("is not reached", function() end)
    ]], { "-Xhelper", "timeout=0.05" })
    assert.same({ "1", "0", "1", "0" }, { counts(output) })
    assert.equal(1, code)
    assert.truthy(output:find("clings\nx_spec.lua:3: no end after 0.05 s, and", 1, true), output)
  end)

  it("is misuse where the helper is not, and for what is no time", function()
    local function of(...) return require "moonloop.busted".timeout(...) end
    h.misuse("positive number", function() of(0) end)
    h.misuse("positive number", function() of "soon" end)
  end)
end)

describe("what a test leaves open", function()
  it("is named with the line that made it, and ended", function()
    local output, code = busted [[
      local tcp = require "moonloop.tcp"
      local kept, job = {}
      it("leaves much", function()
        job = ml.spawn(ml.sleep, 60)
        kept[1] = ml.AsyncExecutor{ name = "mine" }
        kept[2] = tcp.listen()
        kept[3] = tcp.connect("127.0.0.1", kept[2].port)
      end)
      it("comes after", function() assert.is_true(job:cancelled()) end)
    ]]
    assert.same({ "2", "0", "1", "0" }, { counts(output) })
    assert.equal(1, code)
    assert.truthy(output:find("leaves much left open\nx_spec.lua:4: left open:\n", 1, true), output)
    assert.truthy(output:find('  executor: 0x%x+ "mine" %(open%), made at x_spec.lua:6\n'), output)
    assert.truthy(output:find("  job %d+, which waits for sleep, made at x_spec.lua:5\n"), output)
    assert.truthy(output:find("  tcp server (127.0.0.1:", 1, true), output)
    assert.truthy(output:find("  tcp socket %(127%S+, made at x_spec.lua:8\n"), output)
  end)

  for _, lazy in ipairs { "", "lazy_" } do
    it("is looked for at the end of the file where a " .. lazy .. "setup made it", function()
      local output = busted((([[
        local tcp = require "moonloop.tcp"
        local good, bad
        lazy_setup(function() good, bad = tcp.listen(), tcp.listen() end)
        lazy_teardown(function() good:close() end)
        it("passes", function() assert(good and bad) end)
        it("passes too", function() assert(good and bad) end)
      ]]):gsub("lazy_", lazy)))
      assert.same({ "2", "0", "1", "0" }, { counts(output) })
      local _, n = output:gsub("tcp server", "")
      assert.equal(1, n, output)
    end)
  end

  it("is nothing where all was closed after the test, or is just ending", function()
    local output, code = busted [[
      local ex
      before_each(function() ex = ml.AsyncExecutor{} end)
      after_each(function() ex:shutdown() end)
      it("uses it", function()
        assert.equal(1, ex:submit(function() return 1 end):result(10))
        ml.run_async_job(function() end):result(10)
        ml.spawn(ml.checkpoint)
      end)
    ]]
    assert.equal(0, code, output)
  end)

  it("is a clock too, which is closed first", function()
    local output, code = busted [[
      local clock
      it("stops the time", function()
        clock = require "moonloop.testing".clock{ autojump = false }
        ml.spawn(ml.sleep, 60)
      end)
      it("comes after", function()
        ml.sleep(0.001)
        assert.equal("test clock (closed)", tostring(clock))
      end)
    ]]
    assert.same({ "2", "0", "1", "0" }, { counts(output) })
    assert.equal(1, code)
    assert.truthy(output:find("x_spec.lua:3: left open:\n  job", 1, true), output)
    assert.truthy(output:find("  test clock (at 0.0 s), made at x_spec.lua:4\n", 1, true), output)
  end)

  it("may stay with leaks=off", function()
    local output, code = busted('it("leaves", function() ml.spawn(ml.sleep, 60) end)',
      { "-Xhelper", "leaks=off" })
    assert.equal(0, code, output)
  end)
end)
