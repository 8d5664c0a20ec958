"""A server of gRPC's own implementation, of bytes, without protobuf: python grpcio_server.py PORT."""

import sys
import time
from concurrent import futures

import grpc


def add(request, context):
    return request + request


def fail(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "there is none")


def code(request, context):
    """Ends with the status that is asked for."""
    status = next(status for status in grpc.StatusCode if status.value[0] == int(request))
    context.abort(status, "as asked for")


def watch(request, context):
    for _ in range(3):
        time.sleep(0.05)
        yield request


def upload(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def chat(requests, context):
    yield from requests


def wait(request, context):
    """Answers once, and then waits until it is taken back."""
    yield request
    while context.is_active():
        time.sleep(0.01)


server = grpc.server(futures.ThreadPoolExecutor(8))
handlers = {
    "Add": grpc.unary_unary_rpc_method_handler(add),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Code": grpc.unary_unary_rpc_method_handler(code),
    "Watch": grpc.unary_stream_rpc_method_handler(watch),
    "Upload": grpc.stream_unary_rpc_method_handler(upload),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
    "Wait": grpc.unary_stream_rpc_method_handler(wait),
}
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.v1.Cart", handlers),))
server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
server.wait_for_termination()
