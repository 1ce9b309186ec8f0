--- Sessions: connections, cookies and defaults that requests share. A session is data around
--- a handle, so it crosses states: its copies have the connections and cookies in common.
---
---     local api <close> = http.session{ base_url = "https://example.com/v1/", timeout = 10 }
---     local res = assert(api:get("users", { query = { page = 2 } }))

local core = require "moonloop.http.core"
local check = require "moonloop.check"
local Cookies = require "moonloop.http.cookies"
local request = require "moonloop.http.request"
local lazy = require "moonloop.lazy"
local download = lazy "moonloop.http.download"
local events = lazy "moonloop.http.events"
local retry = lazy "moonloop.http.retry"
local websocket = require "moonloop.http.websocket"

---@class moonloop.http.Session
local Session = {}
Session.__index = Session

-- ---- making one ----

local limits = { "max_connections", "max_per_host", "max_host_streams" }
local LARGEST <const> = 0x7fffffff

-- What says what one request is cannot be a default.
local single = { url = true, method = true, body = true, json = true, form = true,
  multipart = true, session = true, range = true }

-- Options of the session itself, and the types of their values.
local own = {
  base_url = "string", headers = "table", cookies = "any", query = "table",
  on_request = "function", on_response = "function",
  max_connections = "limit", max_per_host = "limit", max_host_streams = "limit",
}

local function check_own(name, value)
  local wanted = own[name]
  if wanted == "limit" then
    if math.type(value) ~= "integer" or value < 1 or value > LARGEST then
      check.misuse("option '%s': positive integer expected, got %s", name, tostring(value))
    end
  elseif wanted ~= "any" and type(value) ~= wanted then
    check.misuse("option '%s': %s expected, got %s", name, wanted, type(value))
  end
end

local function check_option(name, value)
  if type(name) ~= "string" then
    check.misuse("the name of an option must be a string, got %s", type(name))
  end
  if own[name] then return check_own(name, value) end
  if single[name] then check.misuse("option '%s' is for one request", name) end
  local known, nearest = core.is_option(name)
  if not known then
    check.misuse("unknown option '%s': the nearest is '%s'", name, nearest)
  end
end

local function copy(from)
  local to = {}
  for key, value in pairs(from or {}) do to[key] = value end
  return to
end

-- A mistake in the defaults is one of the session's line, not of each request.
local function check_defaults(self)
  local any = copy(self.defaults)
  any.headers, any.url = self.headers, "http://localhost/"
  core.describe(nil, any)
end

---Makes a session.
---@param options table?  `base_url` `headers` `cookies` `query` `max_connections` `max_per_host`
---                       `max_host_streams` `on_request` `on_response`, and what a request takes
---@return moonloop.http.Session?
---@return table? err     the file of cookies cannot be read
function Session.new(options)
  if options ~= nil and type(options) ~= "table" then
    check.misuse("http.session: table of options expected, got %s", type(options))
  end
  options = options or {}
  local self = { defaults = {} }
  for name, value in pairs(options) do
    check_option(name, value)
    if not own[name] or name == "query" then self.defaults[name] = value end
  end
  if options.retries ~= nil then retry.policy(options.retries) end
  self.headers = copy(options.headers)
  check_defaults(self)
  self.base_url, self.on_request = options.base_url, options.on_request
  self.on_response = options.on_response
  if self.base_url then
    local base, why = core.join(self.base_url, self.base_url)
    if base and not base:lower():match "^https?://" then
      base, why = nil, "it must begin with http:// or https://"
    end
    if not base then check.misuse("option 'base_url': %s", why) end
  end
  local kept = options.cookies and Cookies.option(options.cookies)
  self.core = core.session(kept ~= nil and kept ~= false)
  self.core:limits(table.unpack({ options[limits[1]], options[limits[2]], options[limits[3]] },
    1, 3))
  if kept then
    local host = self.base_url and self.base_url:match "^%a+://([^/?#]*)"
    host = host and host:gsub("^.*@", ""):gsub(":%d*$", "")
    self.cookies = Cookies.new(self.core, host)
    self.cookies.file = kept.save or kept.file
    self.save = kept.save
    if kept.file then
      local ok, err = Cookies.load(self.core, kept.file)
      if not ok then return nil, err end
    end
  end
  return setmetatable(self, Session)
end

-- ---- requests ----

-- What goes to the host that the session is for, and to no other that a URL names.
local private = { authorization = true, cookie = true }

-- The session's headers under the request's, which win in any case of letters.
local function merge_headers(defaults, headers, at_home)
  local merged, given = {}, {}
  if type(headers) == "table" then
    for name, value in pairs(headers) do
      merged[name] = value or nil -- `false` takes a default away
      if type(name) == "string" then given[name:lower()] = true end
    end
  elseif headers ~= nil then
    check.misuse("option 'headers': table expected, got %s", type(headers))
  end
  for name, value in pairs(defaults) do
    local key = tostring(name):lower()
    if not given[key] and (at_home or not private[key]) then merged[name] = value end
  end
  return merged
end

-- The whole URL, and whether it is of the host that the session is for; or nil and an error.
local function locate(self, url)
  if not self.base_url then return url, true end
  local joined, detail = core.join(self.base_url, url == "" and self.base_url or url)
  if joined then return joined, detail end
  return nil, request.error("url", ("%s: %s"):format(url:match "^[^?#]*", detail))
end

---The request that a call stands for: the session's defaults and the call's own options in one
---table, as `http.request` takes it; or nil and an error with the code "url".
---@param url string
---@param options table?
---@return table? req
---@return table? err
function Session:prepare(url, options)
  local full, at_home = locate(self, url)
  if not full then return nil, at_home end
  local req = copy(self.defaults)
  if not at_home then req.auth = nil end
  for name, value in pairs(options or {}) do req[name] = value end
  local defaults = self.defaults.query
  if defaults and type(req.query) == "table" and req.query ~= defaults then
    local query = copy(defaults)
    for name, value in pairs(req.query) do query[name] = value end
    req.query = query
  end
  req.headers = merge_headers(self.headers, options and options.headers, at_home)
  req.url, req.session = full, self.core
  return req
end

local function check_arguments(name, url, options)
  if type(url) ~= "string" then
    check.misuse("bad argument #1 to '%s' (string expected, got %s)", name, type(url))
  elseif options ~= nil and type(options) ~= "table" then
    check.misuse("bad argument #2 to '%s' (table expected, got %s)", name, type(options))
  end
end

local function check_response(hook, res)
  if res ~= nil and type(res) ~= "table" then
    error(hook .. " must return nothing or a response, got " .. type(res), 0)
  end
end

local function answered(self, req, res, err)
  if not res or not self.on_response then return res, err end
  local other, why = self.on_response(res, req)
  check_response("on_response", other)
  if why ~= nil then return nil, why end
  return other or res
end

-- Asks the hooks, which run here, in the caller, and may wait.
local function perform(self, req)
  if self.on_request then
    local res, err = self.on_request(req)
    check_response("on_request", res)
    if err ~= nil then return nil, err end
    if res then return answered(self, req, res) end
  end
  if not self.on_response then return request.perform(req) end
  return answered(self, req, request.perform(req))
end

for _, verb in ipairs { "get", "post", "put", "patch", "delete", "head", "options" } do
  local method = verb:upper()
  Session[verb] = function(self, url, options)
    check_arguments(verb, url, options)
    for _, name in ipairs { "method", "url" } do
      if options and options[name] ~= nil then
        check.misuse("option '%s' is for session:request", name)
      end
    end
    local req, err = self:prepare(url, options)
    if not req then return nil, err end
    req.method = method
    return perform(self, req)
  end
end

---Any method: `session:request(url, { method = ... })` or `session:request{ url = ... }`.
---@param url string|table
---@param options table?
---@return moonloop.http.Response? res
---@return table? err
function Session:request(url, options)
  if type(url) == "table" then
    url, options = url.url, url
    if url == nil then check.misuse "option 'url' is missing" end
  elseif options and options.url ~= nil then
    check.misuse "option 'url' is given besides the argument"
  end
  check_arguments("request", url, options)
  local req, err = self:prepare(url, options)
  if not req then return nil, err end
  req.method = (req.method or "GET"):upper()
  return perform(self, req)
end

---As `http.websocket`, with those of the session's defaults that are for one. It has a
---connection of its own, which the session's end leaves alone; cookies are not sent.
---@param url string      ws:// or wss://, or as for a request
---@param options table?
---@return moonloop.http.WebSocket?
---@return table? err
function Session:websocket(url, options)
  check_arguments("websocket", url, options)
  local req, err = self:prepare(url:gsub("^[wW][sS]([sS]?:)", "http%1"), options)
  if not req then return nil, err end
  local wanted = {}
  for name in pairs(options or {}) do wanted[name] = req[name] end
  for name in pairs(websocket.of_request) do wanted[name] = req[name] end
  return websocket.open(req.url, wanted)
end

---As `http.events`.
function Session:events(url, options)
  return events.connect(function(...) return self:get(...) end, url, options)
end

---As `http.download`.
function Session:download(url, path, options)
  return download.download(function(...) return self:get(...) end, url, path, options)
end

-- ---- the session itself ----

---Counts, over all loops: `requests` begun so far; connections `made`, and how often one was
---`reused`; requests that have a connection (`in_use`) or wait for one (`queued`) now; and
---`connections` that are open now.
---@return table
function Session:stats() return self.core:stats() end

---@return boolean
function Session:closed() return self.core:closed() end

---Ends it for good, for all states: connections are closed, requests in flight end with the
---code "closed", later ones too. Cookies are saved if `cookies.save` said so. Again: nothing.
---@return true?
---@return table? err  the cookies cannot be saved
function Session:close()
  if self.core:close() and self.save then return self.cookies:save(self.save) end
  return true
end

function Session:__close() self:close() end

function Session:__tostring()
  return ("http session: %s%s"):format(self.base_url or "no base_url",
    self:closed() and " (closed)" or "")
end

return Session
