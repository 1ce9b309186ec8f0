--- Scopes of cancellation: timeouts, shields, clean-up.

local core = require "moonloop.core"
local check = require "moonloop.check"
local scopes = {}

local trace = core.message_handler

local check_function = check.callable

--- Closes the generators that a block left open. Those among its values, or its error, go
-- on to the block around it.
---@param failed boolean an error will be raised in any case: those of clean-up are reported
function scopes.tidy(scope, failed, ...)
  local list = core.scope_left(scope, ...)
  if list then core.close_left(list, failed) end
end

--- The same after a body that may have failed.
-- @return ok and its values; or false and the error of a clean-up
local function tidied(scope, ok, ...)
  local failed = not ok and not core.is_cancelled((...))
  local clean, err = xpcall(scopes.tidy, trace, scope, failed, ...)
  if not clean then return false, err end
  return ok, ...
end

--- What comes of a scope that was left; absorbs the scope's own cancel.
local function conclude(scope, ok, ...)
  if ok then return ... end
  local err = ...
  local own, timed_out = core.scope_absorbs(scope, err)
  if not own then error(err, 0) end
  if timed_out then return nil, core.error_value("timeout", "the deadline of the scope passed") end
  return nil, err
end

--- Leaves a scope after its body.
-- @return the body's values, or nil and the error of the cancel or the deadline
local function leave(scope, ok, ...)
  if core.scope_pop(scope) then return conclude(scope, tidied(scope, ok, ...)) end
  return conclude(scope, ok, ...)
end

--- Runs f(scope): `scope:cancel([reason])`, `scope.cancelled`, `scope:set_deadline(time)`.
-- A cancel of the scope is raised at the waits in it and absorbed here.
-- @param options { timeout = seconds }
-- @return f's values, or nil and the error of the cancel or the deadline
function scopes.scope(f, options)
  check_function("scope", f)
  options = check.options("scope", options, { timeout = true })
  local scope = core.scope_push(false, options.timeout, true)
  return leave(scope, xpcall(f, trace, scope))
end

--- A scope for whoever runs tests: its seconds are real ones, whatever a test's clock does, and
-- so are the times of its `set_deadline`, of `core.real_now`. It does not count where a wait
-- for ever is refused.
function scopes.real_scope(f, seconds)
  local scope = core.scope_push(false, seconds, true, true)
  return leave(scope, xpcall(f, trace, scope))
end

--- Runs f(...) where a cancel from outside does not reach.
function scopes.shield(f, ...)
  check_function("shield", f)
  return leave(core.scope_push(true), xpcall(f, trace, ...))
end

--- Runs f(...) for at most `seconds`.
-- @return f's values, or nil and an error with code "timeout", after f's clean-up
function scopes.move_on_after(seconds, f, ...)
  check_function("move_on_after", f)
  return leave(core.scope_push(false, seconds, true), xpcall(f, trace, ...))
end

local function conclude_timeout(scope, seconds, ok, ...)
  if ok then return ... end
  local err = ...
  if core.scope_absorbs(scope, err) then
    err = core.error_value("timeout", ("timeout after %g s"):format(seconds))
  end
  error(err, 0)
end

local function leave_timeout(scope, seconds, ok, ...)
  if core.scope_pop(scope) then
    return conclude_timeout(scope, seconds, tidied(scope, ok, ...))
  end
  return conclude_timeout(scope, seconds, ok, ...)
end

--- Runs f(...) for at most `seconds`; raises an error with code "timeout" after f's clean-up.
function scopes.timeout(seconds, f, ...)
  check_function("timeout", f)
  return leave_timeout(core.scope_push(false, seconds, true), seconds, xpcall(f, trace, ...))
end
scopes.wait_for = scopes.timeout

local CLEAN_UP <const> = 5 -- seconds that a clean-up may take
scopes.CLEAN_UP = CLEAN_UP

local Deferred = {
  __close = function(self, err)
    scopes.shield(scopes.timeout, CLEAN_UP, self[1], err)
  end,
}

--- For a <close> variable: runs f(err) as the block is left, shielded, for at most 5 s.
function scopes.defer(f)
  check_function("defer", f)
  return setmetatable({ f }, Deferred)
end

return scopes
