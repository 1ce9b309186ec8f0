--- Groups: jobs that belong together, and to the block that started them.

local core = require "moonloop.core"
local check = require "moonloop.check"
local jobs = require "moonloop.jobs"
local scopes = require "moonloop.scopes"

local Group = {}
Group.__index = Group
Group.__name = "moonloop.group"

--- Cancels the children, those that are still to come, and the body.
local function cancel(self, reason)
  for future in pairs(self.children) do future:cancel(reason) end
  self.cancelled = true
  self.scope:cancel(reason)
end

--- A child has settled: a failure ends the body and the siblings. As a callback it comes
-- in the order of settling, which is that of `failures`.
local function on_child(self, future)
  self.children[future] = nil
  self.count = self.count - 1
  if future:cancelled() then
    core.abandon(future)
  else
    local err = future:exception()
    if err ~= nil then
      self.failures[#self.failures + 1] = { err, future }
      if not self.cancelled then cancel(self, "a job of the group failed") end
    end
  end
  if self.count == 0 and self.empty then
    self.empty:set_result()
    self.empty = nil
  end
end

--- A future that is cancelled already, for a job that never runs.
local function stillborn(...)
  jobs.open(...)
  local future = core.promise().future
  future:cancel "the group was cancelled"
  return future
end

--- Starts a job of the group.
-- @return future
function Group:spawn(...)
  if getmetatable(self) ~= Group then check.misuse("spawn: group expected, got %s", type(self)) end
  if self.finished then check.misuse("spawn: the group has finished") end
  if self.cancelled then return stillborn(...) end
  local future = core.spawn(...)
  self.children[future] = true
  self.count = self.count + 1
  future:add_done_callback(self.on_child)
  return future
end

--- Cancels the children and the body.
-- @param reason any value that can cross states
-- @return whether there was anything left to cancel
function Group:cancel(reason)
  if getmetatable(self) ~= Group then check.misuse("cancel: group expected, got %s", type(self)) end
  if self.finished then return false end
  cancel(self, reason)
  return true
end

--- Waits for all children. A cancel of the waiter cancels them and waits on.
-- @return the error of that cancel, or nil
local function wait_children(self)
  local cancelled
  while self.count > 0 do
    self.empty = core.promise()
    local future = self.empty.future
    local ok, err = pcall(future.result, future)
    if not ok then
      cancelled = err
      cancel(self)
      scopes.shield(future.result, future)
    end
  end
  return cancelled
end

--- Raises the failures: one as it is, several as one error.
local function raise(failures)
  if #failures == 1 then
    local err, future = failures[1][1], failures[1][2]
    if future then future:result() end -- raises it with its traceback
    error(err, 0)
  end
  local errors, texts = {}, {}
  for i, failure in ipairs(failures) do
    errors[i] = failure[1]
    local shown, text = pcall(tostring, failure[1])
    texts[i] = shown and text or type(failure[1])
  end
  local text = ("%d jobs of the group failed: %s"):format(#errors, table.concat(texts, "; "))
  error(core.error_value("group", text, { errors = errors }), 0)
end

--- Leaves the group: waits for the children and raises what failed. The rest are the
-- body's values, or what ended it if it failed.
-- @return true; or nil and the error of the group's own cancel
local function leave(self, failed, ...)
  if self.finished then return true end
  local body_error = ...
  local open = core.scope_pop(self.scope)
  local own = failed and core.scope_absorbs(self.scope, body_error)
  if failed then
    core.poll() -- jobs that failed before the body come before it
    if not self.cancelled then cancel(self) end
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
  if open then -- generators, which the children may have used
    local ok, err = xpcall(scopes.tidy, core.message_handler, self.scope, #failures > 0, ...)
    if not ok then failures[1] = { err } end
  end
  self.finished = true
  if #failures > 0 then raise(failures) end
  if cancelled then error(cancelled, 0) end
  if own then return nil, body_error end
  return true
end

function Group:__close(err) leave(self, err ~= nil, err) end

local function new(owns)
  local self = setmetatable({ children = {}, count = 0, failures = {} }, Group)
  self.scope = core.scope_push(false, nil, owns)
  self.on_child = function(future) on_child(self, future) end
  return self
end

local function finish(self, ok, ...)
  local done, err = leave(self, not ok, ...)
  if not done then return nil, err end
  return ...
end

--- Runs f(g) and waits for the jobs that `g:spawn` started. The first failure, of a job
-- or of f, cancels the rest and is raised; several failures are one error with code
-- "group" and `errors`. Without f: a group for a <close> variable.
-- @return f's values
local function group(f)
  if f == nil then return new() end
  check.callable("group", f)
  local self = new(true)
  return finish(self, xpcall(f, core.message_handler, self))
end

return { group = group }
