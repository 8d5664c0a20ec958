"""Opens a WebSocket, sends messages, and closes it when its standard input ends: python ws_client.py URL MESSAGES."""

import sys

from websockets.sync.client import connect

with connect(sys.argv[1]) as socket:
    for number in range(int(sys.argv[2])):
        socket.send(f"GET /{number} HTTP/1.1\r\n\r\n")
        assert socket.recv() == f"GET /{number} HTTP/1.1\r\n\r\n"
    print("talked", flush=True)
    sys.stdin.read()
