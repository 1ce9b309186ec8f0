--- One worker of parallel=N: a busted of its own, whose words are written down.
--
-- A record is either of an element (a file, a block, a test, a function around one):
--   { id, parent = id, fields = { name, descriptor, trace, duration ... } }
-- or of something published about one:
--   { channel = list, element = id, above = id, rest = the other arguments, packed }

local check = require "moonloop.check"
local guard = require "moonloop.busted.guard"
local testing = require "moonloop.testing"
local suite = {}

-- What output handlers read of an element.
local FIELDS <const> = {
  "descriptor", "name", "trace", "starttick", "starttime", "endtick", "endtime", "duration",
  "randomseed", "message",
}

-- What is not told: it is about this state alone, or the main state says it itself.
local KEPT <const> = { register = true, suite = true, exit = true }

--- A copy of what can be copied to another state, and text for the rest.
local function plain(value, depth)
  local kind = type(value)
  if kind == "table" then
    local meta = debug.getmetatable(value)
    if meta and meta.__tostring or depth > 8 then return tostring(value) end
    local copy = {}
    for k, v in next, value do copy[plain(k, depth + 1)] = plain(v, depth + 1) end
    return copy
  elseif kind == "function" or kind == "userdata" or kind == "thread" then
    return tostring(value)
  end
  return value
end

local busted -- this worker's
local records, ids

--- The number of an element, which is told again if anything has changed.
local function told(element)
  if type(element) ~= "table" then return nil end
  local known = ids[element]
  if not known then
    local parent = busted.context.parent(element)
    local above = parent and busted.context.parent(parent) and told(parent).id or nil
    ids.n = ids.n + 1
    known = { id = ids.n, parent = above, last = {} }
    ids[element] = known
  end
  local fields
  for _, name in ipairs(FIELDS) do
    local value = element[name]
    if value ~= known.last[name] then
      known.last[name] = value
      fields = fields or {}
      fields[name] = plain(value, 0)
    end
  end
  if fields then
    records[#records + 1] = { id = known.id, parent = known.parent, fields = fields }
  end
  return known
end

local function record(channel, element, above, ...)
  if not records or KEPT[channel[1]] then return end
  local about, over = told(element), told(above)
  local rest = table.pack(...)
  for i = 1, rest.n do rest[i] = plain(rest[i], 0) end
  records[#records + 1] = {
    channel = channel, element = about and about.id, above = over and over.id, rest = rest,
  }
end

-- A test's clock would stop the time of the files beside it.
local function refuse_clock()
  check.misuse("clock: spec files that run in parallel share one time: run this one without "
    .. "parallel=N")
end

--- Makes the busted of this worker, as busted's runner does.
local function open(settings)
  require "moonloop.busted" -- before busted is: here it is no helper, but what specs ask for
  local core = require "busted.core" ()
  require "busted.languages.en"
  if settings.lang ~= "en" then require("busted.languages." .. settings.lang) end
  require "busted" (core)
  if not settings["auto-insulate"] then core.register("file", "file", {}) end
  if settings.lazy then
    core.register("setup", "lazy_setup")
    core.register("teardown", "lazy_teardown")
  end
  for _, statement in ipairs(settings.e) do assert(load(statement))() end
  local function stop()
    core.skipAll = not settings["keep-going"]
    return nil, true
  end
  core.subscribe({ "error" }, stop)
  core.subscribe({ "failure" }, stop)
  core.sort, core.randomize = settings["sort-tests"], settings["shuffle-tests"]
  require "busted.modules.filter_loader" ()(core, {
    tags = settings.tags, excludeTags = settings["exclude-tags"],
    filter = settings.filter, filterOut = settings["filter-out"],
    nokeepgoing = not settings["keep-going"], suppressPending = settings["suppress-pending"],
  })
  guard.install(core, settings.options)
  if settings.options.parallel > 1 then testing.clock = refuse_clock end
  local publish = core.publish
  function core.publish(channel, ...)
    record(channel, ...)
    return publish(channel, ...)
  end
  return core
end

--- Runs one spec file.
---@param settings table of the main state: parallel.lua
---@param name string of the file
---@param seed number of the order of its tests
---@return table[] records
function suite.run(settings, name, seed)
  arg = settings.arg -- luacheck: ignore arg
  busted = busted or open(settings)
  busted.randomseed = seed
  local root = busted.context.get()
  local load_files = require "busted.modules.test_file_loader" (busted, settings.loaders)
  load_files({ name }, settings.pattern, {})
  local files = busted.context.children(root)
  records, ids = {}, { n = 1, [files[1]] = { id = 1, last = {} } }
  local done = records
  local ok, err = pcall(guard.run, settings.options, busted.execute)
  if not ok and not guard.conclude(busted, err, 1) then error(err, 0) end
  records, files[#files], root.file = nil, nil, nil
  return done
end

return suite
