--- busted --helper=moonloop.busted: the suite runs as a job, so that what is in it may wait.
--
-- Options, each by --Xhelper or in the Xhelper list of .busted:
--   timeout=S    seconds that a test, or a function around it, may take; none by default
--   leaks=off    no look after each test at what it left open
--   parallel=N   spec files run in N Lua states, each on a thread of its own
--   jobs=off     the suite runs in no job: a wait blocks its thread
--
-- busted loads its helper before "busted.execute", which is how the suite gets into a job.

local check = require "moonloop.check"
local core = require "moonloop.core"
local guard = require "moonloop.busted.guard"
local busted_helper = {}

local function fail(option, expected)
  error(("moonloop.busted: option '%s': %s expected"):format(option, expected), 0)
end

--- Reads "timeout=5" and the like.
local function read_options(list)
  local options = { leaks = true, jobs = true }
  for _, text in ipairs(list or {}) do
    local name, value = text:match "^([^=]+)=(.*)$"
    if name == "timeout" then
      options.timeout = tonumber(value)
      if not options.timeout or options.timeout <= 0 then fail(text, "timeout=SECONDS") end
    elseif name == "leaks" or name == "jobs" then
      if value ~= "on" and value ~= "off" then
        fail(text, ("%s=on or %s=off"):format(name, name))
      end
      options[name] = value == "on"
    elseif name == "parallel" then
      options.parallel = math.tointeger(tonumber(value))
      if not options.parallel or options.parallel < 1 then fail(text, "parallel=NUMBER") end
    else
      fail(text, "timeout=SECONDS, leaks=off, jobs=off or parallel=NUMBER")
    end
  end
  return options
end

--- Takes the place of busted's own execute.
local function install(options)
  local execute = require "busted.execute"
  local parallel = options.parallel and require "moonloop.busted.parallel"
  package.loaded["busted.execute"] = function(busted)
    guard.install(busted, options)
    local go = execute(busted)
    return function(runs, how)
      local ok, err = xpcall(guard.run, core.message_handler, options, function()
        if parallel then parallel.install(busted, options) end
        go(runs, how)
      end)
      if not ok and not guard.conclude(busted, err, runs) then error(err, 0) end
    end
  end
end

--- Limits the test that runs to so many seconds from its beginning. Called outside of tests, in
-- a `describe` or a file: that each of the tests there may take, and each function around them.
---@param seconds number? nil: no limit
function busted_helper.timeout(seconds)
  local ok = seconds == nil or type(seconds) == "number" and seconds > 0
  if not ok then
    check.misuse("timeout: a positive number of seconds expected, got %s", tostring(seconds))
  end
  guard.set_limit(seconds)
end

-- Else a spec asks for it, and it is no helper: what a suite runs by has been loaded.
local is_helper = package.loaded["busted.core"] and not package.loaded["busted.execute"]
if is_helper then install(read_options(arg)) end

return busted_helper
