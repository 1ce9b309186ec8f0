-- tinyproxy, an HTTP proxy, with and without a password.
--
--   local via <close> = proxy.start { user = "me", password = "secret" }
--   via.url      "http://127.0.0.1:23456", what the option `proxy` takes
--   via.auth_url the same with user and password in it
--   via:requests()   what it was asked for: { "CONNECT 127.0.0.1:443", "GET http://..." }

local process = require "spec.support.process"

local proxy = {}

local Server = process.class()

---@class ProxyOptions
---@field user? string      asks for this user and
---@field password? string  this password

---@param opts? ProxyOptions
---@return table server
function proxy.start(opts)
  opts = opts or {}
  local program = process.find("tinyproxy", "tinyproxy-bin")
  local self = process.start(setmetatable({}, Server), "tinyproxy", function(self)
    self.port = process.free_port()
    process.write_file(self.dir .. "/proxy.conf", table.concat({
      "Port " .. self.port,
      "Listen 127.0.0.1",
      "Allow 127.0.0.1",
      "Timeout 60",
      "MaxClients 200",
      "LogLevel Connect",
      opts.user and ("BasicAuth %s %s"):format(opts.user, opts.password) or "",
    }, "\n") .. "\n")
    return process.quote(program) .. " -d -c proxy.conf", process.listens(self.port)
  end)
  local host = "127.0.0.1:" .. self.port
  self.url = "http://" .. host
  self.auth_url = opts.user and ("http://%s:%s@%s"):format(opts.user, opts.password, host)
  return self
end

---What the proxy was asked for, in order.
---@return string[]
function Server:requests()
  local list = {}
  for method, target in self:log():gmatch "Request %b(): (%u+) (%S+) HTTP" do
    list[#list + 1] = method .. " " .. target
  end
  return list
end

return proxy
