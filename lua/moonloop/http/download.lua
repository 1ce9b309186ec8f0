--- Downloads into files: whole or not at all, and to be gone on with later.
---
--- What comes is written to PATH.part, which becomes PATH when all is there and on the disk. The
--- file's time is the response's Last-Modified: it says later which version of the resource the
--- part is of, also if the process was killed.

local ml_core = require "moonloop.core"
local core = require "moonloop.http.core"
local bar = require "moonloop.http.bar"
local check = require "moonloop.check"
local dates = require "moonloop.http.dates"
local misuse, error_value = check.misuse, ml_core.error_value

local INPUT <const> = core.INPUT
local PIECE <const> = 256 * 1024
local OWN <const> = { resume = true, checksum = true, progress = true, sync = true }

-- One download: url, path, part (the open file), at (how much of it is good), version (of what is
-- in it, as seconds since 1970; 0: not known).
local Download = {}
Download.__index = Download

-- Its own options, taken out of a copy of `options`, which is what is left for the request.
local function read_options(options)
  if options ~= nil and type(options) ~= "table" then
    misuse("download: table of options expected, got %s", type(options))
  end
  local own, rest = {}, {}
  for name, value in pairs(options or {}) do
    if OWN[name] then own[name] = value else rest[name] = value end
  end
  for _, name in ipairs { "resume", "progress", "sync" } do
    if own[name] == nil then own[name] = name ~= "progress" end
    if type(own[name]) ~= "boolean" then
      misuse("option '%s': boolean expected, got %s", name, type(own[name]))
    end
  end
  if rest.stream ~= nil then misuse "option 'stream' is not for downloads" end
  if own.checksum ~= nil then
    local name, hex = tostring(own.checksum):match "^([%w-]+):(%x+)$"
    if not name then
      misuse("option 'checksum': \"sha256:<hexadecimal>\" or the like expected, got %s",
        tostring(own.checksum))
    end
    if not core.digest(name) then misuse("option 'checksum': '%s' is not known", name) end
    own.digest, own.hex = name, hex:lower()
  end
  return own, rest
end

-- Asks for what is missing, or with `from` 0 for all. The response, which streams; or nil and an
-- error.
local function ask(self, from)
  local options, headers = {}, {}
  for name, value in pairs(self.request) do options[name] = value end
  for name, value in pairs(options.headers or {}) do headers[name] = value end
  if from > 0 then
    headers.Range = ("bytes=%d-"):format(from)
    headers["If-Range"] = dates.format(self.version)
  end
  options.headers, options.stream, options.compressed = headers, true, false
  return self.get(self.url, options)
end

-- Where a response to a request for what is missing goes on: at `from`, at 0, or nil: it is of
-- no use.
local function place_of(self, res, from)
  if res.status == 200 then return 0 end
  local modified = res.headers["Last-Modified"]
  if from == 0 or (modified and dates.parse(modified) ~= self.version) then return nil end
  local range = res.headers["Content-Range"] or ""
  if res.status == 206 and tonumber(range:match "^bytes (%d+)%-") == from then return from end
  if res.status == 416 and tonumber(range:match "^bytes %*/(%d+)$") == from then return from end
  return nil
end

-- A response with what is missing, whose place is in self.at. A 416 has nothing: all is there.
local function begin(self)
  local from = self.at
  local res, err = ask(self, from)
  local at = res and place_of(self, res, from)
  if res and not at and from > 0 and (res.status == 206 or res.status == 416) then
    res:close()
    res, err = ask(self, 0)
    at = res and place_of(self, res, 0)
  end
  if not res then return nil, err end
  if not at then
    res:close()
    return nil, error_value("status", (tostring(res):gsub("^response: ", "")),
      { status = res.status })
  end
  self.at = at
  return res
end

-- Feeds the checksum with what is there already.
local function digest_part(self)
  local at = 0
  while at < self.at do
    local bytes, err = self.part:read(at, math.min(PIECE, self.at - at))
    if not bytes then return nil, err end
    if bytes == "" then
      return nil, error_value("file", self.path .. ".part became shorter meanwhile")
    end
    self.digest:update(bytes)
    at = at + #bytes
  end
  return true
end

-- Writes the body to the file as it comes. True; or nil and an error.
local function receive(self, res)
  local exchange = res.exchange
  local version = dates.parse(res.headers["Last-Modified"]) or (self.at > 0 and self.version or 0)
  local length = tonumber(res.headers["Content-Length"])
  local line <close> = self.own.progress
    and bar.new(self.path:match "[^/]*$", self.at, length and self.at + length) or nil
  while true do
    exchange:wait(INPUT)
    local n, err = exchange.x:save(self.part, self.at, version, self.digest)
    if not n then return nil, err end
    self.at = self.at + n
    if line then line:show(self.at, n == 0) end
    if n == 0 then
      err = select(2, exchange.x:failure())
      res.timings = exchange.x:timings()
      if err then return nil, err end
      return true
    end
  end
end

local function sync_folder(path)
  local folder, err = core.open_file(path:match "^(.*/)" or ".", "folder")
  if not folder then return nil, err end
  local _ <close> = folder
  return folder:sync()
end

-- All is there: checks it and gives it its name.
local function settle(self)
  local own, part = self.own, self.path .. ".part"
  if self.digest then
    local hex = self.digest:hex()
    if hex ~= own.hex then
      core.unlink(part)
      return nil, error_value("checksum",
        ("download %s: its %s is %s and not %s"):format(self.path, own.digest, hex, own.hex))
    end
  end
  if own.sync then
    local ok, err = self.part:sync()
    if not ok then return nil, err end
  end
  local ok, err = core.rename(part, self.path)
  if not ok then return nil, err end
  self.done = true
  if own.sync then return sync_folder(self.path) end
  return true
end

local function run(self)
  local res, err = begin(self)
  if not res then return nil, err end
  local _ <close> = res
  local ok
  local resumed = self.at
  if resumed == 0 then
    ok, err = self.part:truncate(0)
    if not ok then return nil, err end
  end
  if self.own.digest then
    self.digest = core.digest(self.own.digest)
    ok, err = digest_part(self)
    if not ok then return nil, err end
  end
  if res.status ~= 416 then
    ok, err = receive(self, res)
    if not ok then return nil, err end
  end
  ok, err = settle(self)
  if not ok then return nil, err end
  res.path, res.size, res.resumed = self.path, self.at, resumed
  return res
end

-- An empty .part file is of no use to anybody.
function Download:__close()
  if self.at == 0 and not self.done then os.remove(self.path .. ".part") end
  self.part:close()
end

local download = {}

--- Downloads into a file. It is there when this returns, whole, or not at all.
---@param get fun(url: string, options: table): table?, table?
---@param url string
---@param path string
---@param options table? moonloop.http.DownloadOptions, and those of the request
---@return moonloop.http.Stream? response with `path`, `size` and `resumed`, the bytes that were
--- there before
---@return table? err "status", "checksum", "busy", "file", an HTTP error or the system's
function download.download(get, url, path, options)
  if type(path) ~= "string" then misuse("download: path: string expected, got %s", type(path)) end
  local own, request = read_options(options)
  local there, err = core.open_file(path, "read")
  if there then
    there:close()
  elseif err.code == "EISDIR" or err.code == "ESPIPE" then
    return nil, err
  end
  local part, size, version = core.open_file(path .. ".part", "write")
  if not part then
    err = size
    if err.code == "EAGAIN" then
      err = error_value("busy", ("download %s: another one is writing it"):format(path))
    end
    return nil, err
  end
  local self = setmetatable({
    get = get, url = url, path = path, own = own, request = request, part = part,
    at = own.resume and version ~= 0 and size or 0, version = version,
  }, Download)
  local _ <close> = self
  return run(self)
end

return download
