#!/usr/bin/env moonloop
-- A parser that crashes, hangs or eats all memory on bad input, and a program that does not.
--
--   ./dev run examples/crash_proof.lua
--
-- Each document is parsed in a child process. One that kills its parser costs that child: its
-- own job fails and says how, the others go on, and a new child takes the next document.

local ml = require "moonloop"

if arg[1] then
  io.stderr:write("usage: crash_proof.lua\n")
  os.exit(arg[1] == "--help" and 0 or 2)
end

-- A stand-in for a parser in C with bugs in it.
local function parse(document)
  if document:find "<bomb>" then
    while true do document = document .. document end -- no memory is ever enough
  elseif document:find "<loop>" then
    while true do end
  elseif document:find "<null>" then
    os.execute "kill -SEGV $PPID" -- a pointer that points nowhere
    ml.sleep(10)
  end
  local tags = 0
  for _ in document:gmatch "<%a+>" do tags = tags + 1 end
  return tags
end

local documents = {
  "<a>fine<b>", "<null>", "<a><b><c>", "<loop>", "<bomb>", "plain", "<a>the last",
}

ml.run(function()
  local pool <close> = ml.ProcessExecutor {
    name = "parser", workers = 2, memory_limit = 128 << 20, grace = 0.5,
  }
  local futures = {}
  for i, document in ipairs(documents) do
    futures[i] = pool:submit(ml.job { parse, document, timeout = 2, name = document })
  end
  for i, future in ipairs(futures) do
    local ok, result = future:wait()
    print(("%-12s %s"):format(documents[i],
      ok and ("%d tags"):format(result) or tostring(result):gsub("process %d+", "process")))
  end
end)
