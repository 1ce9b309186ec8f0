--- Bodies of requests that come piece by piece.

local check = require "moonloop.check"
local sources = {}

-- What all have: `next` gives the next piece or nil, `close` ends it early; `length` where it is
-- known; `rewind` where it can begin again; `left`, how many bytes still have to come, or -1.

local function count(self, piece)
  if self.left < 0 then return piece end
  local size = piece and #piece or 0
  if size > self.left or (not piece and self.left > 0) then
    check.misuse("the body is %s than its length says, by %d bytes",
      piece and "longer" or "shorter", piece and size - self.left or self.left)
  end
  self.left = self.left - size
  return piece
end

-- A function that gives the pieces one after the other: any iterator or generator.

local Generated = {}
Generated.__index = Generated

function Generated:next()
  local piece
  repeat
    piece = self.pull()
    if math.type(piece) then piece = tostring(piece) end
    if piece ~= nil and type(piece) ~= "string" then
      check.misuse("option 'body': it must give strings, got %s", type(piece))
    end
  until piece ~= ""
  return count(self, piece)
end

-- A moonloop generator ends with the request; a plain function has nothing to close.
function Generated:close()
  if type(self.pull) == "userdata" then self.pull:close() end
end

--- The source of a body; or nil and an error, if its file cannot be opened.
---@param body function|table|userdata
function sources.open(body)
  return setmetatable({ pull = body }, Generated)
end

return sources
