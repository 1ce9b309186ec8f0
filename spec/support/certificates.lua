-- Certificates made with openssl: a CA of our own, one for a server at 127.0.0.1 and
-- localhost, one for a client.

local process = require "spec.support.process"

local KEY <const> = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"

local CA <const> = [[
[ca]
default_ca = own
[own]
database = ca.index
new_certs_dir = .
rand_serial = yes
default_md = sha256
policy = any
[any]
commonName = supplied
]]

local certificates = {}

---@class CertificateOptions
---@field names? string     the server's names: default "DNS:localhost,IP:127.0.0.1,IP:::1"
---@field expired? boolean  the server's was good until yesterday

---Puts into `dir`: ca.pem, server.pem, server.key, client.pem, client.key, and
---client-locked.key, the same key under the password "secret".
---@param dir string
---@param opts? CertificateOptions
function certificates.make(dir, opts)
  opts = opts or {}
  process.find("openssl", "openssl")
  local names = opts.names or "DNS:localhost,IP:127.0.0.1,IP:::1"
  process.write_file(dir .. "/server.ext", "subjectAltName=" .. names .. "\n")
  if opts.expired then
    process.write_file(dir .. "/ca.conf", CA)
    process.write_file(dir .. "/ca.index", "")
  end
  -- OpenSSL's x509 can make none that has expired: before 3.4 it takes no dates, and since 3.5
  -- no days below 0. But its ca takes dates.
  local expired = "openssl ca -batch -config ca.conf -cert ca.pem -keyfile ca.key -notext"
    .. " -startdate 20200101000000Z -enddate 20200102000000Z -in server.csr"
    .. " -extfile server.ext -out server.pem"
  local function signed(name, subject, more)
    return ("openssl req %s -keyout %s.key -out %s.csr -subj %s"):format(KEY, name, name, subject)
      .. (" && openssl x509 -req -in %s.csr -CA ca.pem -CAkey ca.key -CAcreateserial"
        .. " -days 30 %s -out %s.pem"):format(name, more, name)
  end
  process.run("cd " .. process.quote(dir)
    .. " && openssl req -x509 " .. KEY .. " -keyout ca.key -out ca.pem"
    .. " -days 30 -subj '/CN=moonloop test CA'"
    .. " && " .. signed("server", "/CN=localhost", "-extfile server.ext")
    .. (opts.expired and " && " .. expired or "")
    .. " && " .. signed("client", "/CN=client", "")
    .. " && openssl ec -in client.key -aes256 -passout pass:secret -out client-locked.key",
    "making certificates")
end

---The hash of the server's public key, as `tls.pinned` takes it.
---@param dir string
---@return string # "sha256//..."
function certificates.pin(dir)
  return "sha256//" .. process.capture("openssl x509 -in " .. process.quote(dir .. "/server.pem")
    .. " -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary"
    .. " | openssl base64")
end

return certificates
