-- microsocks, a SOCKS5 proxy, with and without a password.
--
--   local via <close> = socks.start { user = "me", password = "secret" }
--   via.url       "socks5://127.0.0.1:23456", what the option `proxy` takes
--   via.remote_url   the same with socks5h: the proxy looks up the names
--   via.auth_url  with user and password in it
--   via:requests()   where it was asked to connect to: { "127.0.0.1:443" }

local process = require "spec.support.process"

local socks = {}

local Server = process.class()

---@class SocksOptions
---@field user? string      asks for this user and
---@field password? string  this password

---@param opts? SocksOptions
---@return table server
function socks.start(opts)
  opts = opts or {}
  local program = process.find("microsocks", "microsocks")
  local self = process.start(setmetatable({}, Server), "microsocks", function(self)
    self.port = process.free_port()
    local auth = opts.user
      and (" -u %s -P %s"):format(process.quote(opts.user), process.quote(opts.password)) or ""
    return process.quote(program) .. " -i 127.0.0.1 -p " .. self.port .. auth,
      process.listens(self.port)
  end)
  local host = "127.0.0.1:" .. self.port
  self.url = "socks5://" .. host
  self.remote_url = "socks5h://" .. host
  self.auth_url = opts.user and ("socks5://%s:%s@%s"):format(opts.user, opts.password, host)
  return self
end

---Where it was asked to connect to, in order.
---@return string[]
function Server:requests()
  local list = {}
  for target in self:log():gmatch "connected to (%S+)" do
    list[#list + 1] = target
  end
  return list
end

return socks
