-- What the prompt's Lua part shows and completes. spec/program_spec.lua has the prompt itself.

local ml = require "moonloop"
local repl = require "moonloop.repl"

-- What is printed for these results.
local function shown(...)
  local lines = {}
  local real = print
  rawset(_G, "print", function(...)
    local texts = {}
    for i = 1, select("#", ...) do texts[i] = tostring((select(i, ...))) end
    lines[#lines + 1] = table.concat(texts, "|")
  end)
  local ok, err = pcall(repl.show, ...)
  rawset(_G, "print", real)
  assert(ok, err)
  return table.concat(lines, "\n")
end

describe("the prompt", function()
  it("shows what is in a table, one level of it, in order", function()
    assert.equal("{}", shown {})
    assert.equal('{ 1, "a", {...}, {}, x = true }', shown { 1, "a", { 2 }, {}, x = true })
    assert.equal('{ [1.5] = 1, ["a b"] = 2, b = 4, ["end"] = 3 }',
      shown { b = 4, ["a b"] = 2, ["end"] = 3, [1.5] = 1 })
    assert.equal([[{ "\0\1\n\"" }]], shown { "\0\1\n\"" })
    assert.equal("a|{ 2 }", shown("a", { 2 }))
  end)

  it("breaks long ones into lines, and says what it leaves out", function()
    local list = {}
    for i = 1, 1000 do list[i] = i end
    local text = shown(list)
    assert.truthy(text:find "^{\n  1, 2, ")
    assert.truthy(text:find "24, %.%.%. 976 more\n}$")
    for line in text:gmatch "[^\n]+" do assert.is_true(#line <= 78) end
  end)

  it("leaves to tostring what has a text of its own", function()
    assert.equal("me", shown(setmetatable({}, { __tostring = function() return "me" end })))
    assert.truthy(shown { ml.promise().future } :find "^{ future: .*%(pending%) }$")
    local err = select(2, ml.promise().future:wait(0))
    assert.equal(tostring(err), shown(err))
  end)

  it("completes globals, keywords, fields and methods, and calls nothing", function()
    assert.same({ "while" }, repl.complete "whi")
    assert.same({ "string.format" }, repl.complete "string.fo")
    rawset(_G, "spec_future", ml.promise().future)
    rawset(_G, "spec_proxy", setmetatable({}, { __index = function() error "called" end }))
    finally(function()
      rawset(_G, "spec_future", nil)
      rawset(_G, "spec_proxy", nil)
    end)
    assert.same({ "spec_future:cancel", "spec_future:cancel_and_wait", "spec_future:cancelled" },
      repl.complete "spec_future:canc")
    assert.same({}, repl.complete "spec_proxy.a.b")
    assert.same({}, repl.complete "no_such.a")
    assert.same({ "string.rep", "string.reverse" }, repl.complete "string.re")
    assert.is_true(#repl.complete "" > 40)
  end)

  it("works in a job, too", function()
    assert.same({ "string.format" }, ml.run(repl.complete, "string.fo"))
  end)
end)
