"""A gRPC server and client of grpcio's, as processes of their own: `serve PORT`, and `call HOST:PORT TIMES`, which
prints what it was answered. Does I/O.
"""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc

SERVICE: Final = "kit.Greeter"
CALLER: Final = "l5d-client-id"


def hello(request: bytes, context: Any) -> bytes:
    """Answer with what was said, and by whom it came; anything but a good word is an error."""
    caller = dict(context.invocation_metadata()).get(CALLER, "nobody")
    context.set_trailing_metadata((("said-by", caller),))
    if request == b"bad":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "a bad word")
    return request.upper()


def count(request: bytes, _: Any) -> Iterator[bytes]:
    """A stream of as many answers as were asked for."""
    for number in range(int(request)):
        yield str(number).encode()


def serve(port: str) -> None:
    """Until it is ended."""
    server = grpc.server(ThreadPoolExecutor(4))
    methods = {
        "Hello": grpc.unary_unary_rpc_method_handler(hello),
        "Count": grpc.unary_stream_rpc_method_handler(count),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    server.add_insecure_port(f"[::]:{port}")
    server.start()
    server.wait_for_termination()


def call(target: str, times: str) -> None:
    """Ask in every way there is."""
    with grpc.insecure_channel(target) as channel:
        greet = channel.unary_unary(f"/{SERVICE}/Hello")
        for _ in range(int(times)):
            answer, done = greet.with_call(b"hello", timeout=10)
        print(answer.decode(), dict(done.trailing_metadata())["said-by"])
        print(b" ".join(channel.unary_stream(f"/{SERVICE}/Count")(b"1000", timeout=10)).decode())
        try:
            greet(b"bad", timeout=10)
        except grpc.RpcError as error:
            print(error.code().name, error.details())


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(*sys.argv[2:])
    else:
        call(*sys.argv[2:])
