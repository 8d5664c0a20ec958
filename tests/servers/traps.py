"""A server that answers by script, in the ways that mislead those who watch: it peeks before it reads, gathers, splits,
passes sockets to another process, and more, by path.

Arguments: the port, and how many processes listen on it, each with a socket of its own (SO_REUSEPORT). The first one
listens on the abstract unix socket `httpmon-traps-PORT`, too.
"""

import os
import socket
import sys
import tempfile
import threading
import time

port, processes = int(sys.argv[1]), int(sys.argv[2])
LONG = b"x" * 200_000
file = tempfile.TemporaryFile()
file.write(LONG)
file.flush()


def head(fields=b"", status=b"200 OK", length=None):
    if length is not None:
        fields += b"content-length: %d\r\n" % length
    return b"HTTP/1.1 " + status + b"\r\n" + fields + b"\r\n"


def read_request(connection):
    """Peeks until the head is whole, and reads exactly that."""
    while True:
        peeked = connection.recv(65536, socket.MSG_PEEK)
        if not peeked:
            return None
        end = peeked.find(b"\r\n\r\n")
        if end >= 0:
            request = connection.recv(end + 4)
            return request.split(b" ", 2)[:2]
        time.sleep(0.001)


def plain(connection):
    connection.sendall(head(length=5) + b"plain")


def gathered(connection):
    connection.sendmsg([head(length=10), b"in three ", b"!"])


def byte_by_byte(connection):
    for byte in head(length=4) + b"slow":
        connection.send(bytes([byte]))


def by_sendfile(connection):
    connection.sendall(head(length=len(LONG)))
    sent = 0
    while sent < len(LONG):
        sent += os.sendfile(connection.fileno(), file.fileno(), sent, len(LONG) - sent)


def partial(connection):
    """More than the socket's buffer takes at once."""
    connection.setblocking(False)
    left = head(length=20 * len(LONG)) + 20 * LONG
    while left:
        try:
            left = left[connection.send(left):]
        except BlockingIOError:
            time.sleep(0.001)
    connection.setblocking(True)


def trailers(connection):
    fields = b"transfer-encoding: chunked\r\ntrailer: x-sum\r\n"
    connection.sendall(head(fields) + b"3;name=value\r\nabc\r\n")
    connection.sendall(b"2\r\nde\r\n0\r\nx-sum: 5\r\n\r\n")


def hints(connection):
    connection.sendall(head(b"link: </a.css>\r\n", b"103 Early Hints"))
    time.sleep(0.005)
    connection.sendall(head(length=2) + b"ok")


def like_a_response(connection):
    body = head(status=b"500 Oops", length=0) * 3
    connection.sendall(head(length=len(body)))
    connection.sendall(body)


def not_modified(connection):
    connection.sendall(head(status=b"304 Not Modified", length=1000))


def events(connection):
    connection.sendall(head(b"content-type: text/event-stream\r\nconnection: close\r\n"))
    for number in range(5):
        time.sleep(0.005)
        connection.sendall(b"data: %d\n\n" % number)
    return True


def tunnel(connection, status):
    connection.sendall(head(b"connection: upgrade\r\nupgrade: websocket\r\n", status))
    while received := connection.recv(4096):
        connection.sendall(received)
    return True


def serve(connection, passer):
    with connection:
        while request := read_request(connection):
            method, path = request
            path = path.split(b"?")[0]
            if method == b"CONNECT":
                ended = tunnel(connection, b"200 OK")
            elif path == b"/upgrade":
                ended = tunnel(connection, b"101 Switching Protocols")
            elif path == b"/passed":
                # The other process answers, and serves the connection from then on.
                socket.send_fds(passer, [b"x"], [connection.fileno()])
                return
            else:
                ended = ANSWERS.get(path, plain)(connection)
            if ended:
                return


ANSWERS = {
    b"/gathered": gathered,
    b"/bytes": byte_by_byte,
    b"/sendfile": by_sendfile,
    b"/partial": partial,
    b"/trailers": trailers,
    b"/hints": hints,
    b"/like-a-response": like_a_response,
    b"/not-modified": not_modified,
    b"/events": events,
}


def receive_passed(end):
    while True:
        _, fds, _, _ = socket.recv_fds(end, 1, 1)
        if not fds:
            return
        connection = socket.socket(fileno=fds[0])
        plain(connection)
        threading.Thread(target=serve, args=(connection, None), daemon=True).start()


def listen(family, address):
    listener = socket.socket(family)
    if family == socket.AF_INET:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(address)
    listener.listen(128)
    return listener


def accept(listener, passer):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection, passer), daemon=True).start()


here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
if os.fork() == 0:
    receive_passed(there)
    os._exit(0)
first = True
for _ in range(processes - 1):
    if os.fork() == 0:
        first = False
        break
if first:
    abstract = listen(socket.AF_UNIX, f"\0httpmon-traps-{port}")
    threading.Thread(target=accept, args=(abstract, here), daemon=True).start()
accept(listen(socket.AF_INET, ("127.0.0.1", port)), here)
