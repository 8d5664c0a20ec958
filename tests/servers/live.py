"""Uvicorn's application for what lasts: /ws echoes over a WebSocket, /events tells three events, 100 ms apart."""

import asyncio


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive" or message["type"] == "websocket.connect":
            if "text" in message:
                await send({"type": "websocket.send", "text": message["text"]})
    elif scope["type"] == "http":
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number in range(3):
            event = b"data: %d\n\n" % number
            await send({"type": "http.response.body", "body": event, "more_body": True})
            await asyncio.sleep(0.1)
        await send({"type": "http.response.body"})
