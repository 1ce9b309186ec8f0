-- What specs share. This module is also required by jobs, in loop and worker
-- states: it must load without busted.

local ml = require "moonloop"

local h = {}

-- The bound of every wait that is expected to succeed, and a timeout that is
-- expected to pass.
h.TIMEOUT = os.getenv "MOONLOOP_CHECK" and 60 or 15
h.SHORT = 0.02

-- Gates ---------------------------------------------------------------------

-- A latch that any state may open, once, and any number of jobs and threads may
-- pass. It is data, two handles and this metatable, so it crosses states.
local Gate = {}
Gate.__index = Gate
h.Gate = Gate

function h.gate()
  local promise = ml.promise()
  return setmetatable({ promise = promise, future = promise.future }, Gate)
end

function Gate:open(...)
  self.promise:set_result(...)
end

-- Waits until the gate is open and returns what it was opened with.
function Gate:pass()
  return self.future:result(h.TIMEOUT)
end

function Gate:is_open()
  return self.future:done()
end

-- A job that opens `started` and then waits for `release`.
function h.hold(started, release)
  started:open()
  return release:pass()
end

-- Executors -----------------------------------------------------------------

-- Shuts an executor down and fails the spec if a job of it is left behind.
function h.close(executor)
  local ok, err = executor:shutdown{ timeout = h.TIMEOUT }
  if not ok then
    executor:shutdown{ cancel = true, timeout = h.TIMEOUT }
    error("left behind: " .. tostring(err), 2)
  end
end

-- Something that is unique to the state that calls it.
function h.state_id()
  if rawget(_G, "spec_state_id") == nil then
    rawset(_G, "spec_state_id", {})
  end
  return tostring(rawget(_G, "spec_state_id"))
end

-- Waits until `condition()` is true; for what has no future to wait for.
function h.eventually(condition, what)
  local deadline = ml.now() + h.TIMEOUT
  repeat
    local value = condition()
    if value then
      return value
    end
    ml.sleep(0.002)
  until ml.now() > deadline
  error("never came: " .. (what or "the condition"), 2)
end

-- Keeps this thread, and the loop on it, busy.
function h.spin(seconds)
  local deadline = ml.now() + seconds
  while ml.now() < deadline do
    math.random() -- no wait in here
  end
end

-- ThreadSanitizer keeps a signal from its handler until the C library is called.
h.holds_signals = os.getenv "MOONLOOP_CHECK" == "tsan"

-- Computes for ever, without a wait.
function h.compute()
  while true do
    if h.holds_signals then ml.now() end
  end
end

-- Errors --------------------------------------------------------------------

-- `f` must raise a plain error that points at the caller's line in a spec and
-- matches `pattern`. Returns the message.
function h.misuse(pattern, f, ...)
  local ok, err = pcall(f, ...)
  if ok then
    error("misuse did not raise; wanted " .. pattern, 2)
  elseif type(err) ~= "string" then
    error("misuse raised no plain error but " .. tostring(err), 2)
  elseif not (err:find "_spec%.lua:%d+: " or err:find "_suite%.lua:%d+: ") then
    error("misuse does not name the caller's line: " .. err, 2)
  elseif not err:lower():find(pattern) then
    error(("misuse should match %q: %s"):format(pattern, err), 2)
  end
  return err
end

-- The error value that `f` raises; fails if it raises none.
function h.raised(f, ...)
  local ok, err = pcall(f, ...)
  if ok then
    error("nothing was raised", 2)
  end
  return err
end

local Log = {}
Log.__index = Log

-- Collects what reaches `on_error`, whatever state reports it. The spec that
-- makes one ends with `ml.on_error(nil)`.
local last_slots = {}

function h.error_log()
  for _, slot in ipairs(last_slots) do
    pcall(slot.set_result, slot)
  end
  local slots, futures = {}, {}
  last_slots = slots
  for i = 1, 6 do
    slots[i] = ml.promise()
    futures[i] = slots[i].future
  end
  ml.on_error(function(err, info)
    for _, slot in ipairs(slots) do
      if pcall(slot.set_result, slot, { err = err, info = info }) then
        return
      end
    end
  end)
  return setmetatable({ slots = slots, futures = futures }, Log)
end

-- The nth report: its error and info.
function Log:entry(n)
  local entry = self.futures[n]:result(h.TIMEOUT)
  return entry.err, entry.info
end

function Log:count()
  local n = 0
  while n < #self.futures and self.futures[n + 1]:done() do
    n = n + 1
  end
  return n
end

function h.collect()
  collectgarbage()
  collectgarbage()
end

-- This process --------------------------------------------------------------

local function read_command(command)
  local pipe <close> = assert(io.popen(command))
  return pipe:read "a"
end

-- Threads that are made once and stay: the one that watches loops, and ThreadSanitizer's own, which
-- it adds with the first that is made.
local others_started

function h.threads()
  if not others_started then
    others_started = true
    local pool <close> = ml.ThreadExecutor{ workers = 1 }
    pool:submit(function() end):result(h.TIMEOUT)
    local loop <close> = ml.AsyncExecutor{ blocked_ms = 100 } -- starts the watching thread
    loop:submit(function() end):result(h.TIMEOUT)
    loop:submit(function() end):result(h.TIMEOUT)
  end
  local file <close> = assert(io.open "/proc/self/status")
  return tonumber(file:read("a"):match "Threads:%s*(%d+)")
end

-- Open file descriptors; the pipe that counts is always one of them.
function h.fds()
  return tonumber((read_command "ls /proc/$PPID/fd | wc -l"))
end

-- Is this a build of `./dev check`? Its memory and speed are not to be measured.
function h.checking()
  return os.getenv "MOONLOOP_CHECK" ~= nil
end

-- Child processes -----------------------------------------------------------

-- The interpreter of this process, so that a build with sanitizers tests itself.
local function interpreter()
  local exe = read_command("readlink /proc/$PPID/exe"):match "[^\n]+"
  return exe:find "lua[%d.]*$" and exe or "lua5.4"
end

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- Runs a script in a process of its own. The list part of `options` is its
-- arguments; `env` a table, `lua` the program ("moonloop"), `seconds` the bound,
-- `memory` a limit in KiB, `stack` the KiB that each thread's stack takes of it, `files` a
-- limit of descriptors.
-- Returns stdout and stderr together, and the exit code as a shell sees it.
function h.run_script(code, options)
  options = options or {}
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(code)
  file:close()
  local words = {
    options.memory and ("ulimit -v %d;"):format(options.memory) or "",
    options.stack and ("ulimit -s %d;"):format(options.stack) or "",
    options.files and ("ulimit -n %d;"):format(options.files) or "",
    "env",
  }
  for name, value in pairs(options.env or {}) do
    words[#words + 1] = name .. "=" .. quote(value)
  end
  words[#words + 1] = ("timeout -k 2 %d"):format(options.seconds or 30)
  words[#words + 1] = quote(options.lua or interpreter())
  words[#words + 1] = quote(path)
  for _, argument in ipairs(options) do
    words[#words + 1] = quote(argument)
  end
  words[#words + 1] = "2>&1"
  local pipe = assert(io.popen(table.concat(words, " ")))
  local output = pipe:read "a"
  local _, how, status = pipe:close()
  os.remove(path)
  return output, how == "signal" and 128 + status or status
end

return h
