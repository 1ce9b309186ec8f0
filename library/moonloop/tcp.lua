---@meta moonloop.tcp
-- The types of `require "moonloop.tcp"`. See library/moonloop.lua.

---TCP and unix sockets. See [tcp](tcp.md).
---@class moonloop.tcp
local tcp = {}

---Connects. The addresses of a name are tried in turn.
---@async
---@param host string|moonloop.tcp.Options a name or a number; or all in one table
---@param port? integer
---@param options? moonloop.tcp.Options
---@return moonloop.tcp.Socket? sock
---@return moonloop.Error? err `ECONNREFUSED`, `EAI_NONAME`, "timeout" ...
function tcp.connect(host, port, options) end

---Listens.
---@async
---@param host? string|moonloop.tcp.Options default "127.0.0.1"; "::" for all; or all in one table
---@param port? integer default 0: a free one
---@param options? moonloop.tcp.Options
---@return moonloop.tcp.Server? server
---@return moonloop.Error? err `EADDRINUSE`, `EACCES` ...
function tcp.listen(host, port, options) end

---@class moonloop.tcp.Options
---@field host? string
---@field port? integer
---@field unix? string the path of a unix socket instead
---@field timeout? number seconds for all of it
---@field nodelay? boolean send small writes at once; default true
---@field keepalive? integer seconds of silence until the system asks whether the peer is there
---@field backlog? integer of `listen`: how many connections the system queues; default 511
---@field reuseport? boolean of `listen`: several servers share the port

---`<close>`. It crosses states by reference.
---@class moonloop.tcp.Socket
local Socket = {}

---Reads.
---@async
---@param n? integer exactly so many bytes; nil: what is there, at least a byte
---@param timeout? number seconds; nothing is lost past them
---@return string? data
---@return moonloop.Error? err "closed" (with `err.partial`), "timeout", ...
function Socket:read(n, timeout) end

---Reads a line of at most 1 MiB, without its end.
---@async
---@param timeout? number seconds
---@return string? line
---@return moonloop.Error? err also "too_large"
function Socket:read_line(timeout) end

---Reads up to a mark.
---@async
---@param mark string any bytes
---@param options? { max: integer?, timeout: number?, keep: boolean? } bytes, 1 MiB; seconds; the mark stays in it
---@return string? data
---@return moonloop.Error? err also "too_large"
function Socket:read_until(mark, options) end

---Reads until the peer ends its side.
---@async
---@param max? integer bytes
---@param timeout? number seconds
---@return string? data
---@return moonloop.Error? err also "too_large"
function Socket:read_all(max, timeout) end

---Iterates over lines. Raises errors; ends at the end.
---@return fun(): string?
function Socket:lines() end

---Writes, and waits until the system has all of it.
---@async
---@param data string|string[]
---@param timeout? number seconds
---@return boolean? ok `true`
---@return moonloop.Error? err with `sent`, the bytes that went out
function Socket:write(data, timeout) end

---Ends the output; the peer reads to the end.
---@async
---@param timeout? number seconds
---@return boolean? ok `true`
---@return moonloop.Error? err
function Socket:shutdown(timeout) end

---Closes it. Whatever waits on it ends with "closed".
function Socket:close() end

---The other side.
---@return string? host a path for unix sockets
---@return integer? port
function Socket:peer() end

---This side.
---@return string? host
---@return integer? port
function Socket:address() end

---Whether small writes are sent at once.
---@param on boolean
function Socket:nodelay(on) end

---`<close>`. It crosses states by reference.
---@class moonloop.tcp.Server
---@field port integer
local Server = {}

---Waits for a connection.
---@async
---@param timeout? number seconds; nothing is lost past them
---@return moonloop.tcp.Socket? sock
---@return moonloop.Error? err "closed", "timeout", `EMFILE` ...
function Server:accept(timeout) end

---Iterates over connections until the server is closed.
---@return fun(): moonloop.tcp.Socket?
function Server:accepted() end

---Serves each connection in a job of its own, until the server is closed and the last is done.
---@async
---@param handler fun(sock: moonloop.tcp.Socket)
---@param options? { executor: moonloop.Executor?, limit: integer? } whose loops take them; how many at once
---@return boolean ok `true`
function Server:serve(handler, options) end

---Where it listens.
---@return string? host
---@return integer? port
function Server:address() end

---Stops listening.
function Server:close() end

return tcp
