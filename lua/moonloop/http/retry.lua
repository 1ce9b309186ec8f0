--- Trying again: the option `retries`. It runs in the caller: what is waited between two
--- attempts is an ordinary `ml.sleep`, so a cancel or a scope's deadline ends it.

local core = require "moonloop.http.core"
local check = require "moonloop.check"
local ml = require "moonloop"

local retry = {}

local function set(list)
  local is = {}
  for _, value in ipairs(list) do is[value] = true end
  return is
end

local defaults = {
  backoff = 0.5,
  max_wait = 30,
  statuses = { 408, 429, 502, 503, 504 },
  methods = { "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE" },
  errors = { "resolve", "refused", "connect", "closed", "timeout", "stall" },
}
local kinds = { statuses = "number", methods = "string", errors = "string" }
local known = { n = true, backoff = true, max_wait = true, statuses = true, methods = true,
  errors = true }

local function check_seconds(name, value)
  if type(value) ~= "number" or value < 0 or value ~= value then
    check.misuse("option 'retries.%s': a number of seconds that is not negative expected, got %s",
      name, tostring(value))
  end
  return value
end

local function check_list(name, list)
  if type(list) ~= "table" then
    check.misuse("option 'retries.%s': list expected, got %s", name, type(list))
  end
  for _, value in ipairs(list) do
    if type(value) ~= kinds[name] then
      check.misuse("option 'retries.%s': a list of %ss expected, got a %s in it", name,
        kinds[name], type(value))
    end
  end
  return set(list)
end

--- The option, checked and complete. Raises misuse at the user's line.
---@param value integer|moonloop.http.Retries
---@return table policy
function retry.policy(value)
  if type(value) == "number" then value = { n = value } end
  if type(value) ~= "table" then
    check.misuse("option 'retries': integer or table expected, got %s", type(value))
  end
  for name in pairs(value) do
    if not known[name] then check.misuse("unknown option 'retries.%s'", tostring(name)) end
  end
  local n = value.n
  if math.type(n) ~= "integer" or n < 0 then
    check.misuse("option 'retries.n': an integer that is not negative expected, got %s",
      tostring(n))
  end
  local policy = { n = n }
  for _, name in ipairs { "backoff", "max_wait" } do
    policy[name] = value[name] == nil and defaults[name] or check_seconds(name, value[name])
  end
  for name in pairs(kinds) do
    policy[name] = check_list(name, value[name] == nil and defaults[name] or value[name])
  end
  return policy
end

-- What a server asks for with Retry-After, in seconds, or nil.
local function asked_for(res)
  local text = res.headers["Retry-After"]
  if not text then return nil end
  local seconds = tonumber(text:match "^%d+$")
  if seconds then return seconds end
  local at = core.date(text)
  return at and math.max(0, at - os.time())
end

-- How long to wait before attempt `k` + 1; nil: the answer stands.
local function pause(policy, k, res, err)
  local wait = policy.backoff * 2.0 ^ (k - 1) * (0.5 + math.random())
  wait = math.min(wait, policy.max_wait)
  if err then return policy.errors[err.code] and wait or nil end
  if not policy.statuses[res.status] then return nil end
  local asked = asked_for(res)
  if not asked then return wait end
  if asked > policy.max_wait then return nil end
  return math.max(asked, wait)
end

-- What can be sent twice.
local function is_repeatable(body)
  return body == nil or type(body) == "string" or type(body) == "table" and body.file ~= nil
end

--- Performs the request, again and again by its `retries`.
---@param req table  URL, method and options; not changed
---@param once fun(req: table): table?, table?
---@return table? res  with `retries`, how often it was tried again
---@return table? err  likewise
function retry.perform(req, once)
  local policy = retry.policy(req.retries)
  local session = req.session
  local k = 0
  while true do
    local res, err = once(req)
    local answer = res or err
    answer.retries = k
    if k == policy.n or not policy.methods[(req.method or "GET"):upper()]
      or not is_repeatable(req.body) or session and session:closed() then
      return res, err
    end
    k = k + 1
    local wait = pause(policy, k, res, err)
    if not wait then return res, err end
    if res and res.close then res:close() end -- a stream: nobody will read it
    ml.sleep(wait)
  end
end

return retry
