-- Commands to Redis that wait as all of moonloop does. See awaitable.c for how it is run.
local ml = require "moonloop"
local redis = require "redis"

-- Here, in a plain state, a command blocks the thread.
assert(redis.set("moonloop:greeting", "hello"))
print(redis.get("moonloop:greeting"))

-- In jobs a thousand wait at once, on one connection.
redis.del("moonloop:count")
local function count() return assert(redis.incr("moonloop:count")) end
local jobs = {}
for i = 1, 1000 do jobs[i] = count end
ml.gather(jobs)
print("counted to", redis.get("moonloop:count"))

-- What Redis refuses is nil and an error.
print(select(2, redis.incr("moonloop:greeting")))

redis.del("moonloop:greeting", "moonloop:count")
