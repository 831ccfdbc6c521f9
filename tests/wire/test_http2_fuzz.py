"""Bytes that no server of good will sends: whatever comes, the session gives events or HTTP2Error, and is freed."""

import gc
import weakref

import h2.config
import h2.connection
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wire import http2_events as http2

REQUEST = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/x"), (b":authority", b"a")]


def conversation() -> tuple[http2.ClientSession, bytes]:
    """A session that waits for three answers, and a server's bytes that would give them."""
    client = http2.ClientSession()
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
    server.initiate_connection()
    streams = [client.request(REQUEST, b"body" * 1000, end_stream=n > 0) for n in range(3)]
    server.receive_data(client.data_to_send())
    for stream in streams:
        server.send_headers(stream, [(b":status", b"200"), (b"content-type", b"application/grpc")])
        server.send_data(stream, b"message" * 100)
        server.send_headers(stream, [(b"grpc-status", b"0")], end_stream=True)
    server.ping(b"12345678")
    server.close_connection()
    return client, server.data_to_send()


def fed(client: http2.ClientSession, data: bytes, size: int) -> list[http2.Event]:
    """Everything the session makes of the bytes until it has had enough."""
    events: list[http2.Event] = []
    try:
        for at in range(0, len(data), size):
            events += client.receive_data(data[at : at + size])
            client.data_to_send()
            events += client.take_events()
    except http2.HTTP2Error:
        assert client.failed
    return events


def check(events: list[http2.Event]) -> None:
    """No stream is heard of after its end, and none ends twice."""
    closed: set[int] = set()
    for event in events:
        assert event.stream_id not in closed or event.stream_id == 0, events
        if isinstance(event, http2.StreamClosed):
            closed.add(event.stream_id)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6),
    st.integers(0, 2000),
    st.integers(1, 4000),
)
def test_a_spoilt_conversation_ends_in_order(spoilt: list[tuple[int, int]], cut: int, size: int) -> None:
    client, wire = conversation()
    data = bytearray(wire)
    for at, byte in spoilt:
        data[at % len(data)] = byte
    check(fed(client, bytes(data[: len(data) - cut % len(data)]), size))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.integers(1, 400))
def test_noise_after_a_good_beginning_is_survived(noise: bytes, size: int) -> None:
    client, wire = conversation()
    check(fed(client, wire[:60] + noise, size))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["request", "send", "end", "reset", "ping", "consume", "flush"]), max_size=40))
def test_calls_in_any_order_are_safe(calls: list[str]) -> None:
    client = http2.ClientSession()
    streams: list[int] = [99]
    for call in calls:
        last = streams[-1]
        try:
            match call:
                case "request":
                    streams.append(client.request(REQUEST, b"x" * 10, end_stream=False))
                case "send":
                    client.send_data(last, b"y" * 100_000)
                case "end":
                    client.send_data(last, b"", end_stream=True)
                case "reset":
                    client.reset(last)
                case "ping":
                    client.ping()
                case "consume":
                    client.consume(last, 10)
                case "flush":
                    client.data_to_send()
                    check(client.take_events())
        except http2.HTTP2Error:
            continue


class Watched(http2.ClientSession):
    """A session whose end can be seen."""


def test_a_session_is_freed_with_everything_it_holds() -> None:
    client = Watched()
    client.request(REQUEST, b"x" * 1_000_000, end_stream=False)
    client.data_to_send()
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None
