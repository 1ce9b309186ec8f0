--- What is around each test, in busted's own terms: time limits, and the look at what is left.
--
-- busted calls everything through `busted.safe(descriptor, run, element)`: a test as a whole,
-- with what is around it, and in there each function of the user's, as `element.run`.

local check = require "moonloop.check"
local core = require "moonloop.core"
local leaks = require "moonloop.busted.leaks"
local scopes = require "moonloop.scopes"
local run_loop = require "moonloop.run".run
local guard = {}

-- The functions of the user's that have a time limit.
local LIMITED <const> = {
  it = true, before_each = true, after_each = true, strict_setup = true, strict_teardown = true,
  lazy_setup = true, lazy_teardown = true,
}

local NONE <const> = math.huge -- an element's limit: none

local current -- the function that runs: { scope, element, limit, began, outer }
local mark -- what was open when the test, or file, that runs began
local the_busted, default_limit

--- The seconds that a function of this element, or one around it, may take; nil: any.
local function limit_of(element)
  while element do
    local limit = rawget(element, "time_limit")
    if limit then return limit ~= NONE and limit or nil end
    element = the_busted.context.parent(element)
  end
  return default_limit
end

--- Is it the cancel of the function that runs, for its time is up?
local function is_timeout(err)
  if not current then return false end
  local own, timed_out = core.scope_absorbs(current.scope, err)
  return own and timed_out
end

--- The lines of the stack of the caller's caller, without what runs the tests; and the first
-- place of them that is in nobody's library.
local function stack()
  local lines, place = {}, nil
  for line in debug.traceback("", 3):gmatch "\n\t([^\n]+)" do
    if line:find "^moonloop/busted%." then break end
    if not line:find "[/\\]busted[/\\]%w+%.lua:" then
      lines[#lines + 1] = "\t" .. line
      place = place or not line:find "^moonloop/" and line:match "^[^%[].-:%d+: "
    end
  end
  while lines[1] and lines[#lines]:find "^\t%[C%]: in function 'x?pcall'" do
    lines[#lines] = nil
  end
  return table.concat(lines, "\n"), place
end

local function place_of(element)
  local trace = element.trace
  return trace and ("%s:%d: "):format(trace.short_src, trace.currentline) or ""
end

--- Says that the time of the function that runs is up.
local function timeout_message(element, seconds, where, place)
  local text = ("%sno end after %g s"):format(place or place_of(element), seconds)
  return where and text .. "; it waits here:\n" .. where or text
end

--- Runs one function of the user's, with its limit.
local function limited(safe, descriptor, run, element)
  local limit = limit_of(element)
  return scopes.real_scope(function(scope)
    local mine = { scope = scope, element = element, limit = limit, began = core.real_now(),
      outer = current }
    current = mine
    local function body()
      run()
      -- A test that has kept the timeout to itself has not passed.
      if scope.cancelled then error(timeout_message(element, mine.limit), 0) end
    end
    local status = safe(descriptor, body, element)
    current = mine.outer
    -- It runs in the first test of its block, and what it opens is for all of them.
    if descriptor == "lazy_setup" and mark then mark = leaks.mark() end
    -- What the function keeps in its variables stays open: it is among the values.
    return status, descriptor ~= "it" and run or nil
  end, limit)
end

--- Runs a test, or a file, and reports what it has left open.
local function watched(busted, safe, descriptor, run, element)
  return safe(descriptor, function()
    local outer = mark
    mark = leaks.mark()
    run()
    local left = leaks.since(mark)
    mark = outer
    if not left then return end
    -- For busted this is a function after the test, and it has failed.
    local block = {
      descriptor = descriptor == "file" and "strict_teardown" or "after_each",
      name = "left open",
      trace = element.trace or { short_src = element.name, currentline = 1 },
      attributes = {},
    }
    busted.context.attach(block)
    safe(block.descriptor, function() error(leaks.describe(block.trace, left), 0) end, block)
    leaks.close(left)
  end, element)
end

--- Runs a suite: in a job, which may hold its loop, unless it is not to.
---@param options { jobs: boolean }
function guard.run(options, f)
  if not options.jobs then return f() end
  return run_loop(function()
    core.may_block()
    return f()
  end)
end

--- Puts the guard around the functions of this busted.
---@param options { timeout: number?, leaks: boolean }
function guard.install(busted, options)
  the_busted, default_limit = busted, options.timeout
  local safe, rewrite = busted.safe, busted.rewriteMessage
  if options.leaks then leaks.track() end

  function busted.rewriteMessage(element, message, trace)
    if is_timeout(message) then
      message = timeout_message(element, current.limit, stack())
    end
    return rewrite(element, message, trace)
  end

  function busted.safe(descriptor, run, element)
    if descriptor == "finally" or LIMITED[descriptor] and run == element.run then
      return limited(safe, descriptor, run, element)
    elseif options.leaks and descriptor == element.descriptor
        and (descriptor == "it" or descriptor == "file" and run ~= element.run) then
      return watched(busted, safe, descriptor, run, element)
    end
    return safe(descriptor, run, element)
  end
end

--- The suite's job was stopped for good, with an error: a test would not take its timeout.
-- Says so, and ends the suite.
---@return boolean whether that was it
function guard.conclude(busted, err, runs)
  if not (current and type(err) == "table" and err.code == "job_cancelled") then return false end
  local element = current.element
  local context = busted.context
  local text = timeout_message(element, current.limit) .. ", and it does not let itself be "
    .. "stopped: this ends the suite"
  current = nil
  while context.get() ~= element do context.pop() end
  local parent = context.parent(element)
  busted.publish({ "error", element.descriptor }, element, parent, text, element.trace)
  if element.descriptor == "it" then
    busted.safe_publish("test", { "test", "end" }, element, parent, "error")
  end
  while context.parent(context.get()) do context.pop() end
  busted.safe_publish("suite", { "suite", "end" }, context.get(), 1, runs)
  return true
end

--- Sets the limit of the function that runs, else of the block that is being read.
---@param seconds number? nil: none
function guard.set_limit(seconds)
  if not the_busted then
    check.misuse "timeout: busted runs without --helper=moonloop.busted"
  end
  if current then
    current.limit = seconds
    current.scope:set_deadline(seconds and current.began + seconds)
  else
    the_busted.context.get().time_limit = seconds or NONE
  end
end

return guard
