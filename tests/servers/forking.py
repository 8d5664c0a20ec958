"""A server that forks all the time: each worker takes ten connections, answers one request on each, and ends.

Arguments: the port, and how many workers there are at once.
"""

import os
import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024)


def work():
    for _ in range(10):
        connection, _ = listener.accept()
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            received = connection.recv(4096)
            if not received:
                break
            request += received
        if request:
            connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\nok\n")
        connection.close()


workers = 0
while True:
    if workers < int(sys.argv[2]):
        if os.fork() == 0:
            work()
            os._exit(0)
        workers += 1
    else:
        os.wait()
        workers -= 1
