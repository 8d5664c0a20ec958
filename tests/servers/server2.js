// Node's HTTP/2, in clear text or where a certificate and its key are given over TLS: every path answers; /chunked in
// pieces, /empty without a body, /large/N with N octets.
const { readFileSync } = require("fs");
const [ip, port, cert, key] = process.argv.slice(2);
const statuses = { "/empty": 204, "/missing": 404, "/boom": 500 };
const http2 = require("http2");
// Bodies of a hundred streams at once take more than the 10 MB that a session may have.
const options = { maxSessionMemory: 1000 };
const answer = (request, response) => {
  let read = 0;
  request.on("data", (piece) => (read += piece.length));
  request.on("end", () => {
    response.statusCode = statuses[request.url] ?? 200;
    if (request.url === "/chunked") for (let i = 0; i < 3; i++) response.write("a piece\n");
    const large = request.url.match("^/large/(.*)");
    if (large) response.end("x".repeat(Number(large[1])));
    else if (["/empty", "/chunked"].includes(request.url)) response.end();
    else response.end(`read ${read} bytes\n`);
  });
};
const server = cert
  ? http2.createSecureServer({ ...options, cert: readFileSync(cert), key: readFileSync(key) }, answer)
  : http2.createServer(options, answer);
server.listen(Number(port), ip);
