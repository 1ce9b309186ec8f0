-- The program `moonloop`: what `lua` does with a script, except that its main
-- chunk is a job.

local h = require "spec.support.helpers"

local folder -- what a spec writes goes here; it is every program's working directory

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function write(name, text)
  local file <close> = assert(io.open(folder .. "/" .. name, "wb"))
  file:write(text)
  return name
end

local function read(name)
  local file <close> = assert(io.open(folder .. "/" .. name, "rb"))
  return file:read "a"
end

-- A shell command: waits until a file has something in it.
local function until_there(name)
  return ("for i in $(seq 500); do [ -s %s ] && break; sleep 0.02; done"):format(name)
end

-- Runs a shell command in the folder; `env` is a table. Returns its output, its
-- messages and its exit code.
local function shell(command, env)
  local words = { "cd", quote(folder), "&&" }
  for name, value in pairs(env or {}) do
    table.insert(words, ("export %s=%s;"):format(name, quote(value)))
  end
  table.insert(words, "{ " .. command .. "\n} >out 2>err")
  local _, how, code = os.execute(table.concat(words, " "))
  return read "out", read "err", how == "signal" and 128 + code or code
end

local function command_of(program, arguments)
  local words = { "timeout", tostring(h.TIMEOUT), program }
  for _, argument in ipairs(arguments) do
    table.insert(words, quote(argument))
  end
  return table.concat(words, " ")
end

-- `moonloop ...`; the fields `env` and `input` of the arguments are for the run.
local function moonloop(arguments)
  local input = write("in", arguments.input or "")
  return shell(command_of("moonloop", arguments) .. " <" .. input, arguments.env)
end

-- The same arguments give the same under `lua5.4`, but for the program's name.
local function same(arguments)
  local input = write("in", arguments.input or "")
  local function run(program)
    local out, err, code = shell(command_of(program, arguments) .. " <" .. input, arguments.env)
    local name = "%f[%g]" .. program:gsub("%.", "%%.") -- not in a path
    return { out = out:gsub(name, "lua"), err = err:gsub(name, "lua"), code = code }
  end
  local expected = run "lua5.4"
  assert.same(expected, run "moonloop")
  return expected
end

describe("the moonloop program", function()
  setup(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir " .. quote(folder)))
  end)

  teardown(function()
    os.execute("rm -r " .. quote(folder))
  end)

  describe("does as lua does with", function()
    it("a script: its arguments, its first line, what it returns", function()
      local show = "for i = -9, 9 do print(i, arg[i]) end print(...) return 5"
      write("args.lua", "#!/usr/bin/env moonloop\n" .. show)
      same { "args.lua" }
      same { "args.lua", "a b", "-e", "" }
      same { "-W", "-e", "x = 1", "-lstring", "args.lua", "--", "-" }
      same { "--", "args.lua", "a" }
      same { "-e", "print(arg[0], #arg)" }
      same { "-e", "arg = nil", "args.lua" }
      same { "-e", "arg = { 'other' }", "args.lua", "a" }
      write("bytes.luac", string.dump(load "print('compiled', ...)"))
      same { "bytes.luac", "1" }
    end)

    it("a script on stdin", function()
      local script = "print(arg[0], arg[-1], ...) error 'x'"
      assert.equal(0, same({ input = script }).code)
      assert.equal(1, same({ input = script, "-", "a" }).code)
      local _, err = shell("lua5.4 -- </dev/null")
      if err == "" then same { input = script, "--" } end -- Lua 5.4.7 has no memory for that
      same { input = script, "-E" }
      same { input = script, "-l", "string" }
      same { input = "a b" }
      same { input = "a b", "-" }
    end)

    it("-e and -l, in order", function()
      write("some-module.lua", "print(...) return { name = ... }")
      same { "-e", "print(1)", "-lsome-module", "-e", "print(type(some), type(_G['some-module']))" }
      same { "-l", "g=some-module", "-e", "print(g.name)" }
      same { "-e", "a b", "-e", "print 'not reached'" }
      same { "-l", "no.module", "-e", "print 'not reached'" }
      same { "-e", "setmetatable(_G, { __newindex = error })", "-l", "os" }
    end)

    it("LUA_INIT, LUA_PATH and -E", function()
      write("init.lua", "print('init', arg[0], #arg)")
      local values = { "print 'init'", "@init.lua", "@missing.lua", "a b", "error 'x'", "" }
      for _, value in ipairs(values) do
        same { env = { LUA_INIT = value }, "-e", "print 'chunk'" }
      end
      same { env = { LUA_INIT = "print(1)", LUA_INIT_5_4 = "print(2)" }, "-e", "" }
      same { env = { LUA_INIT = "print(1)" }, "-E", "-e", "" }
      local paths = { LUA_PATH = "./a/?.lua;;", LUA_CPATH_5_4 = "./b/?.so;;" }
      same { env = paths, "-e", "print(package.path, package.cpath)" }
      same { env = paths, "-E", "-e", "print(package.path, package.cpath)" }
    end)

    it("errors of every kind", function()
      for _, code in ipairs {
        "error 'text'",
        "error('no place', 0)",
        "error(42)",
        "error(nil)",
        "error()",
        "error(false)",
        "error {}",
        "error(setmetatable({}, { __tostring = function() return 'object' end }))",
        "error(setmetatable({}, { __tostring = function() return 1 end }))",
        "error 'up to\\0here'",
        "local function f() error 'deep' end local function g() f() end g()",
        "local t = setmetatable({}, { __index = function(_, k) error(k) end }) print(t.x)",
        "table.sort({ 3, 2, 1 }, function() error 'sort' end)",
        "local x <close> = setmetatable({}, { __close = function(_, e) print(e) end }) error 'c'",
        "local x <close> = setmetatable({}, { __close = function() error 'b' end }) error 'a'",
        "setmetatable({}, { __gc = function() print 'collected' end }) error 'x'",
        "goto nowhere",
      } do
        assert.equal(1, same({ "-e", code }).code, code)
        write("failing.lua", code)
        same { "failing.lua" }
      end
      same { "missing.lua" }
      same { "." }
    end)

    it("os.exit in all its forms", function()
      local all = { "", "true", "false", "7", "300", "'8'", "1.5", "{}", "true, true", "9, true" }
      for _, arguments in ipairs(all) do
        same { "-e", ("io.write 'out' os.exit(%s)"):format(arguments) }
      end
      local closing = [[
        local x <close> = setmetatable({}, { __close = function() print "closed" end })
        setmetatable({}, { __gc = function() print "collected" end })
      ]]
      same { "-e", closing .. "os.exit(3, true)" }
      same { "-e", closing .. "os.exit(3)" }
      same { "-e", closing .. "coroutine.wrap(function() os.exit(4, true) end)()" }
      same { "-e", closing .. "table.sort({ 1, 2 }, function() os.exit(5, true) end)" }
    end)

    it("warnings", function()
      same { "-e", "warn 'no'" }
      same { "-W", "-e", "warn 'yes'" }
      same { "-e", "warn '@on' setmetatable({}, { __gc = function() error 'x' end })" }
    end)

    it("C modules, and the collector", function()
      same { "-e", "print(require 'cjson'.encode { 1, 'a' })" }
      same { "-e", "print(collectgarbage 'incremental')" }
      same { "-e", "print(package.loaded.moonloop, #package.searchers)" }
      same { "-e", "print(coroutine.status((coroutine.running())))" }
    end)

    it("a pipe that nobody reads any more", function()
      local _, err = shell("env --default-signal=PIPE " ..
        command_of("moonloop", { "-e", "while true do print(1) end" }) .. " | head -n 1")
      assert.equal("", err)
      assert.equal("1\n", read "out")
    end)
  end)

  it("says what is wrong with its options, and how it is used", function()
    local wrong = { { "-x" }, { "-vx" }, { "-E1" }, { "-e" }, { "-l", "-e" }, { "--versio" } }
    for _, options in ipairs(wrong) do
      local out, err, code = moonloop(options)
      assert.equal("", out)
      assert.equal(1, code)
      local _, expected = shell(command_of("lua5.4", options))
      assert.equal(expected:match "[^\n]*":gsub("lua5%.4", "moonloop"), err:match "[^\n]*")
      assert.truthy(err:find("\nusage: moonloop [options] [script [args]]\n", 1, true))
    end
    local out, err, code = moonloop { "--help" }
    assert.truthy(out:find "^usage: moonloop .*%-e stat")
    assert.same({ "", 0 }, { err, code })
  end)

  it("shows its version and those of Lua, libuv and libcurl", function()
    local number = "%d+%.%d+%.%d+"
    local version = "^moonloop " .. number .. "  %(Lua 5%.4%.%d+, libuv " .. number
      .. ", libcurl " .. number .. "%)\n"
    assert.truthy(moonloop({ "-v" }):find(version .. "$"))
    assert.truthy(moonloop({ "--version" }):find(version .. "$"))
    assert.truthy(moonloop({ "-v", "-e", "print 'chunk'" }):find(version .. "chunk\n$"))
  end)

  describe("runs the main chunk as a job", function()
    it("whose top level waits, in LUA_INIT and -e too", function()
      local wait = [[
        local ml = require "moonloop"
        ml.sleep(0.001)
        print(ml.in_job(), ml.current_job().name)
      ]]
      write("wait.lua", wait)
      local out, err, code = moonloop { env = { LUA_INIT = wait }, "-e", wait, "wait.lua" }
      assert.same({ ("true\tmain\n"):rep(3), "", 0 }, { out, err, code })
      assert.equal("true\tmain\n", (moonloop { input = wait }))
    end)

    it("and all chunks as one", function()
      local out = moonloop {
        "-e", "ml = require 'moonloop'",
        "-e", "later = ml.spawn(function() ml.sleep(0.01) return 'kept' end)",
        "-e", "print(later:result())",
      }
      assert.equal("kept\n", out)
    end)

    it("and finds its own moonloop, whatever is on the path", function()
      local out = moonloop {
        env = { LUA_CPATH = "./nothing/?.so" },
        "-e", "ml = require 'moonloop' package.loaded.moonloop = nil",
        "-e", "print(ml == require 'moonloop')",
        "-e", "print(ml.to_thread(function() return require('moonloop').in_job() end))",
      }
      assert.equal("true\nfalse\n", out)
    end)

    it("cancels the jobs it leaves, and waits for their clean-up", function()
      local out, err, code = moonloop {
        "-e", [[
          local ml = require "moonloop"
          ml.spawn(function()
            local _ <close> = ml.defer(function() ml.sleep(0.01) print "clean" end)
            ml.sleep(100)
          end)
          ml.sleep(0)
          print "end"
        ]],
      }
      assert.same({ "end\nclean\n", "", 0 }, { out, err, code })
    end)

    it("and reports the errors of jobs that nobody asked for", function()
      local _, err, code = moonloop {
        "-e", "ml = require 'moonloop' ml.spawn(function() error 'lost' end) ml.sleep(0.01)",
      }
      assert.truthy(err:find "lost\n")
      assert.equal(0, code)
    end)

    it("and joins the traceback of the job that failed", function()
      local script = write("joined.lua", [[
        local ml = require "moonloop"
        local function inner() error "here" end
        local future = ml.spawn(function() inner() end)
        future:result()
      ]])
      local _, err, code = moonloop { script }
      assert.equal(1, code)
      local inner = assert(err:find("joined.lua:2: in upvalue 'inner'", 1, true), err)
      local outer = assert(err:find("joined.lua:4: in main chunk\n\t[C]: in ?\n", 1, true), err)
      assert.truthy(inner < outer)
    end)

    it("and os.exit ends it from any job, with work in flight", function()
      local start = [[
        local ml = require "moonloop"
        local x <close> = setmetatable({}, { __close = function() print "closed" end })
        local listener = require("moonloop.tcp").listen("127.0.0.1", 0)
        ml.run_async_job(function() require("moonloop").sleep(100) end)
        ml.spawn(function() ml.sleep(100) end)
        ml.spawn(function() listener:accept() end)
        local promise = ml.promise() -- kept: a dropped one fails its future
        ml.spawn(function() promise.future:result() end)
        ml.spawn(function() ml.group(function(g) g:spawn(ml.sleep, 100) end) end)
        ml.sleep(0.01)
      ]]
      local ends = {
        ["os.exit(6, true)"] = "closed\n",
        ["ml.spawn(function() ml.sleep(0.01) os.exit(6, true) end):result()"] = "closed\n",
        ["ml.run(function() ml.sleep(0.01) os.exit(6, true) end)"] = "closed\n",
        ["ml.spawn(function() os.exit(6) end):result()"] = "",
      }
      for finish, expected in pairs(ends) do
        local out, err, code = moonloop { "-e", start .. finish }
        assert.same({ expected, "", 6 }, { out, err, code }, finish)
      end
    end)
  end)

  describe("ends on Ctrl-C", function()
    local clean_up = [[
      local ml = require "moonloop"
      local _ <close> = ml.defer(function() ml.sleep(0.01) print "deferred" end)
      local _ <close> = setmetatable({}, {
        __close = function(_, e) print("closed", ml.is_cancelled(e)) end,
      })
      ml.spawn(function()
        local _ <close> = ml.defer(function() ml.sleep(0.01) print "job" end)
        ml.sleep(100)
      end)
      ml.sleep(0)
      local pid <close> = io.open("ready", "w")
      pid:write(io.open("/proc/self/stat"):read "n"):flush()
    ]]
    -- Sends SIGINT to the program, `times` times, once the script is ready.
    local function interrupt(code, times)
      os.remove(folder .. "/ready")
      os.remove(folder .. "/again")
      write("ready.lua", code)
      local steps = { "timeout -k 1 20 moonloop ready.lua & p=$!" }
      for _, file in ipairs { "ready", times == 2 and "again" or nil } do
        table.insert(steps, until_there(file) .. "; sleep 0.05; kill -INT $(cat ready)")
      end
      table.insert(steps, "wait $p; exit $?")
      return shell("sh -c " .. quote(table.concat(steps, "\n")))
    end

    for what, code in pairs {
      ["a wait"] = "ml.sleep(100)",
      ["a computation"] = "while true do end",
      ["one in a coroutine"] = "coroutine.wrap(function() while true do end end)()",
      ["one in a callback"] = "table.sort({ 1, 2, 3 }, function() while true do end end)",
      ["one in another job"] = "ml.spawn(function() while true do end end):result()",
      ["a job elsewhere"] = "ml.run_async_job(function() ml.sleep(100) end):result()",
      ["a run of its own"] = "ml.run(function() ml.sleep(100) end)",
    } do
      it("in " .. what .. ", cleans up, and exits with 130", function()
        if h.holds_signals and code:find "while true" then return end
        local out, err, status = interrupt(clean_up .. code)
        assert.equal("closed\ttrue\ndeferred\njob\n", out)
        assert.equal("moonloop: interrupted!\n", err)
        assert.equal(130, status)
      end)
    end

    it("also if the script absorbs it, or fails over it", function()
      local out, err, status = interrupt(clean_up .. "pcall(ml.sleep, 100)")
      assert.same({ "closed\tfalse\ndeferred\njob\n", 130 }, { out, status })
      assert.equal("moonloop: interrupted!\n", err)
      out, err, status = interrupt(clean_up .. "pcall(ml.sleep, 100) error 'other'")
      assert.same({ "closed\tfalse\ndeferred\njob\n", 130 }, { out, status })
      assert.truthy(err:find "^moonloop: ready%.lua:%d+: other\nstack traceback:\n", err)
      assert.truthy(err:find "\nmoonloop: interrupted!\n$", err)
    end)

    it("at once when it comes again", function()
      local out, _, status = interrupt(clean_up .. [[
        local _ <close> = ml.defer(function()
          local again <close> = io.open("again", "w")
          again:write("x"):flush()
          ml.sleep(4)
          print "late"
        end)
        ml.sleep(100)
      ]], 2)
      assert.same({ "", 130 }, { out, status })
    end)
  end)

  describe("has a prompt that", function()
    local function without_prompts(out)
      return out:gsub("^[^\n]*\n", ""):gsub(">+ ", "")
    end

    it("prints results and errors, and takes chunks of several lines", function()
      local out, err, code = moonloop {
        "-i",
        input = table.concat({
          "1, nil, 'a'", "=2 + 2", "x = 5", "x", "function f()", "return 'f'", "end", "f()",
          "error 'first'", "error(nil)", "1 +", "print 'on'",
        }, "\n"),
      }
      assert.equal("1\tnil\ta\n4\n5\nf\non\n\n", (without_prompts(out)))
      local _, expected = shell "lua5.4 -i <in"
      assert.equal(expected, err)
      assert.truthy(err:find "stdin:1: first\nstack traceback:\n")
      assert.equal(0, code)
      _, err, code = moonloop { "-i", input = "local y = (\n" }
      assert.same({ "stdin:1: unexpected symbol near <eof>\n", 0 }, { err, code })
    end)

    it("comes after -e and the script, but not after their failure", function()
      local out, _, code = moonloop { "-e", "print 'e'", "-i", input = "print 'in'\n" }
      assert.same({ "e\nin\n\n", 0 }, { (without_prompts(out)), code })
      out, _, code = moonloop { "-e", "error 'x'", "-i", input = "print 'in'\n" }
      assert.same({ "", 1 }, { (without_prompts(out)), code })
    end)

    it("waits, keeps jobs between chunks, and shows _PROMPT", function()
      local out, err = moonloop {
        "-i",
        input = table.concat({
          "ml = require 'moonloop'", "f = ml.spawn(function() ml.sleep(0.01) return 'job' end)",
          "f:result()", "_PROMPT, _PROMPT2 = '? ', '.. '", "x = (", "1)", "x",
        }, "\n"),
      }
      assert.equal("", err)
      assert.truthy(out:find "\n> > > job\n> %? %.%. %? 1\n%? \n$")
    end)

    it("lets jobs run while it waits for a terminal, and outlives Ctrl-C", function()
      if h.holds_signals then return end
      if not os.execute "command -v script >/dev/null" then
        return pending "needs `script`, for a terminal"
      end
      -- Each key comes when what must be before it is: a file, or a line of the output.
      local function shown(pattern)
        return ("for i in $(seq 500); do grep -q %s out && break; sleep 0.02; done")
          :format(quote(pattern))
      end
      local function typed(line)
        return ("printf '%%s\\n' %s"):format(quote(line))
      end
      write("keys.sh", table.concat({
        typed [[ml = require "moonloop"]],
        typed [[function touch(name) local f <close> = io.open(name, "w") f:write "x" end]],
        typed [[ml.spawn(function() ml.sleep(0.01) touch "ran" end)]],
        until_there "ran",
        typed [[ml.spawn(function() touch "waits" end) ml.sleep(100)]], -- it runs in the sleep
        until_there "waits",
        [[printf '\003']],
        shown "interrupted!",
        typed [[touch "spins" while true do end]],
        until_there "spins",
        [[printf '\003']],
        [[for i in $(seq 500); do [ $(grep -c interrupted! out) = 2 ] && break; sleep 0.02; done]],
        typed [[print("still" .. " there")]],
        shown "still there",
        [[printf '\004']],
      }, "\n"))
      local out, err, code = shell "sh keys.sh | timeout 30 script -qec 'exec moonloop' /dev/null"
      assert.equal(0, code, out .. err)
      assert.truthy(out:find "interrupted!.*interrupted!.*[\n\r]still there", out)
    end)
  end)

  it("edits lines at a terminal's prompt", function()
    if not os.execute "command -v script >/dev/null" then
      return pending "needs `script`, for a terminal"
    end
    local function shown(pattern)
      return ("for i in $(seq 500); do grep -q %s out && break; sleep 0.02; done")
        :format(quote(pattern))
    end
    local function typed(keys) return "printf " .. quote(keys) end
    local steps = {
      shown "^> ",
      typed [[ml = require "moonloop"\n]],
      typed [[{ 1, x = 2 }\n]],
      shown "{ 1, x = 2 }",
      typed [[print(strin\t.forma\t("%%s done", "completed"))\n]],
      shown "^completed done",
      typed [[ml.spawn(function() ml.sleep(0.05) error "at rest" end)\n]],
      typed [[print("and the li]],
      shown "stdin:1: at rest",
      typed [[ne goes on")\n]],
      shown "^and the line goes on",
    }
    if not h.holds_signals then
      table.insert(steps, typed [[x = (\n12]])
      table.insert(steps, shown ">> 12")
      table.insert(steps, typed [[\003]])
      table.insert(steps, shown "\\^C")
    end
    table.insert(steps, typed [[print("the " .. "end")\n]])
    table.insert(steps, shown "^the end")
    table.insert(steps, typed [[\004]])
    write("edit.sh", table.concat(steps, "\n"))
    local out, err, code = shell("sh edit.sh | timeout 60 script -qec 'exec moonloop' /dev/null",
      { MOONLOOP_HISTORY = folder .. "/history", TERM = "dumb" })
    assert.equal(0, code, out .. err)
    assert.truthy(out:find "and nobody asked for it", out)
    local history = read "history"
    local lines = '{ 1, x = 2 }\nprint(string.format("%s done", "completed"))'
    assert.truthy(history:find(lines, 1, true),
      history)
    assert.truthy(history:find '"end"%)\n$', history)
  end)

  describe("can be busted's interpreter:", function()
    before_each(function()
      write("waits_spec.lua", [[
        local ml = require "moonloop"
        it("waits", function() ml.sleep(0.001) assert.is_true(ml.in_job()) end)
        it("spawns", function() assert.equal(3, ml.spawn(function() return 3 end):result()) end)
      ]])
      write("fails_spec.lua", [[
        it("fails", function() assert.equal(1, 2) end)
      ]])
    end)

    it("specs are jobs, and exit codes are kept", function()
      local out, err, code = shell "busted --lua=moonloop waits_spec.lua"
      assert.same({ "", 0 }, { err, code })
      assert.truthy(out:find "2 successes / 0 failures / 0 errors")
      out, err, code = shell "moonloop $(command -v busted) --ignore-lua fails_spec.lua"
      assert.same({ "", 1 }, { err, code })
      assert.truthy(out:find "0 successes / 1 failure / 0 errors")
    end)
  end)
end)
