-- What `cmake --install` and `cpack` put into a clean folder works there, for C programs and
-- for scripts, with nothing of the build tree in reach.

local process = require "spec.support.process"
local h = require "spec.support.helpers"
local quote, capture = process.quote, process.capture

local build = capture "dirname $(command -v moonloop)"
local version = require "moonloop".version
local dir, tree -- a folder of ours; the installed tree in it

-- Runs a shell command in our folder with a bare environment; its output.
local function run(command)
  local output = capture(([[cd %s || exit 1
    env -i PATH=/usr/bin:/bin HOME="$PWD" MANWIDTH=100 LC_ALL=C timeout -k 5 120 sh -ec %s \
      </dev/null 2>&1
    echo =$?]]):format(quote(dir), quote(command)))
  local text, code = output:match "^(.-)\n?=(%d+)$"
  assert.equal("0", code, command .. "\n" .. text)
  return text
end

local function lines_of(text)
  local lines = {}
  for line in text:gmatch "[^\n]+" do lines[#lines + 1] = line end
  table.sort(lines)
  return lines
end

-- The files below a folder, links too.
local function files_below(folder)
  return lines_of(run(("cd %s; find . ! -type d | sed 's|^./||'"):format(quote(folder))))
end

local function below(prefix, list)
  local out = {}
  for i, name in ipairs(list) do out[i] = prefix .. name end
  table.sort(out)
  return out
end

local INSTALLED <const> = {
  "bin/moonloop",
  "include/moonloop.h",
  "lib/cmake/moonloop/moonloop-config-version.cmake",
  "lib/cmake/moonloop/moonloop-config.cmake",
  "lib/cmake/moonloop/moonloop-targets-relwithdebinfo.cmake",
  "lib/cmake/moonloop/moonloop-targets.cmake",
  "lib/libmoonloop.a",
  "lib/libmoonloop.so",
  "lib/libmoonloop.so." .. version:match "^%d+",
  "lib/libmoonloop.so." .. version,
  "lib/lua/5.4/moonloop.so",
  "lib/pkgconfig/moonloop-static.pc",
  "lib/pkgconfig/moonloop.pc",
  "share/bash-completion/completions/moonloop",
  "share/doc/moonloop/copyright",
  "share/fish/vendor_completions.d/moonloop.fish",
  "share/man/man1/moonloop.1",
  "share/moonloop/library/moonloop.lua",
  "share/moonloop/library/moonloop/busted.lua",
  "share/moonloop/library/moonloop/http.lua",
  "share/moonloop/library/moonloop/tcp.lua",
  "share/moonloop/library/moonloop/testing.lua",
  "share/zsh/site-functions/_moonloop",
}

local HOST <const> = "examples/embed/min.c"
local SAYS <const> = "the plugin waited for 49\nhello, world"

local PROJECT <const> = [[
cmake_minimum_required(VERSION 3.22)
project(host C)
find_package(moonloop 0.1 REQUIRED COMPONENTS static)
find_package(PkgConfig REQUIRED)
pkg_check_modules(LUA REQUIRED IMPORTED_TARGET lua5.4)
add_executable(shared host.c)
target_link_libraries(shared moonloop::moonloop PkgConfig::LUA)
add_executable(static host.c)
target_link_libraries(static moonloop::moonloop_static)
]]

-- Prints what the processes of a script have in memory of moonloop.
local SCRIPT <const> = [[
local ml = require "moonloop"
local http = require "moonloop.http"
assert(http.get and require "moonloop.tcp" and require "moonloop.testing")
local function loaded()
  for line in io.lines "/proc/self/maps" do
    local file = line:match "/.*moonloop.*"
    if file then return file end
  end
end
print(loaded())
print(ml.to_thread(function(a, b) return a + b end, 20, 22))
local children <close> = ml.ProcessExecutor{ workers = 1 }
print(children:submit(loaded):result(15))
]]

describe("an installed tree", function()
  if h.checking() then return end -- other compilers and programs have no sanitizer

  lazy_setup(function()
    dir = capture "mktemp -d -t moonloop-XXXXXX"
    run(("cmake --install %s --prefix made; mv made tree"):format(quote(build)))
    tree = dir .. "/tree"
    process.write_file(dir .. "/host.c", process.read_file(HOST))
    process.write_file(dir .. "/CMakeLists.txt", PROJECT)
    process.write_file(dir .. "/script.lua", SCRIPT)
  end)

  lazy_teardown(function() os.execute("rm -rf " .. quote(dir)) end)

  it("has these files", function()
    assert.same(below("", INSTALLED), files_below "tree")
  end)

  it("has them below DESTDIR, where nothing tells of the build", function()
    run(("DESTDIR=$PWD/root cmake --install %s --prefix /usr/local"):format(quote(build)))
    assert.same(below("usr/local/", INSTALLED), files_below "root")
    assert.equal("", run(("grep -rlF %s root --include=*.pc --include=*.cmake || true"):format(
      quote(build))))
    assert.equal("", run "cd root/usr/local; \
      readelf -d bin/moonloop lib/lua/5.4/*.so lib/*.so | grep -E 'R(UN)?PATH' || true")
  end)

  it("has a library with a soname, whose names have a version", function()
    local major = version:match "^%d+"
    assert.matches("[libmoonloop.so." .. major .. "]",
      run "readelf -d tree/lib/libmoonloop.so | grep SONAME", 1, true)
    assert.matches("ml_version@@MOONLOOP_" .. major,
      run "nm -D tree/lib/libmoonloop.so | grep ml_version")
  end)

  local with_pc = "export PKG_CONFIG_PATH=tree/lib/pkgconfig; cc -Wall -Werror host.c -o %s "
    .. "$(pkg-config --cflags --libs %s); %s"
  it("builds a C program with pkg-config", function()
    local program = "LD_LIBRARY_PATH=tree/lib ./shared"
    assert.equal(SAYS, run(with_pc:format("shared", "moonloop lua5.4", program)))
    assert.matches("libmoonloop.so.0 => tree/lib/", run "LD_LIBRARY_PATH=tree/lib ldd shared")
  end)

  it("builds a C program with pkg-config, with the library in it", function()
    assert.equal(SAYS, run(with_pc:format("static", "moonloop-static lua5.4", "./static")))
    assert.not_matches("libmoonloop", run "ldd static")
    assert.equal(SAYS, run(with_pc:format("archive",
      "--static moonloop lua5.4 | sed 's/-lmoonloop/-l:libmoonloop.a/'", "./archive")))
    assert.equal(version, run "PKG_CONFIG_PATH=tree/lib/pkgconfig pkg-config --modversion moonloop")
  end)

  it("builds a C program with CMake, with either library", function()
    run "cmake -G 'Unix Makefiles' -S . -B made -Dmoonloop_ROOT=tree; make -C made"
    assert.equal(SAYS, run "made/shared")
    assert.equal(SAYS, run "made/static")
    assert.matches("libmoonloop.so.0 => " .. tree, run "ldd made/shared", 1, true)
    assert.not_matches("libmoonloop", run "ldd made/static")
  end)

  it("has a header for C and C++", function()
    for _, language in ipairs { "c -std=c99", "c++ -std=c++11" } do
      run("cc -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x " .. language
        .. " tree/include/moonloop.h")
    end
  end)

  it("runs a script with lua5.4 and with the program", function()
    local module, program = tree .. "/lib/lua/5.4/moonloop.so", tree .. "/bin/moonloop"
    assert.equal(module .. "\n42\n" .. program,
      run "LUA_CPATH='tree/lib/lua/5.4/?.so;;' lua5.4 script.lua")
    assert.equal(program .. "\n42\n" .. program, run "tree/bin/moonloop script.lua")
  end)

  it("requires each module first", function()
    for name in ("http tcp testing busted"):gmatch "%a+" do
      run(("LUA_CPATH='tree/lib/lua/5.4/?.so;' lua5.4 -e 'require [[moonloop.%s]]'"):format(name))
    end
  end)

  it("is what the package holds, and it runs from where that is unpacked", function()
    run("cpack --config " .. quote(build .. "/CPackConfig.cmake") .. " -G DEB -B package")
    run "dpkg-deb -x package/moonloop_*.deb system"
    local expected = below("usr/", INSTALLED)
    for i, name in ipairs(expected) do
      expected[i] = name:gsub("zsh/site%-functions", "zsh/vendor-completions")
    end
    table.sort(expected)
    assert.same(expected, files_below "system")
    local depends = run "dpkg-deb -f package/moonloop_*.deb Depends"
    for name in ("libc6 libcurl4 liblua5.4-0 libuv1 libssl3 libwslay1"):gmatch "%S+" do
      assert.matches(name, depends, 1, true)
    end
    local system = dir .. "/system/usr"
    assert.equal(system .. "/lib/lua/5.4/moonloop.so\n42\n" .. system .. "/bin/moonloop",
      run "LUA_CPATH='system/usr/lib/lua/5.4/?.so;;' lua5.4 script.lua")
  end)
end)

describe("the program's options", function()
  if h.checking() then return end
  local help, options = capture "moonloop --help", {} -- { word, argument }...

  setup(function()
    dir = capture "mktemp -d -t moonloop-XXXXXX"
    for option, argument in help:gmatch "\n  (%-%S*)( ?%S*)" do
      options[#options + 1] = { option, argument:sub(2) }
    end
    assert.is_true(#options >= 10, help)
  end)

  teardown(function() os.execute("rm -rf " .. quote(dir)) end)

  it("are those of the manual page, with their arguments", function()
    local page = run("man --warnings -E ascii -l " .. quote(capture "pwd" .. "/docs/moonloop.1"))
    assert.not_matches("warning:", page)
    local section = assert(page:match "\nOPTIONS\n(.-)\n%S")
    local found = {}
    for line in section:gmatch "[^\n]+" do
      local option, argument = line:match "^     %s?%s?(%-%S*) ?(%S*)"
      if option then found[#found + 1] = { option, argument } end
    end
    for i, option in ipairs(options) do
      assert.equal(option[1], found[i][1])
      if option[2] ~= "" then assert.equal(option[2], found[i][2]) end
    end
    assert.equal(#options, #found)
    assert.matches("moonloop " .. version, page, 1, true)
  end)

  it("and the environment's variables that it heeds, all of them", function()
    local page = process.read_file "docs/moonloop.1"
    local source = capture "grep -rhoE 'getenv ?\\(\"(MOONLOOP|LUA)_[A-Z_]+' src lua"
    assert.matches("MOONLOOP_HISTORY", source)
    for name in source:gmatch '"([%u_]+)' do assert.matches(name, page, 1, true) end
  end)

  it("are completed by bash", function()
    local words = {}
    for _, option in ipairs(options) do words[option[1]] = true end
    local script = "source " .. capture "pwd" .. "/completions/moonloop.bash; "
      .. [[COMP_WORDS=(%s); COMP_CWORD=%d; _moonloop; printf "%%s " ${COMPREPLY[@]}]]
    local function complete(line, at)
      return run("bash -c " .. quote(script:format(line, at)))
    end
    for word in complete("moonloop -", 1):gmatch "%S+" do
      assert.is_true(words[word], word)
      words[word] = nil
    end
    assert.same({}, words)
    assert.equal("--help ", complete("moonloop -i --h", 2))
    assert.equal(" ", complete("moonloop -e -", 2))
    assert.equal(" ", complete("moonloop script.lua -", 2))
  end)

  it("are named for zsh and fish", function()
    local zsh = process.read_file "completions/moonloop.zsh"
    local fish = process.read_file "completions/moonloop.fish"
    for _, option in ipairs(options) do
      local name = option[1]
      if name ~= "--" then assert.matches("['*)]" .. name:gsub("%-", "%%-") .. "%[", zsh) end
      if #name > 2 then
        assert.matches("-l " .. name:sub(3) .. " ", fish, 1, true)
      elseif name:find "%a" then
        assert.matches("-s " .. name:sub(2) .. " ", fish, 1, true)
      end
    end
  end)
end)

describe("the rockspec", function()
  local name = "moonloop-" .. version .. "-1.rockspec"

  it("passes LuaRocks' own check", function()
    assert.equal("", capture("luarocks --lua-version 5.4 lint " .. name .. " 2>&1 || echo failed"))
  end)

  it("has the version of the header, of the library and of CMake's project", function()
    local read = process.read_file
    assert.equal(version, read "src/include/moonloop.h":match '#define ML_VERSION "(.-)"')
    assert.equal(version, read "CMakeLists.txt":match "project%(moonloop VERSION (%S+)")
    assert.equal(version .. "-1", read(name):match '\nversion = "(.-)"')
  end)
end)
