-- The larger examples for C programs: made by the line that stands at their top, run with the
-- real servers that they are for.

local h = require "spec.support.helpers"
local http = require "moonloop.http"
local ml = require "moonloop"
local process = require "spec.support.process"
local redis = require "spec.support.redis"
local testing = require "moonloop.testing"
local quote, write_file = process.quote, process.write_file

local here = process.capture "pwd"
local folder -- where they are made

-- Runs a command there; its output, errors included, and its exit status.
local function shell(command)
  local pipe = assert(io.popen(("cd %s && { %s; } 2>&1 </dev/null"):format(quote(folder), command)))
  local output = pipe:read "a"
  local _, _, status = pipe:close()
  return output, status
end

-- Makes an example as its first lines say, but with all warnings.
local function make(name)
  local source = process.read_file(("%s/examples/embed/%s.c"):format(here, name))
  local command = source:match("\n%*%*   cc (.-)\n%*%*   %S"):gsub("\\\n%*%*", " ")
  write_file(folder .. "/" .. name .. ".c", source)
  local output, status = shell("cc -Wall -Wextra -Werror " .. command)
  assert.equal("", output)
  assert.equal(0, status)
end

-- The compiler here knows of no sanitizer that the library was made with.
if h.checking() then return end

setup(function() folder = process.capture "mktemp -d -t moonloop-XXXXXX" end)
teardown(function() os.execute("rm -rf " .. quote(folder)) end)

-- ---- the servers ----

local running -- { pid, url, pipe }

-- Starts one with these plugins (name -> text), or those of the examples.
local function start(program, plugins, options)
  local where = here .. "/examples/embed/plugins"
  options = options or {}
  if plugins then
    where = folder .. "/plugins"
    process.run("mkdir -p " .. quote(where), "mkdir")
    for name, text in pairs(plugins) do write_file(("%s/%s.lua"):format(where, name), text) end
  end
  local pipe = assert(io.popen(([[cd %s; exec 2>&1
    env UPSTREAM=%s timeout -k 20 60 ./%s %s 0 %s & pid=$!
    echo $pid; wait $pid; echo "exit status $?"]]):format(quote(folder), options.upstream or "",
    program, options.switch or "", quote(where))))
  running = { pid = pipe:read "l", url = pipe:read "l", pipe = pipe }
  assert.matches("^http://127%.0%.0%.1:%d+$", running.url)
end

-- Ends it as a system would, and returns what it had to say.
local function stop(signal)
  local server = running
  if not server then return end
  running = nil
  -- KILL is for the server itself, rather than give an endless job its ten seconds.
  os.execute((signal == "KILL" and "pkill -KILL -P " or "kill ") .. server.pid)
  local output = server.pipe:read "a"
  server.pipe:close()
  return output
end

local function get(path)
  return assert(http.get(running.url .. path, { timeout = h.TIMEOUT }))
end

local function threads()
  local child = process.capture("cat /proc/" .. running.pid .. "/task/*/children"):match "%d+"
  local status = process.read_file("/proc/" .. child .. "/status")
  return tonumber(status:match "Threads:%s*(%d+)")
end

-- Two upstreams, each of which answers when the other was asked too.
local function two_that_meet()
  local one, other = testing.gate(), testing.gate()
  return testing.http_server {
    ["/quote"] = function()
      one:open()
      other:pass()
      return "a quote\n"
    end,
    ["/news"] = function()
      other:open()
      one:pass()
      return "some news\n"
    end,
  }
end

-- One that answers when the gate is open.
local function one_that_waits()
  local gate = testing.gate()
  return testing.http_server {
    ["/quote"] = function()
      gate:pass()
      return "a quote\n"
    end,
  }, gate
end

describe("plugin_server", function()
  setup(function() make "plugin_server" end)
  after_each(function() stop() end)

  it("runs the plugin that a request names", function()
    start "plugin_server"
    assert.equal("hello, you\n", get("/hello?name=you").body)
    assert.equal("hello, world\n", get("/hello").body)
    for _, path in ipairs { "/", "/nobody", "/hello/x", "/%2e%2e/plugins/hello" } do
      assert.equal(404, get(path).status)
    end
    assert.equal(405, assert(http.post(running.url .. "/hello", { timeout = h.TIMEOUT })).status)
    assert.equal("exit status 0\n", stop())
  end)

  it("asks two upstreams at once", function()
    local upstream <close> = two_that_meet()
    start("plugin_server", nil, { upstream = upstream.url })
    assert.equal("you: a quote\nsome news\n", get("/report?name=you").body)
  end)

  it("waits for many upstreams at once, with no more threads than it has connections", function()
    local MANY <const> = 20
    local upstream <close>, release = one_that_waits()
    start("plugin_server", nil, { upstream = upstream.url })
    local answers = {}
    for i = 1, MANY do answers[i] = ml.run_async(http.get, running.url .. "/quote") end
    for _ = 1, MANY do assert(upstream:request(h.TIMEOUT)) end
    assert.is_true(threads() <= MANY + 8)
    release:open()
    for i = 1, MANY do assert.equal("a quote\n", answers[i]:result(h.TIMEOUT).body) end
  end)

  it("lives on when a plugin fails, and says which one it was", function()
    local bad = {
      broken = { "return function( x = 1", "broken.lua:1: .* expected" },
      endless = { "return function() while true do end end", "endless.lua:1: computes for more" },
      stubborn = { [[local function spin() while true do end end
        return function() while true do pcall(spin) end end]], "computes for more" },
      nested = { "return coroutine.wrap(function() while true do end end)",
        "nested.lua:1: computes for more" },
      hog = { [[local t = {}
        return function() while true do t[#t + 1] = ("x"):rep(1000) .. #t end end]],
        "not enough memory" },
      glutton = { "return function() return ('x'):rep(1e9) end", "not enough memory" },
      raises = { [[local mt = { __tostring = function() return "oh" end }
        return function() error(setmetatable({}, mt)) end]], "oh" },
      data = { "return 1", "returned no function" },
      sleeper = { "return function() require 'moonloop'.sleep(math.huge) end", "timeout after" },
    }
    local texts = { hello = "return function() return 'hello' end" }
    for name, case in pairs(bad) do texts[name] = case[1] end
    start("plugin_server", texts)
    local futures = {} -- all at once: none is in another's way
    for name in pairs(bad) do
      futures[name] = ml.run_async(http.get, running.url .. "/" .. name, { timeout = h.TIMEOUT })
    end
    for name, case in pairs(bad) do
      local res = assert(futures[name]:result())
      assert.equal(500, res.status)
      assert.matches(("^plugin '%s': .*%s"):format(name, case[2]), res.body)
      assert.equal("hello", get("/hello").body)
    end
    local log = stop()
    for name, case in pairs(bad) do
      assert.matches(("plugin '%s': [^\n]*%s"):format(name, case[2]), log)
    end
    assert.matches("exit status 0\n$", log)
  end)

  it("goes on while a plugin's jobs on the shared loop never end, or want all memory", function()
    local upstream <close> = testing.http_server { ["/quote"] = "a quote\n" }
    start("plugin_server", {
      quote = process.read_file(here .. "/examples/embed/plugins/quote.lua"),
      spinner = [[local ml = require "moonloop"
        return function() return ml.run_async(function() while true do end end):result() end]],
      spiller = [[local ml = require "moonloop"
        return function()
          return ml.run_async(function()
            local t = {}
            while true do t[#t + 1] = ("x"):rep(1000) .. #t end
          end):result()
        end]],
    }, { upstream = upstream.url })
    local spins = ml.run_async(http.get, running.url .. "/spinner")
    local spills = ml.run_async(http.get, running.url .. "/spiller")
    assert.equal("a quote\n", get("/quote").body)
    assert.matches("'spiller': not enough memory", spills:result(h.TIMEOUT).body)
    assert.matches("'spinner': timeout", spins:result(h.TIMEOUT).body)
    assert.equal("a quote\n", get("/quote").body)
    stop "KILL"
  end)

  it("ends while a plugin waits", function()
    local upstream <close> = testing.http_server { ["/quote"] = function() ml.sleep(1e6) end }
    start("plugin_server", nil, { upstream = upstream.url })
    local future = ml.run_async(http.get, running.url .. "/quote")
    assert(upstream:request(h.TIMEOUT))
    assert.matches("exit status 0\n$", stop())
    future:wait(h.TIMEOUT) -- for a 500, or for the connection's end
    assert.is_true(future:done())
  end)

  it("is a server without moonloop with --blocking", function()
    start("plugin_server",
      { who = "return function() return tostring(package.loaded.moonloop) end" },
      { switch = "--blocking" })
    assert.equal("nil", get("/who").body)
    assert.equal("exit status 0\n", stop())
  end)
end)

describe("job_server", function()
  setup(function() make "job_server" end)
  after_each(function() stop() end)

  it("runs the same plugins as jobs", function()
    local upstream <close> = two_that_meet()
    start("job_server", nil, { upstream = upstream.url })
    assert.equal("hello, you\n", get("/hello?name=you").body)
    assert.equal("you: a quote\nsome news\n", get("/report?name=you").body)
    assert.equal(404, get("/nobody").status)
    assert.equal("exit status 0\n", stop())
  end)

  it("waits for many upstreams at once, without a thread for any", function()
    local MANY <const> = 50
    local upstream <close>, release = one_that_waits()
    start("job_server", nil, { upstream = upstream.url })
    local answers = {}
    for i = 1, MANY do answers[i] = ml.run_async(http.get, running.url .. "/quote") end
    for _ = 1, MANY do assert(upstream:request(h.TIMEOUT)) end
    assert.is_true(threads() <= 6)
    release:open()
    for i = 1, MANY do assert.equal("a quote\n", answers[i]:result(h.TIMEOUT).body) end
  end)

  it("lives on when a plugin fails, and says which one it was", function()
    start("job_server", {
      hello = "return function() return 'hello', 418 end",
      broken = "return function( x = 1",
      raises = "return function() error { message = 'oh' } end",
      endless = "return function() while true do end end",
    })
    ml.run_async(function(url) return (http.get(url)) end, running.url .. "/endless")
    local res = get "/broken"
    assert.equal(500, res.status)
    assert.matches("^plugin 'broken': .*broken.lua:1: ", res.body)
    assert.equal("plugin 'raises': oh\n", get("/raises").body)
    res = get "/hello"
    assert.equal("hello", res.body)
    assert.equal(418, res.status)
    assert.matches("plugin 'broken'.*plugin 'raises': oh\n", stop "KILL")
  end)

  it("ends while a plugin waits", function()
    local upstream <close> = testing.http_server { ["/quote"] = function() ml.sleep(1e6) end }
    start("job_server", nil, { upstream = upstream.url })
    local future = ml.run_async(http.get, running.url .. "/quote")
    assert(upstream:request(h.TIMEOUT))
    assert.matches("exit status 0\n$", stop())
    future:wait(h.TIMEOUT)
    assert.is_true(future:done())
  end)
end)

describe("awaitable", function()
  local function run(port, script)
    local path = folder .. "/script.lua"
    if script then write_file(path, script) end
    return shell(("timeout -k 2 60 ./awaitable 127.0.0.1 %d %s"):format(port,
      script and "script.lua" or quote(here .. "/examples/embed/awaitable.lua")))
  end

  setup(function() make "awaitable" end)

  it("runs Redis commands from a plain state and from a thousand jobs", function()
    local server <close> = redis.start()
    local output, status = run(server.port)
    assert.equal("hello\ncounted to\t1000\nERR value is not an integer or out of range\n", output)
    assert.equal(0, status)
  end)

  it("gives back what Redis answers, of every kind", function()
    local server <close> = redis.start()
    local output, status = run(server.port, [[
      local redis = require "redis"
      assert(redis.rpush("list", "a", "b\0c", 3) == 3)
      local list = redis.lrange("list", 0, -1)
      assert(#list == 3 and list[2] == "b\0c" and list[3] == "3")
      assert(redis.get("nothing") == nil and select("#", redis.get("nothing")) == 1)
      assert(redis.set("key", "") == "OK" and redis.get("key") == "")
      local nested = redis.eval("return { 1, { 'x', {} } }", 0)
      assert(nested[1] == 1 and nested[2][1] == "x" and #nested[2][2] == 0)
      local ok, err = redis.nonsense()
      assert(ok == nil and err.code == "redis" and err.message:find "unknown command", err)
      print(pcall(redis.get, {}))
    ]])
    assert.matches("^false.*string expected, got table%)\n$", output)
    assert.equal(0, status)
  end)

  it("stops waiting at a deadline, and the connection works on", function()
    local server <close> = redis.start()
    local output, status = run(server.port, [[
      local ml, redis = require "moonloop", require "redis"
      redis.set("key", "value")
      redis.client("pause", 300)
      print(ml.move_on_after(0.01, redis.get, "key"))
      print(ml.run_async(function()
        local value, err = ml.move_on_after(0.01, redis.get, "key")
        return value, err.code
      end):result())
      print(redis.get "key")
    ]])
    assert.matches("^nil\t.*\nnil\ttimeout\nvalue\n$", output)
    assert.equal(0, status)
  end)

  it("says that there is no Redis, and finds one that is back", function()
    local server <close> = redis.start()
    local output, status = run(server.port, [[
      local redis = require "redis"
      local quit = redis.quit()                 -- and closes the connection
      local pong repeat pong = redis.ping() until pong
      print(quit, pong)
      print(redis.shutdown("nosave"))           -- closes it without an answer
      print(select(2, redis.ping()))
      print(pcall(assert, redis.ping()))
    ]])
    assert.matches("^OK\tPONG\nnil\tServer closed the connection\nConnection refused\n"
      .. "false\tConnection refused\n$", output)
    assert.equal(0, status)
    output, status = run(server.port)
    assert.equal("awaitable: Connection refused\n", output)
    assert.equal(1, status)
  end)
end)
