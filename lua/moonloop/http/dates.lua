--- Dates as HTTP has them: "Sun, 06 Nov 1994 08:49:37 GMT".

local dates = {}

local MONTHS <const> = "JanFebMarAprMayJunJulAugSepOctNovDec"
local DAYS <const> = "SunMonTueWedThuFriSat"

-- Days from 1970-01-01 to a date of the Gregorian calendar. Its year begins in March, so that a
-- leap day is the last of a year.
local function days_to(year, month, day)
  if month <= 2 then year, month = year - 1, month + 12 end
  return 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day
    - 719469
end

--- Seconds since 1970; nil: it is no such date.
---@param text string?
---@return integer?
function dates.parse(text)
  local day, name, year, hour, minute, second =
    (text or ""):match "^%a+, (%d%d) (%a%a%a) (%d%d%d%d) (%d%d):(%d%d):(%d%d) GMT$"
  local month = name and MONTHS:find(name, 1, true)
  if not month or month % 3 ~= 1 then return nil end
  local days = days_to(tonumber(year), month // 3 + 1, tonumber(day))
  return math.tointeger(days * 86400 + hour * 3600 + minute * 60 + second)
end

--- The date of so many seconds since 1970.
---@param time integer
---@return string
function dates.format(time)
  local d = os.date("!*t", time)
  return ("%s, %02d %s %04d %02d:%02d:%02d GMT"):format(
    DAYS:sub(d.wday * 3 - 2, d.wday * 3), d.day, MONTHS:sub(d.month * 3 - 2, d.month * 3), d.year,
    d.hour, d.min, d.sec)
end

return dates
