# A Rack application of the tests' paths.

run lambda { |request|
  request['rack.input'].read
  case request['PATH_INFO']
  when '/echo' then [200, { 'content-type' => 'text/plain' }, ['read']]
  when '/chunked' then [200, {}, %w[first second]]
  when '/empty' then [204, {}, []]
  else [404, {}, []]
  end
}
