--- The cookies of a session: `session.cookies`. libcurl keeps them, for all loops; here
--- they are read and written in the form that it gives, lines of Netscape's cookie files.

local ml_core = require "moonloop.core"
local check = require "moonloop.check"

---@class moonloop.http.Cookies
local Cookies = {}
Cookies.__index = Cookies

local PATTERN <const> = ("([^\t]*)\t"):rep(6) .. "(.*)"

local function parse(line)
  local http_only = line:match "^#HttpOnly_()"
  local domain, subdomains, path, secure, expires, name, value =
    line:sub(http_only or 1):match(PATTERN)
  if not domain then return nil end
  expires = math.tointeger(tonumber(expires))
  return {
    name = name, value = value, path = path,
    domain = (domain:gsub("^%.", "")),
    subdomains = subdomains == "TRUE", secure = secure == "TRUE",
    http_only = http_only ~= nil,
    expires = expires ~= 0 and expires or nil,
  }
end

local function matches(cookie, name, domain)
  return (not name or cookie.name == name)
    and (not domain or cookie.domain:lower() == domain:lower())
end

--- The session's cookies, with `core` their keeper and `host` the default domain.
function Cookies.new(keeper, host)
  return setmetatable({ core = keeper, host = host }, Cookies)
end

--- All that are kept, or those of one domain.
---@param domain string?
---@return moonloop.http.Cookie[]
function Cookies:list(domain)
  local list = {}
  for _, line in ipairs(self.core:lines()) do
    local cookie = parse(line)
    if cookie and matches(cookie, nil, domain) then list[#list + 1] = cookie end
  end
  return list
end

--- The value of the first of that name, and all about it.
---@param name string
---@param domain string?
---@return string?
---@return moonloop.http.Cookie?
function Cookies:get(name, domain)
  if type(name) ~= "string" then
    check.misuse("cookies:get: name expected, got %s", type(name))
  end
  for _, cookie in ipairs(self:list()) do
    if matches(cookie, name, domain) then return cookie.value, cookie end
  end
  return nil
end

-- A text that can stand in a line.
local function check_text(what, value, empty)
  if type(value) ~= "string" then
    check.misuse("cookies:set: %s: string expected, got %s", what, type(value))
  end
  if value:find "[%c]" or value == "" and not empty then
    check.misuse("cookies:set: %s: no control characters%s allowed", what,
      empty and "" or ", nor an empty text,")
  end
  return value
end

local known = { domain = true, subdomains = true, path = true, secure = true, http_only = true,
  expires = true }

local function flag(value) return value and "TRUE" or "FALSE" end

--- Puts a cookie, in place of one of the same name, domain and path.
---@param name string
---@param value string
---@param options table?  fields of moonloop.http.Cookie; `domain` defaults to the host of the
---                       session's base_url, `path` to "/"
---@return true?
---@return table? err  code "cookie": libcurl does not take it (a "secure" name, its length, ...)
function Cookies:set(name, value, options)
  options = check.options("cookies:set", options, known)
  local domain = options.domain or self.host
  if not domain then check.misuse "cookies:set: option 'domain' is missing" end
  check_text("domain", domain)
  check_text("name", name)
  check_text("value", value, true)
  -- In a header these would end it, and begin another one.
  if name:find "[;=]" then check.misuse "cookies:set: name: neither ';' nor '=' allowed" end
  if value:find ";" then check.misuse "cookies:set: value: no ';' allowed" end
  local path = check_text("option 'path'", options.path or "/")
  local expires = options.expires or 0
  if math.type(expires) ~= "integer" or expires < 0 then
    check.misuse("cookies:set: option 'expires': integer, seconds since 1970, expected, got %s",
      tostring(expires))
  end
  self.core:put(table.concat({
    (options.http_only and "#HttpOnly_" or "") .. (options.subdomains and "." or "") .. domain,
    flag(options.subdomains), path, flag(options.secure), tostring(expires), name, value,
  }, "\t"))
  if expires ~= 0 and expires <= os.time() then return true end -- that removes it
  for _, cookie in ipairs(self:list(domain)) do
    if cookie.name == name and cookie.value == value then return true end
  end
  return nil, ml_core.error_value("cookie", ("the cookie '%s' is not one to keep"):format(name))
end

--- Removes all; or those of one domain, or of one domain and name.
---@param domain string?
---@param name string?
function Cookies:clear(domain, name)
  if domain == nil and name == nil then
    self.core:clear()
    return
  end
  for _, cookie in ipairs(self:list(domain)) do
    if matches(cookie, name, domain) then
      self.core:put(table.concat({
        (cookie.subdomains and "." or "") .. cookie.domain, flag(cookie.subdomains), cookie.path,
        flag(cookie.secure), "1", cookie.name, "",
      }, "\t"))
    end
  end
end

--- Writes them to a file, at once, readable for its owner only. Blocks for as long as that takes.
---@param path string?  default: the session's file
---@return true?
---@return table? err
function Cookies:save(path)
  path = path or self.file
  if type(path) ~= "string" then
    check.misuse("cookies:save: path expected, got %s", type(path))
  end
  return self.core:save(path)
end

function Cookies:__tostring() return ("cookies: %d"):format(#self:list()) end

-- What a session's option `cookies` means: file and where to save, or misuse.
function Cookies.option(value)
  if value == true then return {} end
  if type(value) == "string" then return { file = value } end
  if type(value) ~= "table" then
    check.misuse("option 'cookies': true, a path or a table expected, got %s", type(value))
  end
  for key in pairs(value) do
    if key ~= "file" and key ~= "save" then
      check.misuse("unknown option 'cookies.%s'", tostring(key))
    end
  end
  local file, save = value.file, value.save
  if file ~= nil and type(file) ~= "string" then
    check.misuse("option 'cookies.file': path expected, got %s", type(file))
  end
  if save == true then save = file end
  if save and type(save) ~= "string" or save == nil and value.save then
    check.misuse("option 'cookies.save': a path, or true with 'cookies.file', expected, got %s",
      tostring(value.save))
  end
  return { file = file, save = save or nil }
end

--- Reads a file's cookies into a session. A file that is not there has none.
---@return true?
---@return table? err
function Cookies.load(keeper, path)
  local file, why, number = io.open(path)
  local ok = file
  if file then -- a folder can be opened, but not read
    ok, why, number = file:read(0)
    if not number then ok = true end
    file:close()
  end
  if not ok and number ~= 2 then
    return nil, ml_core.error_value("file",
      ("cannot read the cookies from %s: %s"):format(path, tostring(why)))
  end
  if file then keeper:load(path) end
  return true
end

return Cookies
