--- The HTTP server of moonloop.testing: HTTP/1.1 with connections that stay open.

local check = require "moonloop.check"
local ml = require "moonloop"
local tcp = require "moonloop.tcp"
local misuse = check.misuse
local server = {}

local MAX_HEAD <const> = 64 * 1024 -- bytes of the request's line and headers

local REASONS <const> = {
  [200] = "OK", [201] = "Created", [204] = "No Content", [301] = "Moved Permanently",
  [302] = "Found", [304] = "Not Modified", [400] = "Bad Request", [401] = "Unauthorized",
  [403] = "Forbidden", [404] = "Not Found", [409] = "Conflict", [429] = "Too Many Requests",
  [500] = "Internal Server Error", [502] = "Bad Gateway", [503] = "Service Unavailable",
}

local ANSWER <const> = { status = "number", headers = "table", body = "string", delay = "number" }

--- Raises unless it is a table that can be answered.
local function check_answer(route, answer)
  if type(answer) == "string" then return end
  if type(answer) ~= "table" then
    misuse("http_server: route '%s': string, table or function expected, got %s", route,
      check.type_of(answer))
  end
  for key, value in pairs(answer) do
    if not ANSWER[key] then
      misuse("http_server: route '%s': unknown field '%s'", route, tostring(key))
    elseif type(value) ~= ANSWER[key] then
      misuse("http_server: route '%s': field '%s': %s expected, got %s", route, key, ANSWER[key],
        type(value))
    end
  end
end

--- Raises unless it is a route.
function server.check(route, answer)
  if type(route) ~= "string" or not route:find "^%u*%s*/" then
    misuse('http_server: a route is "METHOD /path" or "/path", got %s', tostring(route))
  end
  if type(answer) ~= "function" then check_answer(route, answer) end
end

--- A body in chunks.
local function read_chunks(sock)
  local parts = {}
  while true do
    local line = assert(sock:read_line())
    local size = assert(tonumber(line:match "^%x+", 16), "a chunk without a size")
    if size == 0 then break end
    parts[#parts + 1] = assert(sock:read(size))
    assert(sock:read_line())
  end
  repeat local trailer = assert(sock:read_line()) until trailer == ""
  return table.concat(parts)
end

--- Reads one request; nil: there is none any more, or it is none.
local function read_request(sock)
  local head = sock:read_until("\r\n\r\n", { max = MAX_HEAD })
  if not head then return nil end
  local method, target, minor, rest = head:match "^(%S+) (%S+) HTTP/1%.(%d)(.*)$"
  if not method then return nil end
  local path, query = target:match "^([^?]*)%??(.*)$"
  local request = { method = method, path = path, query = query, headers = {}, body = "" }
  local headers = request.headers
  for name, value in rest:gmatch "\r\n([^:\r\n]+):[ \t]*([^\r\n]*)" do
    name = name:lower()
    headers[name] = headers[name] and headers[name] .. ", " .. value or value
  end
  if (headers.expect or ""):lower() == "100-continue" then
    assert(sock:write "HTTP/1.1 100 Continue\r\n\r\n")
  end
  local length = tonumber(headers["content-length"])
  if (headers["transfer-encoding"] or ""):lower():find "chunked" then
    request.body = read_chunks(sock)
  elseif length and length > 0 then
    request.body = assert(sock:read(math.tointeger(length)))
  end
  local connection = (headers.connection or ""):lower()
  local stays = connection ~= "close" and (minor ~= "0" or connection == "keep-alive")
  return request, stays
end

--- What is answered: a table that was checked.
local function answer_to(routes, request)
  local route = request.method .. " " .. request.path
  local answer = routes[route] or routes[request.path]
  if type(answer) == "function" then
    local ok
    ok, answer = pcall(answer, request)
    if ok then ok, answer = pcall(function() check_answer(route, answer) return answer end) end
    if not ok then
      ml.checkpoint() -- the cancel of the server goes on
      answer = { status = 500, body = tostring(answer) }
    end
  end
  if answer == nil then answer = { status = 404, body = "no route: " .. route } end
  return type(answer) == "string" and { body = answer } or answer
end

--- The answer as it goes over the wire.
local function format(answer, request, stays)
  local status, body = answer.status or 200, answer.body or ""
  local lines, given = { ("HTTP/1.1 %d %s"):format(status, REASONS[status] or "Status") }, {}
  for name, value in pairs(answer.headers or {}) do
    given[name:lower()] = true
    for _, one in ipairs(type(value) == "table" and value or { value }) do
      lines[#lines + 1] = ("%s: %s"):format(name, one)
    end
  end
  local bodiless = status == 204 or status == 304
  if not given["content-length"] and not bodiless then
    lines[#lines + 1] = "Content-Length: " .. #body
  end
  if not stays then lines[#lines + 1] = "Connection: close" end
  if bodiless or request.method == "HEAD" then body = "" end
  return table.concat(lines, "\r\n") .. "\r\n\r\n" .. body
end

--- One connection, until either side has enough.
local function serve(sock, routes, heard)
  local open <close> = sock -- luacheck: ignore open
  while true do
    local ok, request, stays = pcall(read_request, sock)
    if not (ok and request) then return end
    heard:put(request)
    local answer = answer_to(routes, request)
    if answer.delay then ml.sleep(answer.delay) end
    if not sock:write(format(answer, request, stays)) or not stays then return end
  end
end

--- The server's job: tells its port, and serves until it is cancelled.
---@param heard userdata a queue, for the requests
---@param ready userdata a promise of the port
function server.run(routes, heard, ready)
  local listener <close> = assert(tcp.listen("127.0.0.1", 0))
  ml.group(function(connections)
    ready:set_result(listener.port)
    for sock in listener:accepted() do connections:spawn(serve, sock, routes, heard) end
  end)
end

return server
