-- Asks for as many paths in turn as the first argument says.
local requests, last = {}, 0

function init(arguments)
   for number = 1, tonumber(arguments[1]) do
      requests[number] = wrk.format("GET", "/shop/route-" .. number)
   end
end

function request()
   last = last % #requests + 1
   return requests[last]
end
