--- What the functions of `moonloop.http` and the methods of sessions end in: one request
--- as a table of URL, method and options.

local core = require "moonloop.http.core"
local ml_core = require "moonloop.core"
local retry = require "moonloop.lazy" "moonloop.http.retry"

local request = { error = ml_core.error_value }

--- One attempt.
---@param req table
---@return moonloop.http.Response? res
---@return table? err
function request.once(req) return core.request(req) end

--- All attempts.
---@param req table
---@return moonloop.http.Response? res
---@return table? err
function request.perform(req)
  if req.retries ~= nil then return retry.perform(req, request.once) end
  return request.once(req)
end

--- Whether these options ask for more than one operation on the loop.
---@param options any
---@return boolean
function request.is_long(options)
  return type(options) == "table" and options.retries ~= nil
end

return request
