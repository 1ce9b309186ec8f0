local ml = require "moonloop"
local http = require "moonloop.http"
local events = require "moonloop.http.events"
local tcp = require "moonloop.tcp"
local h = require "spec.support.helpers"

local BOM <const> = "\239\187\191"

-- The events of texts as a parser takes them, one after the other.
local function parse(...)
  local parser, list = events.parser(), {}
  for i = 1, select("#", ...) do
    assert.is_nil(parser:feed((select(i, ...))))
    for event in parser.next, parser do list[#list + 1] = event end
  end
  return list, parser
end

local function event(data, kind, id)
  return { data = data, type = kind or "message", id = id or "" }
end

local HEAD <const> = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n"

-- Calls f(url, heads) in a job, with a server that answers the nth connection with the nth text
-- and closes it; the heads of the requests come to the list.
local function with_server(answers, f)
  return ml.run(function()
    local server <close> = assert(tcp.listen("127.0.0.1", 0))
    local heads = {}
    local serving = ml.spawn(function()
      for sock in server:accepted() do
        local _ <close> = sock
        heads[#heads + 1] = sock:read_until("\r\n\r\n", { timeout = h.TIMEOUT })
        sock:write(answers[#heads] or answers.rest, h.TIMEOUT)
      end
    end)
    local _ <close> = ml.defer(function() serving:cancel_and_wait(h.TIMEOUT) end)
    return f("http://127.0.0.1:" .. server.port .. "/", heads)
  end)
end

describe("server-sent events", function()
  it("are parsed by the rules", function()
    assert.same({ event "YHOO\n+2\n10" }, parse "data: YHOO\ndata: +2\ndata: 10\n\n")
    assert.same({ event("first event", nil, "1"), event "second event", event " third event" },
      parse(": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\n"
        .. "data:  third event\n\n"))
    assert.same({ event "", event "\n" }, parse "data\n\ndata\ndata\n\ndata:")
    assert.same({ event "test", event "test" }, parse "data:test\n\ndata: test\n\n")
    assert.same({ event("a", "add"), event "b" }, parse "event: add\ndata: a\n\ndata: b\n\n")
    assert.same({ event "x" }, parse "event: gone\n\nother: 1\nnothing\ndata: x\n\n")
    assert.same({ event("a:b", nil, "7") }, parse "data: a:b\nid: 7\nid: no\0\n\n")
    assert.same({}, parse "data: never ended\n")
  end)

  it("end lines with LF, CR and CRLF", function()
    local wanted = { event "a\nb", event "c" }
    for _, eol in ipairs { "\n", "\r", "\r\n" } do
      assert.same(wanted, parse(("data: a|data: b||data: c||"):gsub("|", eol)))
    end
  end)

  it("are the same wherever the text is cut", function()
    local text = BOM .. "id: 1\r\ndata: a\r\n\r\ndata: b\rdata: c\r\rdata: d\n\n\revent: e\n"
      .. "data:\n\n"
    local wanted = parse(text)
    assert.same({ event("a", nil, "1"), event("b\nc", nil, "1"), event("d", nil, "1"),
      event("", "e", "1") }, wanted)
    for i = 1, #text do
      assert.same(wanted, parse(text:sub(1, i), text:sub(i + 1)), i)
      assert.same(wanted, parse(text:sub(1, i), "", text:sub(i + 1, i + 1), text:sub(i + 2)), i)
    end
    local bytes = {}
    for byte in text:gmatch "." do bytes[#bytes + 1] = byte end
    assert.same(wanted, parse(table.unpack(bytes)))
  end)

  it("count no id of an event that is cut off", function()
    local parser = require "moonloop.http.events".parser()
    parser:feed "id: 1\ndata: a\n\nid: 2\ndata: b\n"
    assert.same(event("a", nil, "1"), parser:next())
    assert.is_nil(parser:next())
    assert.equal("1", parser.id)
  end)

  -- The rules once more, for a text that is there as a whole.
  local function by_the_rules(text)
    local list, data, kind, id, next_id = {}, nil, nil, "", nil
    text = text:gsub("^" .. BOM, ""):gsub("\r\n", "\n"):gsub("\r", "\n")
    for line in text:gmatch "([^\n]*)\n" do
      local name, value = line:match "^([^:]*): ?(.*)$"
      name, value = name or line, value or ""
      if line == "" then
        id = next_id or id
        if data then list[#list + 1] = event(data, kind ~= "" and kind or nil, id) end
        data, kind = nil, nil
      elseif name == "data" then
        data = data and data .. "\n" .. value or value
      elseif name == "event" then
        kind = value
      elseif name == "id" and not value:find "\0" then
        next_id = value
      end
    end
    return list, id
  end

  -- The same texts every time, unless MOONLOOP_FUZZ_SEED names another seed.
  it("are what the rules say, whatever the text and its cuts", function()
    local pieces = { "data", "data:", "data: ", "event:", "id:", "id", "retry: 1", ":", " ", "x",
      "\n", "\n", "\n\n", "\r", "\r\n", "\r\n\r\n", "\0", BOM, "\239", "\187\191", "data: a\n\n" }
    local seed, limit = tonumber(os.getenv "MOONLOOP_FUZZ_SEED") or 1, 1 << 31
    local function random(n) -- the generator of busted's shuffle stays as it is
      seed = (seed * 1103515245 + 12345) % limit
      return seed * n // limit + 1
    end
    for _ = 1, tonumber(os.getenv "MOONLOOP_FUZZ_ROUNDS") or 2000 do
      local parts = {}
      for i = 1, random(30) do parts[i] = pieces[random(#pieces)] end
      local text, cuts, at = table.concat(parts), {}, 1
      while at <= #text do
        local stop = at + random(6) - 1
        cuts[#cuts + 1], at = text:sub(at, stop), stop + 1
      end
      local wanted, id = by_the_rules(text)
      local list, parser = parse(table.unpack(cuts))
      assert.same(wanted, list, ("%q"):format(text))
      assert.equal(id, parser.id, ("%q"):format(text))
    end
  end)

  it("skip a byte order mark at the start only", function()
    assert.same({ event "a" }, parse(BOM .. "data: a\n\n"))
    assert.same({}, parse("x" .. BOM .. "data: a\n\n"))
    assert.same({ event "a" }, parse("data: a\n\n" .. BOM .. "data: b\n\n"))
  end)

  it("say how long to wait", function()
    local function retry_of(text) return select(2, parse(text)).retry end
    assert.equal(1.5, retry_of "retry: 1500\n\n")
    assert.is_nil(retry_of "retry: 1s\n\n")
    assert.is_nil(retry_of "retry: -1\n\n")
  end)

  it("are bounded", function()
    local parser, err = events.parser(), nil
    local piece = ("x"):rep(1024 * 1024)
    for _ = 1, 18 do err = err or parser:feed(piece) end
    assert.equal("too_large", err.code)
    parser, err = events.parser(), nil
    for _ = 1, 18 do err = err or parser:feed("data:" .. piece .. "\n") end
    assert.equal("too_large", err.code)
  end)

  it("come from any response that streams", function()
    with_server({ HEAD .. "data: a\n\nevent: b\ndata: c\n\n" }, function(url)
      local res <close> = assert(http.get(url, { stream = true, timeout = h.TIMEOUT }))
      local list = {}
      for e in res:events() do list[#list + 1] = e end
      assert.same({ event "a", event("c", "b") }, list)
    end)
  end)

  it("come the same in a job, a thread and a worker", function()
    local function first(url)
      local source <close> = assert(require "moonloop.http".events(url, { timeout = 15 }))
      return source().data
    end
    local server = assert(tcp.listen("127.0.0.1", 0))
    local _ <close> = server
    local serving = ml.run_async_job(function(listening, head)
      for sock in listening:accepted() do
        sock:read_until "\r\n\r\n"
        sock:write(head .. "data: a\n\n")
        sock:close()
      end
    end, server, HEAD)
    local url = "http://127.0.0.1:" .. server.port
    assert.equal("a", first(url))
    assert.equal("a", ml.run(first, url))
    assert.equal("a", ml.run_async_job(first, url):result(h.TIMEOUT))
    assert.equal("a", ml.to_thread(first, url))
    server:close()
    serving:result(h.TIMEOUT)
  end)

  describe("with http.events", function()
    it("go on after a lost connection, from the last id", function()
      with_server({
        HEAD .. "retry: 1\nid: 5\ndata: a\n\ndata: lost",
        HEAD .. "data: b\n\n",
        "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
        HEAD .. "id:\ndata: c\n\n",
        "HTTP/1.1 204 Enough\r\n\r\n",
      }, function(url, heads)
        local source <close> = assert(http.events(url, { headers = { ["X-Test"] = "1" } }))
        assert.same({ event("a", nil, "5"), event("b", nil, "5"), event "c" },
          { source(), source(), source() })
        assert.is_nil(source())
        assert.is_nil(source())
        assert.equal(5, #heads)
        for i, head in ipairs(heads) do
          assert.matches("Accept: text/event%-stream", head)
          assert.matches("X%-Test: 1", head)
          assert.equal(i > 1 and i < 5 and "5" or nil, head:match "Last%-Event%-ID: (%d*)")
        end
      end)
    end)

    it("begin after an id, and end where that is wanted", function()
      with_server({ HEAD .. "data: a\n\n" }, function(url, heads)
        local list = {}
        local source <close> = assert(http.events(url,
          { reconnect = false, last_event_id = "x9", timeout = h.TIMEOUT }))
        for e in source do list[#list + 1] = e end
        assert.same({ event("a", nil, "x9") }, list)
        assert.matches("Last%-Event%-ID: x9", heads[1])
      end)
    end)

    it("give up after so many failures in a row", function()
      with_server({ HEAD .. "data: a\n\n", rest = "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n" },
        function(url, heads)
          local source <close> = assert(http.events(url, { reconnect = 3, retry = 0.001 }))
          assert.equal("a", source().data)
          local err = h.raised(source)
          assert.equal("status", err.code)
          assert.equal(500, err.status)
          assert.equal(4, #heads)
          assert.is_nil(source())
        end)
    end)

    it("need the right kind of response", function()
      with_server({ "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 404 None\r\nContent-Length: 0\r\n\r\n" }, function(url)
          local source, err = http.events(url)
          assert.is_nil(source)
          assert.equal("protocol", err.code)
          assert.matches("'text/html'", err.message)
          source, err = http.events(url)
          assert.is_nil(source)
          assert.equal("status", err.code)
          assert.equal(404, err.status)
        end)
    end)

    it("stop when they are closed or their job is cancelled", function()
      with_server({ HEAD .. "data: a\n\n" }, function(url)
        local source = assert(http.events(url, { retry = 100 }))
        assert.equal("a", source().data)
        local job = ml.spawn(source.next, source)
        ml.sleep(0.01)
        job:cancel_and_wait(h.TIMEOUT)
        assert.is_true(job:cancelled())
        source:close()
        assert.is_nil(source())
      end)
    end)

    it("refuse mistakes", function()
      h.misuse("table of options expected, got number", function() http.events("http://x", 1) end)
      h.misuse("option 'reconnect': boolean or number expected, got string",
        function() http.events("http://x", { reconnect = "x" }) end)
      h.misuse("option 'retry': a number of seconds must not be negative",
        function() http.events("http://x", { retry = -1 }) end)
      h.misuse("option 'last_event_id': string expected, got number",
        function() http.events("http://x", { last_event_id = 1 }) end)
    end)
  end)
end)
