-- What the runners of benches share: a command's figure, medians, and how figures are shown.

local measure = {}

---@param command string
---@param key string
---@return number # the value of `key` in the line that the command prints
function measure.value(command, key)
  local pipe = assert(io.popen(command, "r"))
  local line = pipe:read("a")
  local ok = pipe:close()
  local value = line:match("%f[%w]" .. key .. "=(%d+%.?%d*)")
  if not ok or not value then
    error(("%s: no %s in its output: %s"):format(command, key, line), 0)
  end
  return tonumber(value)
end

---@param list number[]  it is sorted
---@return number
function measure.median(list)
  table.sort(list)
  local n = #list
  return (list[(n + 1) // 2] + list[n // 2 + 1]) / 2
end

---@param x number
---@return string
function measure.show(x)
  if x >= 1000 then
    local digits = ("%.0f"):format(x):reverse():gsub("(%d%d%d)", "%1,"):reverse()
    return (digits:gsub("^,", ""))
  end
  return ("%.3g"):format(x)
end

return measure
