--- A module that is loaded when something of it is first used: most Lua states need few of them,
-- and a program may have a state for each of a thousand threads.

local require <const>, setmetatable <const> = require, setmetatable

---@param name string
---@return table module  in its place
return function(name)
  return setmetatable({}, {
    __index = function(self, key)
      local module = require(name)
      setmetatable(self, { __index = module })
      return module[key]
    end,
  })
end
