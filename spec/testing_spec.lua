-- moonloop.testing: gates and the HTTP server.

local http = require "moonloop.http"
local ml = require "moonloop"
local tcp = require "moonloop.tcp"
local testing = require "moonloop.testing"
local h = require "spec.support.helpers"

describe("a gate", function()
  it("lets all pass once it is open, with what it was opened with", function()
    local gate = testing.gate()
    assert.is_false(gate:is_open())
    local ex <close> = ml.AsyncExecutor{ loops = 2 }
    local function pass(g) return g:pass() end
    local a, b = ex:submit(pass, gate), ex:submit(pass, gate)
    assert.equal("timeout", h.raised(gate.pass, gate, 0).code)
    ex:submit(function(g) g:open("x", nil, 3) end, gate):result(h.TIMEOUT)
    assert.same({ "x", nil, 3 }, { a:result(h.TIMEOUT) })
    assert.same({ "x", nil, 3 }, { b:result(h.TIMEOUT) })
    assert.is_true(gate:is_open())
    assert.is_false(pcall(gate.open, gate))
  end)
end)

-- Each in a job and in a sync state.
for where, around in pairs{ ["in a job"] = ml.run, ["in a thread"] = function(f) f() end } do
  describe("the HTTP server " .. where, function()
    -- Runs f(server) there.
    local function with(routes, f)
      around(function()
        local server <close> = testing.http_server(routes)
        f(server)
      end)
    end

    it("answers texts, tables and what functions return", function()
      with({
        ["/text"] = "hello",
        ["GET /table"] = {
          status = 418, headers = { ["X-A"] = "1", Many = { "a", "b" } }, body = "t",
        },
        ["POST /echo"] = function(request)
          ml.sleep(0.001)
          return request.body .. "?" .. request.query .. "?" .. request.headers["x-me"]
        end,
        ["/none"] = { status = 204 },
      }, function(server)
        assert.equal("hello", assert(http.get(server.url .. "/text")).body)
        local r = assert(http.get(server.url .. "/table"))
        assert.same({ 418, "1", "t" }, { r.status, r.headers["X-A"], r.body })
        assert.equal(404, assert(http.post(server.url .. "/table", { body = "" })).status)
        r = assert(http.post(server.url .. "/echo?a=b",
          { body = "in", headers = { ["X-Me"] = "me" } }))
        assert.equal("in?a=b?me", r.body)
        assert.equal(204, assert(http.get(server.url .. "/none")).status)
        assert.equal("", assert(http.head(server.url .. "/text")).body)
        r = assert(http.get(server.url .. "/nothing"))
        assert.same({ 404, "no route: GET /nothing" }, { r.status, r.body })
      end)
    end)

    it("tells what it was asked, in order", function()
      with({ ["/a"] = "a" }, function(server)
        http.get(server.url .. "/a?n=1")
        http.put(server.url .. "/b", { body = ("x"):rep(100000) })
        assert.equal(2, server:unread())
        local first, second = server:request(), server:request()
        assert.same({ "GET", "/a", "n=1", "" },
          { first.method, first.path, first.query, first.body })
        assert.same({ "PUT", "/b", 100000 }, { second.method, second.path, #second.body })
        assert.equal("timeout", select(2, server:request(0)).code)
      end)
    end)

    it("says 500 for a route that fails or returns nonsense", function()
      with({
        ["/error"] = function() error("broken", 0) end,
        ["/nonsense"] = function() return { stauts = 200 } end,
      }, function(server)
        local r = assert(http.get(server.url .. "/error"))
        assert.same({ 500, "broken" }, { r.status, r.body })
        r = assert(http.get(server.url .. "/nonsense"))
        assert.equal(500, r.status)
        assert.truthy(r.body:find("unknown field 'stauts'", 1, true), r.body)
      end)
    end)

    it("keeps a connection, takes chunks, and lives on after bad requests", function()
      with({ ["/"] = function(request) return request.method .. #request.body end },
        function(server)
          local bad <close> = assert(tcp.connect("127.0.0.1", server.port))
          assert(bad:write "nonsense\r\n\r\n")
          assert.equal("closed", select(2, bad:read(1, h.TIMEOUT)).code)
          local sock <close> = assert(tcp.connect("127.0.0.1", server.port))
          assert(sock:write "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
            and sock:write "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n")
          assert.equal("HTTP/1.1 200 OK", sock:read_line(h.TIMEOUT))
          assert.truthy(assert(sock:read_until("POST5", { timeout = h.TIMEOUT })))
          assert(sock:write "GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
          local rest = assert(sock:read_all(nil, h.TIMEOUT))
          assert.truthy(rest:find "Connection: close\r\n\r\nGET0$", rest)
        end)
    end)

    it("closes at once, however slow its answers are", function()
      around(function()
        local server = testing.http_server{ ["/slow"] = { delay = 60 } }
        local sock <close> = assert(tcp.connect("127.0.0.1", server.port))
        assert(sock:write "GET /slow HTTP/1.1\r\n\r\n")
        assert(server:request())
        server:close()
        server:close()
        assert.equal("closed", select(2, sock:read(1, h.TIMEOUT)).code)
        assert.equal("closed", select(2, server:request(h.TIMEOUT)).code)
        assert.equal("ECONNREFUSED", select(2, tcp.connect("127.0.0.1", server.port)).code)
      end)
    end)
  end)
end

describe("the HTTP server", function()
  it("refuses what is no route", function()
    h.misuse("table of routes expected, got nil", function() testing.http_server() end)
    h.misuse("a route is", function() testing.http_server{ "text" } end)
    h.misuse("unknown field 'boddy'", function() testing.http_server{ ["/"] = { boddy = "" } } end)
    h.misuse("'status': number expected", function()
      testing.http_server{ ["/"] = { status = "200" } }
    end)
  end)
end)

describe("the spec in examples/testing", function()
  local command <const> = "timeout -k 2 60 lua5.4 .ci/busted.lua --ignore-lua -o plainTerminal "
    .. "--helper=moonloop.busted -Xhelper timeout=15,%s examples/testing 2>&1 </dev/null"
  for _, option in ipairs { "leaks=on", "parallel=2" } do
    it("passes under the helper, with " .. option, function()
      local pipe = assert(io.popen(command:format(option)))
      local output = pipe:read "a"
      local _, _, code = pipe:close()
      assert.truthy(output:find("3 successes / 0 failures / 0 errors", 1, true), output)
      assert.equal(0, code)
    end)
  end
end)
