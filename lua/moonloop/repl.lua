--- What the prompt of the moonloop program needs on a terminal: how a result is shown, and how
--- a word can go on.

local repl = {}

-- ---- showing ----

local ENTRIES <const> = 24 -- of a table that are shown
local WIDTH <const> = 78   -- of the text of one

local keywords = {}
for word in ([[and break do else elseif end false for function goto if in local nil not or
  repeat return then true until while]]):gmatch "%a+" do
  keywords[word] = true
end

local function is_name(s) return s:find "^[%a_][%w_]*$" and not keywords[s] end

local function plain_table(value)
  local meta = type(value) == "table" and debug.getmetatable(value)
  return type(value) == "table" and not (meta and (rawget(meta, "__tostring")
    or rawget(meta, "__name") or rawget(meta, "__pairs")))
end

-- A value inside of a table: on one line, and no deeper.
local function brief(value)
  if type(value) == "string" then
    local text = ("%q"):format(#value > 60 and value:sub(1, 57) .. "..." or value)
    return (text:gsub("\\\n", "\\n"):gsub("\\(%d+)", "\\%1"))
  end
  if plain_table(value) then return next(value) == nil and "{}" or "{...}" end
  return tostring(value)
end

local function by_name(a, b)
  if type(a) == type(b) and (type(a) == "string" or type(a) == "number") then return a < b end
  return type(a) < type(b)
end

-- Its sequence, then its other keys in order; one level.
local function table_text(t)
  local parts, others, n = {}, {}, 0
  for i, value in ipairs(t) do
    n = i
    if i <= ENTRIES then parts[i] = brief(value) end
  end
  for key in next, t do
    if math.type(key) ~= "integer" or key < 1 or key > n then others[#others + 1] = key end
  end
  table.sort(others, by_name)
  for _, key in ipairs(others) do
    if #parts >= ENTRIES then break end
    local name = type(key) == "string" and is_name(key) and key or "[" .. brief(key) .. "]"
    parts[#parts + 1] = name .. " = " .. brief(rawget(t, key))
  end
  if n + #others > #parts then
    parts[#parts + 1] = ("... %d more"):format(n + #others - #parts)
  end
  local line = "{ " .. table.concat(parts, ", ") .. " }"
  if #parts == 0 then return "{}" end
  if #line <= WIDTH then return line end
  local lines, at = { "{" }, ""
  for i, part in ipairs(parts) do
    if i < #parts then part = part .. "," end
    if at ~= "" and #at + #part > WIDTH - 3 then
      lines[#lines + 1], at = "  " .. at, ""
    end
    at = at == "" and part or at .. " " .. part
  end
  lines[#lines + 1] = "  " .. at
  lines[#lines + 1] = "}"
  return table.concat(lines, "\n")
end

--- Prints the results of a chunk: with `print`, but tables as what is in them.
function repl.show(...)
  local values = table.pack(...)
  for i = 1, values.n do
    if plain_table(values[i]) then values[i] = table_text(values[i]) end
  end
  print(table.unpack(values, 1, values.n))
end

-- ---- completing ----

-- The tables in which an indexed value finds its fields: itself and its metatables' __index, as
-- far as no code has to run for it. A function there is not called: methods that it hands out are
-- in a table it keeps.
local function places(value)
  local list = {}
  for _ = 1, 10 do
    if type(value) == "table" then
      list[#list + 1] = value
    elseif type(value) == "function" then
      for i = 1, 4 do
        local _, kept = debug.getupvalue(value, i)
        if type(kept) == "table" then list[#list + 1] = kept end
      end
    end
    local meta = debug.getmetatable(value)
    value = type(meta) == "table" and rawget(meta, "__index") or nil
    if value == nil then break end
  end
  return list
end

local function field(value, name)
  for _, place in ipairs(places(value)) do
    local found = rawget(place, name)
    if found ~= nil then return found end
  end
  return nil
end

--- The words that `word` ("ml.ru", "f:res", "wh") can become, in order.
---@param word string
---@return string[]
function repl.complete(word)
  local path, separator, start = word:match "^(.-)([.:]?)([%w_]*)$"
  local value, found, words = _G, {}, {}
  for name in path:gmatch "[^.:]+" do
    value = field(value, name)
    if value == nil then return words end
  end
  for _, place in ipairs(places(value)) do
    for name, item in next, place do
      local fits = type(name) == "string" and is_name(name) and name:sub(1, #start) == start
      if fits and (separator ~= ":" or type(item) == "function") then found[name] = true end
    end
  end
  if separator == "" then
    for name in pairs(keywords) do
      if name:sub(1, #start) == start then found[name] = true end
    end
  end
  for name in pairs(found) do words[#words + 1] = path .. separator .. name end
  table.sort(words)
  return words
end

return repl
