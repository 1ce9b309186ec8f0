-- The certificates that a client finds on a machine where a test server's is installed: the
-- system's hundred and more, and that one besides.

---@param server table  as nginx.start returns it, with TLS
---@return string bundle  a file
---@return string folder  with a link for each, named by its hash
return function(server)
  local bundle, folder = server.dir .. "/bundle.pem", server.dir .. "/certs"
  assert(os.execute(([[
    system=/etc/ssl/certs
    cat $system/ca-certificates.crt '%s' >'%s'
    mkdir '%s' && cd '%s' || exit 1
    for link in $system/????????.[0-9]; do ln -s "$link" .; done
    ln -s '%s' "$(openssl x509 -hash -noout -in '%s').0"]]):format(
    server.ca, bundle, folder, folder, server.ca, server.ca)))
  return bundle, folder
end
