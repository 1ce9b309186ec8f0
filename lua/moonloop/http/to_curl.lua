--- `http.to_curl`: a request as the command line of curl, to look at or to try it in a shell.

local core = require "moonloop.http.core"
local check = require "moonloop.check"
local multipart = require "moonloop.http.multipart"
local to_curl = {}

-- One word of a POSIX shell.
local function quote(text)
  if text:find "^[%w_./:=@%%+,-]+$" then return text end
  return "'" .. text:gsub("'", [['\'']]) .. "'"
end

-- Without secrets -----------------------------------------------------------

local STARS <const> = "***"

-- A text that is secret as a whole, if secrets are not to be shown.
local function hide(self, text) return self.secrets and text or STARS end

local function mask_text(self, text) return self.secrets and text or core.mask_text(text) end

local function mask_line(self, line) return self.secrets and line or core.mask_line(line) end

-- Strings in JSON whose names sound like a secret.
local function mask_json(text)
  return (text:gsub('("([^"\\]*)"%s*:%s*)"([^"\\]*)"', function(head, name)
    return core.is_secret(name) and head .. '"' .. STARS .. '"' or nil
  end))
end

-- Parts of the command ------------------------------------------------------

local function add(self, ...)
  for _, word in ipairs { ... } do self[#self + 1] = quote(tostring(word)) end
end

local function add_method(self, req, has_body)
  local method = req.method
  if method == "HEAD" and not has_body then return add(self, "--head") end
  if method ~= (has_body and "POST" or "GET") then add(self, "--request", method) end
end

-- "Name:" keeps curl from adding a header of its own.
local function add_headers(self, req, has_type)
  local given = {}
  for _, line in ipairs(req.headers) do
    local name = line:match "^[^:;]*"
    given[name:lower()] = true
    add(self, "--header", mask_line(self, line))
  end
  if not given.accept then add(self, "--header", "Accept:") end
  if not given["content-type"] and not has_type then add(self, "--header", "Content-Type:") end
  if not given["user-agent"] then add(self, "--user-agent", core.user_agent) end
end

-- What a shell cannot hold in a word goes through a pipe.
local function add_body(self, req)
  local body = req.body
  if not body then return end
  if not self.secrets then
    local type = ""
    for _, line in ipairs(req.headers) do
      type = line:lower():match "^content%-type:%s*(.*)" or type
    end
    if type:find("json", 1, true) then body = mask_json(body) end
    if type:find("x-www-form-urlencoded", 1, true) then body = core.mask_text(body) end
  end
  if not body:find "\0" then return add(self, "--data-raw", body) end
  self.pipe = "printf '" .. body:gsub("[^%w ]", function(c)
    return ("\\%03o"):format(c:byte())
  end) .. "' | "
  add(self, "--data-binary", "@-")
end

local function form_quote(text) return '"' .. text:gsub('[\\"]', "\\%0") .. '"' end

local function add_part(self, part)
  local word = part.name .. "="
  if part.file then
    word = word .. "@" .. form_quote(part.file)
  else
    word = word .. form_quote(core.is_secret(part.name) and hide(self, part.data) or part.data)
  end
  if part.filename then word = word .. ";filename=" .. form_quote(part.filename) end
  if part.type then word = word .. ";type=" .. part.type end
  add(self, "--form", word)
end

local function add_auth(self, auth)
  if not auth then return end
  if auth.bearer then add(self, "--oauth2-bearer", hide(self, auth.bearer)) end
  if auth.netrc == true then add(self, "--netrc-optional") end
  if type(auth.netrc) == "string" then
    add(self, "--netrc-optional", "--netrc-file", auth.netrc)
  end
  if auth[1] then
    if auth.type == "digest" then add(self, "--digest") end
    add(self, "--user", auth[1] .. ":" .. hide(self, auth[2]))
  end
end

local function add_proxy(self, proxy)
  if proxy == nil then return end
  if proxy == false then return add(self, "--noproxy", "*") end
  if type(proxy) == "string" then proxy = { url = proxy } end
  if proxy.url then add(self, "--proxy", mask_text(self, proxy.url)) end
  if proxy.user then
    add(self, "--proxy-user", proxy.user .. ":" .. hide(self, proxy.password))
  end
  local hosts = proxy.no_proxy
  if type(hosts) == "table" then hosts = table.concat(hosts, ",") end
  if hosts then add(self, "--noproxy", hosts) end
  local tls = proxy.tls or {}
  if tls.verify == false then add(self, "--proxy-insecure") end
  if tls.ca then add(self, "--proxy-cacert", tls.ca) end
end

local function add_tls(self, tls)
  if not tls then return end
  if tls.verify == false then add(self, "--insecure") end
  if tls.ca then add(self, core.is_directory(tls.ca) and "--capath" or "--cacert", tls.ca) end
  if tls.cert then add(self, "--cert", tls.cert) end
  if tls.key then add(self, "--key", tls.key) end
  if tls.key_password then add(self, "--pass", hide(self, tls.key_password)) end
  if tls.pinned then add(self, "--pinnedpubkey", tls.pinned) end
  if tls.min_version then add(self, "--tlsv" .. tls.min_version) end
end

-- Names before wildcards: the first that fits counts.
local function add_resolve(self, resolve)
  local keys = {}
  for key in pairs(resolve or {}) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b)
    local x, y = a:find("*", 1, true) ~= nil, b:find("*", 1, true) ~= nil
    if x ~= y then return y end
    return a < b
  end)
  for _, key in ipairs(keys) do
    local host, port = key:match "^(.*):([^:]*)$"
    local address = resolve[key]
    if address:find(":", 1, true) then address = "[" .. address .. "]" end
    if host == "*" then host = "" end
    if port == "*" then port = "" end
    add(self, "--connect-to", ("%s:%s:%s:"):format(host, port, address))
  end
end

local versions = { ["1.1"] = "--http1.1", ["2"] = "--http2",
  ["2-prior-knowledge"] = "--http2-prior-knowledge" }

local function number(value) return (("%.3f"):format(value):gsub("%.?0+$", "")) end

local function add_limits(self, options)
  if options.follow ~= false then
    add(self, "--location", "--max-redirs", options.max_redirects or 10)
  end
  if options.compressed ~= false and not options.range then add(self, "--compressed") end
  if options.timeout and options.timeout < 2e6 then
    add(self, "--max-time", number(options.timeout))
  end
  local connect = options.connect_timeout or 30
  if connect < 2e6 then add(self, "--connect-timeout", number(connect)) end
  if options.max_body then add(self, "--max-filesize", options.max_body) end
  local stall = options.stall
  if type(stall) == "number" then stall = { 1, stall } end
  if stall and stall[2] < 2e6 then
    add(self, "--speed-limit", math.ceil(stall[1]), "--speed-time", math.ceil(stall[2]))
  end
  if type(options.expect) == "number" then
    add(self, "--expect100-timeout", number(options.expect))
  end
  if options.http_version then add(self, versions[options.http_version]) end
  if options.interface then add(self, "--interface", options.interface) end
  if options.unix_socket then add(self, "--unix-socket", options.unix_socket) end
end

local function add_bodies(self, req, options)
  if options.multipart then
    for _, part in ipairs(multipart.parts(options.multipart)) do add_part(self, part) end
  elseif type(options.body) == "table" and options.body.file then
    add(self, "--data-binary", "@" .. options.body.file)
  elseif options.body ~= nil and type(options.body) ~= "string" then
    add(self, "--data-binary", "@-") -- what it gives, on standard input
  else
    add_body(self, req)
  end
end

-- These say how long their body is, also if there is none.
local always_body = { POST = true, PUT = true, PATCH = true }

local function command(req, options, secrets)
  local self = { secrets = secrets, pipe = "" }
  local has_body = req.body ~= nil or options.multipart ~= nil or options.body ~= nil
  if not has_body and always_body[req.method] then req.body, has_body = "", true end
  add(self, "curl", "--silent", "--show-error")
  if req.url:find "[][{}]" then add(self, "--globoff") end
  add_method(self, req, has_body)
  add_limits(self, options)
  add_auth(self, options.auth)
  add_proxy(self, options.proxy)
  add_tls(self, options.tls)
  add_resolve(self, options.resolve)
  add_headers(self, req, not has_body or options.multipart ~= nil)
  add_bodies(self, req, options)
  add(self, mask_text(self, req.url))
  return self.pipe .. table.concat(self, " ")
end

---The command line of curl that sends this request as `http.request` would: for a POSIX shell,
---all words quoted. Secrets are "***" unless asked for: in credentials, in cookies, in URLs, in
---headers and in fields of forms and JSON by their names. Nothing is sent.
---@param req string|moonloop.http.Options  a URL, with the options next; or all in one table
---@param options table?   the request's options; or, after a table, `{ secrets = true }`
---@param how table?       `{ secrets = true }`
---@return string
function to_curl.command(req, options, how)
  if type(req) == "table" then req, options, how = nil, req, options end
  if options == nil and type(req) ~= "string" then
    check.misuse("to_curl: URL or table of options expected, got %s", type(req))
  end
  how = check.options("to_curl", how, { secrets = true })
  if how.secrets ~= nil and type(how.secrets) ~= "boolean" then
    check.misuse("to_curl: option 'secrets': boolean expected, got %s", type(how.secrets))
  end
  return command(core.describe(req, options), options or {}, how.secrets == true)
end

return to_curl
