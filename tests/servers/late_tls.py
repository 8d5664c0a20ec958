"""Maps its TLS library at SIGUSR1, and serves HTTPS from then on; at SIGUSR2 a child serves in its place.

Arguments: the port, the certificate's file, the key's file; a fourth one has it serve at once.
"""

import os
import signal
import sys

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGUSR2])
if len(sys.argv) == 4:
    signal.sigwait([signal.SIGUSR1])
# They map the library.
import http.server  # noqa: E402
import socket  # noqa: E402
import ssl  # noqa: E402

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=64)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")


class Server(http.server.ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = context.wrap_socket(listener.dup(), server_side=True)


class Leave(Exception):
    pass


def leave(*_):
    raise Leave


signal.signal(signal.SIGUSR2, leave)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
try:
    Server().serve_forever()
except Leave:
    child = os.fork()
    if child == 0:
        Server().serve_forever()
    os.waitpid(child, 0)
