-- TLS in front of a server that has none: makes an https proxy of a plain one.
--
--   local front <close> = tls_front.start(via.port)
--   front.url   "https://127.0.0.1:23456"
--   front.ca    path of the certificate to trust for it

local certificates = require "spec.support.certificates"
local process = require "spec.support.process"

local tls_front = {}

local Server = process.class()

---@param to integer  the port of the server behind it
---@return table server
function tls_front.start(to)
  local script = assert(package.searchpath("spec.support.tls_front", package.path))
  local path = process.capture("realpath " .. process.quote((script:gsub("lua$", "py"))))
  local self = process.start(setmetatable({}, Server), "tls_front.py", function(self)
    if not self.ca then
      certificates.make(self.dir)
      self.ca = self.dir .. "/ca.pem"
    end
    self.port = process.free_port()
    return ("%s %s %d %d"):format(process.python(), process.quote(path), self.port, to),
      process.listens(self.port)
  end)
  self.url = "https://127.0.0.1:" .. self.port
  return self
end

return tls_front
