--- Context variables: a job starts with a copy of its submitter's.

local core = require "moonloop.core"

local Var = {}
Var.__index = Var
Var.__name = "moonloop.var"

--- A variable whose value belongs to the job, or to the thread outside of jobs. What a
-- job sets, the jobs that it starts later see; nobody else does.
-- @param default what `get` returns where it was never set
local function var(default) return setmetatable({ id = core.new_id(), default = default }, Var) end

--- @return the value
function Var:get()
  local context = core.context()
  local entry = context and context[self.id]
  if entry then return entry[1] end
  return self.default
end

--- Sets the value for the rest of the job, and for the jobs that it starts.
function Var:set(value)
  local context = {}
  for id, entry in pairs(core.context() or context) do context[id] = entry end
  context[self.id] = { value }
  core.set_context(context)
end

local Restore = {
  __close = function(self) core.set_context(self[1]) end,
}

--- Runs f(...) with the value set.
-- @return f's values
function Var:with(value, f, ...)
  local guard <close> = setmetatable({ core.context() }, Restore) -- luacheck: ignore guard
  self:set(value)
  return f(...)
end

return { var = var, Var = Var }
