-- A name server that is slow or fails, and programs that use it instead of the system's:
-- they see another /etc/resolv.conf, in a mount namespace of their own.
--
--   local dns <close> = resolver.start()
--   h.run_script(code, { lua = dns:program "lua5.4" })
--
-- In such a script names mean what they say:
--   ok.test          is 127.0.0.1
--   slow-300.test    likewise, after 300 ms
--   none.test        does not exist
--   broken.test      the server fails
--   never.test       gets no answer; the system gives up after 20 s
--
-- It takes root, or a system that lets users have namespaces and port 53.

local process = require "spec.support.process"

local resolver = {}

local Server = process.class()

-- The words that run a command in a namespace where it may mount.
local function find_unshare()
  for _, words in ipairs{ "unshare --mount", "unshare --map-root-user --mount" } do
    if os.execute(words .. " mount --bind /etc/hosts /etc/hosts 2>/dev/null") then return words end
  end
  return nil, "no mount namespaces here"
end

---Whether it can be had here; else why not.
---@return boolean
---@return string?
function resolver.available()
  local words, why = find_unshare()
  if not words then return false, why end
  local probe = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
    .. ".bind(('127.91.7.3', 53))"
  if not os.execute(process.python() .. " -c " .. process.quote(probe) .. " 2>/dev/null") then
    return false, "port 53 is not ours to have"
  end
  return true
end

---@return table server
function resolver.start()
  local script = assert(package.searchpath("spec.support.resolver", package.path))
  local path = process.capture("realpath " .. process.quote((script:gsub("lua$", "py"))))
  local self = process.start(setmetatable({}, Server), "resolver.py", function()
    return process.python() .. " " .. process.quote(path), "[ -s address ]"
  end)
  process.write_file(self.dir .. "/resolv.conf", "nameserver "
    .. process.read_file(self.dir .. "/address") .. "\noptions timeout:10 attempts:2\n")
  self.unshare = assert(find_unshare())
  return self
end

---A program that runs `name` where the names are ours.
---@param name string
---@return string path
function Server:program(name)
  local path = self.dir .. "/" .. name:gsub("%W", "_") .. ".sh"
  process.write_file(path, ([[#!/bin/sh
exec %s sh -c 'mount --bind "$0" /etc/resolv.conf && exec "$@"' %s %s "$@"
]]):format(self.unshare, process.quote(self.dir .. "/resolv.conf"), process.quote(name)))
  process.run("chmod +x " .. process.quote(path), "chmod")
  return path
end

---The names it was asked for, in order, with repeats.
---@return string[]
function Server:asked()
  local list = {}
  for name in process.read_file(self.dir .. "/asked"):gmatch "[^\n]+" do list[#list + 1] = name end
  return list
end

return resolver
