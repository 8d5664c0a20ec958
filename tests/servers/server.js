// Node's http: every path answers, with a length, or in chunks without one.
const http = require('node:http');
const [host, port] = process.argv.slice(2);
http.createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    if (request.url.startsWith('/chunked')) {
      response.write('one ');
      setTimeout(() => response.end('two\n'), 5);
    } else if (request.url.startsWith('/empty')) {
      response.writeHead(204).end();
    } else {
      const body = `read ${Buffer.concat(chunks).length} bytes\n`;
      response.writeHead(200, { 'content-length': body.length }).end(body);
    }
  });
}).listen(Number(port), host);
