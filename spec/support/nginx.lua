-- A real nginx on a free port of 127.0.0.1, for specs and benches.
--
--   local srv <close> = nginx.start { http2 = true }
--   srv.url         "http://127.0.0.1:23456"
--   srv.https_url   "https://127.0.0.1:23457"   with tls or http2
--   srv.ca          path of the certificate to trust for it
--   srv.files       folder with the static files: what you put there is served
--   srv:stop()
--
-- It runs in a folder of its own, under a small shell that waits on a pipe from
-- this process: when the pipe closes, for whatever reason, nginx ends and the
-- folder goes. Nothing but io.popen and os.execute is used.
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

local nginx = {}

local Server = {}
Server.__index = Server

local STATUSES = {
  200, 201, 202, 204, 400, 401, 403, 404, 405, 409, 410, 418, 422, 429, 500, 501, 502, 503, 504,
}

---@param s string
---@return string # `s` as one word of a shell command
local function quote(s)
  return "'" .. s:gsub("'", [['\'']]) .. "'"
end

---@param command string
---@return string # what it prints, without the last newline
local function capture(command)
  local pipe = assert(io.popen(command, "r"))
  local text = pipe:read("a")
  pipe:close()
  return (text:gsub("\n$", ""))
end

---@param command string
---@param what string
local function run(command, what)
  local output = capture("{ " .. command .. "; } 2>&1 && echo done")
  if output:sub(-4) ~= "done" then
    error(what .. " failed: " .. output, 0)
  end
end

local function write_file(path, text)
  local file = assert(io.open(path, "wb"))
  assert(file:write(text))
  assert(file:close())
end

local function read_file(path)
  local file = io.open(path, "rb")
  if not file then return "" end
  local text = file:read("a")
  file:close()
  return text
end

-- The ports that something listens on, as a set.
local function taken_ports()
  local taken = {}
  for _, path in ipairs { "/proc/net/tcp", "/proc/net/tcp6" } do
    for port in read_file(path):gmatch(":(%x%x%x%x) %x+:%x+ 0A ") do
      taken[tonumber(port, 16)] = true
    end
  end
  return taken
end

-- Below the range from which the system gives ports to clients.
local function free_port(taken)
  local urandom = assert(io.open("/dev/urandom", "rb"))
  local port
  repeat
    port = 10000 + string.unpack("I2", urandom:read(2)) % 20000
  until not taken[port]
  urandom:close()
  taken[port] = true
  return port
end

local function find_program()
  local path = capture("command -v nginx || command -v /usr/sbin/nginx")
  if path == "" then
    error("nginx is missing: install the package nginx-light", 0)
  end
  return path
end

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

-- A CA of our own and a certificate for 127.0.0.1 and localhost.
local function make_certificates(dir)
  if capture("command -v openssl") == "" then
    error("openssl is missing: install the package openssl", 0)
  end
  local key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
  write_file(dir .. "/server.ext", "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\n")
  run("cd " .. quote(dir) .. " && openssl req -x509 " .. key .. " -keyout ca.key -out ca.pem"
    .. " -days 30 -subj '/CN=moonloop test CA'"
    .. " && openssl req " .. key .. " -keyout server.key -out server.csr -subj /CN=localhost"
    .. " && openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial"
    .. " -days 30 -extfile server.ext -out server.pem", "making certificates")
end

local function make_files(dir)
  local text = ("The quick brown fox jumps over the lazy dog, and on. "):rep(5000)
  for name, size in pairs { ["300b"] = 300, ["10k"] = 10240, ["200k"] = 204800 } do
    write_file(dir .. "/files/" .. name, text:sub(1, size))
  end
end

local function default_locations(opts)
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
    location = /drop { return 444; }]]
  return table.concat(out, "\n    ")
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
events { worker_connections 4096; }
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
    listen 127.0.0.1:$port backlog=4096;
    $tls
    root .;
    $locations
    $more
  }
}
]]
  local tls = self.https_port and ([[listen 127.0.0.1:%d ssl%s backlog=4096;
    ssl_certificate server.pem; ssl_certificate_key server.key;
    ssl_session_cache shared:tls:1m;]]):format(self.https_port, opts.http2 and " http2" or "") or ""
  local cpu = opts.cpu
  return (text:gsub("%$(%l+)", {
    echo = '"' .. echo_module .. '"',
    user = capture("id -u") == "0" and "user root;" or "",
    affinity = cpu and "worker_cpu_affinity 1" .. ("0"):rep(cpu) .. ";" or "",
    port = tostring(self.port),
    tls = tls,
    locations = default_locations(opts),
    more = opts.locations or "",
  }))
end

-- Starts nginx under its watching shell. True, or false and nginx's own words.
local function launch(self, program)
  local dir = quote(self.dir)
  self.pipe = assert(io.popen(([[
    exec >/dev/null 2>&1
    trap '' INT HUP TERM QUIT
    cd %s || exit 1
    rm -f ended
    { %s -p %s -c nginx.conf -e error.log </dev/null 2>start.log; echo >ended; } &
    read -r word
    [ -s nginx.pid ] && kill "$(cat nginx.pid)"
    wait
    rm -f nginx.pid
    [ "$word" = again ] || rm -rf %s]]):format(dir, quote(program), dir, dir), "w"))
  -- nginx writes its pid when it listens already.
  local ready = os.execute(([[cd %s || exit 1
    i=0
    while [ $i -lt 500 ]; do
      [ -s nginx.pid ] && exit 0
      [ -e ended ] && exit 1
      sleep 0.01
      i=$((i + 1))
    done
    exit 1]]):format(dir))
  if ready then return true end
  return false, read_file(self.dir .. "/start.log") .. read_file(self.dir .. "/error.log")
end

local function end_shell(self, word)
  local pipe = self.pipe
  self.pipe = nil
  if pipe then
    pipe:write(word, "\n")
    pipe:close() -- waits for the shell, which waits for nginx
  end
end

---@class NginxOptions
---@field tls? boolean      serve https_url as well
---@field http2? boolean    the same, and offer HTTP/2 there
---@field delay? number     seconds before /300b, /10k and /200k answer
---@field locations? string more of nginx's configuration, for its server block
---@field cpu? integer      the CPU for its worker

---Starts a server; raises if nginx will not start.
---@param opts? NginxOptions
---@return table server
function nginx.start(opts)
  opts = opts or {}
  local program = find_program()
  local echo_module = find_echo_module(program)
  local dir = capture("mktemp -d")
  assert(dir ~= "", "no temporary folder")
  local self = setmetatable({ dir = dir, files = dir .. "/files" }, Server)
  local ok, err = pcall(function()
    run("mkdir " .. quote(self.files), "mkdir")
    make_files(dir)
    if opts.tls or opts.http2 then
      make_certificates(dir)
      self.ca = dir .. "/ca.pem"
    end
    local started, why
    for _ = 1, 5 do -- another process may take a port between our look and nginx's bind
      local taken = taken_ports()
      self.port = free_port(taken)
      self.https_port = self.ca and free_port(taken)
      write_file(dir .. "/nginx.conf", config(self, opts, echo_module))
      started, why = launch(self, program)
      if started then break end
      end_shell(self, "again")
      if not why:find("bind() to", 1, true) then break end
    end
    if not started then error("nginx did not start: " .. why, 0) end
  end)
  if not ok then
    os.execute("rm -rf " .. quote(dir))
    error(err, 2)
  end
  self.url = "http://127.0.0.1:" .. self.port
  self.https_url = self.https_port and "https://127.0.0.1:" .. self.https_port
  return self
end

---Ends nginx and removes its folder. Again: nothing.
function Server:stop()
  end_shell(self, "stop")
end

---What nginx has to say, for a failing spec.
---@return string
function Server:log()
  return read_file(self.dir .. "/error.log")
end

Server.__close = Server.stop
Server.__gc = Server.stop

return nginx
