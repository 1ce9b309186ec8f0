-- busted --helper=moonloop.busted --Xhelper parallel=N: one report of files that ran in workers.

local h = require "spec.support.helpers"

local BUSTED <const> = 'require "busted.runner" { standalone = false }'

-- A folder of spec files, by name.
local function folder(files)
  local path = os.tmpname()
  os.remove(path)
  assert(os.execute("mkdir " .. path))
  for name, text in pairs(files) do
    local file = assert(io.open(path .. "/" .. name .. "_spec.lua", "w"))
    file:write('local ml = require "moonloop"\n', text)
    file:close()
  end
  return path
end

local function busted(path, ...)
  return h.run_script(BUSTED, { "--ignore-lua", "--helper=moonloop.busted", path, ... })
end

-- What differs from run to run: times, addresses, the order of attributes in XML, and by which
-- of its names Lua calls a function.
local function comparable(output)
  output = output:gsub("0x%x+", "ADDRESS"):gsub("%d+%.%d+", "TIME"):gsub('"?%w+"?[:=]TIME,?', "")
  output = output:gsub("timestamp='[^']*'", ""):gsub("job %d+", "job")
  output = output:gsub("moonloop%.core%.", "moonloop.")
  return (output:gsub("<[%a]+ [^>]*>", function(tag)
    local words = {}
    for word in tag:gmatch "%w+='[^']*'" do words[#words + 1] = word end
    table.sort(words)
    return table.concat(words, " ")
  end))
end

local MIXED <const> = {
  a = [[
    describe("a", function()
      it("passes", function() ml.sleep(0.01) end)
      it("fails", function() assert.equal(1, 2) end)
      describe("inside", function()
        it("is pending", function() pending "later" end)
      end)
      pending "not written"
    end)
  ]],
  b = [[
    describe("b", function()
      before_each(function() ml.sleep(0.001) end)
      insulate("inside", function()
        it("raises", function() error { code = "E", "value" } end)
        it("leaves a job", function() ml.spawn(ml.sleep, 60) end)
      end)
      it("hangs", function()
        require "moonloop.busted".timeout(0.1)
        ml.sleep(60)
      end)
    end)
  ]],
  c = [[
    describe("c", function()
      setup(function() error "no setup" end)
      it("is not run", function() end)
    end)
    it("passes", function() end)
  ]],
}

describe("spec files in parallel", function()
  local path
  after_each(function() os.execute("rm -r " .. path) end)

  for _, handler in ipairs { "plainTerminal", "utfTerminal", "TAP", "junit", "gtest" } do
    it("are reported as by one state, to " .. handler, function()
      path = folder(MIXED)
      local one, code = busted(path, "-o", handler)
      local two, same_code = busted(path, "-o", handler, "-Xhelper", "parallel=3")
      assert.equal(comparable(one), comparable(two))
      assert.equal(1, code)
      assert.equal(code, same_code)
      assert.truthy(two:find "no end after 0.1 s" and two:find "left open", two)
    end)
  end

  it("are reported to json", function()
    path = folder{ a = 'it("passes", function() end)', b = 'it("too", function() end)' }
    local output, code = busted(path, "-o", "json", "-Xhelper", "parallel=2")
    assert.equal(0, code, output)
    local report = require "cjson".decode(output:match "{.*}")
    assert.equal(2, #report.successes)
    assert.equal("passes", report.successes[1].name)
    assert.equal("too", report.successes[2].name)
  end)

  it("run at once, each in a state of a worker", function()
    local text = [[
      it("meets the other", function()
        local mine, other = "%s/%s", "%s/%s"
        assert(io.open(mine, "w")):close()
        local deadline = ml.now() + 15
        local file
        repeat
          ml.sleep(0.005)
          file = io.open(other)
        until file or ml.now() > deadline
        assert(file, "the other is not there"):close()
      end)
    ]]
    path = folder{}
    for mine, other in pairs{ a = "b", b = "a" } do
      local file = assert(io.open(("%s/%s_spec.lua"):format(path, mine), "w"))
      file:write('local ml = require "moonloop"\n', text:format(path, mine, path, other))
      file:close()
    end
    local output, code = busted(path, "-Xhelper", "parallel=2")
    assert.equal(0, code, output)
  end)

  it("have no clocks", function()
    path = folder{ a = 'it("stops the time", function() require "moonloop.testing".clock() end)' }
    local output, code = busted(path, "-Xhelper", "parallel=2", "-o", "plainTerminal")
    assert.equal(1, code)
    assert.truthy(output:find("a_spec.lua:2: clock: spec files that run in parallel share one time",
      1, true), output)
  end)

  it("obey the command line: filters, tags, the first failure", function()
    path = folder{
      a = 'it("one #fast", function() end) it("two", function() assert.equal(1, 2) end)',
      b = 'it("three #fast", function() end) it("four", function() assert.equal(1, 2) end)',
    }
    local output, code = busted(path, "-Xhelper", "parallel=2", "--tags=fast")
    assert.equal(0, code)
    assert.truthy(output:find "2 successes / 0 failures", output)
    output, code = busted(path, "-Xhelper", "parallel=2", "--filter=t[hw]")
    assert.equal(1, code)
    assert.truthy(output:find "1 success / 1 failure ", output)
    output, code = busted(path, "-Xhelper", "parallel=2", "--no-keep-going")
    assert.equal(1, code)
    assert.truthy(output:find "1 success / 1 failure ", output)
  end)
end)
