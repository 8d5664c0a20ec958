"""A port and so many processes that wait for connections to it."""

import os
import signal
import socket
import sys

port, processes = map(int, sys.argv[1:])
listener = socket.create_server(("127.0.0.1", port))
for _ in range(processes):
    if os.fork() == 0:
        while True:
            listener.accept()[0].close()
signal.pause()
