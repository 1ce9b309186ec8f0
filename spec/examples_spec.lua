-- Every example runs, under the stock interpreter and under the program, and shows what it says.

local h = require "spec.support.helpers"

-- Runs a shell command; its output with stderr, and its exit code. `first` is called with the
-- first line once that is there.
local function run(command, first)
  local pipe = assert(io.popen(command .. " 2>&1 </dev/null"))
  if first then first(pipe:read("l")) end
  local output = pipe:read("a")
  local _, _, code = pipe:close()
  return output, code
end

-- `matches`: patterns for the output. `prefix`: what goes before the command.
local examples = {
  chat_server = {
    prefix = "timeout -s INT -k 2 1",
    code = 124,
    matches = { "listening on ws://127%.0%.0%.1:%d+" },
  },
  cpu_map = {
    args = "300000",
    matches = { "25 %% done\n.*\n100 %% done\n", "25997 primes up to 300000 in " },
  },
  crash_proof = {
    measures = true, -- memory
    matches = {
      "<a>fine<b>%s+2 tags", "<null>%s+process of executor 'parser' was killed by signal 11",
      "<loop>%s+job '<loop>' ran longer than its timeout", "<bomb>%s+not enough memory",
      "<a>the last%s+1 tags",
    },
  },
  crawler = {
    args = "-w 6",
    matches = { "200%s+/page/1%s+Page 1", "63 pages in .* at most 6 requests at once" },
  },
  database = {
    matches = {
      "300 orders, 250 sold, 50 times none was left",
      "has 250 orders and 0 things left, through %d connections",
    },
  },
  demo_server = {
    prefix = "timeout -s INT -k 2 1",
    code = 124, -- that of `timeout`
    matches = { "listening on http://127%.0%.0%.1:%d+" },
  },
  fan_out = {
    args = "-c 10 -n 22",
    matches = { "\nrefused .*:1/nobody", "\n503 ", "22 requests, 6 failed", "One after another" },
  },
  first_answer = {
    matches = {
      "both are up: /near/delay/30, 12 bytes",
      "cancelled: %S+/far/delay/400",
      "the near one is down: /far/delay/80",
      "both are down: no answer .*503 Not OK; 502 Not OK",
      "both are slow: no answer .*deadline",
    },
  },
  graceful = {
    args = "0.5",
    matches = {
      "^taking orders\n", "stopping: %d+ orders", "order 5 was put back",
      "stopped: .* none lost\n$",
    },
  },
  perf_test = {
    args = "1",
    measures = true,
    matches = { "https, fresh", "http, warm, 20 ms, thread a call%s+100%s+100" },
  },
  producer = {
    args = "60",
    matches = { "consumer 3 took %d+", "the producer waited", "60 items, 18 of them prime" },
  },
  stream_lines = {
    args = "3",
    matches = {
      "^reading 1: 20%.5 degrees", "reading 3: .*the connection is closed\n3 lines",
      "the connection is closed\n$",
    },
  },
  threads = {
    args = "5",
    matches = { "thread 8: 5 requests, 5000 bytes", "8 threads made 40 requests" },
  },
  trace_picture = {
    matches = {
      "^<svg .*>main</text>.*>jobs</text>.*>requests</text>.*</svg>\n$",
      "<title>digest, [%d.]+ ms</title>", "<title>wait: http request, ", "<title>first byte, ",
    },
  },
  websocket_chat = {
    matches = { "^ada is here\n", "\nbob: hello, ada\n", "\neve has left\nada heard 9 messages\n" },
  },
}

describe("the examples", function()
  it("are all known here", function()
    local pipe <close> = assert(io.popen("ls examples/*.lua"))
    for path in pipe:lines() do
      local name = path:match("([%w_]+)%.lua$")
      assert(examples[name], path .. " has no case")
    end
  end)

  for _, lua in ipairs { "lua5.4", "moonloop" } do
    for name, case in pairs(examples) do
      it(("%s runs under %s"):format(name, lua), function()
        if case.measures and h.checking() then return end
        local output, code = run(("%s %s examples/%s.lua %s"):format(
          case.prefix or "timeout -k 2 60", lua, name, case.args or ""))
        for _, pattern in ipairs(case.matches) do
          assert(output:find(pattern), ("no %q in:\n%s"):format(pattern, output))
        end
        assert.equal(case.code or 0, code, output)
      end)
    end
  end

  it("tell how they are used", function()
    for name in pairs(examples) do
      local output, code = run(("timeout -k 2 20 moonloop examples/%s.lua --help"):format(name))
      assert(output:find("^usage: " .. name), name .. " says " .. output)
      assert.equal(0, code, name)
    end
  end)
end)

describe("cpu_map", function()
  it("writes one line again and again on a terminal", function()
    local output = run "timeout -k 2 60 script -qec 'moonloop examples/cpu_map.lua 1000' /dev/null"
    assert.matches("\r%[#+ +%]  50 %%\r", output)
    assert.matches(("\r%%[%s%%] 100 %%%%\r?\n168 primes"):format(("#"):rep(40)), output)
    assert.not_matches("done", output)
  end)
end)

describe("graceful", function()
  for lua, expected in pairs { ["lua5.4"] = 1, moonloop = 130 } do
    it("stops in good order on Ctrl-C under " .. lua, function()
      local output, code = run("echo $$; exec " .. lua .. " examples/graceful.lua 30", function(pid)
        os.execute("sleep 0.5; kill -INT " .. pid)
      end)
      assert.matches("taking orders\nstopping: %d+ orders", output)
      assert.matches("stopped: .* none lost\n", output)
      assert.matches("interrupted!", output)
      assert.equal(expected, code)
    end)
  end
end)
