-- What README.md and docs/ show, runs: each ```lua block is a script of its own, in
-- lua5.4 and in moonloop. One with `--> text` comments prints exactly those texts.
-- Blocks that need something of the reader's are fenced as ```lua norun.

local h = require "spec.support.helpers"
local httpbin = require "spec.support.httpbin"

local SECONDS <const> = 20

-- docs/README.md says that these are there.
local PRELUDE <const> = 'local ml, http, tcp = require "moonloop", require "moonloop.http", '
  .. 'require "moonloop.tcp"; '

local function lines_of(command)
  local pipe <close> = assert(io.popen(command))
  local lines = {}
  for line in pipe:lines() do lines[#lines + 1] = line end
  return lines
end

-- The runnable blocks of a file: { line = of the fence, code = text }.
local function blocks_of(path)
  local blocks, block, count = {}, nil, 0
  for line in io.lines(path) do
    count = count + 1
    if block and line:match "^```%s*$" then
      block.code = table.concat(block, "\n") .. "\n"
      blocks[#blocks + 1] = block.runs and block or nil
      block = nil
    elseif block then
      block[#block + 1] = line
    elseif line:match "^```" then
      block = { line = count, runs = line == "```lua" }
    end
  end
  assert(not block, path .. ": a block has no end")
  return blocks
end

-- What a block promises to print, or nil.
local function promised(code)
  local texts = {}
  for line in code:gmatch "[^\n]+" do
    texts[#texts + 1] = line:match "%-%->%s*(.-)%s*$"
  end
  return texts[1] and table.concat(texts, "\n") .. "\n"
end

describe("the documentation", function()
  local server
  lazy_setup(function() server = httpbin.start() end)
  lazy_teardown(function() server:stop() end)

  -- In the pages about HTTP, `url` is a server's.
  local function prelude(path)
    return PRELUDE .. (path:find "^docs/http" and ("local url = %q; "):format(server.url) or "")
  end

  for _, path in ipairs(lines_of "ls README.md docs/*.md docs/changes/*.md") do
    for _, block in ipairs(blocks_of(path)) do
      for _, program in ipairs { "lua5.4", "moonloop" } do
        it(("%s:%d runs in %s"):format(path, block.line, program), function()
          local output, code = h.run_script(prelude(path) .. block.code,
            { lua = program, seconds = SECONDS })
          assert.equal(0, code, output)
          local texts = promised(block.code)
          if texts then assert.equal(texts, (output:gsub("[\t ]+", " "))) end
        end)
      end
    end
  end

  -- The anchors that a forge gives a page's headings.
  local function anchors_of(path)
    local anchors, fenced = {}, false
    for line in io.lines(path) do
      if line:find "^```" then fenced = not fenced end
      local heading = not fenced and line:match "^#+ (.+)$"
      if heading then
        anchors[heading:gsub("[^%w _-]", ""):gsub(" ", "-"):lower()] = true
      end
    end
    return anchors
  end

  it("links to files and headings that are there", function()
    local anchors = {}
    for _, path in ipairs(lines_of "ls README.md docs/*.md docs/changes/*.md") do
      local file <close> = assert(io.open(path))
      for link in file:read("a"):gsub("\n *", " "):gmatch "%]%(([^)]+)%)" do
        local target, anchor = link:match "^([^#]*)#?(.*)$"
        if not target:find ":" then
          local at = target == "" and path or path:match "^(.-)[^/]*$" .. target
          local found = io.open(at)
          assert.is_truthy(found, ("%s: %s"):format(path, link))
          found:close()
          if anchor ~= "" then
            anchors[at] = anchors[at] or anchors_of(at)
            assert.is_true(anchors[at][anchor], ("%s: %s"):format(path, link))
          end
        end
      end
    end
  end)
end)
