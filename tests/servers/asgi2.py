"""An ASGI application for Hypercorn: every path answers; /chunked in pieces, /empty without a body, /large/N with N octets."""


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    path, read = scope["path"], 0
    while True:
        message = await receive()
        read += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    status = {"/empty": 204, "/missing": 404, "/boom": 500}.get(path, 200)
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    if path == "/chunked":
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"a piece\n", "more_body": True})
    if scope["method"] == "HEAD":
        path = "/empty"
    body = {"/empty": b"", "/chunked": b""}.get(path, b"read %d bytes\n" % read)
    if path.startswith("/large/"):
        body = b"x" * int(path.removeprefix("/large/"))
    await send({"type": "http.response.body", "body": body})


async def slow(scope, receive, send):
    """Never answers: waits until the request is taken back."""
    if scope["type"] == "http":
        while (await receive())["type"] != "http.disconnect":
            pass
