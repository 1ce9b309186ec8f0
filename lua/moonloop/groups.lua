--- Groups: jobs that belong together, and to the block that started them.

local core = require "moonloop.core"
local check = require "moonloop.check"
local lists = require "moonloop.lists"
local scopes = require "moonloop.scopes"

local Group = {}
Group.__index = Group
Group.__name = "moonloop.group"

--- Cancels the children that are still going.
local function cancel_children(self)
  for future in pairs(self.children) do future:cancel() end
end

--- A child has settled: a failure ends the body and the siblings.
local function on_child(self, future)
  if not self.children[future] then return end
  self.children[future] = nil
  if future:cancelled() then
    core.abandon(future)
    return
  end
  local err = future:exception()
  if err == nil then return end
  self.failures[#self.failures + 1] = { err, future }
  self.scope:cancel("a job of the group failed")
  cancel_children(self)
end

--- Starts a job of the group.
-- @return future
function Group:spawn(...)
  if getmetatable(self) ~= Group then check.misuse("spawn: group expected, got %s", type(self)) end
  if self.finished then check.misuse("spawn: the group has finished") end
  local future = core.spawn(...)
  if self.scope.cancelled or self.leaving_cancelled then future:cancel() end
  self.children[future] = true
  future:add_done_callback(self.on_child)
  return future
end

--- Cancels the children and the body.
-- @param reason any value that can cross states
function Group:cancel(reason)
  if self.finished then return false end
  self.scope:cancel(reason)
  cancel_children(self)
  return true
end

--- Waits for all children. A cancel of the waiter cancels them and waits on.
-- @return the error of that cancel, or nil
local function wait_children(self)
  local cancelled
  while next(self.children) do
    local list = {}
    for future in pairs(self.children) do list[#list + 1] = future end
    if cancelled then
      scopes.shield(lists.wait_all, list)
    else
      local set = core.waitset()
      for _, future in ipairs(list) do set:add(future) end
      local ok, err = pcall(set.wait, set, #list, true)
      if not ok then
        cancelled = err
        self.leaving_cancelled = true
        cancel_children(self)
      end
    end
    for _, future in ipairs(list) do
      if future:done() then on_child(self, future) end
    end
  end
  return cancelled
end

--- Leaves the group: waits for the children and raises what failed. `body_error` is
-- what ended the body, or nil.
-- @return true; or nil and the error of the group's own cancel
local function leave(self, failed, body_error)
  if self.finished then return true end
  core.scope_pop(self.scope)
  local own = failed and core.scope_absorbs(self.scope, body_error)
  if failed or self.scope.cancelled then
    self.leaving_cancelled = true
    cancel_children(self)
  end
  -- The cancel of the owner is no failure of the group; it goes on if nothing failed.
  local failures, owner_cancel = self.failures, nil
  if failed and not own then
    if core.is_cancelled(body_error) then
      owner_cancel = body_error
    else
      failures[#failures + 1] = { body_error }
    end
  end
  local cancelled = wait_children(self) or owner_cancel
  self.finished = true
  if #failures == 1 then
    local err, future = failures[1][1], failures[1][2]
    if future then future:result() end -- raises it with its traceback
    error(err, 0)
  elseif #failures > 1 then
    local errors, texts = {}, {}
    for i, failure in ipairs(failures) do
      errors[i] = failure[1]
      texts[i] = tostring(failure[1])
    end
    error(core.error_value("group", ("%d jobs of the group failed: %s"):format(#errors, table.concat(texts, "; ")),
      { errors = errors }), 0)
  end
  if cancelled then error(cancelled, 0) end
  if own then return nil, body_error end
  return true
end

function Group:__close(err) leave(self, err ~= nil, err) end

local function new()
  local self = setmetatable({ children = {}, failures = {} }, Group)
  self.scope = core.scope_push(false)
  self.on_child = function(future) on_child(self, future) end
  return self
end

local function finish(self, ok, ...)
  local done, err = leave(self, not ok, not ok and (...) or nil)
  if not done then return nil, err end
  return ...
end

--- Runs f(g) and waits for the jobs that `g:spawn` started. The first failure, of a job
-- or of f, cancels the rest and is raised; several failures are one error with code
-- "group" and `errors`. Without f: a group for a <close> variable.
-- @return f's values
local function group(f)
  if f == nil then return new() end
  if type(f) ~= "function" then check.misuse("group: function expected, got %s", type(f)) end
  local self = new()
  return finish(self, xpcall(f, core.message_handler, self))
end

return { group = group }
