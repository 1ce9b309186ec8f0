-- The least that a plugin can be.
return function(query)
  return "hello, " .. (query.name or "world") .. "\n"
end
