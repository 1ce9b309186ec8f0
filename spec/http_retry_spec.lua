local ml = require "moonloop"
local http = require "moonloop.http"
local tcp = require "moonloop.tcp"
local h = require "spec.support.helpers"

-- A reply with that status and those header lines.
local function reply(status, ...)
  return ("HTTP/1.1 %d X\r\nContent-Length: 0\r\nConnection: close\r\n%s\r\n"):format(status,
    table.concat({ ... }, "\r\n") .. (... and "\r\n" or ""))
end

-- A server on the loop of the calling job that answers one request after the other with the
-- replies of that list; `false`: it closes the connection without one. The server's `heads`
-- are the requests' heads, and `times` when they came.
local function scripted(replies)
  local server = assert(tcp.listen("127.0.0.1", 0))
  local self = { url = "http://127.0.0.1:" .. server.port .. "/", heads = {}, times = {} }
  ml.spawn(function()
    for sock in server:accepted() do
      local head = sock:read_until("\r\n\r\n", { timeout = h.TIMEOUT })
      local n = #self.heads + 1
      self.heads[n], self.times[n] = head or "", ml.now()
      local text = replies[n]
      if text == nil then text = replies[#replies] end
      if text then sock:write(text, h.TIMEOUT) end
      sock:close()
    end
  end)
  return setmetatable(self, { __close = function() server:close() end })
end

local NOW <const> = { n = 3, backoff = 0 }

describe("the option retries", function()
  it("tries again after answers that say so, and only n times", function()
    ml.run(function()
      for status, tried in pairs{ [408] = 2, [429] = 2, [502] = 2, [503] = 2, [504] = 2,
                                  [500] = 0, [404] = 0, [301] = 0 } do
        local srv <close> = scripted{ reply(status), reply(status), reply(200) }
        local res = assert(http.get(srv.url, { retries = NOW }))
        assert.equal(tried, res.retries, status)
        assert.equal(tried == 2 and 200 or status, res.status)
        assert.equal(tried + 1, #srv.heads)
      end
      local srv <close> = scripted{ reply(503) }
      local res = assert(http.get(srv.url, { retries = NOW }))
      assert.equal(503, res.status)
      assert.equal(3, res.retries)
      assert.equal(4, #srv.heads)
      res = assert(http.get(srv.url, { retries = 0 }))
      assert.equal(0, res.retries)
    end)
  end)

  it("tries again after errors of the connection", function()
    ml.run(function()
      local srv <close> = scripted{ false, false, reply(200) }
      assert.equal(2, assert(http.get(srv.url, { retries = NOW })).retries)
      srv.heads = {}
      local res, err = http.get(srv.url, { retries = { n = 1, backoff = 0 } })
      assert.is_nil(res)
      assert.equal("closed", err.code)
      assert.equal(1, err.retries)
    end)
    local _, err = http.get("http://127.0.0.1:1/", { retries = NOW })
    assert.equal("refused", err.code)
    assert.equal(3, err.retries)
    _, err = http.get("ftp://127.0.0.1/", { retries = NOW })
    assert.equal("url", err.code)
    assert.equal(0, err.retries)
  end)

  it("is for methods that may come twice, or for those that are named", function()
    ml.run(function()
      for _, method in ipairs{ "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "POST",
                               "PATCH" } do
        local srv <close> = scripted{ reply(503), reply(200) }
        local res = assert(http.request{ url = srv.url, method = method, retries = NOW })
        local once = method == "POST" or method == "PATCH"
        assert.equal(once and 503 or 200, res.status, method)
      end
      local srv <close> = scripted{ reply(503), reply(200) }
      local res = assert(http.post(srv.url, { body = "twice",
        retries = { n = 1, backoff = 0, methods = { "POST" } } }))
      assert.equal(200, res.status)
      assert.matches("^POST ", srv.heads[2])
    end)
  end)

  it("takes other statuses and errors", function()
    ml.run(function()
      local policy = { n = 2, backoff = 0, statuses = { 404 }, errors = {} }
      local srv <close> = scripted{ reply(404), reply(503), false }
      local res = assert(http.get(srv.url, { retries = policy }))
      assert.equal(503, res.status)
      local _, err = http.get(srv.url, { retries = policy })
      assert.equal("closed", err.code)
      assert.equal(0, err.retries)
    end)
  end)

  it("leaves a body alone that cannot be had again", function()
    ml.run(function()
      local srv <close> = scripted{ reply(503), reply(200) }
      local sent = false
      local res = assert(http.put(srv.url, { retries = NOW, body = function()
        if sent then return nil end
        sent = true
        return "once"
      end }))
      assert.equal(503, res.status)
      assert.equal(1, #srv.heads)
    end)
  end)

  it("waits twice as long each time, more or less", function()
    ml.run(function()
      local srv <close> = scripted{ reply(503) }
      local start = ml.now()
      http.get(srv.url, { retries = { n = 3, backoff = 0.04 } })
      local first = srv.times[2] - srv.times[1]
      local third = srv.times[4] - srv.times[3]
      assert.is_true(first >= 0.02, first)
      assert.is_true(third >= 0.08, third)
      assert.is_true(ml.now() - start >= 0.14)
    end)
  end)

  it("goes by Retry-After, unless that is too long", function()
    ml.run(function()
      local srv <close> = scripted{ reply(503, "Retry-After: 1"), reply(200) }
      assert.equal(200, assert(http.get(srv.url, { retries = NOW })).status)
      assert.is_true(srv.times[2] - srv.times[1] >= 0.999)
      local long <close> = scripted{ reply(429, "Retry-After: 31"), reply(200) }
      assert.equal(429, assert(http.get(long.url, { retries = NOW })).status)
      local date = os.date("!%a, %d %b %Y %H:%M:%S GMT", os.time() - 10)
      local past <close> = scripted{ reply(503, "Retry-After: " .. date), reply(200) }
      assert.equal(200, assert(http.get(past.url, { retries = NOW })).status)
      date = os.date("!%a, %d %b %Y %H:%M:%S GMT", os.time() + 3600)
      local future <close> = scripted{ reply(503, "Retry-After: " .. date), reply(200) }
      assert.equal(503, assert(http.get(future.url, { retries = NOW })).status)
      local nonsense <close> = scripted{ reply(503, "Retry-After: soon"), reply(200) }
      assert.equal(200, assert(http.get(nonsense.url, { retries = NOW })).status)
    end)
  end)

  it("ends with a cancel or a deadline while it waits", function()
    ml.run(function()
      local srv <close> = scripted{ reply(503) }
      local start = ml.now()
      local ok, err = ml.move_on_after(0.05, http.get, srv.url,
        { retries = { n = 3, backoff = 20 } })
      assert.is_nil(ok)
      assert.equal("timeout", err.code)
      assert.is_true(ml.now() - start < 5)
    end)
  end)

  it("serves streams, and lets go of those that nobody reads", function()
    ml.run(function()
      local srv <close> = scripted{ reply(503), reply(503),
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello" }
      local res <close> = assert(http.get(srv.url, { stream = true, retries = NOW }))
      assert.equal(2, res.retries)
      assert.equal("hello", res:read(5))
    end)
  end)

  it("belongs to sessions, too; a closed one is not tried again", function()
    ml.run(function()
      local s <close> = http.session{ retries = NOW }
      local srv <close> = scripted{ reply(503), reply(200), false }
      assert.equal(1, assert(s:get(srv.url)).retries)
      local _, err = s:get("http://127.0.0.1:1/", { retries = 0 })
      assert.equal(0, err.retries)
      s:close()
      _, err = s:get(srv.url)
      assert.equal("closed", err.code)
      assert.equal(0, err.retries)
    end)
  end)

  it("works in a thread and in a job of the default executor", function()
    local function fetch()
      local _, err = require "moonloop.http".get("http://127.0.0.1:1/",
        { retries = { n = 2, backoff = 0 } })
      return err.code, err.retries
    end
    assert.same({ "refused", 2 }, { fetch() })
    assert.same({ "refused", 2 }, { ml.run_async_job(fetch):result(h.TIMEOUT) })
    local pool <close> = ml.ThreadExecutor{ workers = 1 }
    assert.same({ "refused", 2 }, { pool:submit(fetch):result(h.TIMEOUT) })
  end)

  it("does not change the options it is given", function()
    local options = { retries = { n = 1, backoff = 0 } }
    http.get("http://127.0.0.1:1/", options)
    assert.same({ retries = { n = 1, backoff = 0 } }, options)
  end)

  it("raises misuse at the caller's line", function()
    for _, case in ipairs{
      { "option 'retries': integer or table expected, got string", "3" },
      { "option 'retries.n': an integer that is not negative expected, got nil", {} },
      { "option 'retries.n': .* got %-1", -1 },
      { "option 'retries.n': .* got 1.5", 1.5 },
      { "unknown option 'retries.times'", { n = 1, times = 3 } },
      { "option 'retries.backoff': a number of seconds", { n = 1, backoff = -1 } },
      { "option 'retries.max_wait': a number of seconds", { n = 1, max_wait = 0 / 0 } },
      { "option 'retries.statuses': list expected, got number", { n = 1, statuses = 503 } },
      { "option 'retries.methods': a list of strings", { n = 1, methods = { 1 } } },
    } do
      h.misuse(case[1], function()
        local res = http.get("http://127.0.0.1:1/", { retries = case[2] })
        return res
      end)
    end
    h.misuse("unknown option 'folow'", function()
      local res = http.get("http://127.0.0.1:1/", { retries = 1, folow = true })
      return res
    end)
    h.misuse("option 'method' is for http.request", function()
      local res = http.get("http://127.0.0.1:1/", { retries = 1, method = "PUT" })
      return res
    end)
  end)
end)
