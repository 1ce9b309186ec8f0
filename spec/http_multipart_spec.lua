-- The option `multipart`: forms with files.

local http = require "moonloop.http"
local ml = require "moonloop"
local h = require "spec.support.helpers"
local httpbin = require "spec.support.httpbin"
local nginx = require "spec.support.nginx"

describe("multipart", function()
  local srv, bin, path
  local content <const> = ("\0\1\2\255 line\r\n"):rep(1000)

  local function write(name, text)
    local at = srv.dir .. "/" .. name
    local file <close> = assert(io.open(at, "wb"))
    assert(file:write(text))
    return at
  end

  lazy_setup(function()
    srv = nginx.start()
    bin = httpbin.start()
    path = write("upload.bin", content)
  end)
  lazy_teardown(function()
    srv:stop()
    bin:stop()
  end)

  local function post(multipart, options)
    options = options or {}
    options.multipart, options.timeout = multipart, h.TIMEOUT
    return assert(http.post(bin.url .. "/post", options)):json()
  end

  it("sends fields, in a table by name or in a list", function()
    local got = post { b = "two", a = 1, flag = true, tag = { "x", "y" }, empty = "" }
    assert.same({ b = "two", a = "1", flag = "true", tag = { "x", "y" }, empty = "" }, got.form)
    assert.same({}, got.files)
    assert.matches("^multipart/form%-data; boundary=%S+$", got.headers["Content-Type"])
    assert.is_nil(got.headers["Transfer-Encoding"])
    got = post { { name = "z", data = "1" }, { name = "z", data = "2" }, last = "3" }
    assert.same({ z = { "1", "2" }, last = "3" }, got.form)
    assert.same({}, post({}).form)
  end)

  it("sends files and data with names and types", function()
    local got = post {
      file = { file = path },
      named = { data = "in memory", filename = "memory.txt", type = "text/plain" },
      field = "x",
    }
    assert.same({ field = "x" }, got.form)
    assert.equal("in memory", got.files.named)
    assert.matches("^data:application/octet%-stream;base64,AAEC", got.files.file)
    local res = assert(http.post(srv.url .. "/echo", { timeout = h.TIMEOUT, multipart = {
      { name = "f", file = path, type = "image/x", filename = 'ü "1".bin' },
      { name = "a", data = 1 },
    } }))
    local mark = res.headers["X-Content-Type"]:match "boundary=(.*)"
    assert.equal("--" .. mark .. '\r\nContent-Disposition: form-data; name="f"; '
      .. 'filename="ü %221%22.bin"\r\nContent-Type: image/x\r\n\r\n' .. content
      .. "\r\n--" .. mark .. '\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--' .. mark
      .. "--\r\n", res.body)
    assert.equal(tostring(#res.body), res.headers["X-Content-Length"])
    assert.equal(srv.dir .. "/upload.bin", path)
  end)

  it("takes files from where they lie, without holding them", function()
    local big = srv.dir .. "/big.bin"
    assert(os.execute("head -c 25165824 /dev/zero > " .. big))
    -- In a process of its own: how much garbage Lua lets lie depends on how much else there is.
    local out, status = h.run_script([[
      local http, ml = require "moonloop.http", require "moonloop"
      local url, path = ...
      ml.run(function()
        local most, ticks = 0, 0
        ml.spawn(function()
          while true do
            ml.sleep(0.001)
            ticks, most = ticks + 1, math.max(most, collectgarbage "count")
          end
        end)
        local file = { file = path }
        local res = assert(http.post(url, { multipart = { a = file, b = file }, timeout = 15 }))
        print(tonumber(res.body) > 50331648, ticks > 3, most < 8192 or most)
      end)
    ]], { srv.url .. "/size", big })
    assert.equal(0, status, out)
    assert.equal(h.checking() and "true\ttrue" or "true\ttrue\ttrue\n",
      h.checking() and out:sub(1, 9) or out)
  end)

  it("is sent again where a redirect or Digest asks for it", function()
    local res = assert(http.post(srv.url .. "/redirect-307",
      { multipart = { a = { file = path }, b = "x" }, timeout = h.TIMEOUT }))
    assert.is_truthy(res.body:find(content, 1, true))
    assert.equal(tostring(#res.body), res.headers["X-Content-Length"])
    res = assert(http.get(bin.url .. "/digest-auth/auth/me/secret", {
      multipart = { a = { file = path } }, auth = { "me", "secret", type = "digest" },
      timeout = h.TIMEOUT,
    }))
    assert.equal(200, res.status)
  end)

  it("works in a thread, in a job and in a session, and is retried", function()
    local function send(url, file)
      local res = assert(require "moonloop.http".post(url,
        { multipart = { a = { file = file } }, timeout = 15 }))
      return tonumber(res.body)
    end
    local pool <close> = ml.ThreadExecutor { workers = 1 }
    local size = send(srv.url .. "/size", path)
    assert.is_true(size > #content)
    assert.equal(size, pool:submit(send, srv.url .. "/size", path):result(h.TIMEOUT))
    assert.equal(size, ml.run_async_job(send, srv.url .. "/size", path):result(h.TIMEOUT))
    local api <close> = http.session { base_url = srv.url .. "/", timeout = h.TIMEOUT }
    assert.equal(size, tonumber(api:post("size", { multipart = { a = { file = path } } }).body))
    local res = assert(api:put("status/503", {
      multipart = { a = { file = path } }, retries = { n = 2, backoff = 0.001 },
    }))
    assert.equal(2, res.retries)
  end)

  it("says which file cannot be read, and leaves no file open", function()
    local before = h.fds()
    for _ = 1, 3 do
      local res, err = http.post(bin.url .. "/post",
        { multipart = { a = { file = path }, b = { file = "/none/such.bin" } } })
      assert.is_nil(res)
      assert.equal("ENOENT", err.code)
      assert.matches("/none/such.bin", err.message, 1, true)
    end
    assert(http.post(srv.url .. "/echo", { multipart = { a = { file = path } } }))
    h.collect()
    h.eventually(function() return h.fds() <= before + 2 end, "the files' closing")
  end)

  it("is misused at the caller's line", function()
    local function misuse(pattern, options)
      h.misuse(pattern, function()
        local res = http.post(bin.url .. "/post", options)
        return res
      end)
    end
    misuse("option 'multipart': table expected", { multipart = "x" })
    misuse("'multipart': { name = ", { multipart = { "x" } })
    misuse("name of a part must be a string, got nil", { multipart = { { data = "x" } } })
    misuse("name of a part must be a string", { multipart = { [true] = "x" } })
    misuse("'a': a string, number", { multipart = { a = print } })
    misuse("'a' has an unknown field 'fil'", { multipart = { a = { fil = "x" } } })
    misuse("'a' needs either 'data' or 'file'", { multipart = { a = { type = "x" } } })
    misuse("'a' needs either 'data' or 'file'", { multipart = { a = { data = "x", file = "y" } } })
    misuse("'a'.file: path expected", { multipart = { a = { file = 1 } } })
    misuse("'a'.data: string expected", { multipart = { a = { data = {} } } })
    misuse("'a'.type contains a line break", { multipart = { a = { data = "", type = "x\r\ny" } } })
    misuse("exclude each other", { multipart = {}, body = "x" })
    misuse("exclude each other", { multipart = {}, form = {} })
    misuse("'content%-type' is made by 'multipart'",
      { multipart = {}, headers = { ["Content-Type"] = "multipart/mixed" } })
  end)

  it("is shown by to_curl", function()
    local options = { timeout = h.TIMEOUT, multipart = {
      { name = "f", file = path, filename = 'a;"b.bin', type = "image/x" },
      { name = "text", data = "@it's; \"so\"" }, { name = "password", data = "visible" },
    } }
    local function shown(how)
      return http.to_curl({ url = bin.url .. "/post", method = "POST",
        multipart = options.multipart }, how)
    end
    local command = shown { secrets = true }
    local pipe <close> = assert(io.popen(command .. " 2>&1"))
    local theirs = require "cjson".decode(pipe:read "a")
    local ours = assert(http.post(bin.url .. "/post", options)):json()
    assert.same(ours.form, theirs.form)
    assert.same(ours.files, theirs.files)
    assert.is_nil(shown():find("visible", 1, true))
  end)
end)
