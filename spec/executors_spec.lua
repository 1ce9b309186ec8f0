-- Every kind of executor keeps the same promises.

local suite = require "spec.support.executor_suite"

for _, kind in ipairs(suite.kinds) do suite.run(kind, _ENV) end
