"""A gRPC server of five methods, of bytes, without protobuf: python grpclib_server.py PORT."""

import asyncio
import sys

from grpclib import GRPCError, Status
from grpclib.const import Cardinality, Handler
from grpclib.encoding.base import CodecBase
from grpclib.server import Server


class Bytes(CodecBase):
    __content_subtype__ = "proto"

    def encode(self, message, message_type):
        return message

    def decode(self, data, message_type):
        return data


class Cart:
    async def add(self, stream):
        await stream.send_message(await stream.recv_message() * 2)

    async def fail(self, stream):
        await stream.recv_message()
        raise GRPCError(Status.NOT_FOUND, "there is none")

    async def watch(self, stream):
        request = await stream.recv_message()
        for _ in range(3):
            await asyncio.sleep(0.05)
            await stream.send_message(request)

    async def upload(self, stream):
        total = 0
        while (part := await stream.recv_message()) is not None:
            total += len(part)
        await stream.send_message(b"%d" % total)

    async def chat(self, stream):
        while (part := await stream.recv_message()) is not None:
            await stream.send_message(part)

    def __mapping__(self):
        methods = {
            "Add": (self.add, Cardinality.UNARY_UNARY),
            "Fail": (self.fail, Cardinality.UNARY_UNARY),
            "Watch": (self.watch, Cardinality.UNARY_STREAM),
            "Upload": (self.upload, Cardinality.STREAM_UNARY),
            "Chat": (self.chat, Cardinality.STREAM_STREAM),
        }
        return {f"/shop.v1.Cart/{name}": Handler(*method, bytes, bytes) for name, method in methods.items()}


async def main():
    server = Server([Cart()], codec=Bytes())
    await server.start("127.0.0.1", int(sys.argv[1]))
    await server.wait_closed()


asyncio.run(main())
