-- A module for specs: what crosses by name is found here on the far side.

local sample = { nested = {}, limit = 7 }

function sample.add(a, b)
  return a + b
end

function sample.fail(message)
  error(message)
end

-- The body of a generator.
function sample.letters(text)
  for letter in text:gmatch "." do
    coroutine.yield(letter)
  end
end

function sample.nested.double(x)
  return 2 * x
end

-- A class: its objects cross with this metatable, by name.
local Point = {}
Point.__index = Point
sample.Point = Point

function sample.point(x, y)
  return setmetatable({ x = x, y = y }, Point)
end

function Point:sum()
  return self.x + self.y
end

return sample
