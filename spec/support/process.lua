-- What the servers of the specs have in common: each is a real program in a folder
-- of its own, under a small shell that waits on a pipe from this process. When the
-- pipe closes, for whatever reason, the program ends and the folder goes. Nothing
-- but io.popen and os.execute is used, so it works without moonloop too.

local process = {}

---@param s string
---@return string # `s` as one word of a shell command
function process.quote(s)
  return "'" .. s:gsub("'", [['\'']]) .. "'"
end
local quote = process.quote

---@param command string
---@return string # what it prints, without the last newline
function process.capture(command)
  local pipe = assert(io.popen(command, "r"))
  local text = pipe:read("a")
  pipe:close()
  return (text:gsub("\n$", ""))
end
local capture = process.capture

---Runs a command; raises with its output if it fails.
---@param command string
---@param what string
function process.run(command, what)
  local output = capture("{ " .. command .. "; } 2>&1 && echo done")
  if output:sub(-4) ~= "done" then
    error(what .. " failed: " .. output, 0)
  end
end

function process.write_file(path, text)
  local file = assert(io.open(path, "wb"))
  assert(file:write(text))
  assert(file:close())
end

---@return string # the file's content; "" if there is no such file
function process.read_file(path)
  local file = io.open(path, "rb")
  if not file then return "" end
  local text = file:read("a")
  file:close()
  return text
end
local read_file = process.read_file

---The path of a program; raises with the Debian package that brings it.
---@param name string
---@param package string
---@return string path
function process.find(name, package)
  local word = quote(name)
  local path = capture(("command -v %s || command -v /usr/sbin/%s"):format(word, word))
  if path == "" then
    error(("%s is missing: install the package %s"):format(name, package), 0)
  end
  return path
end

---The Python that Debian's packages are for.
function process.python()
  local path = capture "command -v /usr/bin/python3 || command -v python3"
  if path == "" then error("python3 is missing: install the package python3", 0) end
  return path
end

-- The ports that something listens on, as a set.
local function taken_ports()
  local taken = {}
  for _, path in ipairs { "/proc/net/tcp", "/proc/net/tcp6" } do
    for port in read_file(path):gmatch(":(%x%x%x%x) %x+:%x+ 0A ") do
      taken[tonumber(port, 16)] = true
    end
  end
  return taken
end

---A port that nothing listens on, below the range from which the system gives ports
---to clients.
---@return integer
function process.free_port()
  local taken = taken_ports()
  local urandom = assert(io.open("/dev/urandom", "rb"))
  local port
  repeat
    port = 10000 + string.unpack("I2", urandom:read(2)) % 20000
  until not taken[port]
  urandom:close()
  return port
end

---A shell condition: something listens on that port.
---@param port integer
---@return string
function process.listens(port)
  return ("grep -q ':%04X 00000000:0000 0A ' /proc/net/tcp"):format(port)
end

-- Starts the command in `self.dir` under its watching shell. True when `ready`, a shell
-- condition, holds; or false if the command ended before.
local function launch(self, command, ready)
  local dir = quote(self.dir)
  self.pipe = assert(io.popen(([[
    exec >/dev/null 2>&1
    trap '' INT HUP TERM QUIT
    cd %s || exit 1
    rm -f ended pid start.log
    { (trap - INT HUP TERM QUIT; exec sh -c %s </dev/null >start.log 2>&1); echo >ended; } &
    read -r word
    [ -s pid ] && kill "$(cat pid)"
    wait
    [ "$word" = again ] || rm -rf %s]]):format(
      dir, quote("echo $$ >pid; exec " .. command), dir), "w"))
  return os.execute(([[cd %s || exit 1
    i=0
    while [ $i -lt 1000 ]; do
      [ -e ended ] && exit 1
      { %s; } 2>/dev/null && exit 0
      sleep 0.01
      i=$((i + 1))
    done
    exit 1]]):format(dir, ready)) == true
end

local function end_shell(self, word)
  local pipe = self.pipe
  self.pipe = nil
  if pipe then
    pipe:write(word, "\n")
    pipe:close() -- waits for the shell, which waits for the program
  end
end

---A metatable for servers: `<close>`, `:stop()` and `:log()`.
function process.class()
  local Server = {}
  Server.__index = Server

  ---Ends the program and removes its folder. Again: nothing.
  function Server:stop()
    end_shell(self, "stop")
  end

  ---What the program has to say, for a failing spec.
  ---@return string
  function Server:log()
    return read_file(self.dir .. "/start.log") .. read_file(self.dir .. "/error.log")
  end

  Server.__close = Server.stop
  Server.__gc = Server.stop
  return Server
end

---Makes the server's folder, `self.dir`, and starts its program there. A program that
---another process took the port from is started again with another one.
---@param self table                 made with a metatable of `process.class`
---@param name string                for messages
---@param setup fun(self): string, string  prepares the folder; returns the command, whose
---                                  first word is a program, and the shell condition that
---                                  says that it is ready
---@return table self
function process.start(self, name, setup)
  self.dir = capture "mktemp -d -t moonloop-XXXXXX"
  assert(self.dir ~= "", "no temporary folder")
  local ok, err = pcall(function()
    for attempt = 1, 5 do
      if launch(self, setup(self)) then return end
      local why = self:log()
      end_shell(self, "again")
      if attempt == 5 or not why:find("ddress already in use", 1, true) then
        error(name .. " did not start: " .. why, 0)
      end
    end
  end)
  if not ok then
    os.execute("rm -rf " .. quote(self.dir))
    error(err, 3)
  end
  return self
end

return process
