-- httpbin, under gunicorn: an HTTP/1.1 server that says what it was sent.
--
--   local srv <close> = httpbin.start()
--   srv.url     "http://127.0.0.1:23456"
--
-- Its paths are those of httpbin.org: /get /post /put, /anything, /basic-auth/USER/PASSWORD,
-- /digest-auth/auth/USER/PASSWORD, /bearer, /cookies, /cookies/set?a=b, /redirect/N, /status/N,
-- /delay/N, /drip, /stream/N, /stream-bytes/N, /bytes/N, /range/N, /gzip, /deflate, /brotli,
-- /etag/TAG, /response-headers?Name=value, ...

local process = require "spec.support.process"

local httpbin = {}

local Server = process.class()

---Starts a server; raises if it will not start.
---@return table server
function httpbin.start()
  local gunicorn = process.find("gunicorn", "gunicorn")
  if not os.execute(process.python() .. " -c 'import httpbin' 2>/dev/null") then
    error("httpbin is missing: install the package python3-httpbin", 2)
  end
  local self = process.start(setmetatable({}, Server), "httpbin", function()
    return process.quote(gunicorn) .. " --bind 127.0.0.1:0 --preload --worker-class gthread"
      .. " --threads 32 --keep-alive 60 --graceful-timeout 1 --worker-tmp-dir . httpbin:app",
      "grep -q 'Booting worker' start.log"
  end)
  self.url = assert(self:log():match "Listening at: (http://[%d.:]+)", "gunicorn names no port")
  return self
end

return httpbin
