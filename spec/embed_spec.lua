-- Whole C programs: the examples compile as a user would compile them and run, and so do
-- hosts of unusual build, and hosts that end in the midst of things.

local h = require "spec.support.helpers"

local folder

setup(function()
  folder = os.tmpname()
  assert(os.remove(folder))
  assert(os.execute("mkdir " .. folder))
end)

teardown(function() os.execute("rm -r " .. folder) end)

local function shell(command)
  local pipe = assert(io.popen("(" .. command .. ") 2>&1 </dev/null"))
  local output = pipe:read("a")
  local _, _, code = pipe:close()
  return output, code
end

-- Compiles a source without a warning; returns the program.
local function compile(source, options)
  local program = ("%s/%s"):format(folder, (source:match "([^/]+)%.c$"))
  local output, code = shell(("cc -g -Wall -Wextra -Werror -pthread %s -o %s %s")
    :format(source, program, options))
  assert.equal("", output)
  assert.equal(0, code)
  return program
end

local function run(program, argument)
  return shell(("timeout -k 2 %d %s %s"):format(h.TIMEOUT, program, argument or ""))
end

local ALL <const> = "$(pkg-config --cflags --libs moonloop lua5.4 libuv)"
local LUA_STATIC <const> = "-Wl,-E $(pkg-config --cflags lua5.4) -l:liblua5.4.a -lm -ldl"

-- The compiler has no sanitizer, so a sanitized library does not run in what it makes.
local function is_checking() return h.checking() end

describe("the C example", function()
  local examples = {
    min = "the plugin waited for 49\nhello, world\n",
    uv_host = "the job says: three sleeps in a job\nthe host ticked 5 times\n",
  }
  for name, expected in pairs(examples) do
    it(name .. " compiles without a warning and does what it says", function()
      if is_checking() then return end
      local output, code = run(compile("examples/embed/" .. name .. ".c", ALL))
      assert.equal(expected, output)
      assert.equal(0, code)
    end)
  end
end)

describe("moonloop.h", function()
  local source = [[
    #include <moonloop.h>
    static void begin(ml_op *op, uv_loop_s *, void *) { ml_op_complete(op, nullptr); }
    int main() {
      ml_executor_options o = ML_EXECUTOR_OPTIONS;
      ml_job_options job = ML_JOB_OPTIONS;
      ml_op_class kind = ML_SIZED(ml_op_class);
      o.name = job.name = kind.name = "C++";
      kind.begin = begin;
      ml_executor *ex;
      ml_future *f;
      if (ml_executor_new(&ex, &o) != ML_OK) return 1;
      if (ml_submit_call(ex, "os:time", nullptr, &job, &f) != ML_OK) return 2;
      if (ml_future_wait(f, ml_after_ms(10000)) != ML_OK) return 3;
      ml_future_release(f);
      if (ml_executor_shutdown(ex, true, ml_after_ms(10000)) != ML_OK) return 4;
      ml_executor_release(ex);
    }]]

  for _, standard in ipairs { "c++11", "c++20" } do
    it("compiles without a warning as " .. standard .. ", and works there", function()
      if is_checking() then return end
      local file <close> = assert(io.open(folder .. "/header.cc", "w"))
      file:write(source)
      file:close()
      local program = folder .. "/header-" .. standard
      local flags = "-Wall -Wextra -Wpedantic -Werror "
      assert.same({ "", 0 }, { shell(("c++ -std=%s %s %s/header.cc -o %s %s")
        :format(standard, flags, folder, program, ALL)) })
      assert.same({ "", 0 }, { run(program) })
    end)
  end
end)

describe("the C code in", function()
  local frame = [[
    #include <lauxlib.h>
    #include <lualib.h>
    #include <moonloop.h>
    #include <stdio.h>
    #include <stdlib.h>
    static void die(const char *text) { puts(text); exit(1); }
    int main(void) {
      int n = 0;
      lua_State *L = luaL_newstate();
      luaL_openlibs(L);
      %s
      printf("%%d %%s\n", n, lua_tostring(L, -1));
      ml_future_release(f);
      lua_close(L);
      ml_status status = ml_executor_shutdown(ex, true, ml_after_ms(5000));
      ml_executor_release(ex);
      return (int)status;
    }]]

  it("README.md does what it says", function()
    if is_checking() then return end
    local readme = assert(io.open "README.md"):read "a"
    local source = folder .. "/readme.c"
    local file <close> = assert(io.open(source, "w"))
    file:write(frame:format(readme:match "```c\n(.-)```"))
    file:close()
    assert.same({ "1 hello, world\n", 0 }, { run(compile(source, ALL)) })
  end)
end)

describe("a host", function()
  local script = [[
    local ml, http = require "moonloop", require "moonloop.http"
    local f = ml.run_async_job(function(n) ml.sleep(0.001) return n + 1 end, 41)
    assert(f:result(20) == 42)
    assert(ml.to_thread(string.upper, "x") == "X")
    local ex <close> = ml.AsyncExecutor { loops = 2 }
    assert(#ml.gather { ex:submit(type, 1), ex:submit(type, nil) } == 2)
    local ok, err = http.get("http://127.0.0.1:1/")
    assert(ok == nil and err.message:find "connection refused", err)
    print("it works", require "cjson".encode { 1 })
  ]]

  it("may open a plugin that is linked with libmoonloop with RTLD_LOCAL, and close it", function()
    if is_checking() then return end
    local plugin = compile("spec/support/embed/local_plugin.c", "-shared -fPIC " .. ALL)
    local host = compile("spec/support/embed/local_host.c", "")
    local output, code = run(host, plugin)
    assert.equal("three runs\n", output)
    assert.equal(0, code)
  end)

  local static = {
    ["moonloop.so"] = "",
    libmoonloop = "-DWITH_LIBRARY $(pkg-config --cflags --libs moonloop) ",
  }
  for what, options in pairs(static) do
    it("may link Lua statically and export it, with " .. what, function()
      if is_checking() then return end
      local host = compile("spec/support/embed/static_host.c", options .. LUA_STATIC)
      local output, code = run(host, "'" .. script .. "'")
      assert.equal("it works\t[1]\n", output)
      assert.equal(0, code)
    end)
  end

  for _, how in ipairs { "return", "exit", "loop", "callback", "quick", "released" } do
    it("may exit in the midst of work: " .. how, function()
      if is_checking() then return end
      local host = compile("spec/support/embed/exits.c", ALL)
      for _ = 1, 5 do
        local output, code = run(host, how)
        assert.equal("", output)
        assert.equal(7, code)
      end
    end)
  end
end)
