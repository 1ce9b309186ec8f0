-- Asks two upstreams at once: it takes as long as the slower one.
local ml = require "moonloop"
local http = require "moonloop.http"

local UPSTREAM <const> = os.getenv "UPSTREAM"

return function(query)
  local quote = ml.spawn(http.get, UPSTREAM .. "/quote", { timeout = 4 })
  local news = ml.spawn(http.get, UPSTREAM .. "/news", { timeout = 4 })
  return ("%s: %s%s"):format(query.name or "world",
    assert(quote:result()).body, assert(news:result()).body)
end
