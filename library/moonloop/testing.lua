---@meta moonloop.testing
-- The types of `require "moonloop.testing"`. See library/moonloop.lua.

---What tests of concurrent code need. See [testing](testing.md).
---@class moonloop.testing
---@field TIMEOUT number seconds after which `pass` and `request` give up when they are not told; 10
---@field Gate table the metatable of gates
local testing = {}

---A gate, shut. It crosses states.
---@return moonloop.testing.Gate
function testing.gate() end

---@class moonloop.testing.Gate
local Gate = {}

---Opens it, once.
---@param ... any what `pass` returns
function Gate:open(...) end

---Waits until it is open. Raises "timeout".
---@async
---@param timeout? number seconds
---@return any ... what it was opened with
function Gate:pass(timeout) end

---Whether it is open.
---@return boolean
function Gate:is_open() end

---Stops the time that programs see, in the whole process. When all wait, it jumps to the next of
---their deadlines.
---@param options? { autojump: boolean? } false: it moves by `advance` alone
---@return moonloop.testing.Clock
function testing.clock(options) end

---`<close>`. See [testing](testing.md#a-clock).
---@class moonloop.testing.Clock
local Clock = {}

---The time by this clock.
---@return number seconds since it was made
function Clock:now() end

---Lets time pass, deadline by deadline, and waits until all that is due by then has run.
---@async
---@param seconds number `0` waits until everything rests
function Clock:advance(seconds) end

---Real time goes on.
function Clock:close() end

---Starts an HTTP/1.1 server on a free port of 127.0.0.1.
---@async
---@param routes table<string,string|table|function> "METHOD /path" or "/path" → the answer
---@return moonloop.testing.HttpServer
function testing.http_server(routes) end

---`<close>`.
---@class moonloop.testing.HttpServer
---@field url string
---@field port integer
local HttpServer = {}

---The next request that came, in the order of their arrival.
---@async
---@param timeout? number seconds
---@return table? request `method path query headers body`
---@return moonloop.Error? err "timeout" or "closed"
function HttpServer:request(timeout) end

---How many requests were not asked for yet.
---@return integer
function HttpServer:unread() end

---Ends it and its connections.
---@async
function HttpServer:close() end

return testing
