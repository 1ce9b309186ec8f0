--- The owner of requests that need one while they go on: it puts a body that comes piece by
--- piece, calls `on_progress`, and makes a response that streams. All of it runs in the
--- caller's own coroutine or thread, between waits: what it calls may wait and may raise.

local ml_core = require "moonloop.core"
local core = require "moonloop.http.core"
local multipart = require "moonloop.lazy" "moonloop.http.multipart"
local sources = require "moonloop.http.sources"
local stream = require "moonloop.http.stream"
local now = ml_core.now

local HEAD <const>, ROOM <const>, DONE <const> = core.HEAD, core.ROOM, core.DONE
local DEBUG <const> = core.DEBUG
local PROGRESS_INTERVAL <const> = 0.1

local Exchange = {}
Exchange.__index = Exchange

-- Ends what goes on, unless it was handed on as a stream.
function Exchange:close()
  self.x:close()
  local source = self.source
  self.source = nil
  if source then source:close() end
end

function Exchange:__close()
  if not self.kept then self:close() end
end

-- Puts the next piece of the request's body, or what is left of the last one.
local function put_piece(self)
  local x, source = self.x, self.source
  local rewinds = x:rewinds()
  if rewinds ~= self.rewinds then
    source:rewind()
    self.rewinds, self.piece = rewinds, nil
  end
  if not self.piece then
    self.piece, self.failure = source:next()
    self.from = 1
    if not self.piece then
      if not self.failure then x:finish(rewinds) end
      return
    end
  end
  local from = x:put(self.piece, self.from, rewinds)
  if from and from > #self.piece then
    self.piece = nil
  else
    self.from = from or 1
  end
end

local function report(self, last)
  local at = now()
  if not last and at < self.reported + PROGRESS_INTERVAL then return end
  local sent, to_send, received, to_receive = self.x:progress()
  if sent + received == self.progress then return end
  self.reported, self.progress = at, sent + received
  self.on_progress {
    sent = sent,
    to_send = to_send >= 0 and to_send or nil,
    received = received,
    to_receive = to_receive >= 0 and to_receive or nil,
  }
end

-- Shows what was told of the request so far.
local function show(self)
  local words = self.x:hear()
  for i = 1, #words, 2 do self.on_debug(words[i], words[i + 1]) end
end

-- Waits for one of the events, and does meanwhile what the owner has to do. Returns those that
-- are there; 0 after `timeout` seconds. Where `failure` is set then, the request's body could not
-- be read.
function Exchange:wait(events, timeout)
  local x, deadline = self.x, timeout and now() + timeout
  while true do
    local left = deadline and math.max(0, deadline - now())
    if self.on_progress then left = math.min(left or PROGRESS_INTERVAL, PROGRESS_INTERVAL) end
    local wanted = self.source and events | ROOM or events
    local got = x:wait(self.on_debug and wanted | DEBUG or wanted, left)
    if self.on_debug then show(self) end
    if self.on_progress then report(self, got & DONE ~= 0) end
    if got & events ~= 0 then return got end
    if got & ROOM ~= 0 then put_piece(self) end
    if self.failure then return events end
    if deadline and now() >= deadline then return 0 end
  end
end

core.attend(function(x, options)
  if options.length and not x:uploads() then
    ml_core.misuse "option 'length' is for a body that comes piece by piece"
  end
  local self = setmetatable({ x = x, on_progress = options.on_progress, reported = 0,
    on_debug = options.on_debug }, Exchange)
  local _ <close> = self
  if x:uploads() then
    local form = options.multipart
    local source, err = (form and multipart or sources).open(form or options.body)
    if not source then return nil, err end
    self.source, self.rewinds = source, 0
    source.left = x:upload(source.length or options.length, source.rewind ~= nil, source.type)
  end
  x:begin()
  if not options.stream then
    self:wait(DONE)
    if self.failure then return nil, self.failure end
    return x:response()
  end
  self:wait(HEAD)
  if self.failure then return nil, self.failure end
  local res, err = x:response()
  if not res then return nil, err end
  self.kept = true
  return stream.new(res, self)
end)
