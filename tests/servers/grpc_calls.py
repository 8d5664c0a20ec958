"""Calls every method, when its standard input ends; says what came of them: python grpc_calls.py PORT."""

import collections
import json
import sys
from concurrent import futures

import grpc

METHODS = ["Add", "Fail", "Watch", "Upload", "Chat", "Missing"]


def call(channel, number):
    method = METHODS[number % len(METHODS)]
    path = f"/shop.v1.Cart/{method}"
    try:
        if method == "Watch":
            assert list(channel.unary_stream(path)(b"x")) == [b"x"] * 3
        elif method == "Upload":
            assert channel.stream_unary(path)(iter([b"12", b"345"])) == b"5"
        elif method == "Chat":
            assert list(channel.stream_stream(path)(iter([b"a", b"b"]))) == [b"a", b"b"]
        else:
            channel.unary_unary(path)(b"x" * number)
        return method, 0
    except grpc.RpcError as error:
        return method, error.code().value[0]


sys.stdin.read()
with grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}") as channel, futures.ThreadPoolExecutor(4) as pool:
    calls = collections.Counter(pool.map(lambda number: call(channel, number), range(120)))
print(json.dumps([[method, status, count] for (method, status), count in calls.items()]))
