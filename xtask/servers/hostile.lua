-- Another path and Host with every request, and another method.
local methods = { "GET", "PUT", "PROPFIND", "MKCOL", "REPORT", "SEARCH", "PURGE", "DELETE" }
local number = 0

function request()
   number = number + 1
   local path = "/" .. number * 7919 .. "x/" .. number .. "?q=" .. number
   return wrk.format(methods[number % #methods + 1], path, { Host = "host-" .. number })
end
