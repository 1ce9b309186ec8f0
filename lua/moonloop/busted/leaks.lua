--- What a test leaves behind: jobs, sockets, servers, streams, executors.

local ml = require "moonloop"
local core = require "moonloop.core"
local leaks = {}

local GRACE <const> = 1 -- seconds for what is ending already
local CLOSE <const> = 2 -- seconds that closing may take

--- From now on, this state knows what it opens.
leaks.track = core.track_opened

--- The present, for `since`.
leaks.mark = core.opened_mark

-- A test's clock that was left open would stop the time that is given to the rest.
local function close_clock(left)
  for _, entry in ipairs(left) do
    if core.is_clock(entry.handle) then
      entry.handle:close()
      return entry
    end
  end
end

--- What was opened after the mark and is open; nil: nothing.
---@return table[]? left of { what, where, handle }
function leaks.since(mark)
  local clock = close_clock(core.opened_since(mark))
  local deadline = ml.now() + GRACE
  while true do
    local left = core.opened_since(mark)
    left[#left + 1] = clock
    if not left[1] then return nil end
    if ml.now() > deadline then return left end
    ml.sleep(0.001)
  end
end

--- A text about what is left.
---@param place { short_src: string, currentline: integer } of the test
function leaks.describe(place, left)
  local lines = {}
  for i, entry in ipairs(left) do
    lines[i] = ("  %s, made at %s"):format(entry.what, entry.where)
  end
  table.sort(lines)
  return ("%s:%d: left open:\n%s"):format(place.short_src, place.currentline,
    table.concat(lines, "\n"))
end

local function close(handle)
  if core.is_executor(handle) then
    handle:shutdown{ cancel = true, timeout = CLOSE }
  elseif handle.cancel_and_wait then
    handle:cancel_and_wait(CLOSE)
  else
    handle:close()
  end
end

--- Ends what is left, so that the next test does not meet it.
function leaks.close(left)
  for _, entry in ipairs(left) do pcall(close, entry.handle) end
end

return leaks
