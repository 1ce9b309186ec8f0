-- docs/reference.md is what docs/make_reference.lua makes of library/, and has every public
-- name that is there at run time, and no other.

local h = require "spec.support.helpers"
local http = require "moonloop.http"
local ml = require "moonloop"
local reference = require "docs.make_reference"
local tcp = require "moonloop.tcp"
local testing = require "moonloop.testing"

local function sorted(set)
  local list = {}
  for name in pairs(set) do list[#list + 1] = name end
  table.sort(list)
  return list
end

local function names_of(list)
  local set = {}
  for _, item in ipairs(list) do set[item.name] = true end
  return set
end

-- What is a method for the code's own use.
local INTERNAL <const> = {
  ["moonloop.http.Session"] = { new = true },
  ["moonloop.http.Cookies"] = { new = true, load = true, option = true },
}

-- The methods of a handle: what its metatable's __index holds; if that is a function, the tables
-- that it looks into.
local function methods_of(value)
  local set = {}
  local function take(table)
    for name, f in pairs(table) do
      local public = type(name) == "string" and type(f) == "function" and not name:find "^__"
      if public and value[name] == f then set[name] = true end
    end
  end
  local meta = debug.getmetatable(value)
  local index = meta and meta.__index or value
  if type(index) == "table" then
    take(index)
  else
    local i = 1
    while true do
      local name, upvalue = debug.getupvalue(index, i)
      if not name then break end
      if type(upvalue) == "table" then take(upvalue) end
      i = i + 1
    end
  end
  return set
end

describe("the reference", function()
  local modules = reference.read()
  local classes = {}
  for _, module in ipairs(modules) do
    for _, class in ipairs(module.classes) do classes[class.class] = class end
  end

  local function read(path)
    local file <close> = assert(io.open(path))
    return file:read("a")
  end

  -- If not, run that.
  it("is up to date: lua5.4 docs/make_reference.lua > docs/reference.md", function()
    assert.equal(reference.make(), read "docs/reference.md")
  end)

  it("has a comment for every declaration of moonloop.h", function()
    local header, count = read "src/include/moonloop.h", 0
    for paragraph in (header .. "\n\n"):gmatch "(.-)\n\n+" do
      for before, name in paragraph:gmatch "()ML_API [^;]-%f[%w_](ml_[%w_]+)%(" do
        count = count + 1
        assert(paragraph:sub(1, before):find("*/", 1, true), name .. " has no comment above it")
      end
    end
    assert(count > 30, count)
  end)

  for _, module in ipairs(modules) do
    it("has the names of " .. module.name, function()
      local there = {}
      for name in pairs(require(module.name)) do there[name] = true end
      local documented = names_of(module.functions)
      for name in pairs(names_of(module.fields)) do documented[name] = true end
      assert.same(sorted(there), sorted(documented))
    end)
  end

  describe("has the methods and fields of", function()
    local samples, closing = {}, {}

    lazy_setup(function()
      local server = testing.http_server { ["/"] = "text" }
      local listener = assert(tcp.listen())
      local ex = ml.AsyncExecutor { name = "sample" }
      local stream = assert(http.get(server.url, { stream = true }))
      local session = assert(http.session { cookies = true, base_url = server.url })
      local response = assert(http.get(server.url))
      local worker = ex:worker()
      local s = samples
      s["moonloop.Future"], s["moonloop.Promise"] = ml.promise().future, ml.promise()
      s["moonloop.Executor"], s["moonloop.Worker"], s["moonloop.Stats"] = ex, worker, ml.stats()
      s["moonloop.Generator"] = ml.generator { print }
      s["moonloop.Iteration"] = ml.each({}, print)
      s["moonloop.Semaphore"], s["moonloop.Lock"] = ml.Semaphore(1), ml.Lock()
      s["moonloop.Event"], s["moonloop.Condition"] = ml.Event(), ml.Condition()
      s["moonloop.Barrier"], s["moonloop.Queue"] = ml.Barrier(1), ml.Queue()
      s["moonloop.Channel"], s["moonloop.Var"] = ml.Channel(), ml.var()
      s["moonloop.Trace"] = ml.trace
      ml.group(function(g) s["moonloop.Group"] = g end)
      ml.scope(function(scope) s["moonloop.Scope"] = scope end)
      s["moonloop.http.Response"], s["moonloop.http.Stream"] = response, stream
      s["moonloop.http.Headers"] = response.headers
      s["moonloop.http.Timings"] = response.timings
      s["moonloop.http.Session"], s["moonloop.http.Cookies"] = session, session.cookies
      s["moonloop.http.Stats"] = http.stats()
      s["moonloop.tcp.Server"] = listener
      s["moonloop.tcp.Socket"] = assert(tcp.connect("127.0.0.1", listener.port))
      s["moonloop.testing.Gate"], s["moonloop.testing.HttpServer"] = testing.gate(), server
      closing = { s["moonloop.tcp.Socket"], listener, stream, session, worker, server,
        s["moonloop.Generator"] }
      s.executor = ex
    end)
    lazy_teardown(function()
      for _, handle in ipairs(closing) do handle:close() end
      h.close(samples.executor)
    end)

    -- The others are data, or have no sample here.
    local OTHERS <const> = { ["moonloop.http.Events"] = true, ["moonloop.http.WebSocket"] = true }

    for _, name in ipairs(sorted(classes)) do
      local class = classes[name]
      if #class.methods > 0 and not OTHERS[name] then
        it(name, function()
          local clock <close> = name == "moonloop.testing.Clock" and testing.clock() or nil
          local there = methods_of(assert(samples[name] or clock, "no sample"))
          for internal in pairs(INTERNAL[name] or {}) do
            assert(there[internal], internal)
            there[internal] = nil
          end
          assert.same(sorted(there), sorted(names_of(class.methods)))
        end)
      end
    end

    it("WebSockets and events", function()
      for class, methods in pairs {
        ["moonloop.http.WebSocket"] = require "moonloop.http.websocket".WebSocket,
        ["moonloop.http.Events"] = require "moonloop.http.events".Events,
      } do
        local there = {}
        for name in pairs(methods) do if not name:find "^__" then there[name] = true end end
        assert.same(sorted(there), sorted(names_of(classes[class].methods)))
      end
    end)

    it("what is always there", function()
      for name in pairs(samples) do
        local class = classes[name]
        for _, field in ipairs(class and class.fields or {}) do
          local may_lack = field.optional or field.kind:find "%?$"
            or name == "moonloop.http.Stream" and field.name == "body"
          if not may_lack then
            assert.is_not_nil(samples[name][field.name], name .. "." .. field.name)
          end
        end
      end
    end)

    it("what is counted and timed, and nothing else", function()
      for _, name in ipairs { "moonloop.Stats", "moonloop.http.Stats", "moonloop.http.Timings" } do
        assert.same(sorted(names_of(classes[name].fields)), sorted(samples[name]), name)
      end
    end)
  end)

  it("has options that are known", function()
    for _, kind in ipairs { "AsyncExecutor", "ThreadExecutor", "ProcessExecutor" } do
      for name in pairs(names_of(classes["moonloop." .. kind .. "Options"].fields)) do
        local _, err = pcall(ml[kind], { [name] = io.stdout }) -- known, and of the wrong type
        assert.not_matches("unknown option", tostring(err))
        assert.matches(name, tostring(err))
      end
      h.misuse("unknown option", function() ml[kind] { nonsense = 1 } end)
    end
    local core = require "moonloop.http.core"
    for name in pairs(names_of(classes["moonloop.http.Options"].fields)) do
      assert(core.is_option(name), name)
    end
    assert.is_false((core.is_option "nonsense"))
  end)
end)
