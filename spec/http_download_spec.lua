local ml = require "moonloop"
local http = require "moonloop.http"
local bar = require "moonloop.http.bar"
local dates = require "moonloop.http.dates"
local tcp = require "moonloop.tcp"
local nginx = require "spec.support.nginx"
local h = require "spec.support.helpers"

local MIB <const> = 1024 * 1024

local function read_file(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local _ <close> = file
  return file:read "a"
end

local function write_file(path, text)
  local file <close> = assert(io.open(path, "wb"))
  assert(file:write(text))
end

local function capture(command)
  local pipe <close> = assert(io.popen(command))
  return (pipe:read "a":gsub("\n$", ""))
end

describe("http.download", function()
  local srv, dir, text
  lazy_setup(function()
    srv = nginx.start {
      http2 = true,
      locations = [[location = /once-per-second { limit_rate 100k; rewrite ^ /files/big break; }
        location = /no-ranges { max_ranges 0; rewrite ^ /files/big break; }]],
    }
    local parts = {}
    for i = 1, 100000 do parts[i] = ("line %07d of it\n"):format(i) end
    text = table.concat(parts)
    write_file(srv.files .. "/big", text)
  end)
  lazy_teardown(function() srv:stop() end)
  before_each(function() dir = capture "mktemp -d" end)
  after_each(function() os.execute("rm -r " .. dir) end)

  local function files() return capture("ls -A " .. dir) end

  local function fetch(path, options)
    options = options or {}
    options.timeout = options.timeout or h.TIMEOUT
    return http.download(srv.url .. path, dir .. "/it", options)
  end

  local function wait_for_part()
    h.eventually(function() return #(read_file(dir .. "/it.part") or "") > 0 end, "a part")
  end

  -- Leaves a part of the file behind, as a download does that was cut off: how much.
  local function cut_off()
    os.remove(dir .. "/it")
    local res, err = http.download(srv.url .. "/once-per-second", dir .. "/it", { timeout = 1.2 })
    assert.is_nil(res)
    assert.equal("timeout", err.code)
    assert.equal("it.part", files())
    local part = read_file(dir .. "/it.part")
    assert.is_true(#part > 0 and #part < #text)
    assert.equal(text:sub(1, #part), part)
    return #part
  end

  it("puts the body into a file, the same in a job, a thread and a worker", function()
    local function get(url, path)
      local res = assert(require "moonloop.http".download(url, path, { timeout = 15 }))
      return res.status, res.size, res.resumed, res.path == path
    end
    local url, path = srv.url .. "/files/big", dir .. "/it"
    local wanted = { 200, #text, 0, true }
    assert.same(wanted, { get(url, path) })
    assert.same(wanted, { ml.run(get, url, path) })
    assert.same(wanted, { ml.run_async_job(get, url, path):result(h.TIMEOUT) })
    assert.same(wanted, { ml.to_thread(get, url, path) })
    assert.is_true(text == read_file(path))
    assert.equal("it", files())
  end)

  it("is a session's too", function()
    local session <close> = http.session { base_url = srv.url .. "/files/", timeout = h.TIMEOUT }
    assert.equal(#text, assert(session:download("big", dir .. "/it")).size)
    assert.equal(1, session:stats().requests)
  end)

  it("gives a response that is data", function()
    local function get(url, path)
      return require "moonloop.http".download(url, path, { timeout = 15 })
    end
    local res = ml.run_async_job(get, srv.url .. "/300b", dir .. "/it"):result(h.TIMEOUT)
    assert.equal(300, res.size)
    assert.equal("300", res.headers["Content-Length"])
    assert.is_true(res.timings.total > 0)
  end)

  it("takes an empty body, and one over TLS and HTTP/2", function()
    write_file(srv.files .. "/empty", "")
    assert.equal(0, assert(fetch "/files/empty").size)
    assert.equal("", read_file(dir .. "/it"))
    local res = assert(http.download(srv.https_url .. "/files/big", dir .. "/it",
      { tls = { ca = srv.ca }, timeout = h.TIMEOUT }))
    assert.equal(#text, res.size)
    assert.equal("it", files())
  end)

  it("has the file's time from the server, and replaces what was there", function()
    write_file(dir .. "/it", "old")
    assert(fetch "/files/big")
    assert.equal(capture("stat -c %Y " .. srv.files .. "/big"),
      capture("stat -c %Y " .. dir .. "/it"))
    assert.is_true(text == read_file(dir .. "/it"))
  end)

  describe("goes on with a part", function()
    it("that an earlier one has left", function()
      local had = cut_off()
      local res = assert(fetch "/files/big")
      assert.equal(206, res.status)
      assert.equal(had, res.resumed)
      assert.equal(#text, res.size)
      assert.is_true(text == read_file(dir .. "/it"))
      assert.equal("it", files())
    end)

    it("that a killed process has left", function()
      local output, code = h.run_script(([[
        local url, path = %q, %q
        require "moonloop.http".download(url, path, { on_progress = function()
          local part = io.open(path .. ".part")
          if part and part:seek "end" > 0 then os.execute "kill -9 $PPID" end
        end })]]):format(srv.url .. "/once-per-second", dir .. "/it"))
      assert.equal(137, code, output)
      assert.equal("it.part", files())
      assert.is_true(assert(fetch "/files/big").resumed > 0)
      assert.is_true(text == read_file(dir .. "/it"))
    end)

    it("unless that is of another version", function()
      cut_off()
      os.execute("touch -d 2001-01-01 " .. srv.files .. "/big")
      local res = assert(fetch "/files/big")
      os.execute("touch " .. srv.files .. "/big")
      assert.equal(200, res.status)
      assert.equal(0, res.resumed)
      assert.is_true(text == read_file(dir .. "/it"))
    end)

    it("unless the server cannot, or it is not wanted, or nobody knows of what it is", function()
      cut_off()
      assert.equal(0, assert(fetch "/no-ranges").resumed)
      cut_off()
      assert.equal(0, assert(fetch("/files/big", { resume = false })).resumed)
      write_file(dir .. "/it.part", "who knows")
      assert.equal(0, assert(fetch "/files/big").resumed)
      assert.is_true(text == read_file(dir .. "/it"))
    end)

    it("that is all of it already", function()
      assert(fetch "/files/big")
      os.rename(dir .. "/it", dir .. "/it.part")
      local res = assert(fetch("/files/big",
        { checksum = "sha256:" .. capture("sha256sum < " .. srv.files .. "/big"):match "%x+" }))
      assert.equal(#text, res.resumed)
      assert.equal(#text, res.size)
      assert.is_true(text == read_file(dir .. "/it"))
    end)
  end)

  it("checks a checksum, of a resumed part too", function()
    for _, name in ipairs { "sha256", "md5", "sha512" } do
      local sum = capture(("%ssum < %s/big"):format(name, srv.files)):match "%x+"
      assert(fetch("/files/big", { checksum = name .. ":" .. sum:upper() }))
      os.remove(dir .. "/it")
    end
    cut_off()
    local sum = capture("sha256sum < " .. srv.files .. "/big"):match "%x+"
    assert.is_true(assert(fetch("/files/big", { checksum = "sha256:" .. sum })).resumed > 0)
    os.remove(dir .. "/it")
    local res, err = fetch("/files/big", { checksum = "sha256:" .. ("0"):rep(64) })
    assert.is_nil(res)
    assert.equal("checksum", err.code)
    assert.matches("its sha256 is " .. sum, err.message)
    assert.equal("", files())
  end)

  it("of what is not there is an error and leaves nothing", function()
    for status, path in pairs { [404] = "/status/404", [503] = "/status/503" } do
      local res, err = fetch(path)
      assert.is_nil(res)
      assert.equal("status", err.code)
      assert.equal(status, err.status)
      assert.matches("^" .. status .. " .*http://127", err.message)
      assert.equal("", files())
    end
    local res, err = http.download("http://127.0.0.1:1/", dir .. "/it", { timeout = h.TIMEOUT })
    assert.is_nil(res)
    assert.equal("refused", err.code)
    assert.equal("", files())
  end)

  it("that ends early leaves the part only", function()
    ml.run(function()
      local server <close> = assert(tcp.listen("127.0.0.1", 0))
      ml.spawn(function()
        local sock <close> = assert(server:accept(h.TIMEOUT))
        sock:read_until("\r\n\r\n", { timeout = h.TIMEOUT })
        sock:write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", h.TIMEOUT)
      end)
      local res, err = http.download("http://127.0.0.1:" .. server.port, dir .. "/it",
        { timeout = h.TIMEOUT })
      assert.is_nil(res)
      assert.equal("closed", err.code)
      assert.equal("it.part", files())
      assert.equal("half", read_file(dir .. "/it.part"))
    end)
  end)

  it("that is cancelled leaves the part only, and no descriptor", function()
    ml.run(function()
      assert(fetch "/300b")
      os.remove(dir .. "/it")
      local fds = h.fds()
      local job = ml.spawn(fetch, "/once-per-second")
      wait_for_part()
      job:cancel_and_wait(h.TIMEOUT)
      assert.is_true(job:cancelled())
      assert.equal("it.part", files())
      h.eventually(function()
        h.collect()
        return h.fds() <= fds
      end, "the descriptors' end")
    end)
  end)

  it("of one path is made once at a time", function()
    ml.run(function()
      local job = ml.spawn(fetch, "/once-per-second")
      wait_for_part()
      local res, err = fetch "/files/big"
      assert.is_nil(res)
      assert.equal("busy", err.code)
      assert.matches(dir .. "/it", err.message, 1, true)
      job:cancel_and_wait(h.TIMEOUT)
      assert.is_true(assert(fetch "/files/big").resumed > 0)
    end)
  end)

  it("names the path that cannot be written", function()
    local function failing(path, code)
      local res, err = http.download(srv.url .. "/300b", path, { timeout = h.TIMEOUT })
      assert.is_nil(res)
      assert.equal(code, err.code)
      assert.matches(path, err.message, 1, true)
    end
    failing(dir .. "/none/it", "ENOENT")
    failing(dir, "EISDIR")
    failing("/dev/null", "ESPIPE")
    local res, err = http.download(srv.url .. "/300b", "/dev/full", { timeout = h.TIMEOUT })
    assert.is_nil(res)
    assert.equal("ESPIPE", err.code)
  end)

  it("refuses mistakes", function()
    h.misuse("path: string expected, got nil", function() http.download(srv.url) end)
    h.misuse("option 'resume': boolean expected, got number",
      function() fetch("/300b", { resume = 1 }) end)
    h.misuse("option 'checksum': \"sha256:<hexadecimal>\"",
      function() fetch("/300b", { checksum = "abc" }) end)
    h.misuse("option 'checksum': 'sha257' is not known",
      function() fetch("/300b", { checksum = "sha257:00" }) end)
    h.misuse("option 'stream' is not for downloads",
      function() fetch("/300b", { stream = true }) end)
  end)

  it("shows a line on a terminal, and nothing elsewhere", function()
    assert.equal("it  45 %  45 B of 100 B  1.5 KiB/s", bar.line("it", 45, 100, 1536))
    assert.equal("it  3.0 MiB  2.0 GiB/s", bar.line("it", 3 * MIB, nil, 2048 * MIB))
    local code = ([[require "moonloop.http".download(%q, %q, { progress = true })]]):format(
      srv.url .. "/files/big", dir .. "/it")
    assert.equal("", (h.run_script(code)))
    local path = dir .. "/script.lua"
    write_file(path, code)
    local shown = capture(("script -qec 'lua5.4 %s' /dev/null </dev/null"):format(path))
    assert.matches("it  100 %%  1.8 MiB of 1.8 MiB", shown)
  end)

  it("reads and writes the dates of HTTP", function()
    for _, time in ipairs { 0, 784111777, 951782400, 1709164800, 4102444799 } do
      assert.equal(time, dates.parse(dates.format(time)))
    end
    assert.equal(784111777, dates.parse "Sun, 06 Nov 1994 08:49:37 GMT")
    assert.equal("Sun, 06 Nov 1994 08:49:37 GMT", dates.format(784111777))
    assert.is_nil(dates.parse "Sunday, 06-Nov-94 08:49:37 GMT")
    assert.is_nil(dates.parse "Sun, 06 Nuv 1994 08:49:37 GMT")
    assert.is_nil(dates.parse "")
    assert.is_nil(dates.parse(nil))
  end)
end)
