--- The option `multipart`: a form as multipart/form-data. Its files are read as they are sent.

local sources = require "moonloop.http.sources"
local check = require "moonloop.check"

local multipart = {}

local known = { name = true, data = true, file = true, filename = true, type = true }
local plain = { string = true, number = true, boolean = true }

local function check_text(what, value)
  if value == nil then return nil end
  if type(value) ~= "string" then
    check.misuse("option 'multipart': %s: string expected, got %s", what, type(value))
  elseif value:find "[\r\n\0]" then
    check.misuse("option 'multipart': %s contains a line break or a NUL byte", what)
  end
  return value
end

-- One part out of what stands for it.
local function read_part(name, value)
  local what = ("'%s'"):format(name)
  if plain[type(value)] then return { name = name, data = tostring(value) } end
  if type(value) ~= "table" then
    check.misuse("option 'multipart': %s: a string, number, boolean or table expected, got %s",
      what, type(value))
  end
  for key in pairs(value) do
    if not known[key] then
      check.misuse("option 'multipart': %s has an unknown field '%s'", what, tostring(key))
    end
  end
  if (value.file == nil) == (value.data == nil) then
    check.misuse("option 'multipart': %s needs either 'data' or 'file'", what)
  elseif value.data ~= nil and not plain[type(value.data)] then
    check.misuse("option 'multipart': %s.data: string expected, got %s", what, type(value.data))
  end
  local file = value.file
  if file ~= nil and (type(file) ~= "string" or file:find "\0") then
    check.misuse("option 'multipart': %s.file: path expected, got %s", what, type(file))
  end
  return {
    name = name,
    file = file,
    data = file == nil and tostring(value.data) or nil,
    filename = check_text(what .. ".filename", value.filename) or file and file:match "[^/]*$",
    type = check_text(what .. ".type", value.type) or file and "application/octet-stream" or nil,
  }
end

local function add(parts, name, value)
  if type(name) ~= "string" then
    check.misuse("option 'multipart': the name of a part must be a string, got %s", type(name))
  end
  if type(value) == "table" and value[1] ~= nil then
    for _, one in ipairs(value) do parts[#parts + 1] = read_part(name, one) end
  else
    parts[#parts + 1] = read_part(name, value)
  end
end

---The parts, checked, in order: those of the list, then those by name, in the order of names.
---@param option table
---@return moonloop.http.Part[]
function multipart.parts(option)
  local parts, names = {}, {}
  for key, value in pairs(option) do
    if type(key) == "string" then
      names[#names + 1] = key
    elseif math.type(key) ~= "integer" or key < 1 or key > #option then
      check.misuse("option 'multipart': the name of a part must be a string, got %s", type(key))
    elseif type(value) ~= "table" then
      check.misuse("option 'multipart': { name = ..., data or file = ... } expected, got %s",
        type(value))
    end
  end
  for _, part in ipairs(option) do add(parts, part.name, part) end
  table.sort(names)
  for _, name in ipairs(names) do add(parts, name, option[name]) end
  return parts
end

-- The body ------------------------------------------------------------------

-- As browsers write names into a header.
local function escape(text)
  return '"' .. text:gsub('[\r\n"]', { ["\r"] = "%0D", ["\n"] = "%0A", ['"'] = "%22" }) .. '"'
end

local function head(boundary, part)
  local lines = { "--" .. boundary,
    "Content-Disposition: form-data; name=" .. escape(part.name)
      .. (part.filename and "; filename=" .. escape(part.filename) or "") }
  if part.type then lines[#lines + 1] = "Content-Type: " .. part.type end
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

local Form = {}
Form.__index = Form

function Form:next()
  while true do
    local piece = self[self.at]
    if piece == nil then return nil end
    if type(piece) == "string" then
      self.at = self.at + 1
      if piece ~= "" then return piece end
    else
      local bytes, err = piece:next()
      if bytes or err then return bytes, err end
      self.at = self.at + 1
    end
  end
end

local function each_file(self, method)
  for _, piece in ipairs(self) do
    if type(piece) == "table" then piece[method](piece) end
  end
end

function Form:rewind()
  self.at = 1
  each_file(self, "rewind")
end

function Form:close() each_file(self, "close") end

---The source of the body; or nil and an error, if a file of it cannot be opened.
---@param option table
function multipart.open(option)
  local boundary = ("moonloop-%016x%016x"):format(math.random(0), math.random(0))
  local form = setmetatable({ at = 1, length = 0,
    type = "multipart/form-data; boundary=" .. boundary }, Form)
  local function put(piece, size)
    form[#form + 1] = piece
    form.length = form.length + size
  end
  for _, part in ipairs(multipart.parts(option)) do
    local text = head(boundary, part)
    put(text, #text)
    if part.file then
      local file, err = sources.open { file = part.file }
      if not file then
        form:close()
        return nil, err
      end
      put(file, file.length)
    else
      put(part.data, #part.data)
    end
    put("\r\n", 2)
  end
  local last = "--" .. boundary .. "--\r\n"
  put(last, #last)
  return form
end

return multipart
