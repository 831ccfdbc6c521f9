"""Calls of a client's session in any order, and its end. What bytes may do to it is a target of tests/fuzz."""

import gc
import weakref

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wire import http2_events as http2

REQUEST = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/x"), (b":authority", b"a")]


def check(events: list[http2.Event]) -> None:
    """No stream is heard of after its end, and none ends twice."""
    closed: set[int] = set()
    for event in events:
        assert event.stream_id not in closed or event.stream_id == 0, events
        if isinstance(event, http2.StreamClosed):
            closed.add(event.stream_id)


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
