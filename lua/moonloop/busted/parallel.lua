--- parallel=N: spec files run in N Lua states, and are reported here as if they had run here.
--
-- The main state reads the files, as ever, but does not run them: each goes as a name to a
-- worker (suite.lua), and comes back as a list of what was published there. That is published
-- again here, file after file in their order, to the output handler and whoever else listens.

local cli = require "busted.modules.cli"
local ml = require "moonloop"
local parallel = {}

-- What the workers' busted is told of the command line.
local TOLD <const> = {
  "auto-insulate", "lazy", "e", "tags", "exclude-tags", "filter", "filter-out", "keep-going",
  "suppress-pending", "shuffle-tests", "sort-tests", "lang", "loaders", "pattern",
}

--- The command line, as the main busted has read it.
local function command_line()
  return cli(require "busted.options"):parse(arg)
end

local function settings_of(command, options)
  local settings = { options = options, arg = arg }
  for _, name in ipairs(TOLD) do settings[name] = command[name] end
  return settings
end

--- Makes the element that a record tells of, or brings it up to date.
local function element_of(busted, known, record)
  local element = known[record.id]
  if not element then
    element = { env = {}, attributes = {} }
    known[record.id] = element
    if record.parent then
      busted.context.push(known[record.parent])
      busted.context.attach(element)
      busted.context.pop()
    end
  end
  for name, value in pairs(record.fields) do element[name] = value end
  return element
end

--- Publishes what a worker has published about one file.
local function replay(busted, file, records)
  local known = { [1] = file }
  for _, record in ipairs(records) do
    if record.fields then
      element_of(busted, known, record)
    else
      busted.publish(record.channel, known[record.element], known[record.above],
        table.unpack(record.rest, 1, record.rest.n))
    end
  end
end

local function failed(busted, file, err)
  local message = ("%s: its worker failed: %s"):format(file.name, tostring(err))
  busted.publish({ "error", "file" }, file, busted.context.get(), message, {})
end

--- Has the files of this busted run by workers.
---@param options { parallel: integer }
function parallel.install(busted, options)
  local command = assert(command_line())
  local execute = busted.execute
  if command.list then return end

  function busted.execute(current)
    if current then return execute(current) end
    local files = busted.context.children(busted.context.get())
    local settings = settings_of(command, options)
    local pool <close> = ml.ThreadExecutor{
      name = "specs", workers = math.max(1, math.min(options.parallel, #files)),
    }
    local outcomes = {}
    for i, file in ipairs(files) do
      outcomes[i] = pool:submit("moonloop.busted.suite:run", settings, file.name,
        busted.randomseed)
    end
    for i, file in ipairs(files) do
      if busted.skipAll then
        for k = i, #files do outcomes[k]:cancel() end
        break
      end
      local ok, records = outcomes[i]:wait()
      if ok then replay(busted, file, records) else failed(busted, file, records) end
    end
  end
end

return parallel
