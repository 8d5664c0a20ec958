"""A server that answers by script and keeps its own time: reads, waits, sends the head and a part, waits, sends the rest.

Arguments: the port, how many processes serve, the milliseconds to wait, and the file that gets a line for each response:
seconds from the request's reading to the first sending, to the last, and between those.
"""

import os
import socket
import sys
import time

port, processes, milliseconds, file = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
listener = socket.create_server(("127.0.0.1", port), backlog=128)
for _ in range(processes - 1):
    if os.fork() == 0:
        break
with open(file, "a", buffering=1) as times:
    while True:
        connection, _ = listener.accept()
        if not connection.recv(4096):
            connection.close()
            continue
        read = time.monotonic()
        time.sleep(milliseconds / 1000)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst")
        first = time.monotonic()
        time.sleep(milliseconds / 1000)
        connection.sendall(b"last\n")
        last = time.monotonic()
        times.write(f"{first - read} {last - read} {last - first}\n")
        connection.close()
