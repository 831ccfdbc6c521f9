"""Uploads that an application does not read: what is held of them closes the window of the connection they came on,
which others need. Those are cut, and no others.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, ResponseReceived, StreamEnded
from h2.settings import SettingCodes

from tests.kit.hostile import MIB, RATE, Cause, withstand
from tests.kit.http2 import POST, Fields, Talk, named
from tests.kit.http2_ends import BODY, Answering, HTTP2Load, Origin
from tests.kit.lines import Peer
from tests.kit.sidecar import Answer
from tests.kit.topology import Mesh, Pod

PORT: Final = 18_400
STREAMS: Final = 80
"""So many fill a connection's window of 4 MiB with 64 KiB each."""
FEW: Final = 10
LEFT_ALONE_SECONDS: Final = 4.0
"""Twice what an upload in the way may stand still for."""
PATIENCE_SECONDS: Final = 5.0
"""What a good upload may wait for until those in its way are cut."""
UNREAD: Final[Fields] = [*POST[:3], (":path", "/unread")]


class Hoarding(Answering):
    """An application that leaves some requests unread, with room on the connection for all others."""

    def __init__(self, body: bytes = BODY) -> None:
        super().__init__(body)
        self.unread: set[int] = set()
        self.connection.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 16_384})
        self.connection.increment_flow_control_window(1 << 30)

    def saw(self, event: Any) -> None:
        """What it does not read it gives no window back for."""
        if isinstance(event, RequestReceived) and (b":path", b"/unread") in event.headers:
            self.unread.add(event.stream_id)
        if not (isinstance(event, DataReceived) and event.stream_id in self.unread):
            super().saw(event)


class Uploads(HTTP2Load):
    """Good callers: each request has a body, which the application reads."""

    def ask(self, connection: Talk) -> Answer:
        """One upload."""
        stream = connection.ask(POST, body=bytes(10_000))
        fields = named(connection.expect(ResponseReceived, stream))
        connection.expect(StreamEnded, stream)
        connection.events.clear()
        return Answer(int(fields.pop(":status")), fields, b"")


@pytest.fixture(scope="module")
def swamped(mesh: Mesh) -> Iterator[Pod]:
    """A pod whose application leaves uploads unread."""
    pod = mesh.pod("swamped")
    with Origin(pod, PORT, answering=Hoarding):
        yield pod


def fill(talk: Talk, streams: list[int]) -> None:
    """Send on all of them until nothing more is taken."""
    connection: H2Connection = talk.connection
    while True:
        for stream in streams:
            while room := min(connection.local_flow_control_window(stream), connection.max_outbound_frame_size):
                connection.send_data(stream, bytes(room))
            talk.flush()
        if not talk.listen(1.0):
            return


def answers(talk: Talk) -> str:
    """What those were told that were cut; when they are gone there is room for the others."""
    statuses = []
    with contextlib.suppress(AssertionError):
        while True:
            statuses.append(named(talk.expect(ResponseReceived, seconds=LEFT_ALONE_SECONDS))[":status"])
    assert len(statuses) > STREAMS // 2, statuses
    return " and ".join(sorted(set(statuses)))


@pytest.fixture
def neighbours(outsider: Pod, swamped: Pod) -> Callable[[], Uploads]:
    """Callers on connections of their own."""
    return lambda: Uploads(outsider, (swamped.ip, PORT), clients=1, pause=1 / RATE)


def test_uploads_in_the_way_of_others_are_cut(
    outsider: Pod, swamped: Pod, neighbours: Callable[[], Uploads]
) -> None:
    def attack() -> str:
        talk = Talk(Peer(outsider.connect((swamped.ip, PORT))), True)
        streams = [talk.ask(UNREAD, end=False) for _ in range(STREAMS)]
        fill(talk, streams)
        ending = answers(talk)
        good = talk.ask(POST, body=bytes(10_000))
        assert named(talk.expect(ResponseReceived, good))[":status"] == "200", "the connection itself goes on"
        talk.close()
        return ending

    cause = Cause.of("inbound_http_errors_total", error="upload stalled", target_port=str(PORT))
    print(withstand(swamped.proxy, neighbours, attack, ending={"504"}, cause=cause))


def test_uploads_in_nobodys_way_are_left_alone(outsider: Pod, swamped: Pod) -> None:
    talk = Talk(Peer(outsider.connect((swamped.ip, PORT))), True)
    streams = [talk.ask(UNREAD, end=False) for _ in range(FEW)]
    fill(talk, streams)
    assert talk.quiet(ResponseReceived, LEFT_ALONE_SECONDS)
    good = talk.ask(POST, body=bytes(10_000))
    assert named(talk.expect(ResponseReceived, good))[":status"] == "200"
    talk.close()


def test_between_proxies_the_session_that_all_share_is_kept_open(mesh: Mesh, client: Pod, swamped: Pod) -> None:
    """Both proxies hold what is not read; a neighbour whose uploads are read waits a while, and is cut by neither."""
    address = mesh.service("swamped", PORT, [swamped], target=PORT)

    def attack() -> str:
        talk = Talk(Peer(client.connect(address)), True)
        streams = [talk.ask(UNREAD, end=False) for _ in range(STREAMS)]
        fill(talk, streams)
        ending = answers(talk)
        talk.close()
        return ending

    print(withstand(
        client.proxy, lambda: Uploads(client, address, clients=1, pause=1 / RATE), attack, ending={"504"}, cause=None,
        growth=24 * MIB, patience=PATIENCE_SECONDS,
    ))  # fmt: skip
