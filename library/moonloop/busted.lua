---@meta moonloop.busted
-- The types of `require "moonloop.busted"`. See library/moonloop.lua.

---The helper of busted: `busted --helper=moonloop.busted`. See [testing](testing.md).
---@class moonloop.busted
local busted = {}

---Sets the time limit of the test that runs; outside of tests, of each test there.
---@param seconds number? nil: none
function busted.timeout(seconds) end

return busted
