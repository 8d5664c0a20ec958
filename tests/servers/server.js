// Node's http, and https where a certificate and its key are given: every path answers, with a length, or in chunks without one.
const { readFileSync } = require('node:fs');
const [host, port, cert, key] = process.argv.slice(2);
const [http, options] = cert
  ? [require('node:https'), { cert: readFileSync(cert), key: readFileSync(key) }]
  : [require('node:http'), {}];
http.createServer(options, (request, response) => {
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
