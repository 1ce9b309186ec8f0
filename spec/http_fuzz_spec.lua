-- Answers with random mistakes: each ends as a response or as an error that is documented,
-- the same whether it is read at once or as a stream.
--
-- The same answers every time, unless MOONLOOP_FUZZ_SEED names another seed;
-- MOONLOOP_FUZZ_ROUNDS is how many.

local ml = require "moonloop"
local http = require "moonloop.http"
local h = require "spec.support.helpers"
local misbehave = require "spec.support.misbehave"

local SEED <const> = tonumber(os.getenv "MOONLOOP_FUZZ_SEED") or 1
local ROUNDS <const> = tonumber(os.getenv "MOONLOOP_FUZZ_ROUNDS") or (h.checking() and 100 or 400)

describe("an answer with random mistakes", function()
  local CODES <const> = { closed = true, protocol = true, too_large = true }
  local bad
  lazy_setup(function() bad = misbehave.start() end)
  lazy_teardown(function() bad:stop() end)

  -- What became of it, as one text: an error's code, or all of the response.
  local function outcome(res, err, body)
    if not res then
      assert(CODES[err.code], err)
      assert(#err.message > 0)
      return err.code
    end
    local lines = { res.status, res.reason, body }
    for name, value in res.headers:pairs() do
      assert(not name:find "[\n:]" and not value:find "\n", "not a header")
      lines[#lines + 1] = name .. ": " .. value
    end
    return table.concat(lines, "\n")
  end

  local function at_once(session, url, options)
    local res, err = session:get(url, options)
    return outcome(res, err, res and res.body)
  end

  local function as_stream(session, url, options)
    options.stream = true
    local res, err = session:get(url, options)
    options.stream = nil
    if not res then return outcome(nil, err) end
    local _ <close> = res
    local body
    body, err = res:read_all()
    return outcome(body and res, err, body)
  end

  it("ends, and the same way as a stream", function()
    ml.run(function()
      local session <close> = http.session()
      local seen = {}
      local function try(seed)
        local url = ("%s/random/%d"):format(bad.url, seed)
        -- A Location may have become one that leads away from this machine.
        local options = { timeout = h.TIMEOUT, follow = false, max_body = 2 ^ 20 // 1 }
        local one = at_once(session, url, options)
        local other = as_stream(session, url, options)
        -- What follows a response in a later piece may be taken for the next one.
        local own <close> = http.session()
        at_once(own, url .. "/pieces", options)
        assert(one == other, ("seed %d: %q as a stream is %q"):format(seed, one, other))
        seen[CODES[one] and one or "response"] = true
      end
      local seeds = {}
      for i = 1, ROUNDS do seeds[i] = SEED * 1000000 + i end
      for _ in ml.each(seeds, try, { limit = 8 }) do end -- raises what was raised
      assert.same({ closed = true, protocol = true, response = true }, seen)
      assert.equal("ok\n", assert(http.get(bad.url .. "/ok", { timeout = h.TIMEOUT })).body)
    end)
  end)
end)
