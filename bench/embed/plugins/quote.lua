-- examples/embed/plugins/quote.lua with HTTP that blocks.
local client = require "bench.easy".new {}

local UPSTREAM <const> = os.getenv "UPSTREAM"

return function()
  local _, body = client:get(UPSTREAM .. "/quote")
  return body
end
