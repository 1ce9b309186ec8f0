--- HTTP for jobs and threads alike: in a job a request parks the job, elsewhere
--- it blocks the calling thread. See docs/http.md.
---
---     local http = require "moonloop.http"
---     local res = assert(http.get("https://example.com/", { timeout = 5 }))
---     print(res.status, res.headers["Content-Type"], #res.body)

require "moonloop"
local core = require "moonloop.http.core"
local stream = require "moonloop.http.stream"
require "moonloop.http.exchange"

---@class moonloop.http.Options
---@field query? table<string, string|number|boolean|list>  put into the URL, encoded; lists repeat
---@field headers? table<string, string|number|list>  lists repeat
---@field body? string|function|userdata|{ file: string }  what is no string is sent as it comes
---@field length? integer            bytes of a body that comes piece by piece, where it is known
---@field stream? boolean            the response comes with its head; its body is read from it
---@field on_progress? fun(p: moonloop.http.Progress)  ten times a second at most
---@field json? any                   the body, encoded by lua-cjson
---@field timeout? number             seconds for all of it; default: none
---@field connect_timeout? number     seconds until the connection stands; default 30
---@field follow? boolean             follow redirects; default true
---@field max_redirects? integer      default 10
---@field http_version? "1.1"|"2"|"2-prior-knowledge"
---@field tls? { verify: boolean?, ca: string? }  `ca`: a file of certificates to trust instead
---@field compressed? boolean         take compressed bodies, and decode them; default true
---@field max_body? integer           bytes; a larger body is an error
---@field method? string              for `request` only
---@field url? string                 for `request` only

---@class moonloop.http.Response
---@field status integer
---@field ok boolean                  whether the status is below 400
---@field reason string               "OK"; empty with HTTP/2
---@field headers moonloop.http.Headers
---@field body string
---@field url string                  the one that answered, after redirects
---@field http_version string         "1.1", "2"
---@field timings moonloop.http.Timings
---@field json fun(self): any         the body's value; or nil and an error
---@field raise_for_status fun(self): moonloop.http.Response

---@class moonloop.http.Timings       seconds from the start until each was over
---@field resolve number
---@field connect number
---@field tls number
---@field first_byte number
---@field total number

---@class moonloop.http.Headers       headers["any-case"] is headers:get("any-case")
---@field get fun(self, name: string): string?
---@field all fun(self, name: string): string[]
---@field pairs fun(self): fun(): string, string

---@alias moonloop.http.verb
---| fun(url: string, options: moonloop.http.Options?): moonloop.http.Response?, table?

local http = {
  get = core.get, ---@type moonloop.http.verb
  post = core.post, ---@type moonloop.http.verb
  put = core.put, ---@type moonloop.http.verb
  patch = core.patch, ---@type moonloop.http.verb
  delete = core.delete, ---@type moonloop.http.verb
  head = core.head, ---@type moonloop.http.verb
  options = core.options, ---@type moonloop.http.verb

  -- `request(url, options)` or `request{ url = ..., method = ..., ... }`
  request = core.request,

  -- The metatables: they let responses cross states.
  Response = core.Response,
  Headers = core.Headers,

  -- The metatable of responses that stream.
  Stream = stream.Stream,
}

return http
