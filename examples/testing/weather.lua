-- What weather_spec.lua tests: asks a server for the weather of several towns at once.

local http = require "moonloop.http"
local ml = require "moonloop"
local weather = {}

--- The weather of one town, by the server at `url`; a busy server is asked twice.
function weather.of(url, town)
  local response, err
  for _ = 1, 2 do
    response, err = http.get(url .. "/weather/" .. town, { timeout = 5 })
    if not response or response.status ~= 503 then break end
  end
  if not response then return nil, err end
  if response.status ~= 200 then return nil, ("%s: status %d"):format(town, response.status) end
  return response.body
end

--- The weather of all of them, by town; towns without an answer are missing.
function weather.all(url, towns)
  local found = {}
  for town, text in ml.each(towns, function(town) return (weather.of(url, town)) end) do
    found[town] = text
  end
  return found
end

return weather
