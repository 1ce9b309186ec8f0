-- A spec whose tests wait, against a server that is made for them. Run it with
--   busted --lua=lua5.4 --helper=moonloop.busted --Xhelper timeout=5 examples/testing

local testing = require "moonloop.testing"
local weather = require "examples.testing.weather"

describe("the weather", function()
  local server, gate
  local asked = 0

  before_each(function()
    asked, gate = 0, testing.gate()
    server = testing.http_server{
      ["/weather/Oslo"] = "rain",
      ["/weather/Rome"] = function()
        asked = asked + 1
        return asked == 1 and { status = 503 } or "sun"
      end,
      ["/weather/Bern"] = function() gate:pass() return "fog" end,
      ["/weather/Cork"] = function() gate:open() return "wind" end,
    }
  end)

  -- Without it the helper would say what was left open.
  after_each(function() server:close() end)

  it("is fetched from the server", function()
    assert.equal("rain", weather.of(server.url, "Oslo"))
    assert.equal("/weather/Oslo", server:request().path)
  end)

  it("is asked for twice of a busy server", function()
    assert.equal("sun", weather.of(server.url, "Rome"))
    assert.equal(2, server:unread())
  end)

  it("comes for all towns at once", function()
    -- Bern's answer waits for Cork's question: one after another this would never end.
    assert.same({ Bern = "fog", Cork = "wind" },
      weather.all(server.url, { "Bern", "Cork", "Nowhere" }))
  end)
end)
