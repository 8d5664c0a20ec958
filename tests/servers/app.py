"""The service that the tests watch: a Flask application, and the same one for ASGI servers."""

import signal
import socket
import time

from a2wsgi import WSGIMiddleware
from flask import Flask, Response, redirect, request

app = Flask(__name__)


@app.get("/items/<int:number>")
def item(number):
    return f"item {number}\n"


@app.post("/items")
def create():
    return f"created from {len(request.get_data())} bytes\n", 201


@app.put("/items/<int:number>")
def replace(number):
    return f"replaced {number} with {len(request.get_data())} bytes\n"


@app.delete("/items/<int:number>")
def delete(number):
    return "", 204


@app.get("/old")
def old():
    return redirect("/items/1", 301)


@app.get("/boom")
def boom():
    return "broken\n", 500


@app.get("/sleep/<int:milliseconds>")
def sleep(milliseconds):
    time.sleep(milliseconds / 1000)
    return f"slept {milliseconds} ms\n"


@app.get("/stream")
def stream():
    def chunks():
        for number in range(10):
            if number:
                time.sleep(0.02)
            yield f"chunk {number}\n"

    return Response(chunks(), mimetype="text/plain")


@app.get("/big")
def big():
    return b"x" * (10 << 20)


@app.get("/stuck")
def stuck():
    signal.signal(signal.SIGABRT, signal.SIG_IGN)
    time.sleep(60)
    return "too late\n"


@app.get("/drop")
def drop():
    request.environ["gunicorn.socket"].shutdown(socket.SHUT_RDWR)
    return "nobody reads this\n"


@app.route("/chunked", methods=["GET", "POST"])
def chunked():
    return Response((part for part in ("one ", "two\n")), mimetype="text/plain")


@app.route("/empty", methods=["GET", "POST"])
def empty():
    return "", 204


@app.route("/echo", methods=["GET", "POST", "PUT"])
@app.route("/echo/<path:rest>", methods=["GET", "POST", "PUT"])
def echo(rest=""):
    return f"read {len(request.get_data())} bytes\n"


asgi = WSGIMiddleware(app, workers=8)
