"""The gRPC face of discovery: does I/O. One stream per target; a snapshot first, deltas after it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import grpc.aio
import structlog
from prometheus_client import Counter

from components.destination.callers import CallerError, check_caller
from components.destination.index import AddressError, parse_address
from components.destination.model import Mesh
from components.destination.publisher import Publisher
from proxy.api import destination_pb2

CLIENT_ID: Final = "l5d-client-id"
MAX_WATCHES: Final = 100_000
"""Bounds the streams of one replica; a stream that waits costs about 10 KB."""
MAX_STREAMS: Final = 4_000
"""Bounds the streams of one proxy, which opens one per address its application dials."""
SYNC_SECONDS: Final = 30.0
"""How long a stream is held while the caches fill; after that the caller may try another replica."""
SERVER_OPTIONS: Final[list[tuple[str, Any]]] = [
    ("grpc.max_concurrent_streams", MAX_STREAMS),
    ("grpc.max_receive_message_length", 8 * 1024),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.so_reuseport", 0),
]

STREAMS = Counter("tulle_destination_streams_total", "Watch streams, by how they ended", ["result"])


class DestinationService:
    """Watch."""

    def __init__(self, publisher: Publisher, synced: asyncio.Event, mesh: Mesh) -> None:
        self._publisher = publisher
        self._mesh = mesh
        self._synced = synced
        self._log = structlog.get_logger()

    async def watch(
        self, request: destination_pb2.WatchRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> AsyncIterator[bytes]:
        """Answer with serialised updates until either side ends it."""
        try:
            check_caller(proven_identity(context), request.workload.namespace, self._mesh)
        except CallerError as error:
            STREAMS.labels("refused").inc()
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        try:
            address = parse_address(request.address)
        except AddressError as error:
            STREAMS.labels("invalid").inc()
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        if self._publisher.watches >= MAX_WATCHES:
            STREAMS.labels("too_many").inc()
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_WATCHES} streams are open; try another replica"
            )
        try:
            async with asyncio.timeout(SYNC_SECONDS):
                await self._synced.wait()
        except TimeoutError:
            STREAMS.labels("not_synced").inc()
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the state of the cluster is not known yet")
        subscription = self._publisher.subscribe(address, request.workload.node)
        self._log.debug("watch", address=request.address, pod=f"{request.workload.namespace}/{request.workload.pod}")
        try:
            while (messages := await subscription.take()) is not None:
                for message in messages:
                    yield message
            STREAMS.labels("server_closed").inc()
        except asyncio.CancelledError:
            STREAMS.labels("client_closed").inc()
            raise
        finally:
            self._publisher.unsubscribe(address, subscription)


def proven_identity(context: "grpc.aio.ServicerContext[Any, Any]") -> str | None:
    """What the proxy in front of this process says of the caller; None where there was no proxy."""
    for name, value in context.invocation_metadata() or ():
        if name == CLIENT_ID:
            return value if isinstance(value, str) else value.decode("latin-1")
    return None


def make_server(service: DestinationService) -> grpc.aio.Server:
    """A server with its limits, not yet bound. Messages are serialised by the publisher, once for all streams of a
    target.
    """
    server = grpc.aio.server(options=SERVER_OPTIONS)
    handler = grpc.unary_stream_rpc_method_handler(
        service.watch,
        request_deserializer=destination_pb2.WatchRequest.FromString,
        response_serializer=None,
    )
    generic = grpc.method_handlers_generic_handler("tulle.destination.v1.Destination", {"Watch": handler})
    server.add_generic_rpc_handlers((generic,))
    return server
