"""Makes 40 calls over HTTP/2 in clear text, ten at once, when its standard input ends."""

import asyncio
import sys

import httpx


async def main(url):
    async with httpx.AsyncClient(http1=False, http2=True) as client:
        for _ in range(10):
            paths = ["/echo", "/chunked", "/missing", "/empty"]
            answers = await asyncio.gather(*(client.get(url + path) for path in paths))
            assert [answer.status_code for answer in answers] == [200, 200, 404, 204]


sys.stdin.read()
asyncio.run(main(sys.argv[1]))
