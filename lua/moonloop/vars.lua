--- Context variables: a job starts with a copy of its submitter's.

local core = require "moonloop.core"
local check = require "moonloop.check"

local Var = {}
Var.__index = Var
Var.__name = "moonloop.var"

--- A variable whose value belongs to the job, or to the thread outside of jobs. What a
-- job sets, the jobs that it starts later see; nobody else does.
-- @param default what `get` returns where it was never set
local function var(default)
  return setmetatable({ id = core.new_id(), default = default, made_at = core.here() }, Var)
end

--- Handles of one variable are equal, wherever they have been.
function Var.__eq(a, b) return getmetatable(b) == Var and rawequal(a.id, b.id) end

local function check_self(what, self)
  if getmetatable(self) == Var then return end
  check.misuse("%s: variable expected, got %s", what, type(self))
end

--- @return the value
function Var:get()
  check_self("get", self)
  local context = core.context()
  local entry = context and context[self.id]
  if entry then return entry[1] end
  return self.default
end

--- Makes a context that differs from the one there is in one variable.
local function put(id, entry)
  local context = {}
  for other, kept in pairs(core.context() or context) do context[other] = kept end
  context[id] = entry
  core.set_context(context)
end

--- Sets the value for the rest of the job, and for the jobs that it starts.
function Var:set(value)
  check_self("set", self)
  core.variables[self.id] = self -- for messages
  put(self.id, { value })
end

local Restore = {
  __close = function(self) put(self.id, self.entry) end,
}

--- Runs f(...) with the value set.
-- @return f's values
function Var:with(value, f, ...)
  check_self("with", self)
  check.callable("with", f)
  local context = core.context()
  local before = { id = self.id, entry = context and context[self.id] }
  local guard <close> = setmetatable(before, Restore) -- luacheck: ignore guard
  self:set(value)
  return f(...)
end

return { var = var, Var = Var }
