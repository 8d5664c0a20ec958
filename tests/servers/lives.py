"""A server that does to itself what it is asked for, once it has answered: one connection after the other.

`/exec` runs another program with the listening socket and the connection; `/daemon` forks twice, and the child of the
child goes on; `/user` becomes nobody. Each answer is the number of the process. Arguments: the port, or the descriptors
of both sockets.
"""

import os
import socket
import sys


def serve(listener, connection):
    while True:
        if connection is None:
            connection, _ = listener.accept()
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            received = connection.recv(4096)
            if not received:
                break
            request += received
        if not request:
            connection.close()
            connection = None
            continue
        path = request.split(b" ")[1]
        body = b"%d\n" % os.getpid()
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        if path == b"/exec":
            for one in (listener, connection):
                os.set_inheritable(one.fileno(), True)
            code = open(sys.argv[0]).read()
            os.execv(sys.executable, ["another", "-c", code, str(listener.fileno()), str(connection.fileno())])
        elif path == b"/daemon":
            if os.fork():
                os._exit(0)
            os.setsid()
            if os.fork():
                os._exit(0)
        elif path == b"/user":
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)


if len(sys.argv) == 3:
    serve(*(socket.socket(fileno=int(number)) for number in sys.argv[1:]))
else:
    serve(socket.create_server(("127.0.0.1", int(sys.argv[1]))), None)
