-- Certificates made with openssl: a CA of our own, one for a server at 127.0.0.1 and
-- localhost, one for a client.

local process = require "spec.support.process"

local KEY <const> = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"

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
  local function signed(name, subject, days, more)
    return ("openssl req %s -keyout %s.key -out %s.csr -subj %s"):format(KEY, name, name, subject)
      .. (" && openssl x509 -req -in %s.csr -CA ca.pem -CAkey ca.key -CAcreateserial"
        .. " -days %d %s -out %s.pem"):format(name, days, more, name)
  end
  process.run("cd " .. process.quote(dir)
    .. " && openssl req -x509 " .. KEY .. " -keyout ca.key -out ca.pem"
    .. " -days 30 -subj '/CN=moonloop test CA'"
    .. " && " .. signed("server", "/CN=localhost", opts.expired and -1 or 30,
      "-extfile server.ext")
    .. " && " .. signed("client", "/CN=client", 30, "")
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
