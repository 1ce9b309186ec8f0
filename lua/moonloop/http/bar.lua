--- A line on the terminal that shows how far a download is.

local core = require "moonloop.http.core"
local now = require "moonloop.core".now
local bar = {}

local INTERVAL <const> = 0.1
local UNITS <const> = { "B", "KiB", "MiB", "GiB", "TiB" }

local function amount(bytes)
  local unit = 1
  while bytes >= 1024 and unit < #UNITS do
    bytes, unit = bytes / 1024, unit + 1
  end
  return (unit == 1 and "%d %s" or "%.1f %s"):format(bytes, UNITS[unit])
end

local Bar = {}
Bar.__index = Bar

--- One line: "name  45 %  12.3 MiB of 27.0 MiB  5.1 MiB/s".
---@param at integer bytes that are there
---@param total integer? bytes in all
---@param speed number bytes a second
---@return string
function bar.line(name, at, total, speed)
  local share = total and total > 0 and ("  %d %%"):format(at * 100 // total) or ""
  local all = total and " of " .. amount(total) or ""
  return ("%s%s  %s%s  %s/s"):format(name, share, amount(at), all, amount(speed))
end

--- Shows where it stands, not too often.
function Bar:show(at, last)
  local time = now()
  if not last and time < self.shown + INTERVAL then return end
  self.shown = time
  local speed = (at - self.from) / math.max(time - self.began, 1e-3)
  io.stderr:write("\r", bar.line(self.name, at, self.total, speed), "\27[K")
  io.stderr:flush()
end

--- Leaves the line as it is.
function Bar.__close() io.stderr:write("\n") end

--- A bar, where standard error is a terminal; else nil.
function bar.new(name, from, total)
  if not core.is_terminal() then return nil end
  return setmetatable(
    { name = name, from = from, total = total, began = now(), shown = -math.huge }, Bar)
end

return bar
