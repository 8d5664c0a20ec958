"""A WSGI application of known delay, in a middleware that keeps its own time.

`TIMES` names the file that gets a line for each response: seconds from the call to when the server asked for more after
the first part, to the end, and between those.
"""

import os
import time

times = open(os.environ["TIMES"], "a", buffering=1)


def application(environ, start_response):
    milliseconds = int(environ["PATH_INFO"].rsplit("/", 1)[1])
    time.sleep(milliseconds / 1000)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "11")])
    yield b"first\n"
    time.sleep(milliseconds / 1000)
    yield b"last\n"


class Timed:
    def __init__(self, environ, start_response):
        self.begun = time.monotonic()
        self.first = None
        self.parts = application(environ, start_response)

    def __iter__(self):
        for part in self.parts:
            yield part
            self.first = self.first or time.monotonic()

    def close(self):
        ended = time.monotonic()
        times.write(f"{self.first - self.begun} {ended - self.begun} {ended - self.first}\n")


app = Timed
