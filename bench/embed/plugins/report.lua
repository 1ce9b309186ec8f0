-- examples/embed/plugins/report.lua with HTTP that blocks: one upstream after the other.
local client = require "bench.easy".new {}

local UPSTREAM <const> = os.getenv "UPSTREAM"

return function(query)
  local _, quote = client:get(UPSTREAM .. "/quote")
  local _, news = client:get(UPSTREAM .. "/news")
  return ("%s: %s%s"):format(query.name or "world", quote, news)
end
