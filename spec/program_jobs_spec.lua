-- SIGQUIT shows what all jobs of the program do, and the program goes on.

local h = require "spec.support.helpers"

-- Runs a script with the program and sends it SIGQUIT once it has said that it is ready: its
-- output with stderr, and its exit code. The script goes on when its stdin ends.
local function quit(script, times)
  local path, fifo = os.tmpname(), os.tmpname()
  local file <close> = assert(io.open(path, "w"))
  file:write('local ml = require "moonloop"\n', script)
  file:close()
  local pipe = assert(io.popen(([[
    rm %s; mkfifo %s
    timeout --foreground -k 2 %d moonloop %s <%s 2>&1 & child=$!
    exec 3>%s; wait $child; echo "exit code $?"]]):format(fifo, fifo, h.TIMEOUT, path, fifo, fifo)))
  local pid = assert(pipe:read("l")):match("^ready (%d+)$")
  local output = {}
  for _ = 1, times or 1 do
    assert(os.execute("kill -QUIT " .. pid))
    repeat
      local line = assert(pipe:read("l"), "the program ended")
      table.insert(output, line)
    until line:find("^end of it")
  end
  table.insert(output, pipe:read("a"))
  pipe:close()
  os.remove(path)
  os.remove(fifo)
  return table.concat(output, "\n")
end
