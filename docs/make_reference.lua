-- Makes docs/reference.md from the comments in library/:
--
--   lua5.4 docs/make_reference.lua > docs/reference.md
--
-- LDoc is not used: it has a meaning of its own for ---@class, and does not know types in front of
-- descriptions. spec/reference_spec.lua compares the page with what this gives, and its names
-- with those that are there at run time.

local MODULES <const> = {
  { file = "library/moonloop.lua", as = "ml" },
  { file = "library/moonloop/http.lua", as = "http" },
  { file = "library/moonloop/tcp.lua", as = "tcp" },
  { file = "library/moonloop/testing.lua", as = "testing" },
  { file = "library/moonloop/busted.lua", as = "busted" },
}

local reference = {}

-- ---- reading ----

-- Splits "fun(a: integer): string, any  text" into a type and what follows it.
local function split_type(text)
  local at = 1
  while at <= #text do
    local c = text:sub(at, at)
    local close = ({ ["("] = "%b()", ["{"] = "%b{}", ["<"] = "%b<>", ["["] = "%b[]",
      ['"'] = '%b""' })[c]
    if close then
      at = select(2, text:find(close, at)) + 1
    elseif c == ":" then -- what a function returns, which may be several
      at = text:match("^: *()", at)
    elseif c == "," then
      at = text:match("^, *()", at)
    elseif c == " " then
      break
    else
      at = at + 1
    end
  end
  return text:sub(1, at - 1), text:match("^%s*(.-)%s*$", at)
end

-- A field, or a parameter: name, type, text. `?` after the name goes to the type.
local function named(text)
  local name, optional, rest = text:match "^(%[%d+%]%??)()%s+(.*)$"
  if not name then name, optional, rest = text:match "^([%w_%.]+%??)()%s+(.*)$" end
  assert(optional, text)
  local kind, about = split_type(rest)
  local bare = name:gsub("%?$", "")
  return { name = bare, optional = bare ~= name, kind = kind, text = about }
end

local readers = {
  param = function(block, text) table.insert(block.params, named(text)) end,
  field = function(block, text) table.insert(block.fields, named(text)) end,
  ["return"] = function(block, text)
    local kind, rest = split_type(text)
    local name, about = rest:match "^(%S+)%s*(.*)$"
    table.insert(block.returns, { name = name, kind = kind, text = about or "" })
  end,
  async = function(block) block.waits = true end,
  class = function(block, text)
    block.class, block.parent = text:match "^([%w_.]+):?%s*([%w_.]*)"
  end,
  alias = function(block, text)
    local name, rest = text:match "^(%S+)%s+(.*)$"
    block.alias, block.kind = name, rest
  end,
  meta = function() end,
}

local function new_block() return { text = {}, params = {}, returns = {}, fields = {} } end

-- The blocks of comments of a file, in order, each with the function it stands before, if any:
-- { class = } or { alias = } or { owner =, name =, method = boolean }.
local function read(path)
  local blocks, block, owners = {}, nil, {}
  local waiting -- the class that the next local is
  for line in io.lines(path) do
    local tag, rest = line:match "^%-%-%-@(%w+)%s*(.*)$"
    local text = line:match "^%-%-%-(.*)$"
    if tag then
      block = block or new_block()
      assert(readers[tag], path .. ": " .. line)(block, rest)
    elseif text then
      block = block or new_block()
      table.insert(block.text, text)
    else
      local variable = line:match "^local ([%w_]+) = {}$"
      local owner, kind, name = line:match "^function ([%w_]+)([.:])([%w_]+)%("
      if owner then
        block = assert(block, path .. ": no comment before " .. line)
        block.owner, block.method, block.name = assert(owners[owner], owner), kind == ":", name
      end
      if block and block.class then waiting = block.class end
      if variable then owners[variable] = assert(waiting, variable) end
      blocks[#blocks + 1], block = block, nil
    end
  end
  return blocks
end

-- ---- what is documented ----

--- Reads the library.
---@return table modules list of { name, as, text, fields, functions, classes, aliases }; a class
--- has `class text fields methods parent`
function reference.read()
  local modules = {}
  for i, module in ipairs(MODULES) do
    local m = { as = module.as, functions = {}, classes = {}, aliases = {} }
    local classes = {}
    for _, block in ipairs(read(module.file)) do
      if block.class and not m.name then
        m.name, m.text, m.fields = block.class, block.text, block.fields
      elseif block.class then
        block.methods = {}
        classes[block.class] = block
        table.insert(m.classes, block)
      elseif block.alias then
        table.insert(m.aliases, block)
      elseif block.owner and block.owner == m.name then
        table.insert(m.functions, block)
      elseif block.owner then
        table.insert(classes[block.owner].methods, block)
      end
    end
    modules[i] = m
  end
  return modules
end

-- ---- writing ----

local function cell(text) return (text:gsub("|", "\\|")) end

local function code(text) return text == "" and "" or "`" .. cell(text) .. "`" end

local function short(class) return class:match "[^.]+$" end

local function signature(prefix, block)
  local names = {}
  for i, p in ipairs(block.params) do names[i] = p.optional and "[" .. p.name .. "]" or p.name end
  return prefix .. block.name .. "(" .. table.concat(names, ", ") .. ")"
end

local function put_rows(out, rows)
  if #rows == 0 then return end
  out "| | | |"
  out "| --- | --- | --- |"
  for _, row in ipairs(rows) do out("| %s | %s | %s |", row[1], row[2], cell(row[3])) end
  out ""
end

local function row_of(field, arrow)
  local kind = field.kind
  if field.optional and not kind:find "%?$" then
    kind = kind .. (kind:find "[|%(]" and "|nil" or "?")
  end
  local name = field.name and "`" .. field.name .. "`" or ""
  return { arrow and "→ " .. name or name, code(kind), field.text }
end

local function put_function(out, level, prefix, block)
  out("%s %s%s\n", level, prefix, block.name)
  out("`%s`%s\n", signature(prefix, block), block.waits and " *waits*" or "")
  out("%s\n", table.concat(block.text, "\n"))
  local rows = {}
  for _, p in ipairs(block.params) do rows[#rows + 1] = row_of(p) end
  for _, r in ipairs(block.returns) do rows[#rows + 1] = row_of(r, true) end
  put_rows(out, rows)
end

-- The anchor that a forge gives a heading.
local function anchor(heading) return (heading:gsub("[^%w_-]", ""):lower()) end

local function put_class(out, class)
  out("### %s\n", class.class)
  if #class.text > 0 then out("%s\n", table.concat(class.text, "\n")) end
  if class.parent ~= "" then
    out("Also what [`%s`](#%s) has.\n", class.parent, anchor(class.parent))
  end
  local rows = {}
  for _, field in ipairs(class.fields) do rows[#rows + 1] = row_of(field) end
  put_rows(out, rows)
  local name = short(class.class):lower()
  for _, method in ipairs(class.methods) do
    put_function(out, "####", name .. (method.method and ":" or "."), method)
  end
end

--- The page.
---@return string
function reference.make()
  local lines = {}
  local function out(format, ...)
    lines[#lines + 1] = select("#", ...) > 0 and format:format(...) or format
  end
  out "# Reference\n"
  out "Every function, method and field of the Lua modules. `./dev exec lua5.4"
  out "docs/make_reference.lua` makes this page from the comments in [library](../library), which"
  out "editors with lua-language-server read too. The C API is documented in"
  out "[moonloop.h](../src/include/moonloop.h), the program by `moonloop --help`.\n"
  out "*waits* marks what may take time: it parks a job, and blocks a thread outside of jobs. Times"
  out "are seconds. Where an error is returned, what comes before it is nil; [errors](errors.md)"
  out "has the codes.\n"
  local modules = reference.read()
  for _, m in ipairs(modules) do
    local names = {}
    for i, f in ipairs(m.functions) do
      names[i] = ("[%s](#%s)"):format(f.name, anchor(m.as .. f.name))
    end
    table.sort(names)
    for _, class in ipairs(m.classes) do
      if #class.methods > 0 then
        names[#names + 1] = ("[%s](#%s)"):format(short(class.class):lower(), anchor(class.class))
      end
    end
    out("* **[%s](#%s)**: %s", m.name, anchor(m.name), table.concat(names, ", "))
  end
  for _, m in ipairs(modules) do
    out("\n## %s\n", m.name)
    out("    local %s = require \"%s\"\n", m.as, m.name)
    out("%s\n", table.concat(m.text, "\n"))
    local rows = {}
    for _, field in ipairs(m.fields) do rows[#rows + 1] = row_of(field) end
    put_rows(out, rows)
    for _, f in ipairs(m.functions) do put_function(out, "###", m.as .. ".", f) end
    for _, class in ipairs(m.classes) do put_class(out, class) end
    for _, alias in ipairs(m.aliases) do
      out("### %s\n", alias.alias)
      out("%s\n", table.concat(alias.text, "\n"))
      out("`%s`\n", alias.kind)
    end
  end
  return (table.concat(lines, "\n"):gsub("\n\n\n+", "\n\n"):gsub("\n+$", "\n"))
end

if arg and arg[0] and arg[0]:find "make_reference%.lua$" then io.write(reference.make()) end

return reference
