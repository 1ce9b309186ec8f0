local ml = require "moonloop"
local http = require "moonloop.http"
local nginx = require "spec.support.nginx"
local h = require "spec.support.helpers"

local LOCATIONS <const> = [[
    location = /set {
      add_header Set-Cookie "plain=1; Path=/"; add_header Set-Cookie "deep=2; Path=/echo/";
      add_header Set-Cookie "kept=3; Path=/; Max-Age=3600; HttpOnly";
      return 200 "set\n";
    }
    location = /unset { add_header Set-Cookie "plain=; Path=/; Max-Age=0"; return 204; }
    location = /foreign { add_header Set-Cookie "x=1; Domain=example.com"; return 204; }
    location = /onward { add_header Set-Cookie "hop=1; Path=/"; return 302 /seen; }
    location /seen { add_header X-Cookie $http_cookie; return 200 "seen\n"; }
    location /echo/ { add_header X-Cookie $http_cookie; return 200 "seen\n"; }]]

describe("a session's cookies", function()
  local srv
  lazy_setup(function() srv = nginx.start{ locations = LOCATIONS } end)
  lazy_teardown(function() srv:stop() end)

  local function session(cookies)
    return assert(http.session{ base_url = srv.url, cookies = cookies, timeout = h.TIMEOUT })
  end

  local function sent(s, path)
    local list = {}
    for pair in (s:get(path or "/seen").headers["X-Cookie"] or ""):gmatch "[^; ]+" do
      list[#list + 1] = pair
    end
    table.sort(list)
    return list
  end

  local function temporary()
    local path = os.tmpname()
    os.remove(path)
    return path
  end

  it("come back to where they belong", function()
    local s <close> = session(true)
    assert.same({}, sent(s))
    s:get("/set")
    assert.same({ "kept=3", "plain=1" }, sent(s))
    assert.same({ "deep=2", "kept=3", "plain=1" }, sent(s, "/echo/"))
    for _ = 1, 3 do assert.same({ "kept=3", "plain=1" }, sent(s)) end
    s:get("/unset")
    assert.same({ "kept=3" }, sent(s))
    s:get("/foreign")
    assert.same({}, s.cookies:list "example.com")
    s:get("/onward")
    assert.same({ "hop=1", "kept=3" }, sent(s))
  end)

  it("are kept only if asked for, each session its own", function()
    local none <close> = session(nil)
    local no <close> = session(false)
    local a <close> = session(true)
    local b <close> = session(true)
    for _, s in ipairs{ none, no, a } do s:get("/set") end
    assert.is_nil(none.cookies)
    assert.is_nil(no.cookies)
    assert.same({}, sent(none))
    assert.same({ "kept=3", "plain=1" }, sent(a))
    assert.same({}, sent(b))
    assert.is_nil(http.get(srv.url .. "/seen").headers["X-Cookie"])
  end)

  it("can be looked at, put and taken away", function()
    local s <close> = session(true)
    s:get("/set")
    local value, cookie = s.cookies:get "kept"
    assert.equal("3", value)
    assert.equal("127.0.0.1", cookie.domain)
    assert.equal("/", cookie.path)
    assert.is_true(cookie.http_only)
    assert.is_false(cookie.secure)
    assert.is_false(cookie.subdomains)
    assert.is_true(math.abs(cookie.expires - os.time() - 3600) < 60)
    assert.is_nil(select(2, s.cookies:get "plain").expires)
    assert.is_nil(s.cookies:get "none")
    assert.equal(3, #s.cookies:list())
    assert.equal("cookies: 3", tostring(s.cookies))

    assert.is_true(s.cookies:set("mine", "a b=c\"'"))
    assert.equal("a b=c\"'", s.cookies:get("mine", "127.0.0.1"))
    assert.is_true(s.cookies:set("mine", ""))
    assert.equal("", s.cookies:get "mine")
    assert.is_true(s.cookies:set("sub", "1", { domain = "example.com", subdomains = true,
      path = "/x", secure = true, http_only = true, expires = os.time() + 100 }))
    assert.equal("1", s.cookies:get("sub", "EXAMPLE.com"))
    assert.is_nil(s.cookies:get("mine", "example.com"))
    local _, sub = s.cookies:get "sub"
    assert.same({ "example.com", true, "/x", true, true },
      { sub.domain, sub.subdomains, sub.path, sub.secure, sub.http_only })
    assert.is_true(s.cookies:set("sub", "1", { domain = "example.com", subdomains = true,
      path = "/x", expires = 1 }))
    assert.is_nil(s.cookies:get "sub")

    s.cookies:clear("127.0.0.1", "mine")
    assert.same({ "kept=3", "plain=1" }, sent(s))
    assert(s.cookies:set("else", "1", { domain = "other.example" }))
    s.cookies:clear "127.0.0.1"
    assert.equal("1", s.cookies:get "else")
    assert.same({}, sent(s))
    s.cookies:clear()
    assert.same({}, s.cookies:list())
    local ok, err = s.cookies:set("__Secure-x", "1")
    assert.is_nil(ok)
    assert.equal("cookie", err.code)
  end)

  it("are one jar for all loops and threads", function()
    local s <close> = session(true)
    local function put(shared, i)
      assert(shared:get("/seen"))
      assert(shared.cookies:set("c" .. i, tostring(i)))
      return shared.cookies:get("c" .. i)
    end
    local ex = ml.AsyncExecutor{ loops = 2 }
    local pool = ml.ThreadExecutor{ workers = 2 }
    local futures = {}
    for i = 1, 20 do futures[i] = (i % 2 == 0 and ex or pool):submit(put, s, i) end
    for i = 1, 20 do assert.equal(tostring(i), futures[i]:result(h.TIMEOUT)) end
    assert.equal(20, #sent(s))
    h.close(ex)
    h.close(pool)
  end)

  it("go to a file and come from one", function()
    local path = temporary()
    local s = session{ file = path, save = true } -- nothing there yet
    s:get("/set")
    assert.is_nil(io.open(path))
    assert.is_true(s:close())
    local pipe <close> = io.popen("stat -c %a " .. path)
    assert.equal("600", pipe:read "l")
    local first
    for line in io.lines(path) do first = first or line end
    assert.equal("# Netscape HTTP Cookie File", first)

    local again <close> = session(path)
    assert.same({ "kept=3", "plain=1" }, sent(again))
    assert.is_true(select(2, again.cookies:get "kept").http_only)
    again.cookies:clear()
    again:close()
    local third <close> = session(path) -- `again` did not save
    assert.equal(3, #third.cookies:list())

    local copy = temporary()
    assert.is_true(third.cookies:save(copy))
    local fourth <close> = session(copy)
    assert.equal(3, #fourth.cookies:list())
    os.remove(path)
    os.remove(copy)
  end)

  it("reads what curl writes", function()
    local path = temporary()
    assert(os.execute(("curl -s -c %s %s/set >%s.out"):format(path, srv.url, path)))
    local s <close> = session(path)
    assert.same({ "kept=3", "plain=1" }, sent(s))
    os.remove(path)
    os.remove(path .. ".out")
  end)

  it("takes rubbish in a file for no cookies", function()
    local path = temporary()
    local file <close> = io.open(path, "w")
    file:write("nonsense\n\1\2\n127.0.0.1\tFALSE\t/\n\n127.0.0.1\tFALSE\t/\tFALSE\t0\tgood\t1\n",
      ("x"):rep(20000), "\n")
    file:close()
    local s <close> = session(path)
    assert.same({ "good=1" }, sent(s))
    os.remove(path)
  end)

  it("says which file it cannot read or write", function()
    local s, err = http.session{ cookies = "/" }
    assert.is_nil(s)
    assert.equal("file", err.code)
    assert.matches("/: .*directory", err.message)
    s = session{ save = "/no/such/folder/cookies" }
    local ok, why = s:close()
    assert.is_nil(ok)
    assert.equal("file", why.code)
    assert.matches("/no/such/folder/cookies: No such file", why.message)
    assert.is_true(s:close())
  end)

  it("raises misuse at the caller's line", function()
    local s <close> = session(true)
    for _, case in ipairs{
      { "name: string expected, got nil" }, { "value: string expected, got nil", "n" },
      { "name: no control characters, nor", "", "v" }, { "name: no control", "a\tb", "v" },
      { "name: neither ';' nor '=' allowed", "a;b", "v" }, { "name: neither", "a=b", "v" },
      { "value: no ';' allowed", "a", "v; b=w" },
      { "value: no control", "n", "a\nb" }, { "value: no control", "n", "a\0b" },
      { "domain: no control", "n", "v", { domain = "" } },
      { "option 'expires': integer", "n", "v", { expires = "soon" } },
      { "unknown option 'http'", "n", "v", { http = true } },
    } do
      h.misuse(case[1], function() s.cookies:set(case[2], case[3], case[4]) end)
    end
    local free <close> = http.session{ cookies = true }
    h.misuse("option 'domain' is missing", function() free.cookies:set("n", "v") end)
    h.misuse("cookies:get: name expected", function() s.cookies:get() end)
    h.misuse("cookies:save: path expected", function() s.cookies:save() end)
  end)
end)
