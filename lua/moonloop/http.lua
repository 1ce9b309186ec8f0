--- HTTP for jobs and threads alike: in a job a request parks the job, elsewhere
--- it blocks the calling thread. See docs/http.md.
---
---     local http = require "moonloop.http"
---     local res = assert(http.get("https://example.com/", { timeout = 5 }))
---     print(res.status, res.headers["Content-Type"], #res.body)

require "moonloop"
local core = require "moonloop.http.core"
local stream = require "moonloop.http.stream"
local websocket = require "moonloop.http.websocket"
require "moonloop.http.exchange"
local check = require "moonloop.check"
local request = require "moonloop.http.request"
local Session = require "moonloop.http.session"
local lazy = require "moonloop.lazy"
local download = lazy "moonloop.http.download"
local events = lazy "moonloop.http.events"
local curl = lazy "moonloop.http.to_curl"

-- The types are in library/moonloop/http.lua.

---@alias moonloop.http.verb
---| fun(url: string, options: moonloop.http.Options?): moonloop.http.Response?, table?

-- One table of it all.
local function complete(url, options, method)
  local req = {}
  for name, value in pairs(options) do req[name] = value end
  req.url, req.method = url, method
  return req
end

-- The verb as a function: in most cases one operation in C, and nothing besides.
local function verb(name)
  local plain, method = core[name], name:upper()
  return function(url, options)
    if type(url) ~= "string" or not request.is_long(options) then return plain(url, options) end
    if options.method ~= nil then check.misuse "option 'method' is for http.request" end
    if options.url ~= nil then check.misuse "option 'url' is for http.request" end
    return request.perform(complete(url, options, method))
  end
end

local http = {
  get = verb "get", ---@type moonloop.http.verb
  post = verb "post", ---@type moonloop.http.verb
  put = verb "put", ---@type moonloop.http.verb
  patch = verb "patch", ---@type moonloop.http.verb
  delete = verb "delete", ---@type moonloop.http.verb
  head = verb "head", ---@type moonloop.http.verb
  options = verb "options", ---@type moonloop.http.verb

  session = Session.new,
  websocket = websocket.open,

  -- The metatables: they let responses and sessions cross states.
  Response = core.Response,
  Headers = core.Headers,

  -- The metatable of responses that stream.
  Stream = stream.Stream,
  Session = Session,
  Cookies = require "moonloop.http.cookies",
}

---Any method: `request(url, options)` or `request{ url = ..., method = ..., ... }`.
---@param url string|moonloop.http.Options
---@param options moonloop.http.Options?
---@return moonloop.http.Response? res
---@return table? err
function http.request(url, options)
  if type(url) == "table" then
    if request.is_long(url) then return request.perform(url) end
  elseif type(url) == "string" and request.is_long(options) then
    if options.url ~= nil then check.misuse "option 'url' is given besides the argument" end
    return request.perform(complete(url, options, options.method))
  end
  return core.request(url, options)
end

---The request as a command line of curl. Nothing is sent.
---@param req string|moonloop.http.Options  a URL, with the options next; or all in one table
---@param options table?   the request's options; or, after a table, `{ secrets = true }`
---@param how table?       `{ secrets = true }`
---@return string
function http.to_curl(req, options, how) return curl.command(req, options, how) end

---Connects to a source of server-sent events.
---@param url string
---@param options moonloop.http.Options|moonloop.http.EventsOptions|nil
---@return moonloop.http.Events? events  callable, for `for`, and <close>
---@return table? err
function http.events(url, options) return events.connect(http.get, url, options) end

---Downloads into a file, which is there when this returns, whole and on the disk, or not at all.
---@param url string
---@param path string
---@param options moonloop.http.Options|moonloop.http.DownloadOptions|nil
---@return moonloop.http.Stream? res  with `path`, `size` and `resumed`
---@return table? err
function http.download(url, path, options)
  return download.download(http.get, url, path, options)
end

local limit_names = { max_connections = true, max_per_host = true, max_host_streams = true }

---The limits of the plain functions: of each loop, for http:// and https:// each. Sets those
---that are given, for requests that begin from now on in this process.
---@param limits table?  `max_connections` `max_per_host` `max_host_streams`; 0: the default
---@return table limits  those that are set now
function http.limits(limits)
  limits = check.options("http.limits", limits, limit_names)
  local plain = core.default_session()
  local now = table.pack(plain:limits())
  local names = { "max_connections", "max_per_host", "max_host_streams" }
  local set = {}
  for i, name in ipairs(names) do
    local value = limits[name]
    if value == 0 then
      now[i] = nil
    elseif value ~= nil then
      now[i] = check.count("http.limits: '" .. name .. "'", value)
    end
    set[name] = now[i]
  end
  if next(limits) ~= nil then plain:limits(now[1], now[2], now[3]) end
  return set
end

---The counts of the plain functions, as `session:stats()` gives those of a session.
---@return table
function http.stats() return core.default_session():stats() end

return http
