--- Waiting for many: lists of futures, fan-out, iteration.

local core = require "moonloop.core"
local check = require "moonloop.check"
local jobs = require "moonloop.jobs"
local scopes = require "moonloop.scopes"
local misuse = check.misuse
local pack, unpack = table.pack, table.unpack
local lists = {}

local function check_list(what, list)
  if type(list) ~= "table" then misuse("%s: list expected, got %s", what, type(list)) end
  return list
end

--- Futures of a list, as a list; jobs are started if `start` is given.
local function futures_of(what, list, start)
  local futures, is_future = {}, core.is_future
  for i = 1, #list do
    local item = list[i]
    if is_future(item) then
      futures[i] = item
    elseif start then
      futures[i] = start(item)
    else
      misuse("%s: item %d: future expected, got %s", what, i, type(item))
    end
  end
  return futures
end

--- A waitset of the futures, each once, which does not ask for their errors; also index in
-- the set -> index in the list.
local function set_of(futures)
  local set, seen, where = core.waitset(), {}, {}
  for i = 1, #futures do
    local future = futures[i]
    if not seen[future] then
      seen[future] = true
      where[set:add(future)] = i
    end
  end
  return set, where
end

--- Waits until all of a list of futures are settled.
function lists.wait_all(futures)
  local set, where = set_of(futures)
  set:wait(#where)
end

--- Cancels what is left of a list of futures as the block is left, and waits for it.
local Stop = {
  __close = function(self)
    local futures, any = self[1], false
    for _, future in pairs(futures) do
      if not future:done() then
        future:cancel()
        any = true
      end
    end
    if not any then return end
    scopes.shield(function()
      local set, n = core.waitset(), 0
      for _, future in pairs(futures) do
        if not future:done() then
          set:add(future, true)
          n = n + 1
        end
      end
      set:wait(n)
    end)
  end,
}

local function stop_at_exit(futures) return setmetatable({ futures }, Stop) end

--- Runs jobs on the default executor, or takes futures; returns when all are settled.
-- @return their futures, in order; raises for none of them
function lists.complete_async_jobs(...)
  core.check_wait "complete_async_jobs"
  local futures = { ... }
  for i = 1, select("#", ...) do
    local item = futures[i]
    if not core.is_future(item) then
      futures[i] = core.submit(core.default_executor(), item)
    end
  end
  lists.wait_all(futures)
  return unpack(futures)
end

--- Waits for all; the first failure cancels the rest and is raised.
-- @param list futures and jobs; with return_errors = true nothing is raised
-- @return the first values in order; with return_errors also the errors, by index
function lists.gather(list)
  core.check_gather(check_list("gather", list))
  core.check_wait "gather"
  local plain = getmetatable(list) == nil -- another kind of list may wait in its metamethods
  local futures = plain and core.start_all(list) or futures_of("gather", list, core.spawn)
  local count, set = #futures, core.waitset(futures)
  local guard <close> = stop_at_exit(futures)
  local results, errors = {}, {}
  if list.return_errors then
    set:wait(count)
    for i = 1, #futures do
      local ok, value = futures[i]:wait()
      if ok then results[i] = value else errors[i] = value end
    end
    return results, errors
  end
  set:wait(count, true)
  while set:failures() > 0 do
    local _, future = set:next(0)
    if future:exception() ~= nil then return future:result() end
  end
  guard[1] = {} -- all have ended
  set:close()
  return core.first_values(futures), errors
end

local WHEN = { all = true, first = true, first_error = true }

--- Waits for futures, without raising their errors or cancelling them.
-- @param options { timeout = seconds, return_when = "all" | "first" | "first_error" }
-- @return list of the settled ones, list of the others
function lists.wait(list, options)
  check_list("wait", list)
  options = check.options("wait", options, { timeout = true, return_when = true })
  local when = options.return_when or "all"
  if not WHEN[when] then
    misuse("wait: option 'return_when': \"all\", \"first\" or \"first_error\" expected, got %s",
      tostring(when))
  end
  core.check_timeout(options.timeout)
  local futures = futures_of("wait", list)
  local set, where = set_of(futures)
  set:wait(when == "first" and 1 or #where, when == "first_error", options.timeout)
  local done, pending = {}, {}
  for _, i in ipairs(where) do
    local future = futures[i]
    local to = future:done() and done or pending
    to[#to + 1] = future
  end
  return done, pending
end

--- Iterates over futures as they settle.
-- @param timeout seconds for all; past it the iterator raises
function lists.as_completed(list, timeout)
  check_list("as_completed", list)
  local deadline = core.check_timeout(timeout)
  local set, where = set_of(futures_of("as_completed", list))
  local left = #where
  return function()
    if left == 0 then return nil end
    local index, future = set:next(deadline and math.max(0, deadline - core.now()))
    if not index then
      error(core.error_value("timeout", ("%d of %d unfinished"):format(left, #where)), 2)
    end
    left = left - 1
    return future
  end
end

--- A function that gives the items of a list or an iterator, one a call: their
-- number and values, packed; nil at the end.
function lists.source_of(what, list)
  if type(list) == "table" and not core.is_callable(list) then
    local i, n = 0, #list
    return function()
      if i >= n then return nil end
      i = i + 1
      return pack(list[i])
    end
  end
  if core.is_callable(list) then
    return function()
      local item = pack(list())
      if item[1] ~= nil then return item end
    end
  end
  misuse("%s: list or iterator expected, got %s", what, type(list))
end

--- Runs f over the items in jobs of this loop, at most `limit` at once; calls
-- take(index, item, future) for each as it ends.
local function fan_out(source, f, limit, running, set, take)
  local indices, items, count, active, more = {}, {}, 0, 0, true
  return function()
    while true do
      while more and active < limit do
        local item = source()
        if not item then
          more = false
          break
        end
        count, active = count + 1, active + 1
        local future = core.spawn(f, unpack(item, 1, item.n))
        running[count] = future
        local entry = set:add(future, true)
        indices[entry], items[entry] = count, item[1]
      end
      if active == 0 then return nil end
      local entry, future = set:next()
      active = active - 1
      local index, item = indices[entry], items[entry]
      indices[entry], items[entry], running[index] = nil, nil, nil
      if take then
        take(index, future)
      else
        return item, future
      end
    end
  end
end

--- Calls f(item) for each item in jobs, at most `limit` at once.
-- @return results, errors: first values and errors by index; raises none of them
function lists.map(list, f, options)
  core.check_wait "map"
  options = check.options("map", options, { limit = true })
  local limit = check.count("map: option 'limit'", options.limit, math.huge)
  local source = lists.source_of("map", list)
  jobs.open(f)
  local running, results, errors = {}, {}, {}
  local guard <close> = stop_at_exit(running) -- luacheck: ignore guard
  fan_out(source, f, limit, running, core.waitset(), function(index, future)
    local ok, value = future:wait()
    if ok then results[index] = value else errors[index] = value end
  end)()
  return results, errors
end

--- Early exit from an iteration: explicit close, `<close>`, the collector.
local Iteration = {}
Iteration.__index = Iteration
Iteration.__name = "moonloop.iteration"
function Iteration:__call() return self.step() end
function Iteration:close()
  if getmetatable(self) ~= Iteration then
    misuse("close: iterator of map or each expected, got %s", type(self))
  end
  local stop = self.stop
  self.step = function() return nil end
  self.stop = nil
  if stop then stop() end
end
Iteration.__close = Iteration.close
function Iteration:__gc()
  for _, future in pairs(self.running) do
    core.abandon(future, true)
  end
end

-- Lua before 5.4.5 corrupts the stack where a loop with a closing value is left by
-- `break` and its body made a closure of a loop variable: there it has none.
local closes_loops = load [[
  local closed = 0
  local handle = setmetatable({}, { __close = function() closed = closed + 1 end })
  local function leave()
    for k in next, { 1 }, nil, handle do
      local function keep() return k end
      keep()
      break
    end
    return closed == 1 -- right here: as the function returns it is closed in any case
  end
  return leave()
]]()

lists.closes_loops = closes_loops

--- An iterator for `for`, which also can be held in a <close> variable.
function lists.iteration(step, running)
  local it = setmetatable({ step = step, running = running }, Iteration)
  it.stop = function()
    local guard <close> = stop_at_exit(running) -- luacheck: ignore guard
  end
  if closes_loops then return it, nil, nil, it end
  return it
end

--- Calls f(item) for each item in jobs, at most `limit` at once, and iterates over
-- the item and f's returns as they finish. Raises f's error at its turn.
function lists.each(list, f, options)
  options = check.options("each", options, { limit = true })
  local limit = check.count("each: option 'limit'", options.limit, math.huge)
  local source = lists.source_of("each", list)
  jobs.open(f)
  local running = {}
  local next_one = fan_out(source, f, limit, running, core.waitset())
  local it
  local function step()
    local item, future = next_one()
    if not future then return nil end
    if future:exception() ~= nil then
      it:close()
      return future:result()
    end
    return item, future:result()
  end
  local a, b, c, d = lists.iteration(step, running)
  it = a
  return a, b, c, d
end

return lists
