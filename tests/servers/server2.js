// Node's HTTP/2 in clear text: every path answers; /chunked in pieces, /empty without a body.
const [ip, port] = process.argv.slice(2);
const statuses = { "/empty": 204, "/missing": 404, "/boom": 500 };
const server = require("http2").createServer((request, response) => {
  let read = 0;
  request.on("data", (piece) => (read += piece.length));
  request.on("end", () => {
    response.statusCode = statuses[request.url] ?? 200;
    if (request.url === "/chunked") for (let i = 0; i < 3; i++) response.write("a piece\n");
    if (request.url === "/large") response.end("x".repeat(300_000));
    else if (["/empty", "/chunked"].includes(request.url)) response.end();
    else response.end(`read ${read} bytes\n`);
  });
});
server.listen(Number(port), ip);
