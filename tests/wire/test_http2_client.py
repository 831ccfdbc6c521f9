"""Our HTTP/2 client session, with h2 (an independent implementation) at the other end of the conversation."""

from typing import TypeVar

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

from proxy.wire import http2_events as http2

REQUEST = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/x"), (b":authority", b"a"), (b"te", b"trailers")]

T = TypeVar("T")


class Pair:
    """A client session and an h2 server, joined by nothing but bytes."""

    def __init__(self) -> None:
        self.client = http2.ClientSession()
        self.server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        self.server.initiate_connection()
        self.seen: list[h2.events.Event] = []
        self.events: list[http2.Event] = []

    def exchange(self) -> "Pair":
        """Carry bytes both ways until neither side has any."""
        while True:
            up = self.client.data_to_send()
            self.events += self.client.take_events()
            if up:
                self.seen += self.server.receive_data(up)
            down = self.server.data_to_send()
            if down:
                self.events += self.client.receive_data(down)
            if not up and not down:
                return self

    def of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]

    def server_of(self, kind: type[T]) -> list[T]:
        return [event for event in self.seen if isinstance(event, kind)]


@pytest.fixture
def pair() -> Pair:
    return Pair().exchange()


def test_a_unary_call_with_trailers_comes_back_event_by_event(pair: Pair) -> None:
    stream = pair.client.request(REQUEST, b"question")
    pair.exchange()
    (asked,) = pair.server_of(h2.events.RequestReceived)
    assert asked.headers == REQUEST
    assert b"".join(e.data for e in pair.server_of(h2.events.DataReceived)) == b"question"
    pair.server.send_headers(stream, [(b":status", b"200"), (b"content-type", b"application/grpc")])
    pair.server.send_data(stream, b"answer")
    pair.server.send_headers(stream, [(b"grpc-status", b"0")], end_stream=True)
    pair.exchange()
    kinds = [type(e) for e in pair.events]
    assert kinds == [http2.Headers, http2.Data, http2.Trailers, http2.StreamEnded, http2.StreamClosed]
    (head,), (data,), (trailers,) = pair.of(http2.Headers), pair.of(http2.Data), pair.of(http2.Trailers)
    (closed,) = pair.of(http2.StreamClosed)
    assert head.headers[0] == (b":status", b"200")
    assert not head.informational
    assert not head.end_stream
    assert data.data == b"answer"
    assert trailers.headers == [(b"grpc-status", b"0")]
    assert (closed.stream_id, closed.error_code) == (stream, 0)
    assert pair.client.statistics() == {"failed": False, "streams_sending": 0, "bytes_buffered": 0}


def test_an_informational_response_is_told_from_the_final_one(pair: Pair) -> None:
    stream = pair.client.request(REQUEST)
    pair.exchange()
    pair.server.send_headers(stream, [(b":status", b"103")])
    pair.server.send_headers(stream, [(b":status", b"204")], end_stream=True)
    pair.exchange()
    assert [(h.informational, h.end_stream) for h in pair.of(http2.Headers)] == [(True, False), (False, True)]
    assert not pair.of(http2.Trailers)


def test_a_body_larger_than_the_window_waits_for_the_server(pair: Pair) -> None:
    body = bytes(range(256)) * 1024
    stream = pair.client.request(REQUEST, body)
    pair.exchange()
    received = b"".join(e.data for e in pair.server_of(h2.events.DataReceived))
    assert len(received) == 65535
    assert pair.client.buffered(stream) == len(body) - 65535
    while len(received) < len(body):
        for event in pair.server_of(h2.events.DataReceived):
            pair.server.acknowledge_received_data(event.flow_controlled_length, stream)
        pair.seen.clear()
        pair.exchange()
        received += b"".join(e.data for e in pair.server_of(h2.events.DataReceived))
    assert received == body
    assert pair.server_of(h2.events.StreamEnded)


def test_a_body_sent_in_pieces_ends_when_told(pair: Pair) -> None:
    stream = pair.client.request(REQUEST, end_stream=False)
    pair.exchange()
    assert not pair.server_of(h2.events.DataReceived)
    for piece in (b"one", b"two"):
        pair.client.send_data(stream, piece)
        pair.exchange()
    pair.client.send_data(stream, b"", end_stream=True)
    pair.exchange()
    assert b"".join(e.data for e in pair.server_of(h2.events.DataReceived)) == b"onetwo"
    assert pair.server_of(h2.events.StreamEnded)
    with pytest.raises(http2.HTTP2Error, match="takes no more data"):
        pair.client.send_data(stream, b"late")


def test_the_window_is_given_back_only_by_consume(pair: Pair) -> None:
    stream = pair.client.request(REQUEST)
    pair.exchange()
    pair.server.send_headers(stream, [(b":status", b"200")])
    for _ in range(4):
        pair.server.send_data(stream, b"x" * min(16384, pair.server.local_flow_control_window(stream)))
    pair.exchange()
    assert pair.server.local_flow_control_window(stream) < 65535 // 2
    total = sum(len(e.data) for e in pair.of(http2.Data))
    pair.client.consume(stream, total)
    pair.exchange()
    assert pair.server.local_flow_control_window(stream) == 65535


def test_a_reset_closes_only_its_stream(pair: Pair) -> None:
    first = pair.client.request(REQUEST)
    second = pair.client.request(REQUEST)
    pair.exchange()
    pair.client.reset(first)
    pair.server.reset_stream(second, error_code=7)
    pair.exchange()
    assert {(c.stream_id, c.error_code) for c in pair.of(http2.StreamClosed)} == {(first, 8), (second, 7)}
    assert pair.server_of(h2.events.StreamReset)[0].error_code == 8
    assert pair.client.can_request


def test_a_goaway_names_the_last_stream_and_stops_new_ones(pair: Pair) -> None:
    pair.server.close_connection(error_code=2, additional_data=b"bye", last_stream_id=0)
    pair.exchange()
    (away,) = pair.of(http2.GoAway)
    assert (away.last_stream_id, away.error_code, away.debug) == (0, 2, b"bye")
    assert not pair.client.can_request
    with pytest.raises(http2.HTTP2Error, match="takes no new streams"):
        pair.client.request(REQUEST)


def test_streams_that_a_goaway_left_out_are_closed_so_that_nobody_waits_for_them() -> None:
    pair = Pair()
    pair.server.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    pair.exchange()
    sent, queued = pair.client.request(REQUEST), pair.client.request(REQUEST, b"body")
    pair.exchange()
    pair.server.close_connection(last_stream_id=sent - 2 if sent > 1 else 0)
    pair.exchange()
    closed = {c.stream_id: c.error_code for c in pair.of(http2.StreamClosed)}
    assert closed == {sent: http2.REFUSED_STREAM, queued: http2.REFUSED_STREAM}


def test_a_ping_is_acknowledged_both_ways(pair: Pair) -> None:
    pair.client.ping(b"12345678")
    pair.server.ping(b"abcdefgh")
    pair.exchange()
    assert pair.of(http2.PingAcknowledged)[0].payload == b"12345678"
    assert pair.server_of(h2.events.PingAckReceived)[0].ping_data == b"abcdefgh"


def test_requests_beyond_the_peers_limit_wait_their_turn() -> None:
    pair = Pair()
    pair.server.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    pair.exchange()
    first, second = pair.client.request(REQUEST), pair.client.request(REQUEST)
    pair.exchange()
    assert [e.stream_id for e in pair.server_of(h2.events.RequestReceived)] == [first]
    pair.server.send_headers(first, [(b":status", b"200")], end_stream=True)
    pair.exchange()
    assert [e.stream_id for e in pair.server_of(h2.events.RequestReceived)] == [first, second]


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-%d" % n, b"v") for n in range(http2.MAX_HEADERS + 1)],
        [(b"x-%d" % n, b"v" * 8000) for n in range(10)],
    ],
    ids=["too many fields", "too many bytes"],
)
def test_a_header_bomb_resets_the_stream_and_not_the_connection(pair: Pair, headers: list[tuple[bytes, bytes]]) -> None:
    stream = pair.client.request(REQUEST)
    other = pair.client.request(REQUEST)
    pair.exchange()
    pair.server.remote_settings[h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE] = 1 << 30
    pair.server.send_headers(stream, [(b":status", b"200"), *headers], end_stream=True)
    pair.server.send_headers(other, [(b":status", b"200")], end_stream=True)
    pair.exchange()
    assert [h.stream_id for h in pair.of(http2.Headers)] == [other]
    assert (stream, http2.INTERNAL_ERROR) in [(c.stream_id, c.error_code) for c in pair.of(http2.StreamClosed)]


def test_bytes_that_are_not_http2_fail_the_session_for_good(pair: Pair) -> None:
    client = http2.ClientSession()
    client.data_to_send()
    events = client.receive_data(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert not events
    assert b"SETTINGS" in client.data_to_send()  # a GOAWAY whose debug data says what was expected
    assert not client.alive


@pytest.mark.parametrize("size", [1, 7, 100])
def test_it_does_not_matter_how_the_bytes_are_cut(pair: Pair, size: int) -> None:
    stream = pair.client.request(REQUEST, b"q")
    pair.exchange()
    pair.server.send_headers(stream, [(b":status", b"200")])
    pair.server.send_data(stream, b"answer" * 50)
    pair.server.send_headers(stream, [(b"grpc-status", b"0")], end_stream=True)
    wire = pair.server.data_to_send()
    events: list[http2.Event] = []
    for at in range(0, len(wire), size):
        events += pair.client.receive_data(wire[at : at + size])
    assert b"".join(e.data for e in events if isinstance(e, http2.Data)) == b"answer" * 50
    assert isinstance(events[-1], http2.StreamClosed)


def test_a_session_dropped_in_mid_conversation_is_freed() -> None:
    for _ in range(200):
        pair = Pair().exchange()
        pair.client.request(REQUEST, b"x" * 100_000, end_stream=False)
        pair.client.data_to_send()


def test_a_ping_payload_of_another_size_is_refused(pair: Pair) -> None:
    with pytest.raises(ValueError, match="exactly 8 bytes"):
        pair.client.ping(b"short")


def test_events_show_what_they_hold(pair: Pair) -> None:
    pair.client.ping(b"12345678")
    pair.exchange()
    assert repr(pair.events[-1]) == "PingAcknowledged(payload=b'12345678')"
