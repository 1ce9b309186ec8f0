-- The examples for C programs compile as a user would compile them, and run.

local function shell(command)
  local pipe = assert(io.popen("(" .. command .. ") 2>&1 </dev/null"))
  local output = pipe:read("a")
  local _, _, code = pipe:close()
  return output, code
end

local CC <const> = "cc -Wall -Wextra -Werror -pthread %s -o %s "
  .. "$(pkg-config --cflags --libs moonloop lua5.4 libuv)"

local examples = {
  min = "the plugin waited for 49\nhello, world\n",
  uv_host = "the job says: three sleeps in a job\nthe host ticked 5 times\n",
}

describe("the C example", function()
  for name, expected in pairs(examples) do
    it(name .. " compiles without a warning and does what it says", function()
      if require "spec.support.helpers".checking() then return end -- the compiler has no sanitizer
      local program = os.tmpname()
      finally(function() os.remove(program) end)
      local output, code = shell(CC:format("examples/embed/" .. name .. ".c", program))
      assert.equal("", output)
      assert.equal(0, code)
      output, code = shell("timeout -k 2 20 " .. program)
      assert.equal(expected, output)
      assert.equal(0, code)
    end)
  end
end)
