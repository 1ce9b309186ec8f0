-- A real Redis on a free port of 127.0.0.1, without files, for specs.
--
--   local srv <close> = redis.start()
--   srv.port
--   srv:stop()

local process = require "spec.support.process"

local redis = {}
local Server = process.class()

---Starts a server; raises if it will not start.
---@return table server
function redis.start()
  local program = process.find("redis-server", "redis-server")
  return process.start(setmetatable({}, Server), "redis-server", function(self)
    self.port = process.free_port()
    return ("%s --port %d --bind 127.0.0.1 --save '' --appendonly no"):format(
      process.quote(program), self.port), process.listens(self.port)
  end)
end

return redis
