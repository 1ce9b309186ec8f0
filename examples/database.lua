#!/usr/bin/env moonloop
-- A blocking C library used by hundreds of jobs: LuaSQL with SQLite, a connection per thread.
--
--   ./dev run examples/database.lua [ORDERS [WORKERS]]     300 orders, 4 connections
--   lua5.4 examples/database.lua ...                       the same in the stock interpreter
--
-- Every order is a job, and all of them wait on one loop. What they do with the database would
-- block that loop, so it is called on a pool of threads. `init` opens the connection of each
-- thread's Lua state and leaves it there: functions that run in this state find it.
-- LuaSQL is in Debian's package lua-sql-sqlite3.

local ml = require "moonloop"

local GOODS <const>, STOCK <const> = 10, 25 -- kinds of them, and how many of each
local ORDERS <const> = math.tointeger(tonumber(arg[1] or 300))
local WORKERS <const> = math.tointeger(tonumber(arg[2] or 4))
if not ORDERS or ORDERS < 1 or not WORKERS or WORKERS < 1 then
  io.stderr:write("usage: database.lua [ORDERS [WORKERS]]\n")
  os.exit(arg[1] == "--help" and 0 or 2)
end

-- ---- on the pool's threads; `database` is a global of each one's state ----

-- luacheck: globals database

local function connect(path)
  database = assert(require("luasql.sqlite3").sqlite3():connect(path))
  database:execute "pragma busy_timeout = 10000" -- it waits for other writers
  database:execute "pragma journal_mode = wal"
  database:execute "pragma synchronous = normal"
end

local function create(goods, stock)
  assert(database:execute "create table stock (id integer primary key, n integer not null)")
  assert(database:execute "create table orders (id integer primary key, item, customer text)")
  for id = 1, goods do
    assert(database:execute(("insert into stock values (%d, %d)"):format(id, stock)))
  end
end

-- Sells one: whether there was one left. Both changes are made, or none is.
local function sell(item, customer)
  assert(database:execute "begin immediate")
  local _ <close> = setmetatable({}, { __close = function(_, err)
    assert(database:execute(err and "rollback" or "commit"))
  end })
  local changed = assert(database:execute(
    ("update stock set n = n - 1 where id = %d and n > 0"):format(item)))
  if changed == 0 then return false end
  assert(database:execute(("insert into orders (item, customer) values (%d, '%s')"):format(
    item, database:escape(customer))))
  return true
end

local function sums()
  local cursor = assert(database:execute(
    "select (select count(*) from orders), (select sum(n) from stock)"))
  local orders, left = cursor:fetch()
  cursor:close()
  return orders, left
end

-- ---- in the program ----

local function run(path)
  local pool <close> = ml.ThreadExecutor {
    name = "database", workers = WORKERS, init = ml.job { connect, path },
  }
  pool:sync_to_async(create, GOODS, STOCK)

  local start, sold, numbers = ml.now(), 0, {}
  for i = 1, ORDERS do numbers[i] = i end
  local results, errors = ml.map(numbers, function(i)
    ml.sleep(math.random() * 0.1) -- customers come when they like
    return pool:sync_to_async(sell, i % GOODS + 1, "customer " .. i)
  end, { limit = ORDERS })
  for i = 1, ORDERS do
    if errors[i] then error(errors[i], 0) end
    if results[i] then sold = sold + 1 end
  end

  local orders, left = pool:sync_to_async(sums)
  print(("%d orders, %d sold, %d times none was left: %.2f s"):format(
    ORDERS, sold, ORDERS - sold, ml.now() - start))
  print(("the database has %d orders and %d things left, through %d connections"):format(
    orders, left, pool:stats().workers))
  assert(orders == sold and left == GOODS * STOCK - sold)
end

ml.run(function()
  local path = os.tmpname()
  local _ <close> = ml.defer(function()
    for _, suffix in ipairs { "", "-wal", "-shm" } do os.remove(path .. suffix) end
  end)
  run(path)
end)
