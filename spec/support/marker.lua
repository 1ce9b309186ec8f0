-- Gates between processes: files. A marker is data and this metatable, so it crosses to a
-- child, where this module is required by name. Loads without busted.

local ml = require "moonloop"

local Marker = {}
Marker.__index = Marker

local marker = { Marker = Marker }

-- A marker that nobody has set. `remove` it at the end.
function marker.new()
  local path = os.tmpname()
  os.remove(path)
  return setmetatable({ path = path }, Marker)
end

-- Sets it, with a text.
function Marker:set(text)
  local file = assert(io.open(self.path .. ".new", "w"))
  file:write(text or "")
  file:close()
  assert(os.rename(self.path .. ".new", self.path))
end

-- The text, or nil: it is not set.
function Marker:get()
  local file = io.open(self.path)
  if not file then return nil end
  local text = file:read "a"
  file:close()
  return text
end

-- Waits until it is set, for 15 s at most; the text.
function Marker:wait()
  local deadline = ml.now() + 15
  while ml.now() < deadline do
    local text = self:get()
    if text then return text end
    ml.sleep(0.002)
  end
  error("the marker was never set", 2)
end

function Marker:remove() os.remove(self.path) end

-- The pid of the process that calls. Under a shell's $PPID.
function marker.pid()
  local file <close> = assert(io.open "/proc/self/stat")
  return math.tointeger(tonumber(file:read "a":match "^%d+"))
end

-- Ends the process that calls with a signal.
function marker.kill_self(signal)
  os.execute("kill -" .. signal .. " " .. marker.pid())
  ml.sleep(15)
end

-- The pids of the workers of ProcessExecutors that this process has started.
function marker.children()
  local pipe <close> = assert(io.popen "pgrep -P $PPID -f '[-]-worker'")
  local pids = {}
  for line in pipe:lines() do pids[#pids + 1] = tonumber(line) end
  return pids
end

-- Is the process there, and no zombie?
function marker.alive(pid)
  local file = io.open(("/proc/%s/stat"):format(pid))
  if not file then return false end
  local state = file:read("a"):match "%) (%a)"
  file:close()
  return state ~= "Z"
end

-- Sets `started` with the pid, then waits for `release`.
function marker.hold(started, release)
  started:set(tostring(marker.pid()))
  return release:wait()
end

return marker
