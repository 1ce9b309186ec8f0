--- Bodies of requests that come piece by piece.

local check = require "moonloop.check"
local core = require "moonloop.http.core"
local error_value = require "moonloop.core".error_value
local sources = {}

-- What all have: `next` gives the next piece, nil at the end, or nil and an error; `close` ends it
-- early; `length` where it is known; `rewind` where it can begin again; `left`, bytes still to
-- come, or -1.

-- Holds a source to the length that was told.
local function count(self, piece)
  local left, size = self.left, piece and #piece or 0
  if left < 0 then return piece end
  if size > left or (not piece and left > 0) then
    check.misuse("the body is %s than its length says, by %d bytes",
      piece and "longer" or "shorter", piece and size - left or left)
  end
  self.left = left - size
  return piece
end

-- Any iterator or generator -------------------------------------------------

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

-- Files ---------------------------------------------------------------------

local PIECE <const> = 128 * 1024

local File = {}
File.__index = File

function File:next()
  if self.at >= self.length then return nil end
  local piece, err = self.file:read(self.at, math.min(PIECE, self.length - self.at))
  if piece == "" then
    err = error_value("file", ("read %s: it became shorter while it was sent"):format(self.path))
  end
  if err then return nil, err end
  self.at = self.at + #piece
  return piece
end

function File:rewind() self.at = 0 end

function File:close() self.file:close() end

--- The source of a body; or nil and an error, if its file cannot be opened.
---@param body function|table|userdata
function sources.open(body)
  if type(body) ~= "table" or (getmetatable(body) or {}).__call then
    return setmetatable({ pull = body }, Generated)
  end
  local file, size = core.open_file(body.file, "read")
  if not file then return nil, size end
  return setmetatable({ file = file, path = body.file, length = size, at = 0 }, File)
end

return sources
