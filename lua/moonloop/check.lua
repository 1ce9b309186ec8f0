--- Checks of arguments, for the Lua part of moonloop.

local core = require "moonloop.core"
local check = {}

--- Raises a plain error at the user's line.
function check.misuse(message, ...) core.misuse(message:format(...)) end

--- The type of the first argument, or "no value".
function check.type_of(...) return select("#", ...) == 0 and "no value" or type((...)) end

--- Refuses options that are not in `known`, by name.
function check.options(what, options, known)
  if options == nil then return {} end
  if type(options) ~= "table" then
    check.misuse("%s: table of options expected, got %s", what, type(options))
  end
  for key in pairs(options) do
    if not known[key] then check.misuse("%s: unknown option '%s'", what, tostring(key)) end
  end
  return options
end

---@param most integer|nil the greatest that is taken
function check.count(what, value, default, most)
  if value == nil then return default end
  if math.type(value) ~= "integer" or value < 1 then
    check.misuse("%s: positive integer expected, got %s", what, tostring(value))
  end
  if most and value > most then
    check.misuse("%s: at most %d, got %d", what, most, value)
  end
  return value
end

--- The most loops, threads or child processes that one executor may be asked for.
check.MOST_WORKERS = 65536

--- Refuses what cannot be called: neither a function nor a value with `__call`.
function check.callable(what, value)
  if core.is_callable(value) then return end
  check.misuse("%s: function expected, got %s", what, type(value))
end

function check.executor(what, value)
  if not core.is_executor(value) then
    check.misuse("%s: executor expected, got %s", what, type(value))
  end
  return value
end

return check
