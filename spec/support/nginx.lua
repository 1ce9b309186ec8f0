-- A real nginx on a free port of 127.0.0.1, for specs and benches.
--
--   local srv <close> = nginx.start { http2 = true }
--   srv.url         "http://127.0.0.1:23456"
--   srv.https_url   "https://127.0.0.1:23457"   with tls or http2
--   srv.ca          path of the certificate to trust for it
--   srv.cert, srv.key, srv.locked_key   a certificate for the client, its key, and the same
--                   key under the password "secret"
--   srv:pin()       the hash of the server's public key
--   srv.socket      path of the unix socket that it listens on too
--   srv.files       folder with the static files: what you put there is served
--   srv:connections()   how many it has accepted, and how many are open
--   srv:stop()
--
-- Locations that every server has:
--   /300b /10k /200k     static files of those sizes
--   /files/NAME          what is in srv.files
--   /status/CODE         a short body with that status, for the usual codes
--   /redirect/N          N redirects (at most 30), then /300b; /redirect-loop never ends
--   /redirect-303, -307, -308   to /echo
--   /gzip                10 KB of text, compressed if the client takes it
--   /cookies             three Set-Cookie headers
--   /echo                the request's body as it came; its method, URI, protocol and some
--                        headers in X- headers of the answer
--   /headers             the head of the request as it came (HTTP/1 only)
--   /delay/SECONDS/PATH  PATH after that time
--   /once                closes the connection after its answer
--   /slow                10 KB at 2 KB a second
--   /drop                closes the connection without an answer
--   /trickle             ten lines, "line 1" and so on, 20 ms between them
--   /events              server-sent events: see its lines below
--   /basic               asks for the user "me" with the password "secret"
--   /connection          the connection's number, and the request's number on it
--   /size                how many bytes the request's body had
--   /put/NAME            PUT stores the body as a file in srv.files
--   /client-cert         who the client's certificate is for, or 403
--   /upstream/refused, /upstream/late   502 and 504 from a proxy
--   /upstream/PATH       the server that the option `upstream` names

local certificates = require "spec.support.certificates"
local process = require "spec.support.process"
local capture, quote, write_file = process.capture, process.quote, process.write_file

local nginx = {}

local Server = process.class()

local STATUSES = {
  200, 201, 202, 204, 400, 401, 403, 404, 405, 409, 410, 418, 422, 429, 500, 501, 502, 503, 504,
}

-- The module behind /echo and /delay; Debian's nginx-light brings it.
local function find_echo_module(program)
  local modules = capture(quote(program) .. " -V 2>&1"):match("%-%-modules%-path=(%S+)")
  local path = (modules or "/usr/lib/nginx/modules") .. "/ngx_http_echo_module.so"
  local file = io.open(path, "rb")
  if not file then
    error("nginx has no echo module (" .. path .. "): install the package nginx-light", 0)
  end
  file:close()
  return path
end

local function make_files(dir)
  local text = ("The quick brown fox jumps over the lazy dog, and on. "):rep(5000)
  for name, size in pairs { ["300b"] = 300, ["10k"] = 10240, ["200k"] = 204800 } do
    write_file(dir .. "/files/" .. name, text:sub(1, size))
  end
end

local function default_locations(opts, socket)
  local out = {}
  local function add(format, ...)
    out[#out + 1] = format:format(...)
  end
  add "location /files/ { }"
  for _, name in ipairs { "300b", "10k", "200k" } do
    if opts.delay then
      add("location = /%s { echo_sleep %s; echo_exec /files/%s; }", name, opts.delay, name)
    else
      add("location = /%s { rewrite ^ /files/%s last; }", name, name)
    end
  end
  for _, code in ipairs(STATUSES) do
    add("location = /status/%d { return %d 'status %d\n'; }", code, code, code)
  end
  add "location = /redirect/0 { rewrite ^ /files/300b last; }"
  for n = 1, 30 do
    add("location = /redirect/%d { return 302 /redirect/%d; }", n, n - 1)
  end
  add "location = /redirect-loop { return 302 /redirect-loop; }"
  for _, code in ipairs { 303, 307, 308 } do
    add("location = /redirect-%d { return %d /echo; }", code, code)
  end
  add [[location = /gzip { gzip on; gzip_min_length 0; gzip_types *; rewrite ^ /files/10k break; }
    location = /cookies {
      add_header Set-Cookie a=1; add_header Set-Cookie b=2; add_header Set-Cookie c=3;
      return 200 "cookies\n";
    }
    location = /echo {
      add_header X-Method $request_method;
      add_header X-Uri $request_uri;
      add_header X-Protocol $server_protocol;
      add_header X-Content-Type $content_type;
      add_header X-Content-Length $content_length;
      add_header X-User-Agent $http_user_agent;
      add_header X-Accept $http_accept;
      add_header X-Authorization $http_authorization;
      add_header X-Cookie $http_cookie;
      add_header X-Test $http_x_test;
      echo_read_request_body;
      echo_request_body;
    }
    location = /headers { echo_duplicate 1 $echo_client_request_headers; }
    location ~ ^/delay/([0-9.]+)(/.*)$ { echo_sleep $1; echo_exec $2 $args; }
    location = /once { keepalive_timeout 0; return 200 "once\n"; }
    location = /slow { limit_rate 2k; rewrite ^ /files/10k break; }
    location = /drop { return 444; }
    location = /events {
      default_type text/event-stream;
      echo "retry: 50\nid: 1\ndata: first\n"; echo_flush; echo_sleep 0.02;
      echo ": a comment\nevent: named\nid: 2\ndata: one\ndata: two\n"; echo_flush;
      echo_sleep 0.02;
      echo "data: after $http_last_event_id\n";
    }
    location = /basic {
      auth_basic moonloop; auth_basic_user_file passwords; echo "hello $remote_user";
    }
    location = /connection { return 200 "$connection $connection_requests\n"; }
    location = /connections { stub_status; }
    location = /content-length { return 200 "$content_length\n"; }
    location /put/ { dav_methods PUT; alias files/; }
    location = /upstream/refused { proxy_pass http://127.0.0.1:1; }]]
  add("location = /size { proxy_pass http://unix:%s:/content-length; }", socket)
  add("location = /upstream/late { proxy_read_timeout 100ms;"
    .. " proxy_pass http://unix:%s:/delay/1/300b; }", socket)
  add "location = /trickle {"
  for n = 1, 10 do add("echo 'line %d'; echo_flush; echo_sleep 0.02;", n) end
  add "}"
  if opts.client_cert then
    add [[location = /client-cert {
      if ($ssl_client_verify != SUCCESS) { return 403 "$ssl_client_verify\n"; }
      return 200 "$ssl_client_s_dn\n";
    }]]
  end
  if opts.upstream then
    add("location /upstream/ { proxy_http_version 1.1; proxy_pass %s/; }", opts.upstream)
  end
  return table.concat(out, "\n    ")
end

local function has_ipv6()
  return ("\n" .. process.read_file "/proc/net/if_inet6"):find "\n0+1 " ~= nil
end

local function config(self, opts, echo_module)
  local text = [[
load_module $echo;
$user
daemon off;
worker_processes 1;
$affinity
pid nginx.pid;
error_log error.log warn;
events { worker_connections $connections; }
http {
  access_log off;
  default_type text/plain;
  sendfile on;
  keepalive_timeout 300;
  keepalive_requests 1000000000;
  client_max_body_size 0;
  client_body_buffer_size 1m;
  client_body_temp_path tmp-body;
  proxy_temp_path tmp-proxy;
  fastcgi_temp_path tmp-fastcgi;
  uwsgi_temp_path tmp-uwsgi;
  scgi_temp_path tmp-scgi;
  server {
    listen 127.0.0.1:$port backlog=$connections;
    listen unix:$socket;
    $also
    $tls
    root .;
    $locations
    $more
  }
}
]]
  local tls = self.https_port and ([[listen 127.0.0.1:%d ssl%s backlog=4096;
    ssl_certificate server.pem; ssl_certificate_key server.key;
    ssl_session_cache shared:tls:1m; %s %s]]):format(self.https_port,
      opts.http2 and " http2" or "",
      opts.protocols and "ssl_protocols " .. opts.protocols .. ";" or "",
      opts.client_cert and "ssl_client_certificate ca.pem; ssl_verify_client optional;" or "") or ""
  local cpu = opts.cpu
  return (text:gsub("%$(%l+)", {
    echo = '"' .. echo_module .. '"',
    user = capture("id -u") == "0" and "user root;" or "",
    affinity = cpu and "worker_cpu_affinity 1" .. ("0"):rep(cpu) .. ";" or "",
    connections = tostring(opts.connections or 4096),
    port = tostring(self.port),
    socket = self.socket,
    also = opts.ipv6 and has_ipv6() and ("listen [::1]:%d;"):format(self.port) or "",
    tls = tls,
    locations = default_locations(opts, self.socket),
    more = opts.locations or "",
  }))
end


---@class NginxOptions
---@field tls? boolean         serve https_url as well
---@field http2? boolean       the same, and offer HTTP/2 there
---@field client_cert? boolean ask for a certificate there
---@field certificate? CertificateOptions  what the server shows there, if it is to be wrong
---@field protocols? string    of TLS: "TLSv1.2"
---@field upstream? string     the URL of a server for /upstream/
---@field ipv6? boolean        listen at ::1 too, if this machine has it
---@field delay? number        seconds before /300b, /10k and /200k answer
---@field locations? string    more of nginx's configuration, for its server block
---@field cpu? integer         the CPU for its worker
---@field connections? integer how many it takes at a time; default 4096

---Starts a server; raises if nginx will not start.
---@param opts? NginxOptions
---@return table server
function nginx.start(opts)
  opts = opts or {}
  local program = process.find("nginx", "nginx-light")
  local echo_module = find_echo_module(program)
  local secure = opts.tls or opts.http2 or opts.client_cert or opts.certificate
  local self = process.start(setmetatable({}, Server), "nginx", function(self)
    local dir = self.dir
    if not self.files then
      self.files, self.socket = dir .. "/files", dir .. "/http.sock"
      process.run("mkdir " .. quote(self.files), "mkdir")
      make_files(dir)
      write_file(dir .. "/passwords", "me:{PLAIN}secret\n")
      if secure then certificates.make(dir, opts.certificate) end
    end
    self.port = process.free_port()
    repeat
      self.https_port = secure and process.free_port()
    until self.https_port ~= self.port
    write_file(dir .. "/nginx.conf", config(self, opts, echo_module))
    -- nginx writes its pid when it listens already.
    return ("%s -p %s -c nginx.conf -e error.log"):format(quote(program), quote(dir)),
      "[ -s nginx.pid ]"
  end)
  local dir = self.dir
  self.url = "http://127.0.0.1:" .. self.port
  if secure then
    self.https_url = "https://127.0.0.1:" .. self.https_port
    self.ca, self.cert = dir .. "/ca.pem", dir .. "/client.pem"
    self.key, self.locked_key = dir .. "/client.key", dir .. "/client-locked.key"
  end
  return self
end

---The hash of the server's public key, as `tls.pinned` takes it.
---@return string
function Server:pin()
  return certificates.pin(self.dir)
end

---How many connections it has accepted, and how many are open. The one that asks counts.
---@return integer accepted
---@return integer open
function Server:connections()
  local res = assert(require "moonloop.http".get(self.url .. "/connections", { timeout = 15 }))
  local open, accepted = res.body:match "(%d+) \nserver.-\n (%d+)"
  return tonumber(accepted), tonumber(open)
end

return nginx
