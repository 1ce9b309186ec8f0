-- Asks one upstream. The thread of this connection waits, no other does.
local http = require "moonloop.http"

local UPSTREAM <const> = os.getenv "UPSTREAM"

return function()
  return assert(http.get(UPSTREAM .. "/quote", { timeout = 4 })).body
end
