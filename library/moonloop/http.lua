---@meta moonloop.http
-- The types of `require "moonloop.http"`. See library/moonloop.lua.

---An HTTP client. See [http](http.md).
---@class moonloop.http
---@field Response table the metatable of responses
---@field Headers table the metatable of headers
---@field Stream table the metatable of responses that stream
---@field Session table the metatable of sessions
---@field Cookies table the metatable of a session's cookies
local http = {}

---Sends a GET.
---@async
---@param url string
---@param options? moonloop.http.Options
---@return moonloop.http.Response? res
---@return moonloop.http.Error? err
function http.get(url, options) end

---Sends a POST.
---@async
---@param url string
---@param options? moonloop.http.Options
---@return moonloop.http.Response? res
---@return moonloop.http.Error? err
function http.post(url, options) end

---Sends a PUT.
---@async
---@param url string
---@param options? moonloop.http.Options
---@return moonloop.http.Response? res
---@return moonloop.http.Error? err
function http.put(url, options) end

---Sends a PATCH.
---@async
---@param url string
---@param options? moonloop.http.Options
---@return moonloop.http.Response? res
---@return moonloop.http.Error? err
function http.patch(url, options) end

---Sends a DELETE.
---@async
---@param url string
---@param options? moonloop.http.Options
---@return moonloop.http.Response? res
---@return moonloop.http.Error? err
function http.delete(url, options) end

---Sends a HEAD.
---@async
---@param url string
---@param options? moonloop.http.Options
---@return moonloop.http.Response? res
---@return moonloop.http.Error? err
function http.head(url, options) end

---Sends an OPTIONS.
---@async
---@param url string
---@param options? moonloop.http.Options
---@return moonloop.http.Response? res
---@return moonloop.http.Error? err
function http.options(url, options) end

---Sends any method.
---@async
---@param url string|moonloop.http.Options the URL; or all in one table
---@param options? moonloop.http.Options with its `method`
---@return moonloop.http.Response? res
---@return moonloop.http.Error? err
function http.request(url, options) end

---@class moonloop.http.Options
---@field method? string for `request` only
---@field url? string for `request` only
---@field query? table<string,string|number|boolean|list> put into the URL; lists repeat
---@field headers? table<string,string|number|list> lists repeat
---@field body? string|function|userdata|{ file: string } what is no string is sent as it comes
---@field length? integer bytes of a body that comes piece by piece, where that is known
---@field form? table<string,string|number|boolean|list> the body, as a browser sends a form
---@field multipart? table<string|integer,string|number|boolean|moonloop.http.Part|list> a form with files
---@field json? any the body, encoded by lua-cjson
---@field stream? boolean the response comes with its head; its body is read from it
---@field on_progress? fun(p: moonloop.http.Progress) ten times a second at most
---@field timeout? number seconds for all of it; default: none
---@field connect_timeout? number seconds until the connection stands; default 30
---@field stall? number|number[] seconds without a byte; or { bytes a second, seconds }
---@field follow? boolean follow redirects; default true
---@field max_redirects? integer default 10
---@field retries? integer|moonloop.http.Retries further attempts
---@field range? string|integer[] bytes: "0-99", { 0, 99 }, { 100 }
---@field expect? boolean|number ask before the body is sent; seconds to wait for the answer
---@field auth? moonloop.http.Auth
---@field proxy? string|false|moonloop.http.Proxy
---@field tls? moonloop.http.Tls
---@field http_version? "1.1"|"2"|"2-prior-knowledge" default: 2 where TLS offers it
---@field compressed? boolean take compressed bodies, and decode them; default true
---@field max_body? integer bytes; a larger body is the error "too_large"
---@field resolve? table<string,string> ["host:port"] = address; `*` for any host or port
---@field interface? string name or address to begin at
---@field unix_socket? string path of a socket to connect to
---@field on_debug? fun(kind: string, text: string) "request", "response", "sent", "received" or "info"

---@class moonloop.http.Auth
---@field [1] string? user
---@field [2] string? password
---@field type? "basic"|"digest" default "basic"
---@field bearer? string a token
---@field netrc? boolean|string looked up there; true: in ~/.netrc

---@class moonloop.http.Proxy
---@field url? string of http, https, socks4, socks4a, socks5 or socks5h
---@field user? string
---@field password? string
---@field no_proxy? string|string[] hosts that are asked without it
---@field tls? { verify: boolean?, ca: string? }

---@class moonloop.http.Tls
---@field verify? boolean false: take any certificate
---@field ca? string file or directory of certificates to trust instead
---@field cert? string file in PEM: who we are
---@field key? string likewise, its key
---@field key_password? string
---@field pinned? string "sha256//..." of the server's public key
---@field min_version? "1.0"|"1.1"|"1.2"|"1.3"

---@class moonloop.http.Part
---@field name? string in a list of parts
---@field data? string|number|boolean
---@field file? string a path, instead of `data`
---@field filename? string default: the last part of the path
---@field type? string default: application/octet-stream for a file, else none

---@class moonloop.http.Retries
---@field n integer further attempts at most
---@field backoff? number seconds before the second attempt, twice that before each later one; default 0.5
---@field max_wait? number seconds; no wait is longer; default 30
---@field statuses? integer[] tried again; default 408 429 502 503 504
---@field methods? string[] default GET HEAD OPTIONS TRACE PUT DELETE
---@field errors? string[] codes; default resolve refused connect closed timeout stall

---@class moonloop.http.Progress
---@field sent integer bytes so far
---@field to_send? integer in all, where that is known
---@field received integer bytes so far
---@field to_receive? integer in all, where that is known

---@class moonloop.http.Error: moonloop.Error
---@field phase string what was going on: "resolve", "connect", "tls", "send", "wait", "headers" or "body"
---@field detail? string libcurl's own words
---@field timings? moonloop.http.Timings
---@field retries? integer how often it was tried again

-- Responses ----------------------------------------------------------------------------------

---@class moonloop.http.Response
---@field status integer
---@field reason string "OK"; empty with HTTP/2
---@field ok boolean whether the status is below 400
---@field headers moonloop.http.Headers
---@field body string
---@field url string the one that answered, after redirects
---@field redirects table the responses on the way there: a list of { status, url }
---@field cookies table name → value, and a list of all about each
---@field http_version string "1.1", "2"
---@field timings moonloop.http.Timings
---@field retries? integer how often it was tried again
local Response = {}

---The body as a value of JSON.
---@return any value
---@return moonloop.Error? err "json"
function Response:json() end

---Raises an error with the code "status" if the status is 400 or more.
---@return moonloop.http.Response res itself
function Response:raise_for_status() end

---@class moonloop.http.Timings
---@field resolve number seconds from the start until the name was looked up
---@field connect number until the connection stood
---@field tls number until the handshake was over; 0 without TLS
---@field first_byte number
---@field total number

---`headers["Any-Case"]` is `headers:get("any-case")`.
---@class moonloop.http.Headers
local Headers = {}

---The first of that name.
---@param name string
---@return string?
function Headers:get(name) end

---All of that name.
---@param name string
---@return string[]
function Headers:all(name) end

---Iterates over all, in order.
---@return fun(): string, string
function Headers:pairs() end

---A response without `body`: it is read. `<close>`. See [http streams](http_streams.md).
---@class moonloop.http.Stream: moonloop.http.Response
local Stream = {}

---Reads from the body.
---@async
---@param n? integer so many bytes, fewer at the end; nil: what is there, at least a byte
---@param timeout? number seconds
---@return string? data nil at the end of the body
---@return moonloop.http.Error? err
function Stream:read(n, timeout) end

---Reads a line.
---@async
---@param keep? boolean with its end
---@param timeout? number seconds
---@return string? line nil at the end of the body
---@return moonloop.http.Error? err "too_large": more than 1 MiB
function Stream:read_line(keep, timeout) end

---Reads the rest.
---@async
---@param max? integer bytes; more are the error "too_large"
---@return string? data
---@return moonloop.http.Error? err
function Stream:read_all(max) end

---Iterates over the body as it comes.
---@param n? integer bytes in each
---@return fun(): string?
function Stream:chunks(n) end

---Iterates over its lines.
---@param keep? boolean with their ends
---@return fun(): string?
function Stream:lines(keep) end

---Iterates over the values of a body that has JSON in each line.
---@return fun(): any
function Stream:json_lines() end

---Iterates over server-sent events.
---@return fun(): moonloop.http.Event?
function Stream:events() end

---Reads the rest, as JSON.
---@async
---@return any value
---@return moonloop.http.Error? err
function Stream:json() end

---Raises an error with the code "status" if the status is 400 or more.
---@return moonloop.http.Stream res itself
function Stream:raise_for_status() end

---Ends it; what was not read is lost, and its connection too.
function Stream:close() end

---Downloads into a file, which is there when this returns, whole and on the disk, or not at all.
---@async
---@param url string
---@param path string
---@param options? moonloop.http.DownloadOptions
---@return moonloop.http.Stream? res with `path`, `size` and `resumed`, the bytes that were there before
---@return moonloop.http.Error? err also "status", "checksum", "busy", "file", and the system's
function http.download(url, path, options) end

---@class moonloop.http.DownloadOptions: moonloop.http.Options
---@field resume? boolean go on with a part that is there; default true
---@field checksum? string "sha256:..." in hexadecimal, or another that OpenSSL has
---@field progress? boolean a line on the terminal
---@field sync? boolean wait until it is on the disk; default true

---Connects to a source of server-sent events, again and again.
---@async
---@param url string
---@param options? moonloop.http.EventsOptions
---@return moonloop.http.Events? events
---@return moonloop.http.Error? err
function http.events(url, options) end

---@class moonloop.http.EventsOptions: moonloop.http.Options
---@field reconnect? boolean|integer after a lost connection; so many failures in a row; default true
---@field retry? number seconds until the next connection; default 3
---@field last_event_id? string begin after that one

---Callable, for `for`; `<close>`.
---@class moonloop.http.Events
---@field last_event_id string
---@field retry number seconds to wait before the next connection
local Events = {}

---The next event. Raises what ends them, other than the server's wish.
---@async
---@return moonloop.http.Event? event nil at the end
function Events:next() end

---Ends it.
function Events:close() end

---@class moonloop.http.Event
---@field type string "message" where the server gives none
---@field data string
---@field id string the last id so far; "" where there was none

-- Sessions -----------------------------------------------------------------------------------

---Makes a session: defaults, connections, cookies and hooks in common. See [http
---sessions](http_sessions.md).
---@param options? moonloop.http.SessionOptions
---@return moonloop.http.Session? session
---@return moonloop.Error? err the file of cookies cannot be read
function http.session(options) end

---@class moonloop.http.SessionOptions: moonloop.http.Options
---@field base_url? string
---@field cookies? boolean|string|{ file: string?, save: string|boolean|nil }
---@field max_connections? integer
---@field max_per_host? integer
---@field max_host_streams? integer
---@field on_request? fun(req: table): any, any
---@field on_response? fun(res: moonloop.http.Response, req: table): any

---`<close>`. It crosses states.
---@class moonloop.http.Session
---@field base_url? string
---@field headers table sent with each request; may be changed
---@field defaults table of other options; may be changed
---@field on_request? function
---@field on_response? function
---@field cookies? moonloop.http.Cookies
local Session = {}

---Sends a GET.
---@async
---@param url string
---@param options? moonloop.http.Options
---@return moonloop.http.Response? res
---@return moonloop.http.Error? err
function Session:get(url, options) end

---Sends a POST.
---@async
---@param url string
---@param options? moonloop.http.Options
---@return moonloop.http.Response? res
---@return moonloop.http.Error? err
function Session:post(url, options) end

---Sends a PUT.
---@async
---@param url string
---@param options? moonloop.http.Options
---@return moonloop.http.Response? res
---@return moonloop.http.Error? err
function Session:put(url, options) end

---Sends a PATCH.
---@async
---@param url string
---@param options? moonloop.http.Options
---@return moonloop.http.Response? res
---@return moonloop.http.Error? err
function Session:patch(url, options) end

---Sends a DELETE.
---@async
---@param url string
---@param options? moonloop.http.Options
---@return moonloop.http.Response? res
---@return moonloop.http.Error? err
function Session:delete(url, options) end

---Sends a HEAD.
---@async
---@param url string
---@param options? moonloop.http.Options
---@return moonloop.http.Response? res
---@return moonloop.http.Error? err
function Session:head(url, options) end

---Sends an OPTIONS.
---@async
---@param url string
---@param options? moonloop.http.Options
---@return moonloop.http.Response? res
---@return moonloop.http.Error? err
function Session:options(url, options) end

---Sends any method.
---@async
---@param url string|moonloop.http.Options
---@param options? moonloop.http.Options
---@return moonloop.http.Response? res
---@return moonloop.http.Error? err
function Session:request(url, options) end

---The request that a call stands for, as `http.request` takes it.
---@param url string
---@param options? moonloop.http.Options
---@return table? req
---@return moonloop.Error? err "url"
function Session:prepare(url, options) end

---As `http.download`.
---@async
---@param url string
---@param path string
---@param options? moonloop.http.DownloadOptions
---@return moonloop.http.Stream? res
---@return moonloop.http.Error? err
function Session:download(url, path, options) end

---As `http.events`.
---@async
---@param url string
---@param options? moonloop.http.EventsOptions
---@return moonloop.http.Events? events
---@return moonloop.http.Error? err
function Session:events(url, options) end

---As `http.websocket`, with those of the session's defaults that are for one.
---@async
---@param url string
---@param options? moonloop.http.WebSocketOptions
---@return moonloop.http.WebSocket? ws
---@return moonloop.http.Error? err
function Session:websocket(url, options) end

---Counts over all loops.
---@return moonloop.http.Stats
function Session:stats() end

---Whether it was closed.
---@return boolean
function Session:closed() end

---Ends it for all states: connections are closed, requests end with the code "closed".
---@return boolean? ok `true`
---@return moonloop.Error? err the cookies cannot be saved
function Session:close() end

---@class moonloop.http.Stats
---@field requests integer begun so far
---@field made integer connections
---@field reused integer how often one was
---@field in_use integer requests that have one
---@field queued integer requests that wait for one
---@field connections integer open now

---A session's cookies.
---@class moonloop.http.Cookies
local Cookies = {}

---All that are kept, or those of one domain.
---@param domain? string
---@return moonloop.http.Cookie[]
function Cookies:list(domain) end

---The first of that name.
---@param name string
---@param domain? string
---@return string? value
---@return moonloop.http.Cookie? cookie
function Cookies:get(name, domain) end

---Keeps one, in place of one of the same name, domain and path.
---@param name string
---@param value string
---@param options? moonloop.http.Cookie `domain`: the host of the `base_url`; `path`: "/"
---@return boolean? ok `true`
---@return moonloop.Error? err "cookie"
function Cookies:set(name, value, options) end

---Takes away all, or those of one domain, or of one domain and name.
---@param domain? string
---@param name? string
function Cookies:clear(domain, name) end

---Writes them to a file. Blocks for as long as that takes.
---@param path? string the session's file
---@return boolean? ok `true`
---@return moonloop.Error? err "file"
function Cookies:save(path) end

---@class moonloop.http.Cookie
---@field name string
---@field value string
---@field domain string the host that gets it
---@field subdomains boolean whether its subdomains get it too
---@field path string
---@field secure boolean for https only
---@field http_only boolean
---@field expires? integer seconds since 1970; nil: with the session

---Sets those of the plain functions' limits that are given. 0: the default.
---@param limits? { max_connections: integer?, max_per_host: integer?, max_host_streams: integer? }
---@return table limits those that are set now
function http.limits(limits) end

---The counts of the plain functions.
---@return moonloop.http.Stats
function http.stats() end

---The command line of curl that sends the same request.
---@param url string|moonloop.http.Options
---@param options? moonloop.http.Options
---@param how? { secrets: boolean? } show them
---@return string
function http.to_curl(url, options, how) end

-- WebSockets ---------------------------------------------------------------------------------

---Opens a WebSocket. See [websocket](websocket.md).
---@async
---@param url string ws://, wss://
---@param options? moonloop.http.WebSocketOptions
---@return moonloop.http.WebSocket? ws
---@return moonloop.http.Error? err also "handshake", with `status` and `headers`
function http.websocket(url, options) end

---@class moonloop.http.WebSocketOptions
---@field protocols? string[] names, the best first
---@field max_message? integer bytes; default 16 MiB
---@field max_queue? integer bytes that wait to be received; default 1 MiB
---@field ping_interval? number seconds; default: none are sent
---@field ping_timeout? number seconds; default 20
---@field headers? table<string,string|number|list>
---@field query? table<string,string|number|boolean|list>
---@field timeout? number seconds for the opening
---@field connect_timeout? number
---@field auth? moonloop.http.Auth
---@field proxy? string|false|moonloop.http.Proxy
---@field tls? moonloop.http.Tls
---@field resolve? table<string,string>
---@field interface? string
---@field unix_socket? string

---`<close>`. It crosses states by reference.
---@class moonloop.http.WebSocket
---@field url string
---@field protocol? string the one of `protocols` that the server chose
---@field headers moonloop.http.Headers of the server's answer
---@field closed boolean no message will come any more but those that wait
local WebSocket = {}

---Sends a message, and waits until the system has taken all of it.
---@async
---@param data string|function or an iterator of the pieces of one message
---@param kind? "text"|"binary" default "text"
---@param timeout? number seconds; for each piece
---@return boolean? ok `true`
---@return moonloop.Error? err "closed", "timeout" (with `on_its_way`)
function WebSocket:send(data, kind, timeout) end

---Waits for a message.
---@async
---@param timeout? number seconds
---@return string? message
---@return string|moonloop.Error kind "text" or "binary"; or the error
function WebSocket:receive(timeout) end

---Iterates over messages and their kinds until it is closed in good order; raises for other ends.
---@return fun(): string?, string?
function WebSocket:messages() end

---Sends a ping and waits for its pong.
---@async
---@param data? string
---@param timeout? number seconds
---@return number? seconds that it took
---@return moonloop.Error? err
function WebSocket:ping(data, timeout) end

---Takes leave of the peer.
---@async
---@param status? integer 1000 (default), or 3000 to 4999
---@param reason? string
---@param timeout? number seconds; default 10
---@return boolean? ok `true`
---@return moonloop.Error? err the connection was dropped
function WebSocket:close(status, reason, timeout) end

return http
