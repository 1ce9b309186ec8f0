-- docs/errors.md has a row for every code that the sources give, and for no other.

local function read(path)
  local file <close> = assert(io.open(path))
  return file:read("a")
end

-- The sources, as one text for each file.
local function sources()
  local pipe <close> = assert(io.popen "find src lua -name '*.[ch]' -o -name '*.lua'")
  local texts = {}
  for path in pipe:lines() do texts[path] = read(path) end
  return texts
end

-- The system's own names have a row in common.
local function is_ours(code) return not code:find "^E" end

-- Calls that make an error value, with the code as their first text.
local MAKERS <const> = {
  "lml_fail%(%w+,%s*\"([%w_]+)\"", "lml_raise%(%w+,%s*\"([%w_]+)\"",
  "lml_error_push%(%w+,%s*\"([%w_]+)\"", "error_value%(?%s*\"([%w_]+)\"",
}

local function given(texts)
  local codes = {}
  local function add(code, path) if is_ours(code) then codes[code] = path end end
  for path, text in pairs(texts) do
    for _, maker in ipairs(MAKERS) do
      for code in text:gmatch(maker) do add(code, path) end
    end
  end
  for code in texts["src/core/status.c"]:gmatch '%[ML_[%u_]+%] = "([%w_]+)"' do
    if code ~= "ok" then add(code, "src/core/status.c") end
  end
  -- What libcurl's codes become: each text that these functions return.
  local failure = texts["src/http/failure.c"]
  for name in ("connect_code tls_code code_of"):gmatch "%S+" do
    local body = failure:match("const char %*" .. name .. "%b()%s*(%b{})")
    for statement in assert(body, name):gmatch "return ([^;]+);" do
      -- not the texts that it compares with
      for code in statement:gsub("%b()", ""):gmatch '"([%l_]+)"' do add(code, name) end
    end
  end
  return codes
end

local function documented()
  local codes = {}
  local section = read("docs/errors.md"):match "\n## Codes\n(.-)\n## "
  for cell in section:gmatch "\n| ([^|]+) |" do
    for code in cell:gmatch "`([%w_]+)`" do codes[code] = is_ours(code) or nil end
  end
  return codes
end

describe("the table of error codes", function()
  local texts, table_has = sources(), documented()

  it("has every code that the sources give", function()
    local missing = {}
    for code, where in pairs(given(texts)) do
      if not table_has[code] then missing[#missing + 1] = code .. " of " .. where end
    end
    assert.same({}, missing)
  end)

  it("has no code that they do not give", function()
    local surplus = {}
    for code in pairs(table_has) do
      local found = false
      for _, text in pairs(texts) do found = found or text:find('"' .. code .. '"', 1, true) end
      if not found then surplus[#surplus + 1] = code end
    end
    assert.same({}, surplus)
  end)

  it("is not empty on either side", function()
    assert(given(texts).timeout and given(texts).stall and given(texts).checksum)
    assert(table_has.timeout and table_has.stall)
  end)
end)
