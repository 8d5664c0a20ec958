"""What the benchmark serves with uvicorn."""


async def app(scope, receive, send):
    assert scope["type"] == "http"
    body = b"item 7\n"
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
