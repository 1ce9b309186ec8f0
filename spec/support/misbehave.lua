-- A server that does everything wrong, in a process of its own. Its paths are the faults:
--
--   local bad <close> = misbehave.start()
--   bad.url .. "/reset-in-body"
--
-- /ok answers as it should; misbehave.py has the others by name. Some faults are whole ports:
--
--   bad.full    its queue of connections is full: a connect gets no answer
--   bad.mute    accepts, and says nothing (to a TLS handshake, too)
--   bad.cut     closes the connection when something comes
--   bad.noise   answers something that is neither HTTP nor TLS
--
-- Those are "127.0.0.1:PORT": put "http://" or "https://" before them.

local process = require "spec.support.process"

local misbehave = {}

local Server = process.class()

---@return table server
function misbehave.start()
  local script = assert(package.searchpath("spec.support.misbehave", package.path))
  local path = process.capture("realpath " .. process.quote((script:gsub("lua$", "py"))))
  local self = process.start(setmetatable({}, Server), "misbehave.py", function()
    return process.python() .. " " .. process.quote(path), "[ -s ports ]"
  end)
  for name, port in process.read_file(self.dir .. "/ports"):gmatch "(%l+) (%d+)" do
    self[name] = "127.0.0.1:" .. port
  end
  self.url = "http://" .. self.main
  return self
end

---When a fault last happened, as `ml.now()` tells time; nil: it has not.
---@param name string
---@return number?
function Server:happened(name)
  local last
  for at, what in process.read_file(self.dir .. "/faults"):gmatch "([%d.]+) ([%l%d.-]+)\n" do
    if what == name then last = tonumber(at) end
  end
  return last
end

---How many connections it has accepted, and how many are open as far as it knows.
---@return integer accepted
---@return integer open
function Server:connections()
  local made, gone = 0, 0
  for sign in process.read_file(self.dir .. "/faults"):gmatch "([+-]) %d+\n" do
    if sign == "+" then made = made + 1 else gone = gone + 1 end
  end
  return made, made - gone
end

return misbehave
