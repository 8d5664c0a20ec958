"""Calls every method of a server, when its standard input ends; says what came of them: python grpc_calls.py PORT [more].

With a second argument also those that end with each status, that pass their deadline, and that are taken back.
"""

import collections
import json
import sys
from concurrent import futures

import grpc

METHODS = ["Add", "Fail", "Watch", "Upload", "Chat", "Missing"]
MORE = ["Code", "Late", "Cancelled"]


def call(channel, number, methods):
    method = methods[number % len(methods)]
    path = f"/shop.v1.Cart/{method}"
    try:
        if method == "Watch":
            assert list(channel.unary_stream(path)(b"x")) == [b"x"] * 3
        elif method == "Upload":
            assert channel.stream_unary(path)(iter([b"12", b"345"])) == b"5"
        elif method == "Chat":
            assert list(channel.stream_stream(path)(iter([b"a", b"b"]))) == [b"a", b"b"]
        elif method == "Code":
            channel.unary_unary(path)(b"%d" % (number // len(methods) % 16 + 1))
        elif method == "Late":
            list(channel.unary_stream("/shop.v1.Cart/Wait")(b"x", timeout=1))
        elif method == "Cancelled":
            answers = channel.unary_stream("/shop.v1.Cart/Wait")(b"x")
            assert next(answers) == b"x"
            answers.cancel()
            list(answers)
        else:
            channel.unary_unary(path)(b"x" * number)
        return method, 0
    except grpc.RpcError as error:
        return method, error.code().value[0]


sys.stdin.read()
methods, count = (METHODS + MORE, 288) if len(sys.argv) > 2 else (METHODS, 120)
with grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}") as channel, futures.ThreadPoolExecutor(4) as pool:
    calls = collections.Counter(pool.map(lambda number: call(channel, number, methods), range(count)))
print(json.dumps([[method, status, count] for (method, status), count in calls.items()]))
